"""A worker's failure costs its own voice, never the case; below the quorum the caller hears why."""

import base64
import json
import socket
import threading
import time
from typing import Any

import httpx
import pytest

from tests.conftest import picture

pytestmark = pytest.mark.alone

CASE = {"question": "Is it healthy?", "images": [base64.b64encode(picture()).decode()]}


def ask(url: str, **changes: Any) -> httpx.Response:
    return httpx.post(f"{url}/vqa", json=CASE | changes, timeout=30)


def failures(response: httpx.Response) -> dict[str, str]:
    answers = response.json()["answers"]
    return {a["worker"]: a["error"]["kind"] for a in answers if a["error"]}


def test_everyone_is_asked_at_once_in_his_own_words(vllm, gateway):
    """One user message: the images first, then the worker's own prompt; greedy, with logprobs."""
    first, second = vllm("Yes", delay_s=3), vllm("yes", delay_s=3)
    url = gateway([first, second])
    began = time.perf_counter()
    verdict = ask(url, context="58-year-old").json()
    assert time.perf_counter() - began < 5.5
    assert [answer["worker"] for answer in verdict["answers"]] == ["w0", "w1"]
    assert verdict["answer"] == "Yes" and verdict["agreement"] == 1
    assert verdict["answers"][0]["confidence"] == pytest.approx(0.9)
    assert verdict["confidence"] is None and verdict["status"] == "answered"
    [request] = first.requests
    image, text = request["messages"][0]["content"]
    assert image["type"] == "image_url"
    assert text == {
        "type": "text", "text": "Question: 58-year-old\nIs it healthy? Answer:"
    }  # fmt: skip
    assert (request["model"], request["temperature"]) == ("w0", 0)
    assert request["logprobs"] is True and request["max_tokens"] == 128


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ({"delay_s": 30}, "timeout"),
        ({"status": 500, "raw": b"oops"}, "unreachable"),
        ({"status": 404, "raw": b"{}"}, "refused"),
        ({"status": 302, "raw": b""}, "garbage"),
        ({"raw": b"<html>"}, "garbage"),
        ({"raw": b'{"choices": []}'}, "garbage"),
        ({"raw": b'{"choices": [{"message": {"content": 7}}]}'}, "garbage"),
        ({"raw": b"x" * 2_000_000}, "garbage"),
        ({"says": "long " * 1_000}, "garbage"),
        ({"says": ""}, "empty"),
        ({"says": " . "}, "empty"),
        *(
            ({"says": said}, "empty")
            for said in (
                "I’m sorry, but I can't assist with that.",
                "I cannot provide medical advice. Please see a doctor.",
                "As an AI language model, I am not a physician.",
                "Lo siento, pero no puedo ayudar con eso.",
                "很抱歉，我无法提供医疗建议。",
            )
        ),
        ({"raw": b'{"choices": [{"message": {"content": null}}]}'}, "empty"),
        ({"says": "The image shows", "finish_reason": "length"}, "cut_short"),
        *(
            ({"finish_reason": reason}, "cut_short")
            for reason in ("LENGTH", "abort", "content_filter", "max_tokens", "repetition")
        ),
        ({"says": "<think>Is it? No"}, "cut_short"),
    ],
)
def test_a_failed_worker_loses_its_voice_and_nothing_more(vllm, gateway, fault, kind):
    url = gateway([vllm("yes"), vllm(**fault), vllm("yes")], panel="quorum = 2\ndeadline_s = 1")
    response = ask(url)
    assert response.status_code == 200, response.text
    assert failures(response) == {"w1": kind}
    verdict = response.json()
    assert verdict["answer"] == "yes" and verdict["agreement"] == 1
    failed = verdict["answers"][1]
    assert failed["text"] is failed["confidence"] is failed["weight"] is None


def test_an_unreachable_worker(vllm, gateway, dead_url):
    assert failures(ask(gateway([dead_url, vllm()]))) == {"w0": "unreachable"}


def test_a_server_that_speaks_no_http_or_hangs_up(vllm, gateway):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def babble() -> None:
            half = b'HTTP/1.1 200 OK\r\ncontent-length: 90\r\n\r\n{"choices": ['
            for reply in (b"SSH-2.0-nonsense\r\n\r\n", b"", half):
                connection, _ = listener.accept()
                connection.recv(1_000)
                connection.sendall(reply)
                connection.close()

        threading.Thread(target=babble, daemon=True).start()
        url = gateway([f"http://127.0.0.1:{listener.getsockname()[1]}", vllm()])
        kinds = [failures(ask(url))["w0"] for _ in range(3)]
    assert set(kinds) <= {"garbage", "unreachable"}


def test_an_answer_without_logprobs_has_no_confidence(vllm, gateway):
    verdict = ask(gateway([vllm(confidence=None)])).json()
    assert verdict["answers"][0]["confidence"] is None and verdict["answer"] == "yes"


TOKEN = {"token": "yes", "logprob": -0.1}


def test_who_sees_nothing_has_answered(vllm, gateway):
    """It is no refusal; and a control character in an answer makes it no other answer."""
    url = gateway([vllm("I cannot see an effusion."), vllm("No.\x00"), vllm("\u2060no")])
    verdict = ask(url, question="Is there an effusion?").json()
    assert verdict["agreement"] == 1 and len(verdict["workers"]) == 3


ODD: dict[str, dict[str, Any]] = {
    "top_logprobs is null": {"logprobs": {"content": [TOKEN | {"top_logprobs": None}]}},
    "no top_logprobs": {"logprobs": {"content": [TOKEN]}},
    "nothing in logprobs": {"logprobs": {}},
    "logprobs in another form": {"logprobs": {"tokens": ["yes"], "token_logprobs": [-0.1]}},
    "a token without a probability": {"logprobs": {"content": [{"token": "y", "logprob": None}]}},
    "logprobs is a list": {"logprobs": []},
    "no finish_reason": {},
    "finish_reason is null": {"finish_reason": None},
    "more than we know of": {"stop_reason": 7, "token_ids": None, "usage": None},
}


def test_what_is_odd_beside_an_answer_costs_at_most_its_confidence(vllm, gateway):
    said = {"role": "assistant", "content": "yes", "tool_calls": []}
    thoughts = [None, {"summary": "no?"}, [], 7]
    counts = [None, 7, [], {"prompt_tokens": -1, "completion_tokens": 1}, {"prompt_tokens": "x"}]
    replies = [
        {
            "choices": [{"message": said | {"reasoning": thoughts[place % 4]}} | odd],
            "usage": counts[place % len(counts)],
        }
        for place, odd in enumerate(ODD.values())
    ]
    workers = [vllm(raw=json.dumps(reply).encode()) for reply in replies]
    url = gateway(workers, panel=f"quorum = {len(ODD)}")
    for number in range(4):
        response = ask(url, question=f"{number}?")
        assert response.status_code == 200 and failures(response) == {}
    answers = response.json()["answers"]
    told = [answer["confidence"] is not None for answer in answers]
    assert told == [True, True] + [False] * (len(ODD) - 2)
    assert not any(answer["tokens"] for answer in answers)


def test_below_the_quorum_the_caller_hears_every_reason_and_every_answer(vllm, gateway, dead_url):
    url = gateway([vllm("yes"), dead_url, vllm(delay_s=30)], panel="quorum = 2\ndeadline_s = 1")
    response = ask(url)
    assert response.status_code == 503
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert "1 of the 2 answers" in problem["detail"]
    assert "w1: No connection" in problem["detail"]
    assert "w2: No answer within 1 s" in problem["detail"]
    assert [answer["text"] for answer in problem["answers"]] == ["yes", None, None]


def test_the_quorum_is_no_more_than_who_can_take_the_case(vllm, gateway):
    """One Chinese voice on a panel of two is a panel of one, and says so."""
    seats = ['languages = ["en"]', 'languages = ["en", "zh"]']
    url = gateway([vllm("yes"), vllm("是")], seats=seats, panel="quorum = 2")
    verdict = ask(url, language="zh").json()
    assert verdict["answer"] == "是" and verdict["agreement"] is None
    assert verdict["answers"][0]["error"]["kind"] == "not_eligible"


def test_too_many_images_for_a_worker_spare_it(vllm, gateway):
    seats = ["max_images = 1", "max_images = 2"]
    one, two = vllm(), vllm()
    url = gateway([one, two], seats=seats)
    response = ask(url, images=CASE["images"] * 2)
    assert failures(response) == {"w0": "not_eligible"} and not one.requests
    assert ask(url, images=CASE["images"] * 3).status_code == 422


def test_only_the_chosen_workers_are_asked(vllm, gateway):
    spared, asked = vllm(), vllm("no")
    url = gateway([spared, asked])
    verdict = ask(url, options={"workers": ["w1"]}).json()
    assert [answer["worker"] for answer in verdict["answers"]] == ["w1"]
    assert not spared.requests


BROKEN = json.dumps({"error": {"message": "Failed to load image: cannot identify image"}}).encode()


def test_when_all_call_the_image_unreadable_it_is_the_callers_fault(vllm, gateway):
    refusing = [vllm(status=400, raw=BROKEN) for _ in range(2)]
    response = ask(gateway(refusing))
    assert response.status_code == 400 and "PNG" in response.json()["detail"]


def test_when_one_does_it_is_the_workers(vllm, gateway):
    url = gateway([vllm(status=400, raw=BROKEN), vllm("yes")])
    assert failures(ask(url)) == {"w0": "refused"}


def test_a_failing_worker_cannot_put_words_in_an_error(vllm, gateway):
    """Its own error text may quote the patient's question; it is not passed on."""
    url = gateway([vllm(status=422, raw=b'{"error": "Jane Doe"}')])
    response = ask(url)
    assert response.status_code == 503 and "Jane Doe" not in response.text


def test_what_everyone_refuses_may_be_too_long(vllm, gateway):
    """Waiting would not help; a worker that is merely down says nothing of the kind."""
    refusing = vllm(status=400, raw=b"{}")
    problem = ask(gateway([refusing, vllm(status=400, raw=b"{}")])).json()
    assert "A shorter question or context may be taken." in problem["detail"]
    assert "later" not in problem["detail"]
    mixed = ask(gateway([refusing, vllm(status=500, raw=b"")])).json()
    assert mixed["detail"].endswith("Try again later.")


TOO_LONG = (
    "This model's maximum context length is 2048 tokens. However, your prompt contains at least "
    "2017 input tokens, which exceeds this limit even without any output tokens.",
    "This model's maximum context length is 2048 tokens. However, you requested 5032 tokens.",
    "The decoder prompt (length 5000) is longer than the maximum model length of 2048.",
    "Input length (5000) exceeds model's maximum context length (2048).",
    "max_tokens=5000 cannot be greater than max_model_len=2048. Please request fewer.",
    "The input (5000 tokens) is longer than the model's context length (2048 tokens).",
    "the request exceeds the available context size (2048 tokens), try increasing it",
)
VALUES = "Na 140 mmol/l; K 4.1 mmol/l; CRP 12.4 mg/l; "


def refusing(vllm, words: str) -> Any:
    """A server that holds 2,048 tokens, and laboratory values are more."""
    error = json.dumps({"error": {"message": words, "type": "BadRequestError", "code": 400}})
    return vllm("yes", status=400, raw=error.encode(), only="CRP")


@pytest.mark.parametrize("words", TOO_LONG)
def test_a_case_that_is_too_long_for_all_is_the_callers_to_mend(vllm, gateway, words):
    """And he hears how much of it will be taken, whatever is in it."""
    url = gateway([refusing(vllm, words) for _ in "ab"], panel="quorum = 2")
    response = ask(url, context=(VALUES * 200)[:8_000])
    assert response.status_code == 422 and "retry-after" not in response.headers
    chars = len(CASE["question"]) + 1 + 8_000
    assert response.json()["detail"] == (
        f"question, context: {chars} characters are too many for all; send at most 1408."
    )
    # Of three bytes each, a third of them.
    assert "at most 470" in ask(url, context="CRP" + "血" * 7_000).json()["detail"]
    assert all(seat["reachable"] for seat in httpx.get(f"{url}/panel").json()["workers"])


def test_images_or_choices_that_leave_no_room_are_named(vllm, gateway):
    url = gateway([refusing(vllm, TOO_LONG[0])])
    for changes in ({}, {"choices": ["左" * 200, "b"]}):
        response = ask(url, question="CRP?", **changes)
        assert response.status_code == 422
        assert response.json()["detail"].startswith("images, choices: too many or too long")


def test_who_cannot_hold_the_case_leaves_it_to_the_others(vllm, gateway, dead_url):
    """As who does not speak its language: the quorum is no more than who can take it."""
    short = refusing(vllm, TOO_LONG[0])
    verdict = ask(gateway([short, vllm("yes")], panel="quorum = 2"), question="CRP?").json()
    assert verdict["answer"] == "yes" and verdict["agreement"] is None
    error = verdict["answers"][0]["error"]
    assert error["kind"] == "refused" and error["max_chars"] == 1408
    response = ask(gateway([short, dead_url], panel="quorum = 2"), question="CRP?")
    assert response.status_code == 503 and int(response.headers["retry-after"]) >= 1


def test_a_caller_who_leaves_takes_the_calls_with_him(vllm, gateway):
    """Nobody is waiting any more, so no worker should be."""
    worker = vllm(delay_s=30)
    url = gateway([worker])
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{url}/vqa", json=CASE, timeout=0.7)
    give_up_at = time.monotonic() + 10
    while not worker.dropped and time.monotonic() < give_up_at:
        time.sleep(0.05)
    assert worker.dropped == 1


def test_a_caller_who_leaves_while_sending_is_no_bug(vllm, gateway, caplog):
    """One line says that he is gone; there is nothing to mend."""
    url = httpx.URL(gateway([vllm()]))
    head = "POST /vqa HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    with socket.create_connection((url.host, url.port or 80)) as caller:
        caller.sendall(f"{head}Content-Length: 1000\r\n\r\n{{".encode())
        time.sleep(0.5)
    give_up_at = time.monotonic() + 10
    while "caller_gone" not in caplog.text and time.monotonic() < give_up_at:
        time.sleep(0.05)
    assert "caller_gone" in caplog.text and "Traceback" not in caplog.text


def test_no_proxy_sees_a_case(vllm, gateway, dead_url, monkeypatch):
    """The environment's proxies are for the world outside, not for model servers."""
    worker = vllm()
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, dead_url)
    url = gateway([worker])
    response = httpx.Client(trust_env=False).post(f"{url}/vqa", json=CASE)
    assert response.status_code == 200 and len(worker.requests) == 1
