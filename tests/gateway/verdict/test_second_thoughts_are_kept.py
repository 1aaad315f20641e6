"""What a worker came near to saying is told beside what it said."""

import json
import math

import httpx
import pytest

from tests.conftest import picture


def token(text: str, probability: float, **others: float) -> dict:
    """One generated token with the likeliest in its place."""
    best = {text: probability} | others
    top = [{"token": name, "logprob": math.log(p)} for name, p in best.items()]
    return top[0] | {"top_logprobs": top}


def reply(text: str, *tokens: dict) -> bytes:
    choice = {
        "message": {"role": "assistant", "content": text},
        "logprobs": {"content": list(tokens)},
        "finish_reason": "stop",
    }
    return json.dumps({"choices": [choice]}).encode()


def second_thoughts(vllm, gateway, raw: bytes) -> list[tuple[str, bool, float]]:
    worker = vllm(raw=raw)
    files = [("images", ("a.png", picture(), "image/png"))]
    response = httpx.post(f"{gateway([worker])}/vqa", data={"question": "q?"}, files=files)
    assert worker.requests[0]["top_logprobs"] > 1
    [answer] = response.json()["answers"]
    return [(a["begins"], a["whole"], a["probability"]) for a in answer["alternatives"]]


def test_every_way_to_leave_the_answer_is_named_with_its_probability(vllm, gateway):
    """The likeliest first; what is next to impossible is not worth telling."""
    raw = reply(
        " Left Lung",
        token(" Left", 0.6, **{" Right": 0.3, " Both": 0.001}),
        token(" Lung", 0.8, **{"<eos>": 0.15, " Atrium": 0.05}),
        token("<eos>", 0.9, **{",": 0.1}),
    )
    found = second_thoughts(vllm, gateway, raw)
    assert [(begins, whole) for begins, whole, _ in found] == [
        ("Right", False),
        ("Left", True),
        ("Left Lung,", False),
        ("Left Atrium", False),
    ]
    expected = [0.3, 0.6 * 0.15, 0.6 * 0.8 * 0.1, 0.6 * 0.05]
    assert [probability for *_, probability in found] == pytest.approx(expected)


def test_half_a_character_is_no_text(vllm, gateway):
    raw = reply("左肺", token("左", 0.5, **{"�": 0.3, "右": 0.2}), token("肺", 1.0))
    assert [begins for begins, *_ in second_thoughts(vllm, gateway, raw)] == ["右"]
