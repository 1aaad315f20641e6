"""A candidate beside the panel: asked behind the verdict, compared, and without a voice."""

import base64
import json
import sqlite3

import httpx
import pytest

from gateway.settings import load_settings
from tests.conftest import picture, until

CASE = {"question": "Is it?", "images": [base64.b64encode(picture()).decode()]}
SEATS = ['languages = ["en"]', 'languages = ["en"]', "shadow = true"]


def shadow_of(url: str) -> dict:
    (shadow,) = httpx.get(f"{url}/panel").json()["shadows"]
    return shadow


def test_it_counts_for_nothing_and_no_case_waits_for_it(vllm, gateway):
    """Not even where it hangs, and nobody else would make a quorum."""
    url = gateway([vllm("yes"), vllm("yes"), vllm("no", delay_s=30)], seats=SEATS)

    verdict = httpx.post(f"{url}/vqa", json=CASE).json()

    assert [answer["worker"] for answer in verdict["answers"]] == ["w0", "w1"]
    assert verdict["agreement"] == 1 and verdict["dissent"] == []
    assert shadow_of(url)["cases"] == 0
    assert [seat["name"] for seat in httpx.get(f"{url}/panel").json()["workers"]] == ["w0", "w1"]
    alone = CASE | {"options": {"workers": ["w2"]}}
    assert httpx.post(f"{url}/vqa", json=alone).status_code == 422


def test_it_is_compared_with_the_verdict_and_with_readers_words(vllm, gateway, tmp_path):
    """By what it means; on the very cases of which a reader told what is right."""
    says = {"One?": "No.", "Two?": "Yes, it is"}
    shadow = vllm(lambda body: next(a for q, a in says.items() if q in str(body)))
    url = gateway([vllm("yes"), vllm("yes"), shadow], seats=SEATS, feedback="")
    ids = [httpx.post(f"{url}/vqa", json=CASE | {"question": q}).json()["id"] for q in says]
    until(lambda: shadow_of(url)["cases"] == 2)

    assert shadow_of(url)["agrees"] == 0.5
    for verdict in ids:
        said = {"verdict": verdict, "word": "wrong", "answer": "no"}
        assert httpx.post(f"{url}/feedback", json=said).status_code == 200
    found = shadow_of(url)
    assert (found["words"], found["right"], found["panel_right"]) == (2, 0.5, 0)
    scraped = httpx.get(f"{url}/metrics").text
    assert 'shadow_answers_total{agrees="yes",worker="w2"} 1.0' in scraped
    with sqlite3.connect(tmp_path / "feedback" / "words.sqlite3") as db:
        assert "yes" not in json.dumps(db.execute("SELECT * FROM said").fetchall())


@pytest.mark.parametrize(
    ("word", "late_s", "right"),
    [
        ({"word": "right"}, 0, {"w2": 1, "w3": 0, "w4": 0, "w5": 0}),
        ({"word": "right"}, 0.5, {"w2": 1, "w3": 0, "w4": 0, "w5": 0}),
        ({"word": "wrong", "answer": "asthma"}, 0, {"w2": 0, "w3": 0, "w4": 1, "w5": 0}),
        ({"word": "wrong"}, 0.5, {"w2": 0, "w3": None, "w4": None, "w5": None}),
    ],
)
def test_who_claims_the_verdict_among_others_was_right_with_it(vllm, gateway, word, late_s, right):
    """And of what the panel never said, each shadow is right alone. A reader may be the faster."""
    said = ["pneumonia, consider effusion"] * 2 + ["pneumonia", "effusion", "asthma", "gout"]
    seats = [SEATS[0]] * 2 + ["shadow = true"] * 4
    workers = [vllm(each, delay_s=late_s * (at > 1)) for at, each in enumerate(said)]
    url = gateway(workers, seats=seats, feedback="")
    question = {"question": "What is the diagnosis?"}
    verdict = httpx.post(f"{url}/vqa", json=CASE | question).json()
    assert [other["workers"] for other in verdict["dissent"]] == [["w0", "w1"]]

    def shadows() -> list[dict]:
        return httpx.get(f"{url}/panel").json()["shadows"]

    if not late_s:
        until(lambda: all(each["cases"] == 1 for each in shadows()))
    httpx.post(f"{url}/feedback", json={"verdict": verdict["id"], **word})
    until(lambda: all(each["cases"] == 1 for each in shadows()))
    assert [each["agrees"] for each in shadows()] == [1, 0, 0, 0]
    assert {each["name"]: each["right"] for each in shadows()} == right


def test_a_panel_with_a_shadow_is_the_same_panel(panel_file):
    """What cannot change a verdict makes no other hash; a name is still no other seat's."""
    urls = ["http://127.0.0.1:1", "http://127.0.0.1:2"]
    with_shadow = load_settings(panel_file(urls, seats=["", "shadow = true"]), environ={})
    assert [seat.name for seat in with_shadow.seats] == ["w0", "w1"]
    assert with_shadow.panel_hash == load_settings(panel_file(urls[:1], seats=[""]), {}).panel_hash
