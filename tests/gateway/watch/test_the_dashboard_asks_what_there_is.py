"""Every query of the Grafana dashboard, against the metrics of a gateway that has seen cases."""

import base64
import json
from pathlib import Path

import httpx
import promql_parser
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import picture, until

DASHBOARD = json.loads(
    (Path(__file__).parents[3] / "deploy" / "grafana" / "consilium.json").read_text("utf-8")
)
QUERIES = [
    target["expr"].replace("$__rate_interval", "5m")
    for panel in DASHBOARD["panels"]
    for target in panel["targets"]
]


def selectors(node: object) -> list[promql_parser.VectorSelector]:
    """Every metric that a query reads, wherever it stands in it."""
    if isinstance(node, promql_parser.VectorSelector):
        return [node]
    if isinstance(node, list):
        return [found for each in node for found in selectors(each)]
    parts = ("expr", "args", "lhs", "rhs", "vector_selector", "vs")
    return [found for part in parts for found in selectors(getattr(node, part, None) or [])]


def test_every_query_finds_its_metric_and_labels(vllm, gateway):
    workers = [
        [vllm("yes"), vllm("yes")],
        vllm("no", confidence=0.5),
        vllm(status=500, raw=b""),
        vllm("yes"),
    ]
    seats = ["", "", "", "shadow = true"]
    url = gateway(workers, seats=seats)
    image = base64.b64encode(picture()).decode()
    for question in ("One?", "Two?", "One?"):
        httpx.post(f"{url}/vqa", json={"question": question, "images": [image]}, timeout=30)
    httpx.post(f"{url}/vqa")
    until(lambda: httpx.get(f"{url}/panel").json()["shadows"][0]["cases"] >= 2)
    there: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(httpx.get(f"{url}/metrics").text):
        for sample in family.samples:
            there.setdefault(sample.name, set()).update(sample.labels)

    read = set()
    for query in QUERIES:
        found = selectors(promql_parser.parse(query))
        assert found, query
        for selector in found:
            assert selector.name in there, query
            wanted = {matcher.name for matcher in selector.matchers.matchers}
            assert wanted <= there[selector.name], query
            read.add(selector.name)
    # And nothing that is measured is left unseen.
    ours = {name.rsplit("_", 1)[0] for name in there if not name.endswith("_created")}
    assert {name.rsplit("_", 1)[0] for name in read} >= ours - {"consilium_cases"}


def test_no_panel_is_drawn_twice():
    titles = [panel["title"] for panel in DASHBOARD["panels"]]
    assert len(titles) == len(set(titles)) == len({panel["id"] for panel in DASHBOARD["panels"]})
