"""Whoever takes a seat is asked alone; `consilium join` puts its answers beside those that the
others gave before."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock
from typer.testing import CliRunner

from gateway.contract import Answer, AnswerError
from gateway.settings import load_settings
from services.cli.__main__ import app
from services.evaluation import stored_run
from services.evaluation.replay import replay
from services.evaluation.stored_run import EvaluationError, Outcome, Run, claim
from tests.services.evaluation.runs import Said, keep, verdict, write_run, write_set

ROWS: list[dict[str, object]] = [
    {"id": number, "images": f"{'x' * number}.png", "question": "Which?", "answer": "lung"}
    for number in (1, 2, 3)
]
BEFORE: dict[str, Said] = {
    "1": {"panel": "lung", "a": "lung", "left": "lung"},
    "2": {"panel": "liver", "a": "liver", "left": "liver"},
    "3": {"panel": "lung", "a": "lung", "left": None},
}
ALONE: dict[str, Said] = {"1": {"panel": "lung", "b": "lung"}, "2": {"panel": "lung", "b": "lung"}}
SEAT = """
[[worker]]
name = "{name}"
family = "{name}"
model = "/m/{name}"
languages = ["en"]
prompt = "{{question}}"
"""
SEATS = "".join(SEAT.format(name=name) for name in ("a", "b"))


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "panel.toml").write_text(f"[panel]\nquorum = 1\ndeadline_s = 5\n{SEATS}")
    return write_set(tmp_path / "own", ROWS)


@pytest.fixture
def before(tmp_path: Path, own: Path) -> Path:
    seen = {"a": "weights-of-a", "left": "weights-of-left"}
    return write_run(tmp_path / "before", own, BEFORE, models=seen)


@pytest.fixture
def alone(tmp_path: Path, own: Path) -> Path:
    return write_run(
        tmp_path / "alone", own, ALONE, models={"b": "weights-of-b"}, workers=["b"], panel="other"
    )


def joined(*runs: Path) -> tuple[Run, dict[str, Outcome]]:
    out, panel = runs[0].parent / "out", runs[0].parent / "panel.toml"
    arguments = ["join", *map(str, runs), "--out", str(out), "--panel", str(panel)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    run, cases = stored_run.load(out, Path("none"))
    return run, {example.id: outcome for example, outcome in cases}


def test_a_seat_that_was_asked_alone_joins_the_others(before: Path, alone: Path) -> None:
    """In a run of its own, of what all were asked; who has left the panel is left out."""
    run, outcomes = joined(before, alone)
    assert run.models == {"a": "weights-of-a", "b": "weights-of-b"} and run.workers is None
    said = {id: [(a.worker, a.text) for a in each.answers] for id, each in outcomes.items()}
    assert said == {
        "1": [("a", "lung"), ("b", "lung")],
        "2": [("a", "liver"), ("b", "lung")],
    }
    verdict = outcomes["1"].verdict
    assert verdict and verdict.answer == "lung" and verdict.agreement == 1
    torn = outcomes["2"].verdict
    assert torn and torn.agreement == 0.5 and len(torn.dissent) == 1
    assert (verdict.workers, torn.workers, torn.dissent[0].workers) == (("a", "b"), ("a",), ("b",))
    assert verdict.entropy == 0 and torn.entropy == pytest.approx(math.log(2))


def test_of_a_worker_that_was_asked_twice_the_later_answer_counts(
    before: Path, alone: Path, own: Path
) -> None:
    again = write_run(
        own.parent.parent / "again",
        own,
        {"1": {"panel": "liver", "a": "liver"}},
        models={"a": "new weights"},
    )
    run, outcomes = joined(before, alone, again)
    assert run.models["a"] == "new weights"
    assert [answer.text for answer in outcomes["1"].answers] == ["liver", "lung"]


def test_who_was_not_heard_again_is_taken_at_its_first_answer(
    before: Path, alone: Path, own: Path
) -> None:
    again = write_run(own.parent.parent / "again", own, {}, models={"a": "weights-of-a"})
    late = AnswerError(kind="timeout", detail="late")
    silent = verdict({"panel": "liver", "b": "liver"})
    lost = Answer(worker="a", seconds=9, error=late)
    keep(again, "1", silent.model_copy(update={"answers": (lost, *silent.answers)}))
    _, outcomes = joined(before, alone, again)
    assert [(a.worker, a.text) for a in outcomes["1"].answers] == [("a", "lung"), ("b", "liver")]


def test_who_was_not_heard_was_not_wrong(tmp_path: Path, own: Path) -> None:
    """The best worker is right in all that it was heard in, which is half of the cases; with who
    was heard in the others alone it shares none."""
    seats = tmp_path / "panel.toml"
    seats.write_text(seats.read_text() + SEAT.format(name="c"))
    rows = [ROWS[0] | {"id": n, "images": f"{'y' * n}.png"} for n in range(1, 9)]
    several = write_set(tmp_path / "several", rows)
    said: dict[str, Said] = {
        str(n): {"panel": "lung", "a": "lung" if n < 5 else None, "b": "lung" if n < 6 else "liver"}
        for n in range(1, 9)
    }
    said["8"]["c"] = "lung"
    run = write_run(tmp_path / "half", several, said, models={"a": "a", "b": "b"})
    found = replay([run], load_settings(seats, environ={}), Path("none"))
    right = {name: found["policies"][name]["accuracy"] for name in "ab"}
    assert (right["a"]["value"], right["a"]["cases"]) == (1, 4)
    assert (right["b"]["value"], right["b"]["cases"]) == (5 / 8, 8)
    assert found["best_worker"] == "a"
    assert found["policies"]["vote"]["over_best_worker"]["cases"] == 4
    assert found["policies"]["c"]["over_best_worker"] is None


@pytest.mark.parametrize("blank", [True, False])
def test_runs_of_other_questions_are_refused(before: Path, own: Path, blank: bool) -> None:
    """Of other images, or of another fold."""
    fold = None if blank else [0, 2]
    other = write_run(own.parent.parent / "other", own, ALONE, blank_images=blank, fold=fold)
    out, panel = own.parent.parent / "out", own.parent.parent / "panel.toml"
    done = CliRunner().invoke(
        app, ["join", str(before), str(other), "--out", str(out), "--panel", str(panel)]
    )
    assert done.exit_code == 1 and "asked other questions" in " ".join(done.output.split())
    assert not out.exists()


def test_a_run_that_nobody_seated_answered_is_refused(before: Path, own: Path) -> None:
    panel = own.parent.parent / "panel.toml"
    panel.write_text(panel.read_text().replace('"a"', '"c"'))
    done = CliRunner().invoke(
        app, ["join", str(before), "--out", str(own.parent.parent / "out"), "--panel", str(panel)]
    )
    assert done.exit_code == 1 and "No question was answered" in " ".join(done.output.split())


def test_it_replaces_what_it_made_and_nothing_that_a_gateway_answered(
    before: Path, alone: Path
) -> None:
    """Joined again after one more was asked, it is the whole again; what was gathered stays, and so
    does what somebody else is writing. Nor is a made run gone on with by asking."""
    panel = before.parent / "panel.toml"
    _, first = joined(before, alone)
    run, again = joined(before, alone)
    assert first == again and run.origin == "stored answers"

    def refused(out: Path) -> str:
        gathered = {file: file.read_bytes() for file in out.iterdir() if file.name != ".lock"}
        arguments = ["join", str(before), str(alone), "--out", str(out), "--panel", str(panel)]
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 1
        assert {file: file.read_bytes() for file in gathered} == gathered
        return " ".join(done.output.split())

    for asked in (before, alone):
        assert "holds what a gateway answered, which would be lost" in refused(asked)
    out = before.parent / "out"
    with FileLock(out / ".lock"):
        assert f"is writing to {out}; wait for its end, or give another --out." in refused(out)
    with pytest.raises(EvaluationError, match="with other origin; take a new folder"):
        claim(out, replace(run, origin="a gateway"))
