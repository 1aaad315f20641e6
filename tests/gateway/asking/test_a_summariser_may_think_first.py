"""What a summariser thinks before it words the answer never leaves as an answer."""

import base64
import json
import re
from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from gateway.settings import SettingsError, load_settings
from tests.conftest import picture

CASE = {"question": "Where is it?", "images": [base64.b64encode(picture()).decode()]}
THOUGHT = "Two say left.\nThe right lung?\n\nNo."


def reply(content: str | None, finish: str = "stop", **parted: str) -> bytes:
    message = {"role": "assistant", "content": content} | parted
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return json.dumps({"choices": [choice]}).encode()


@pytest.fixture
def asked(vllm, gateway):
    """What becomes of a divided case whose summariser thinks and sends `raw`; and what it got."""

    def ask(
        raw: bytes, choices: Sequence[str] | None = None, **options: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        workers = [vllm(text).url for text in ("left lung", "left lung", "right lung")]
        summariser = vllm(raw=raw)
        url = gateway(workers, summariser=summariser.url, thinking=64)
        case = CASE | {"choices": choices, "options": options}
        response = httpx.post(f"{url}/vqa", json=case, timeout=30)
        assert response.status_code == 200, response.text
        return response.json(), summariser.requests[0]

    return ask


@pytest.mark.parametrize(
    "raw",
    [
        reply("Left lung.", reasoning=THOUGHT),
        reply("Left lung.", reasoning_content=THOUGHT),
        reply(f"<think>\n{THOUGHT}\n</think>\n\nLeft lung."),
        reply(f"{THOUGHT}\n</think>\n\nLeft lung."),  # its template has begun the thought
    ],
    ids=["parted", "parted as before", "marked", "marked at its end"],
)
def test_thoughts_are_told_where_they_are_asked_for(asked, raw):
    told, got = asked(raw, reasoning=True)

    assert (told["answer"], told["summary"]["by"]) == ("Left lung.", "summariser")
    assert told["summary"]["reasoning"] == THOUGHT
    # As many tokens more as it may think, and no line ends it.
    assert got["max_tokens"] == 48 + 64 and "stop" not in got


def test_else_nobody_is_told(asked):
    told, _ = asked(reply("Left lung.", reasoning=THOUGHT))

    assert told["summary"]["by"] == "summariser" and told["summary"]["reasoning"] is None


def test_choices_bind_none_of_its_thoughts(asked):
    """A grammar binds from the first token, so nothing could be thought; what it says in the end is
    held to the panel's choice, in the caller's spelling."""
    told, got = asked(reply(f"{THOUGHT}</think>Left lung."), ["LEFT LUNG", "right lung"])

    assert (told["answer"], told["summary"]["by"]) == ("LEFT LUNG", "summariser")
    assert "structured_outputs" not in got


@pytest.mark.parametrize(
    "raw",
    [
        reply("Left lung"),  # a thought, for all that can be known: its template has begun it
        reply("<think>Left lung"),
        reply(THOUGHT, finish="length"),
        reply(None, reasoning="Left lung"),
        reply("<think>Left lung</think>"),
        reply("The right lung.", reasoning=THOUGHT),
    ],
    ids=[
        "no end",
        "no end of a mark",
        "over its budget",
        "nothing else",
        "none after it",
        "untrue",
    ],
)
def test_where_thinking_does_not_end_in_the_panels_answer_the_vote_answers(asked, raw):
    told, _ = asked(raw, reasoning=True)

    assert (told["answer"], told["summary"]["by"]) == ("left lung", "vote")
    assert told["summary"]["reasoning"] is None


def test_it_has_no_opening(panel_file):
    path = panel_file(["http://127.0.0.1:1"], summariser="http://127.0.0.1:2", thinking=64)
    path.write_text(path.read_text() + '[summariser.opening]\nen = "So:"\n')

    with pytest.raises(SettingsError, match=re.escape("leave out opening, or thinking_tokens")):
        load_settings(path, environ={})
