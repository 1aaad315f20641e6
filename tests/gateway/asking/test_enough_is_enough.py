"""`wait = "enough"` stops when those who are missing could not change the winner any more."""

import time

import pytest

from gateway.asking import panel
from gateway.contract import Answer
from gateway.verdict.competence import Cell
from gateway.verdict.weigh import Judge
from tests.gateway.asking.test_the_panel_survives_its_workers import ask, failures

pytestmark = pytest.mark.alone

ENOUGH = {"wait": "enough"}


@pytest.mark.parametrize(
    ("texts", "missing", "decided"),
    [
        (["yes", "yes"], 1, True),
        (["yes", "Yes."], 1, True),
        (["yes", "yes"], 2, False),  # a tie could go to the surer
        (["yes", "no"], 1, False),
        (["yes"], 1, False),
        (["yes", "yes", "no"], 1, False),
        (["yes", "yes", "yes", "no"], 1, True),
        (["yes"], 0, True),
    ],
)
def test_when_a_mind_is_made_up(texts, missing, decided):
    answers = [Answer(worker=f"w{i}", text=text, seconds=0) for i, text in enumerate(texts)]
    late = [f"w{len(texts) + i}" for i in range(missing)]
    families = {f"w{i}": "one" for i in range(len(texts) + missing)}
    judge = Judge(families, Cell("en", "other", None), None)
    assert judge.is_decided(answers, late) is decided


def test_the_last_one_is_not_waited_for_and_its_call_is_cancelled(vllm, gateway):
    slow = vllm("no", delay_s=30)
    url = gateway([vllm("yes"), slow, vllm("yes")], panel="quorum = 2")
    began = time.perf_counter()
    response = ask(url, options=ENOUGH)

    assert time.perf_counter() - began < 10
    assert failures(response) == {"w1": "not_needed"}
    verdict = response.json()
    assert verdict["answer"] == "yes" and verdict["agreement"] == 1
    assert [answer["worker"] for answer in verdict["answers"]] == ["w0", "w1", "w2"]
    give_up_at = time.monotonic() + 10
    while not slow.dropped and time.monotonic() < give_up_at:
        time.sleep(0.05)
    assert slow.dropped == 1
    # It was not heard, so the verdict is not the panel's last word.
    slow.delay_s = 0
    again = ask(url, options={"wait": "all"}).json()
    assert not again["cached"] and again["dissent"][0]["workers"] == ["w1"]


def test_who_answers_within_the_grace_is_heard(vllm, gateway, monkeypatch):
    monkeypatch.setattr(panel, "GRACE_S", 10.0)
    url = gateway([vllm("yes"), vllm("no", delay_s=0.5), vllm("yes")], panel="quorum = 2")
    assert failures(ask(url, options=ENOUGH)) == {}


def test_a_divided_panel_waits(vllm, gateway):
    url = gateway([vllm("yes"), vllm("no", delay_s=1), vllm("no")], panel="quorum = 2")
    verdict = ask(url, options=ENOUGH).json()
    assert verdict["answer"] == "no" and len(verdict["dissent"]) == 1


def test_the_quorum_is_waited_for(vllm, gateway):
    url = gateway([vllm("yes"), vllm("yes"), vllm("yes", delay_s=1)], panel="quorum = 3")
    response = ask(url, options=ENOUGH)
    assert response.status_code == 200 and failures(response) == {}


def test_a_failure_decides_nothing(vllm, gateway):
    """One answer, one failure: the third could still say something else."""
    url = gateway([vllm("yes"), vllm(status=500, raw=b""), vllm("no", delay_s=1)])
    verdict = ask(url, options=ENOUGH).json()
    assert [answer["text"] for answer in verdict["answers"]] == ["yes", None, "no"]
