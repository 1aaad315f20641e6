"""What a killed program, a full disk or a power cut leaves behind costs what was being written, and
no more."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from gateway.contract import Answer, AnswerError
from gateway.refusals import Problem
from models import files
from models.files import append_line, read_lines, write_whole
from models.tensors import save_whole
from services.evaluation import stored_run
from services.evaluation.replay import replay
from services.evaluation.stored_run import (
    EvaluationError,
    Run,
    Verdicts,
    alone_in,
    claim,
    read_outcomes,
)
from tests.fake_gateway import VERDICT
from tests.services.evaluation.runs import keep

RUN = Run("slake", "test", "en", None, False, None, "never", "hash", {})
WHOLE = json.dumps({"id": "b", "verdict": VERDICT.model_dump()}).encode()


@pytest.mark.parametrize(
    "broken",
    [
        b"\0" * 40,
        b"",
        WHOLE[:-30],
        WHOLE[30:],
        b"\xff" + WHOLE,
        b"null",
        b"[1]",
        b'{"id": "b"}',
        b'{"id": ["b"], "verdict": {}}',
        b'{"id": "b", "verdict": {"answer": "Yes"}}',
        b'{"a":' * 9_999,
    ],
)
def test_a_line_that_is_none_is_put_aside(broken: bytes, tmp_path: Path, capsys) -> None:
    """Once, and its neighbours stay good; the next line is not joined to it."""
    keep(tmp_path, "a", VERDICT)
    with (tmp_path / "verdicts.jsonl").open("ab") as stream:
        stream.write(broken + b"\n")
    append_line(tmp_path / "verdicts.jsonl", {"id": "c", "verdict": VERDICT.model_dump()})

    assert list(read_outcomes(tmp_path)) == ["a", "c"]
    assert "1 of its lines are torn or garbled" in capsys.readouterr().out
    with Verdicts(tmp_path) as kept:
        assert list(kept) == ["a", "c"] and kept["c"].verdict == VERDICT
    assert "verdicts.jsonl: 1 line was no record and is kept in" in capsys.readouterr().out
    assert list(read_outcomes(tmp_path)) == ["a", "c"]
    assert capsys.readouterr().out == ""
    assert (tmp_path / "verdicts.broken").read_bytes() == broken + b"\n"


def test_a_line_after_a_torn_one_is_whole(tmp_path: Path) -> None:
    """The torn one has no end."""
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": 2, "b')
    append_line(path, {"a": 3})
    assert read_lines(path, dict).records == [{"a": 1}, {"a": 3}]
    assert read_lines(path, dict).broken == [b'{"a": 2, "b']


def test_a_line_that_does_not_fit_names_its_file() -> None:
    with pytest.raises(OSError, match=r"^/dev/full could not be written: No space left on device"):
        append_line(Path("/dev/full"), {"a": 1})


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0b", "\x1c", "\r", "\n"])
def test_an_answer_may_hold_any_mark_that_ends_a_line(mark: str, tmp_path: Path) -> None:
    """Lines end at a line feed, which JSON writes in two characters."""
    said = f"left{mark}lung"
    keep(tmp_path, "a", VERDICT.model_copy(update={"answer": said}))
    keep(tmp_path, "b", Problem.of(503, "Busy", said))
    outcomes = read_outcomes(tmp_path)
    assert outcomes["a"].answer == said and outcomes["b"].verdict is None


def test_what_was_heard_is_not_given_up_for_a_later_failure(tmp_path: Path) -> None:
    """Of two verdicts the one in which more were heard stays, the later of two alike."""
    (said,) = VERDICT.answers
    late = Answer(worker="w0", seconds=9, error=AnswerError(kind="timeout", detail="late"))
    lost = VERDICT.model_copy(update={"answers": (late,), "answer": "No"})
    part = Problem.of(503, "Below the quorum", "Late.").model_copy(update={"answers": (said,)})
    for case, outcomes in {"a": (VERDICT, lost), "b": (lost, VERDICT), "c": (part, lost)}.items():
        for each in (*outcomes, Problem.of(500, "Failed", "No.")):
            keep(tmp_path, case, each)

    with Verdicts(tmp_path) as kept:
        assert [kept[case].answer for case in "abc"] == ["Yes", "Yes", "No"]
        assert dict(kept) == read_outcomes(tmp_path)


def replace_run_file(folder: Path, content: bytes | None) -> None:
    (folder / "run.json").unlink()
    if content is not None:
        (folder / "run.json").write_bytes(content)


@pytest.mark.parametrize(
    "content",
    [None, b"", b"{", b"\0" * 300, b"\xff\xfe", b"7", b"[" * 100_000]
    + [json.dumps(asdict(RUN) | odd).encode() for odd in ({"models": 5}, {"dataset": None})],
)
def test_a_run_file_that_is_none_is_one_sentence(content: bytes | None, tmp_path: Path) -> None:
    """Unless nothing was asked yet: then it is written anew."""
    claim(tmp_path, RUN)
    replace_run_file(tmp_path, content)
    claim(tmp_path, RUN)
    assert stored_run.read_run(tmp_path) == RUN
    keep(tmp_path, "a", VERDICT)
    replace_run_file(tmp_path, content)
    with pytest.raises(
        EvaluationError, match=r"run\.json is missing, empty or broken, .* another --out\."
    ):
        claim(tmp_path, RUN)
    with pytest.raises(EvaluationError, match=r"or its run\.json is broken"):
        stored_run.read_run(tmp_path)


def test_replay_leaves_a_broken_line_where_it_is(stored, settings, data, capsys) -> None:
    """The evaluation may still be running."""
    path = stored / "verdicts.jsonl"
    path.write_bytes(path.read_bytes()[:-30])
    before = path.read_bytes()
    replay([stored], settings, data)
    assert "1 of its lines are torn or garbled and left out" in capsys.readouterr().out
    assert path.read_bytes() == before


def test_replay_replaces_its_own_verdicts_alone(stored, settings, data, tmp_path) -> None:
    """Not what a gateway answered, nor what somebody else is writing."""
    out = tmp_path / "out"
    replay([stored], settings, data, out)
    made = (out / "weighed" / "verdicts.jsonl").read_bytes()
    replay([stored], settings, data, out)
    with FileLock(out / "weighed" / ".lock"), pytest.raises(EvaluationError, match="is writing to"):
        replay([stored], settings, data, out)
    assert (out / "weighed" / "verdicts.jsonl").read_bytes() == made

    gathered = (stored / "verdicts.jsonl").read_bytes()
    stored.rename(tmp_path / "weighed")
    with pytest.raises(EvaluationError, match=r"holds what a gateway answered, .* another --out"):
        replay([tmp_path / "weighed"], settings, data, tmp_path)
    assert (tmp_path / "weighed" / "verdicts.jsonl").read_bytes() == gathered


def test_a_run_that_goes_on_began_when_it_first_did(tmp_path: Path) -> None:
    begun = replace(RUN, begun="2026-01-02T03:04:05+00:00")
    assert claim(tmp_path, begun) == begun
    keep(tmp_path, "a", VERDICT)
    assert claim(tmp_path, replace(RUN, begun="2026-02-03T04:05:06+00:00")).begun == begun.begun


def test_only_one_writes_to_a_folder(tmp_path: Path) -> None:
    """A lock that somebody who was killed has left is no obstacle."""
    (tmp_path / ".lock").touch()
    with (
        alone_in(tmp_path),
        pytest.raises(EvaluationError, match="Another consilium evaluate is writing to"),
        alone_in(tmp_path),
    ):
        pass
    with alone_in(tmp_path):
        pass


def test_a_file_is_no_folder_to_write_to(tmp_path: Path) -> None:
    (tmp_path / "cases.csv").touch()
    with (
        pytest.raises(EvaluationError, match=r"cases\.csv cannot be written to .*another --out"),
        alone_in(tmp_path / "cases.csv"),
    ):
        pass


def test_a_second_evaluation_asks_nothing(fake: Callable[..., object], data, tmp_path) -> None:
    """Else every question would be asked twice."""
    from services.evaluation.asking.evaluate import evaluate

    gateway, out = fake(), tmp_path / "out"
    out.mkdir()
    with FileLock(out / ".lock"), pytest.raises(EvaluationError, match="Another consilium"):
        evaluate(
            dataset="slake",
            split="validate",
            language="en",
            out=out,
            data=data,
            gateway_url=gateway.url,
        )
    assert not gateway.requests


@pytest.mark.parametrize(
    "write",
    [
        lambda path, text: write_whole(path, text),
        lambda path, text: save_whole({text: torch.zeros(2)}, path),
    ],
    ids=["text", "tensors"],
)
def test_a_file_is_written_whole_or_not_at_all(
    write: Callable[[Path, str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was there before stays where the disk is full, and nothing else is left."""
    path = tmp_path / "summary"
    write(path, "before")
    kept = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match=rf"^{path} could not be written: No space left on device"):
        write(path, "after")
    assert path.read_bytes() == kept and list(tmp_path.iterdir()) == [path]
