"""train-summariser and replay --summariser, on stored answers of workers whose habits we know."""

import json
from typing import Any

import pytest
import torch

import models.cpu_torch  # noqa: F401  before transformers, which imports torchvision

# isort: split
from transformers import AutoModelForCausalLM

from services.evaluation.learning import train_summariser as training
from services.evaluation.learning.lessons import lessons_of
from services.evaluation.learning.train_summariser import train_summariser
from services.evaluation.replay import replay
from services.evaluation.stored_run import EvaluationError, Run, claim
from services.running.engine import model_folder
from tests.services.conftest import PLACE, YES_NO
from tests.services.evaluation.learning.conftest import TEMPLATE


def knowing(request: dict[str, Any]) -> str:
    """Says what is right, whatever it was told."""
    return "Yes" if YES_NO in request["messages"][0]["content"] else "The answer is: Left"


def test_a_summariser_is_bound_to_the_vote_and_scored_as_if_it_were_not(
    vllm, stored, data, with_summariser, capsys
):
    """One that always knows changes no verdict, and is as good as whichever worker is right."""
    server = vllm(lambda request: knowing(request).removeprefix("The answer is: "))
    summary = replay([stored], with_summariser(server.url), data, summariser=True)
    right = {name: each["accuracy"]["value"] for name, each in summary["policies"].items()}
    assert right["summariser"] == right["vote"]
    assert right["summariser, free"] == right["any worker"] > right["vote"] + 0.1
    by = summary["worded_by"]
    assert set(by) == {"summariser", "unanimity", "vote"} and sum(by.values()) == 480
    assert len(server.requests) == by["summariser"] + by["vote"]
    assert {request["temperature"] for request in server.requests} == {0}
    assert f"worded by summariser: {by['summariser']} cases" in capsys.readouterr().out


def test_a_reply_that_nobody_gave_and_a_failure_leave_the_vote(vllm, stored, data, with_summariser):
    for fault in ({"says": "perhaps"}, {"status": 500, "raw": b""}):
        summary = replay([stored], with_summariser(vllm(**fault).url), data, summariser=True)
        right = {name: each["accuracy"]["value"] for name, each in summary["policies"].items()}
        assert right["summariser"] == right["summariser, free"] == right["vote"]
        assert set(summary["worded_by"]) == {"unanimity", "vote"}


def test_an_absent_summariser_is_told_how_to_start(
    stored, data, settings, with_summariser, dead_url
):
    with pytest.raises(EvaluationError, match=f"{dead_url}; start it: consilium summariser"):
        replay([stored], with_summariser(dead_url), data, summariser=True)
    with pytest.raises(EvaluationError, match="seats no summariser"):
        replay([stored], settings, data, summariser=True)


def test_it_learns_from_the_disputed_and_is_served_as_it_was_trained(
    stored, data, base, with_summariser, tmp_path, monkeypatch
):
    monkeypatch.setenv("CONSILIUM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(training, "LEARNING_RATE", 1e-2)
    settings = with_summariser("http://127.0.0.1:1", str(base))
    told: list[str] = []
    out = tmp_path / "adapter"
    train_summariser([stored], settings, data, out, told.append)

    losses = [float(line.rsplit(" ", 1)[1]) for line in told if "loss" in line]
    assert len(losses) == training.EPOCHS and losses[-1] < 0.8 * losses[0]
    assert json.loads((out / "adapter_config.json").read_text())["base_model_name_or_path"] == (
        str(base)
    )
    assert "split `validate`, en" in (out / "README.md").read_text()

    again = tmp_path / "again"
    train_summariser([stored], settings, data, again)
    weights = "adapter_model.safetensors"
    assert (again / weights).read_bytes() == (out / weights).read_bytes()

    served = model_folder(with_summariser("http://127.0.0.1:1", str(out)), "summariser")
    assert served.parent == tmp_path / "cache" / "served"
    merged, plain = (
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()
        for folder in (served, base)
    )
    changed = {name for name in plain if not torch.equal(plain[name], merged[name])}
    assert changed == {
        f"model.layers.{layer}.self_attn.{part}.weight"
        for layer in (0, 1)
        for part in training.TARGETS
    }
    assert (served / "chat_template.jinja").read_text() == TEMPLATE


def test_the_lesson_is_the_right_answer_or_else_the_winner(stored, data, with_summariser):
    settings = with_summariser("http://127.0.0.1:1")
    lessons, sources = lessons_of([stored], settings, data)
    assert sources == [("slake", "validate", "en")]
    asked = [lesson.messages[0]["content"] for lesson in lessons]
    replies = {
        question: {
            lesson.reply
            for lesson, prompt in zip(lessons, asked, strict=True)
            if question in prompt
        }
        for question in (YES_NO, PLACE)
    }
    # Yes or no: one of two that differ is right. Of places, both may be wrong.
    assert replies[YES_NO] == {"Yes"}
    assert "Left" in replies[PLACE] and replies[PLACE] <= {"Left", "Right", "Middle"}
    for lesson, prompt in zip(lessons, asked, strict=True):
        assert lesson.reply in prompt
        assert ("Left" not in prompt) or lesson.reply == "Left"


def test_what_teaches_nothing_is_refused(stored, data, settings, with_summariser, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(EvaluationError, match="seats no summariser"):
        train_summariser([stored], settings, data, out)
    seated = with_summariser("http://127.0.0.1:1")
    shuffled = tmp_path / "shuffled"
    claim(shuffled, Run("slake", "validate", "en", 0, False, None, "never", "hash", {}))
    with pytest.raises(EvaluationError, match="its images were changed"):
        train_summariser([shuffled], seated, data, out)
    assert seated.summariser
    elsewhere = seated.summariser.model_copy(update={"languages": ("zh",)})
    with pytest.raises(EvaluationError, match="0 cases in dispute"):
        train_summariser([stored], seated.model_copy(update={"summariser": elsewhere}), data, out)
    assert not out.exists()
