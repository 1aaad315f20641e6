"""`calibrate --onto`: a handful of cases moves what is known of a panel a little, many move it."""

import json

import pytest
from typer.testing import CliRunner

from gateway.verdict.competence import Cell, load_competence, save_competence
from services.cli.__main__ import app
from services.evaluation.learning.fit import calibrate
from services.evaluation.learning.own_cases import FEWEST, _shift, calibrate_onto
from services.evaluation.stored_run import EvaluationError

CELL = Cell("en", "yes_no", None)


def cut(stored, cases: int):
    """The first so many of a stored run; every worker's and the panel's answers made wrong."""
    path = stored / "verdicts.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()][:cases]
    for record in records:
        for answer in record["verdict"]["answers"]:
            answer["text"] = "nothing of the kind"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return stored


def test_the_more_cases_the_more_it_moves_and_the_surer_it_is(stored, settings, data):
    known = calibrate([stored], settings, data)
    found = []
    for cases in (300, FEWEST):
        moved, shifts = calibrate_onto(known, [cut(stored, cases)], settings, data)
        verdict = shifts[-1]
        assert [shift.who for shift in shifts] == ["w0", "w1", "w2", "verdict"]
        assert (verdict.cases, verdict.right) == (cases, 0)
        assert verdict.low < verdict.after < verdict.high and verdict.after < verdict.before
        was, now = (each.workers["w0"].skill(CELL) for each in (known, moved))
        assert now.offset == pytest.approx(was.offset + shifts[0].by, abs=1e-3)
        assert now.accuracy < was.accuracy
        assert moved.workers["w0"].skills[""] == known.workers["w0"].skills[""]
        assert moved.verdict["en"].slope == known.verdict["en"].slope
        assert moved.learned_from.startswith(known.learned_from)
        found.append(verdict)
    many, few = found
    assert many.by < few.by < 0 and many.high - many.low < few.high - few.low
    # Whoever is never right is never named: no set is claimed to hold it.
    assert known.right_shares["en"][-1] > 0 == moved.right_shares["en"][-1]
    assert {name for name in moved.right_shares if name.startswith("en")} == {"en"}
    assert few.high > 0.4  # ten wrong ones of ten are no proof


def test_cases_as_they_were_expected_move_nothing_to_speak_of(stored, settings, data):
    known = calibrate([stored], settings, data)
    _, shifts = calibrate_onto(known, [stored], settings, data)
    assert all(abs(shift.after - shift.before) < 0.03 for shift in shifts)


@pytest.mark.parametrize("chance", [0.97, 0.5, 0.03])
@pytest.mark.parametrize("right", [0, 0.1, 0.5, 0.9, 1])
@pytest.mark.parametrize("cases", [FEWEST, 1000])
def test_what_comes_is_between_what_was_expected_and_what_was_found(chance, right, cases):
    """However far these are apart; of many cases it is what was found."""
    found = [n < right * cases for n in range(cases)]
    shift = _shift("w0", "en", [chance] * cases, found)
    low, high = sorted((chance, right))
    assert low <= shift.after <= high and shift.low <= shift.after <= shift.high
    assert cases == FEWEST or shift.after == pytest.approx(right, abs=0.02)


def test_a_seat_that_is_not_known_begins_as_a_newcomer(stored, settings, data):
    known = calibrate([stored], settings, data)
    without = known.model_copy(update={"workers": {"w1": known.workers["w1"]}})
    assert (prior := without.believed("w0", 0.9, CELL)) == without.believed("w0", None, CELL)
    moved, _ = calibrate_onto(without, [cut(stored, FEWEST)], settings, data)
    assert moved.believed("w0", 0.9, CELL) == moved.believed("w0", 0.1, CELL) < prior
    assert moved.workers["w0"].skills["en"].cases == FEWEST
    path = stored / "verdicts.jsonl"
    path.write_text("".join(f"{line}\n" for line in reversed(path.read_text().splitlines())))
    again, _ = calibrate_onto(without, [stored], settings, data)
    assert again.workers["w0"] == moved.workers["w0"]  # in whatever order the cases come


def test_too_few_and_another_language_are_refused(stored, settings, data):
    known = calibrate([stored], settings, data)
    with pytest.raises(EvaluationError, match="nothing of verdicts in en"):
        calibrate_onto(known.model_copy(update={"verdict": {}}), [stored], settings, data)
    with pytest.raises(EvaluationError, match="9 cases in en; at least 10"):
        calibrate_onto(known, [cut(stored, FEWEST - 1)], settings, data)


def test_the_command_tells_what_it_moved(stored, settings, data, tmp_path):
    known, own = tmp_path / "known.json", tmp_path / "own.json"
    save_competence(calibrate([stored], settings, data), known)
    words = ["calibrate", str(cut(stored, FEWEST)), "--onto", str(known), "--out", str(own)]
    result = CliRunner().invoke(app, [*words, "--data", str(data), "--panel", str(settings.file)])

    assert result.exit_code == 0, result.output
    assert "verdict in en: 0 of 10 right; expected" in result.output
    moved = load_competence(own)
    assert moved.verdict["en"].offset < load_competence(known).verdict["en"].offset
