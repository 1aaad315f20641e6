"""With `Accept: text/event-stream` answers come as they are given, and the verdict at last."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from gateway.contract import Answer, Provisional, Verdict
from gateway.out.stream import is_preferred
from gateway.refusals import Problem
from tests.gateway.asking.test_the_panel_survives_its_workers import CASE, ask

MODELS = {
    "answer": Answer,
    "failure": Answer,
    "provisional": Provisional,
    "verdict": Verdict,
    "problem": Problem,
}
Events = Iterator[tuple[str, Any]]


@contextmanager
def streamed(url: str, **changes: Any) -> Iterator[Events]:
    headers = {"accept": "text/event-stream"}
    with httpx.stream(
        "POST", f"{url}/vqa", json=CASE | changes, headers=headers, timeout=30
    ) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        yield events_of(response.iter_lines())


def events_of(lines: Iterator[str]) -> Events:
    for line in lines:
        name = line.removeprefix("event: ")
        content = MODELS[name].model_validate(json.loads(next(lines).removeprefix("data: ")))
        assert next(lines) == ""
        yield name, content


def test_answers_come_as_they_are_given(vllm, gateway):
    """The last worker speaks only once the first events have been read."""
    read = threading.Event()

    def waits(request: dict[str, Any]) -> str:
        assert read.wait(20)
        return "no"

    # What fails before anybody has answered is followed by no provisional verdict.
    failing = vllm(status=500, raw=b"", delay_s=0.5)
    url = gateway([vllm(waits), vllm("yes"), failing])
    with streamed(url) as events:
        early = [next(events) for _ in range(4)]
        read.set()
        late = list(events)

    spoke = [(name, each.worker) for name, each in early if name != "provisional"]
    assert sorted(spoke) == [("answer", "w1"), ("failure", "w2")]
    name, stands = early[-1]
    assert name == "provisional" and stands.answer == "yes" and stands.agreement is None
    assert (stands.heard, stands.asked, stands.workers) == (2, 3, ("w1",))
    assert [name for name, _ in late] == ["answer", "provisional", "verdict"]
    assert late[0][1].text == "no" and late[1][1].heard == 3
    verdict = late[2][1]
    assert [answer.worker for answer in verdict.answers] == ["w0", "w1", "w2"]
    assert verdict.dissent


def test_a_refusal_is_a_plain_response_and_a_later_one_an_event(vllm, gateway):
    url = gateway([vllm(), vllm(status=500, raw=b"")], panel="quorum = 2")
    headers = {"accept": "text/event-stream"}
    response = httpx.post(f"{url}/vqa", json=CASE | {"language": "zh"}, headers=headers)
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"

    with streamed(url) as events:
        *_, (name, problem) = events
    assert name == "problem" and problem.status == 503 and len(problem.answers) == 2


def test_a_stored_verdict_comes_alone(vllm, gateway):
    url = gateway([vllm()])
    first = ask(url).json()
    with streamed(url) as events:
        [(name, verdict)] = events
    assert name == "verdict" and verdict.cached_from == first["id"]


def test_who_comes_later_hears_it_all(vllm, gateway):
    """Both ask the same, so the workers are asked once."""
    workers = [vllm("yes"), vllm("no", delay_s=2)]
    url = gateway(workers)
    with streamed(url) as early:
        next(early)
        with streamed(url) as late:
            assert [name for name, _ in late] == [
                "answer", "provisional", "answer", "provisional", "verdict",
            ]  # fmt: skip
    assert [len(worker.requests) for worker in workers] == [1, 1]


def test_a_reader_who_does_not_read_holds_up_nobody(vllm, gateway):
    url = gateway([vllm("yes"), vllm("no", delay_s=1)])
    with streamed(url):
        assert ask(url).json()["dissent"]


def test_a_reader_who_leaves_takes_the_calls_with_him(vllm, gateway):
    slow = vllm(delay_s=30)
    with streamed(gateway([vllm("yes"), slow])) as events:
        next(events)
    give_up_at = time.monotonic() + 10
    while not slow.dropped and time.monotonic() < give_up_at:
        time.sleep(0.05)
    assert slow.dropped == 1


@pytest.mark.parametrize(
    ("accept", "streamed"),
    [
        ("text/event-stream", True),
        ("Text/Event-Stream; charset=utf-8", True),
        ("text/event-stream, application/json;q=0.9", True),
        ("application/json;q=0.1, text/event-stream;q=0.2", True),
        ("text/event-stream, */*", True),
        ("text/event-stream, */*;q=0.1", True),
        ("text/*", True),
        ("application/json, text/event-stream;q=0.1", False),
        ("application/json, text/event-stream", False),
        ("text/event-stream;q=0", False),
        ("text/event-stream;q=0, */*", False),
        ("text/event-stream;q=0.5, */*", False),
        ("text/event-stream;q=0.5, application/*", False),
        ("*/*", False),
        ("application/json", False),
        ("text/html, application/xhtml+xml", False),
        ("", False),
        ("text/event-stream;q=much", False),
        ("text/event-stream;q=7", False),
        (";;,,q=1, text", False),
    ],
)
def test_events_are_sent_to_who_would_rather_have_them(accept, streamed):
    """RFC 9110: by quality, of the most specific range that is named."""
    assert is_preferred(accept) is streamed
