"""It starts without what is heavy, says who is up, publishes its schema, and logs no words."""

import base64
import json
import platform
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from consilium import GatewayRefused, GatewayUnreachable, ask
from gateway.contract import Options
from gateway.service import REPORT_S
from tests.conftest import picture

pytestmark = pytest.mark.alone

CASE = {"question": "Is it healthy?", "images": [base64.b64encode(picture()).decode()]}


def test_it_imports_what_every_case_needs_and_no_more():
    """A start lasts as long as what it imports: under a second, where a processor is a usual one.
    What reads the odd file, or asks a Redis, is imported by the first that wants it."""
    script = "import sys; import gateway.app; print(*(each.split('.')[0] for each in sys.modules))"
    imported = subprocess.check_output([sys.executable, "-c", script], text=True).split()
    assert "numpy" in imported  # they were looked at
    odd = {"torch", "transformers", "redis", "pydicom", "nibabel", "imagecodecs", "scipy", "mcp"}
    assert odd.isdisjoint(imported)


BURST = """
import asyncio, os
import psutil
from fastapi import FastAPI
from gateway import server

def held():
    return psutil.Process().memory_info().rss / 1e6

server.keep_freed_memory()
gateway = server.Server(FastAPI(), drain_s=0)
gateway.config.load()
gateway.server_state.default_headers = []
before = held()
pictures, small = [], []
for _ in range(200):
    pictures.append(os.urandom(500_000))
    small.append(os.urandom(900))  # outlives them, and lies above them
del pictures
kept = held()
for tick in range(1, server.TICKS_A_MINUTE + 1):
    asyncio.run(gateway.on_tick(tick))
print(before, kept, held())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator does as it likes")
def test_what_a_burst_took_is_kept_for_the_next_and_given_back_within_a_minute():
    out = subprocess.check_output([sys.executable, "-c", BURST], text=True)
    before, kept, after = map(float, out.split())
    assert kept > before + 90 and after < before + 20


def test_it_is_ready_only_when_a_quorum_is_up(vllm, gateway, dead_url):
    below = gateway([vllm(), dead_url], panel="quorum = 2")
    assert httpx.get(f"{below}/health/live").json() == {"live": True}
    response = httpx.get(f"{below}/health/ready")
    assert response.status_code == 503
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["detail"] == "1 of 2 workers are up; the quorum is 2."
    assert httpx.get(f"{gateway([vllm(), dead_url])}/health/ready").status_code == 200


def test_the_panel_shows_who_sits_there_and_how_they_are(vllm, gateway, dead_url):
    url = gateway([vllm(), dead_url], summariser=vllm().url)
    response = httpx.get(f"{url}/panel")
    report = response.json()
    assert [(seat["name"], seat["reachable"]) for seat in report["workers"]] == [
        ("w0", True), ("w1", False)
    ]  # fmt: skip
    assert report["workers"][0]["languages"] == ["en"] and report["workers"][0]["family"] == "mock"
    assert report["summariser"] == {"languages": ["en"], "reachable": True, "model": "0123abcd"}
    assert len(report["panel"]) == 64 and "http://" not in response.text


def test_the_panel_shows_which_weights_are_served(vllm, gateway, dead_url):
    """By the last part of their folder: the rest is about that machine."""
    trained, other = vllm(root="/home/jane/served/aaaa"), vllm()
    url = gateway([trained, dead_url, other])
    first = httpx.get(f"{url}/panel")
    assert [seat["model"] for seat in first.json()["workers"]] == ["aaaa", None, "0123abcd"]
    assert "jane" not in first.text
    trained.root = "/home/jane/served/bbbb"
    time.sleep(2 * REPORT_S)
    assert httpx.get(f"{url}/panel").json()["workers"][0]["model"] == "bbbb"


def test_workers_that_share_an_engine_show_their_own_weights(vllm, gateway):
    """vLLM lists the base first, then the adapters by their workers' names."""
    engine = vllm(root="/served/base", adapters={"w0": "/zoo/skin", "w1": "/zoo/chest"})
    seats = httpx.get(f"{gateway([engine, engine])}/panel").json()["workers"]
    assert [seat["model"] for seat in seats] == ["skin", "chest"]


def test_the_schema_is_true_and_whole(vllm, gateway):
    """Every reference resolves, and both ways to send a case are there."""
    url = gateway([vllm()])
    assert httpx.get(f"{url}/docs").status_code == 200
    text = httpx.get(f"{url}/openapi.json").text
    schema = json.loads(text)
    models = schema["components"]["schemas"]
    for reference in text.split('"#/components/schemas/')[1:]:
        assert reference.split('"')[0] in models
    vqa = schema["paths"]["/vqa"]["post"]
    assert set(vqa["requestBody"]["content"]) == {"application/json", "multipart/form-data"}
    form = vqa["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
    assert {*models["CaseRequest"]["properties"], "frame", "window"} == form.keys()
    assert {form[name]["type"] for name in ("images", "frame", "window")} == {"array"}
    assert set(vqa["responses"]) == set(
        ["200", "400", "401", "404", "408", "413", "415", "422", "429", "502", "503"]
    )
    assert models["Options"]["properties"]["rounds"]["enum"] == [1, 2]


def test_json_and_a_form_ask_the_same_case(vllm, gateway):
    url = gateway([vllm("no")])
    fields = {"context": "58-year-old", "choices": ["yes", "no"]}
    options = {"summarise": "never"}
    body = CASE | fields | {"options": options}
    by_json = httpx.post(f"{url}/vqa", json=body).json()
    form = {"question": CASE["question"], "options": json.dumps(options)} | fields
    by_form = httpx.post(f"{url}/vqa", data=form, files=[("images", picture())]).json()
    assert by_form["cached_from"] == by_json["id"]


def test_a_data_uri_and_a_client_ask_the_same_case(vllm, gateway, tmp_path):
    url = gateway([vllm("no")])
    image = tmp_path / "a.png"
    image.write_bytes(picture())
    first = ask([image], "Is it healthy?", url=url)
    assert first.answer == "no"
    uri = "data:image/png;base64," + CASE["images"][0]
    body = CASE | {"images": [uri]}
    assert httpx.post(f"{url}/vqa", json=body).json()["cached_from"] == first.id
    assert ask([picture()], "Is it healthy?", url=url).cached_from == first.id


def test_the_client_passes_on_what_the_gateway_says(vllm, gateway, dead_url):
    url = gateway([vllm()])
    with pytest.raises(GatewayRefused, match="Image 1 of 1 is not an image") as refused:
        ask([b"%PDF-1.7"], "q?", url=url)
    assert refused.value.problem.status == 415
    with pytest.raises(GatewayRefused, match=r"options\.workers"):
        ask([picture()], "q?", url=url, options=Options(workers=("nobody",)))
    with pytest.raises(GatewayUnreachable, match="is the gateway up"):
        ask([picture()], "q?", url=dead_url)
    with pytest.raises(GatewayUnreachable, match="not as a gateway does"):
        ask([picture()], "q?", url=vllm().url)


def test_a_case_is_one_log_line_and_none_of_its_words(vllm, gateway, caplog):
    url = gateway([vllm("left lung"), vllm(status=500, raw=b"")])
    httpx.post(f"{url}/vqa", json=CASE | {"context": "Doe, Jane"})
    httpx.post(f"{url}/vqa", json=CASE | {"question": ""})
    log = [record.message for record in caplog.records if record.name == "consilium.gateway"]
    answered, refused = (json.loads(line) for line in log)
    assert answered["event"] == "case_answered" and answered["failed"] == {"w1": "unreachable"}
    assert refused == {"event": "case_refused", "status": 422, "why": "Invalid case"}
    assert not any(
        word in caplog.text for word in ("healthy", "Jane", "left lung", CASE["images"][0][:20])
    )


def test_the_gateway_adds_little_to_its_slowest_worker(vllm, gateway):
    """One second is slack for a busy machine, and half of what asking in turn would add."""
    url = gateway([vllm("yes", delay_s=2), vllm("no", delay_s=2)], summariser=vllm("yes").url)
    began = time.monotonic()
    assert httpx.post(f"{url}/vqa", json=CASE, timeout=30).status_code == 200
    assert time.monotonic() - began < 3


def test_the_factory_reads_the_panel_file(vllm, panel_file, monkeypatch):
    from gateway.app import create_app

    path: Path = panel_file([vllm().url])
    monkeypatch.setenv("CONSILIUM_PANEL", str(path))
    assert create_app().title == "Consilium"
