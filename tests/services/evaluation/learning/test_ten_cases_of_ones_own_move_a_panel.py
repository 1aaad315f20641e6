"""`calibrate --onto`: a handful of cases moves what is known of a panel a little, many move it."""

import errno
import json

import pytest
from typer.testing import CliRunner

from gateway.verdict.competence import Cell, load_competence, save_competence
from services.cli.__main__ import app
from services.evaluation.learning.fit import calibrate
from services.evaluation.learning.own_cases import FEWEST, _shift, calibrate_onto
from services.evaluation.stored_run import EvaluationError

CELL = Cell("en", "yes_no", None)


@pytest.fixture(scope="module")
def learned():
    return []


@pytest.fixture
def known(learned, stored, settings, data):
    """What the whole stored run teaches, which is the same one in every test: learned once, and
    as if from other images than those that the tests give again."""
    if not learned:
        learned.append(calibrate([stored], settings, data).model_copy(update={"images": ()}))
    return learned[0].model_copy(deep=True)


def cut(stored, cases: int, every: int = 1):
    """The first so many of a stored run, or of every second; every worker's and the panel's answers
    made wrong."""
    path = stored / "verdicts.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()][::every][:cases]
    for record in records:
        for answer in record["verdict"]["answers"]:
            answer["text"] = "nothing of the kind"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return stored


def test_the_more_cases_the_more_it_moves_and_the_surer_it_is(known, stored, settings, data):
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
    assert few.high > 0.4  # ten wrong ones of ten are no proof


def test_ten_of_one_kind_say_nothing_of_another(known, stored, settings, data):
    """Whoever is never right is never named, so no set of them is claimed to hold it; what places
    have stays, in every manner, and so does what is held to likenesses."""
    shares = known.right_shares
    shares |= {"en/@slake": shares["en"], "en/@slake/place": shares["en/place"]}

    moved, _ = calibrate_onto(known, [cut(stored, FEWEST, every=2)], settings, data)

    assert shares["en/yes_no"][-1] > 0
    of_own = {"en/yes_no", "en/@slake/yes_no"}
    assert all(moved.right_shares[name][-1] == 0 for name in of_own)
    others = {name: each for name, each in shares.items() if "yes_no" not in name}
    assert {"en", "en/place", "en/place/ct"} < others.keys() and "en/yes_no/ct" in shares
    assert moved.right_shares == others | {n: moved.right_shares[n] for n in of_own}
    then, now = known.calibrated["en"], moved.calibrated["en"]
    assert (then.images, then.agreed_images) == (60, None)
    assert (now.images, now.agreed_images) == (60, 3)


def test_fewer_of_every_kind_leave_the_sets_as_they_are(known, stored, settings, data):
    moved, _ = calibrate_onto(known, [cut(stored, FEWEST)], settings, data)
    assert moved.right_shares == known.right_shares


def test_cases_as_they_were_expected_move_nothing_to_speak_of(known, stored, settings, data):
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


def test_a_seat_that_is_not_known_begins_as_a_newcomer(known, stored, settings, data):
    without = known.model_copy(update={"workers": {"w1": known.workers["w1"]}})
    assert (prior := without.believed("w0", 0.9, CELL)) == without.believed("w0", None, CELL)
    moved, _ = calibrate_onto(without, [cut(stored, FEWEST)], settings, data)
    assert moved.believed("w0", 0.9, CELL) == moved.believed("w0", 0.1, CELL) < prior
    assert moved.workers["w0"].skills["en"].cases == FEWEST
    path = stored / "verdicts.jsonl"
    path.write_text("".join(f"{line}\n" for line in reversed(path.read_text().splitlines())))
    again, _ = calibrate_onto(without, [stored], settings, data)
    assert again.workers["w0"] == moved.workers["w0"]  # in whatever order the cases come


def test_no_case_moves_a_panel_twice(known, stored, settings, data):
    """It would count twice: for whoever gives ten cases, and later these and ten more."""
    moved, _ = calibrate_onto(known, [cut(stored, FEWEST)], settings, data)
    with pytest.raises(EvaluationError, match="10 of these 10 cases show images that the file"):
        calibrate_onto(moved, [stored], settings, data)


def test_too_few_and_another_language_are_refused(known, stored, settings, data):
    with pytest.raises(EvaluationError, match="nothing of verdicts in en"):
        calibrate_onto(known.model_copy(update={"verdict": {}}), [stored], settings, data)
    with pytest.raises(EvaluationError, match="9 cases in en; at least 10"):
        calibrate_onto(known, [cut(stored, FEWEST - 1)], settings, data)


def test_a_file_is_replaced_whole_or_not_at_all(
    known, stored, settings, data, tmp_path, monkeypatch
):
    """The one that a gateway reads may be the one that is written anew."""
    own = tmp_path / "own.json"
    save_competence(known, own)
    before = own.read_bytes()

    def fill_the_disk(competence, path):
        path.write_text("{")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("gateway.verdict.competence.save_competence", fill_the_disk)
    words = ["calibrate", str(stored), "--onto", str(own), "--out", str(own)]
    result = CliRunner().invoke(app, [*words, "--data", str(data), "--panel", str(settings.file)])

    assert result.exit_code == 1 and "own.json could not be written: No space" in result.output
    assert own.read_bytes() == before and list(tmp_path.glob(".own*")) == []


def test_the_command_tells_what_it_moved(known, stored, settings, data, tmp_path):
    before, own = tmp_path / "known.json", tmp_path / "own.json"
    save_competence(known, before)
    words = ["calibrate", str(cut(stored, FEWEST)), "--onto", str(before), "--out", str(own)]
    result = CliRunner().invoke(app, [*words, "--data", str(data), "--panel", str(settings.file)])

    assert result.exit_code == 0, result.output
    assert "verdict in en: 0 of 10 right; expected" in result.output
    moved = load_competence(own)
    assert moved.verdict["en"].offset < known.verdict["en"].offset
