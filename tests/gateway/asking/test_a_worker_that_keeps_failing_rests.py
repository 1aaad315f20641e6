"""Nobody waits again and again for a worker that answers nobody, and what is said of its health is
true; and no caller can make one rest that answers the others."""

import asyncio
import json
import time
from collections.abc import Callable

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.asking import breaker, panel
from gateway.door import keys
from tests.gateway.asking.test_the_panel_survives_its_workers import CASE, ask, failures
from tests.gateway.test_it_changes_without_a_gap import until
from tests.ports import free_port

pytestmark = pytest.mark.alone

DEADLINE = "quorum = 2\ndeadline_s = 1"


@pytest.fixture(autouse=True)
def short_rest(monkeypatch):
    monkeypatch.setattr(breaker, "PATIENCE_S", 0.2)
    monkeypatch.setattr(breaker, "REST_S", 0.3)


def rests(url: str) -> list[bool]:
    """Of each worker, as GET /panel tells it."""
    seats = httpx.get(f"{url}/panel").json()["workers"]
    assert all(seat["reachable"] is (seat["resting_s"] is None) for seat in seats)
    return [not seat["reachable"] for seat in seats]


def without_patience(url: str, evil: dict) -> None:
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{url}/vqa", json=CASE | evil, timeout=0.1)


ASKED: dict[str, dict] = {
    "nothing is said": {"raw": b'{"choices": [{"message": {"content": " "}}]}'},
    "no content": {"raw": b'{"choices": [{"message": {"content": null}}]}'},
    "nonsense": {"raw": b"<html>"},
    "no choice": {"raw": b'{"choices": []}'},
    "too much": {"raw": b"x" * 1_100_000},
    "refused": {"status": 400, "raw": b"{}"},
    "not found": {"status": 404, "raw": b"{}"},
    "too many": {"status": 429, "raw": b"{}"},
    "too long": {"status": 400, "raw": b"maximum context length is 2048 tokens"},
    "it breaks down over it": {"status": 500, "raw": b""},
    "unavailable": {"status": 503, "raw": b""},
    "it takes too long": {"delay_s": 30},
}


def test_what_one_caller_asks_takes_no_worker_from_another(vllm, gateway, tmp_path):
    """However his cases fail, and however often: it is his cases that fail, and nobody else's."""
    file = tmp_path / "keys.json"
    evil, good = (
        {"authorization": f"Bearer {keys.add(file, tenant, None, False)}"} for tenant in "ab"
    )
    workers = [vllm("yes", only="evil", **fault) for fault in ASKED.values()]
    url = gateway(workers, panel=DEADLINE, environ={"CONSILIUM_KEYS": str(file)})
    with httpx.Client(base_url=url, headers=good, timeout=30) as http:
        for number in range(3):
            response = http.post("/vqa", json=CASE | {"question": f"evil {number}"}, headers=evil)
            assert len(failures(response)) == len(ASKED)
            answered = http.post("/vqa", json=CASE | {"question": f"good {number}"})
            assert failures(answered) == {}
        time.sleep(2 * breaker.PATIENCE_S)
        assert failures(http.post("/vqa", json=CASE | {"question": "good at last"})) == {}
        assert not any(seat["resting_s"] for seat in http.get("/panel").json()["workers"])
        assert http.get("/health/ready").status_code == 200


def test_choices_that_nobody_says_rest_nobody(vllm, gateway):
    url = gateway([vllm("yes"), vllm("yes")], panel=DEADLINE)
    for number in range(4):
        evil = ask(url, question=f"{number}?", choices=["a" * 200, "b"])
        assert {answer["error"]["kind"] for answer in evil.json()["answers"]} == {"garbage"}
    assert failures(ask(url)) == {} and rests(url) == [False, False]


@pytest.mark.parametrize("how", ["deadline", "hangs up"])
def test_a_caller_without_patience_rests_nobody(vllm, gateway, how):
    slow = vllm("yes", delay_s=0.3)
    url = gateway([slow, vllm("yes")], panel="quorum = 2\ndeadline_s = 5")
    for number in range(4):
        if how == "deadline":
            response = ask(url, question=f"{number}?", options={"deadline_s": 0.05})
            assert failures(response)["w0"] == "timeout"
        else:
            without_patience(url, {"question": f"{number}?"})
    assert failures(ask(url)) == {} and rests(url) == [False, False]


def test_callers_who_leave_early_hide_no_hang(vllm, gateway, monkeypatch):
    """Nobody waits for the deadline, so no call ever times out."""
    monkeypatch.setattr(panel, "LOOK_S", 0.3)
    url = gateway([vllm(delay_s=30), vllm("yes")])
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{url}/vqa", json=CASE, timeout=1)
    until(lambda: rests(url) == [True, False])


def test_nobody_waits_twice_for_who_hangs(vllm, gateway):
    """It rests before the first who asked it has waited for his deadline."""
    url = gateway([vllm(delay_s=30), vllm("yes"), vllm("yes")], panel=DEADLINE)
    assert failures(ask(url, question="first?"))["w0"] == "timeout"
    assert "rests" in ask(url, question="next?").json()["answers"][0]["error"]["detail"]


ILL: dict[str, dict] = {
    "hangs": {"delay_s": 30},
    "fails": {"status": 500, "raw": b""},
    "unavailable": {"status": 503, "raw": b""},
}


@pytest.mark.parametrize("fault", ILL.values(), ids=ILL)
def test_who_answers_nobody_rests_and_it_is_told_and_is_back_by_itself(vllm, gateway, fault):
    """Though it calls itself healthy all the while."""
    ill = vllm("yes", **fault)
    url = gateway([ill, vllm("yes")], panel=DEADLINE)
    assert httpx.get(f"{url}/health/ready").status_code == 200
    for number in range(3):
        assert ask(url, question=f"{number}?").status_code == 503
    until(lambda: rests(url) == [True, False])

    began = time.perf_counter()
    response = ask(url)
    assert time.perf_counter() - began < 5
    assert "rests" in response.json()["answers"][0]["error"]["detail"]
    assert response.status_code == 503 and int(response.headers["retry-after"]) >= 1
    ready = httpx.get(f"{url}/health/ready")
    assert ready.json()["detail"] == "1 of 2 workers are up; the quorum is 2."
    assert int(ready.headers["retry-after"]) >= 1

    ill.raw, ill.delay_s = None, 0
    until(lambda: rests(url) == [False, False])
    assert httpx.get(f"{url}/health/ready").status_code == 200 and failures(ask(url)) == {}


def test_who_hangs_is_found_without_a_case(vllm, gateway, monkeypatch):
    """By whoever asks how the panel is; and who is well is asked once in a while."""
    monkeypatch.setattr(breaker, "SILENT_S", 0.2)
    well, ill = vllm("yes"), vllm("yes", delay_s=30)
    url = gateway([well, ill], panel=DEADLINE)

    until(lambda: httpx.get(f"{url}/health/ready").status_code == 503)
    assert rests(url) == [False, True]
    assert {len(each["messages"]) for each in [*well.requests, *ill.requests]} == {1}

    ill.delay_s = 0
    until(lambda: httpx.get(f"{url}/health/ready").status_code == 200)


def test_who_is_not_there_yet_does_not_rest_once_it_is(vllm, gateway, monkeypatch):
    """A panel that starts is asked how it is again and again: who has come up answers at once."""
    monkeypatch.setattr(breaker, "SILENT_S", 0.0)
    monkeypatch.setattr(breaker, "PATIENCE_S", 0.05)
    late = f"http://127.0.0.1:{free_port()}"
    url = gateway([late, vllm("yes")])
    for _ in range(4):
        seat = httpx.get(f"{url}/panel").json()["workers"][0]
        assert (seat["reachable"], seat["resting_s"]) == (False, None)
        time.sleep(0.05)


def test_it_is_asked_the_gateways_own_question_and_no_case_tries_it(vllm, gateway):
    """Nothing of a case is in that question: its picture and its words are always the same."""
    ill = vllm("yes", only="Is this a picture?")
    url = gateway([ill, vllm("yes")], panel="quorum = 1\ndeadline_s = 1")
    ill.only, ill.delay_s = "", 30
    ask(url, question="Zebedee?", context="Quux")
    until(lambda: httpx.get(f"{url}/panel").json()["workers"][0]["resting_s"] is not None)
    asked = len(ill.requests)
    for number in range(3):
        assert failures(ask(url, question=f"Zebedee {number}?")) == {"w0": "unreachable"}
    until(lambda: len(ill.requests) >= asked + 2)

    ours = [request["messages"] for request in ill.requests[1:]]
    assert all(messages == ours[0] for messages in ours)
    told = json.dumps(ours[0])
    assert "Zebedee" not in told and "Quux" not in told and CASE["images"][0] not in told


@pytest.mark.parametrize("says", ["", "long " * 1_000])
def test_who_says_nothing_usable_to_anybody_is_asked_on(vllm, gateway, says):
    """It costs nobody any time; and a caller could have asked for just that."""
    poor = vllm(says)
    url = gateway([poor, vllm("yes"), vllm("yes")], panel=DEADLINE)
    for number in range(5):
        ask(url, question=f"{number}?")
    assert len(poor.requests) == 5 and rests(url) == [False] * 3


def test_a_connection_that_breaks_once_rests_nobody(vllm, gateway, monkeypatch):
    """A server that is back within a second was not away."""
    monkeypatch.setattr(breaker, "PATIENCE_S", 5)
    moody = vllm("yes", status=502, raw=b"")
    url = gateway([moody, vllm("yes")], panel=DEADLINE)
    for number in range(4):
        ask(url, question=f"{number}?")
    moody.raw = None
    assert failures(ask(url)) == {} and rests(url) == [False, False]


def test_a_reload_forgets_nobodys_rest(vllm, gateway):
    ill = vllm(delay_s=30)
    url = gateway([ill, vllm("yes")], panel=DEADLINE)
    ask(url)
    until(lambda: rests(url) == [True, False])
    assert httpx.post(f"{url}/panel/reload").status_code == 200
    assert rests(url) == [True, False]
    ill.delay_s = 0
    until(lambda: rests(url) == [False, False])


def test_a_worker_may_have_less_time_than_the_panel(vllm, gateway):
    seats = ['languages = ["en"]\ndeadline_s = 0.2']
    url = gateway([vllm(delay_s=30), vllm("yes")], seats=seats)
    began = time.perf_counter()
    response = ask(url)
    assert failures(response) == {"w0": "timeout"} and time.perf_counter() - began < 5
    assert response.json()["answers"][0]["error"]["detail"] == "No answer within 0.2 s."


@pytest.mark.parametrize(
    ("meanwhile", "rests_then"),
    [("replied", False), ("refused", True), ("broke_off", True), (None, True)],
)
def test_who_answers_others_while_its_own_question_waits_is_only_busy(
    meanwhile, rests_then, monkeypatch
):
    """Load alone rests nobody. A refusal proves no more than the server before the model."""
    monkeypatch.setattr(breaker, "PATIENCE_S", 0)

    async def live() -> bool:
        async def waits_in_vain() -> bool:
            if meanwhile:
                getattr(rest, meanwhile)()
            return False

        rest = breaker.Breaker("w", waits_in_vain)
        rest.doubt()
        for _ in range(5):
            await asyncio.sleep(0)
        found = rest.rests_s is not None
        rest.close()
        return found

    assert asyncio.run(live()) is rests_then


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3)), max_size=12))
def test_whatever_is_doubted_only_its_own_question_decides(moments):
    """Callers raise doubts at any moment; it rests if, and only if, it has left the gateway's own
    question unanswered, and never again once it has answered it."""

    async def live() -> None:
        well, looks = True, 0

        async def is_well() -> bool:
            nonlocal looks
            looks += 1
            return well

        rest = breaker.Breaker("w", is_well)
        ever_ill = False
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(breaker, "PATIENCE_S", 0)
            patched.setattr(breaker, "REST_S", 0)
            for well, doubts in moments:
                for _ in range(doubts):
                    rest.doubt()
                ever_ill |= not well and doubts > 0
                await settled(lambda seen=looks: looks > seen + 1)
                if well:
                    assert rest.rests_s is None
                elif doubts:
                    assert rest.rests_s == 0
                assert ever_ill or rest.rests_s is None
            rest.close()

    async def settled(enough: Callable[[], bool]) -> None:
        for _ in range(20):
            if enough():
                return
            await asyncio.sleep(0)

    asyncio.run(live())
