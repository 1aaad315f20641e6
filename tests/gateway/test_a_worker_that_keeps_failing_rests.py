"""Nobody waits again and again for a worker that fails; and no caller can make one rest."""

import time

import pytest

from gateway import panel
from tests.gateway.test_the_panel_survives_its_workers import ask, failures


@pytest.fixture(autouse=True)
def short_rest(monkeypatch):
    monkeypatch.setattr(panel, "REST_S", 1.0)


@pytest.mark.parametrize("fault", [{"status": 500, "raw": b""}, {"raw": b"<html>"}, {"says": ""}])
def test_after_three_failures_it_is_left_alone_and_then_tried_by_one(vllm, gateway, fault):
    ill = vllm(**fault)
    url = gateway([ill, vllm("yes")])
    for _ in range(3):
        ask(url)
    resting = ask(url).json()["answers"][0]["error"]
    assert resting["kind"] == "unreachable" and "rests" in resting["detail"]
    assert len(ill.requests) == 3

    time.sleep(1.1)
    ask(url)
    assert len(ill.requests) == 4
    assert "rests" in ask(url).json()["answers"][0]["error"]["detail"]


def test_once_it_answers_it_is_one_of_them_again(vllm, gateway):
    ill = vllm("yes", status=500, raw=b"")
    url = gateway([ill, vllm("yes")])
    for _ in range(4):
        ask(url)
    ill.raw = None
    time.sleep(1.1)

    assert failures(ask(url)) == {}
    assert failures(ask(url, question="Another?")) == {}


def test_what_it_refuses_may_be_the_callers_doing(vllm, gateway):
    refusing = vllm(status=404, raw=b"{}")
    url = gateway([refusing, vllm("yes")])
    for _ in range(5):
        assert failures(ask(url)) == {"w0": "refused"}
    assert len(refusing.requests) == 5


def test_a_caller_without_patience_cannot_silence_a_worker(vllm, gateway):
    slow = vllm("yes", delay_s=0.5)
    url = gateway([slow, vllm("yes")])
    for _ in range(4):
        assert failures(ask(url, options={"deadline_s": 0.1})) == {"w0": "timeout"}

    assert failures(ask(url)) == {}


def test_a_worker_may_have_less_time_than_the_panel(vllm, gateway):
    seats = ['languages = ["en"]\ndeadline_s = 0.2']
    url = gateway([vllm(delay_s=30), vllm("yes")], seats=seats)
    began = time.perf_counter()
    response = ask(url)
    assert failures(response) == {"w0": "timeout"} and time.perf_counter() - began < 5
    assert response.json()["answers"][0]["error"]["detail"] == "No answer within 0.2 s."
