"""calibrate and replay, on stored answers of workers whose habits we know."""

import json
from dataclasses import replace

import pytest
from PIL import Image

from gateway.verdict.competence import Cell
from gateway.verdict.grey_answers import load_grey_answers, save_grey_answers
from models.metrics.score import mean
from services.evaluation.confidence import coverage, part_of_the_surest, reliability
from services.evaluation.heard import hear
from services.evaluation.learning.fit import _correlations, calibrate, cross_fitted
from services.evaluation.learning.grey import grey_answers
from services.evaluation.replay import replay
from services.evaluation.stored_run import EvaluationError, Run, claim
from tests.services.conftest import EACH, IMAGES, PLACE, YES_NO


def test_it_learns_who_knows_what(stored, settings, data):
    learned = calibrate([stored], settings, data)
    yes_no, place = Cell("en", "yes_no", None), Cell("en", "place", None)

    def believed(worker: str, cell: Cell) -> float:
        return learned.believed(worker, 0.75, cell)

    assert believed("w0", yes_no) > 0.8 > 0.5 > believed("w0", place)
    assert believed("w1", place) > 0.8 > 0.65 > believed("w1", yes_no)
    # Said as well where it was never asked: mostly what it is in general.
    assert believed("w1", Cell("es", "count", "xray")) == pytest.approx(0.7, abs=0.08)
    assert learned.workers["w0"].skills["en/place"].accuracy == pytest.approx(0.3, abs=0.1)
    assert learned.workers["w0"].skills["en/place/ct"].cases == IMAGES * EACH / 4
    assert learned.learned_from == f"slake validate en, {IMAGES * EACH} questions"


def test_it_finds_out_who_errs_together(stored, settings, data):
    assert calibrate([stored], settings, data).correlation == {"mock": 1.0}


def test_who_is_always_right_hides_nobody_who_errs_together(stored, settings, data):
    """Of three of one family, w1 makes no error that could go with another's."""
    cases, _ = hear([stored], data)
    alike = [worker.model_copy(update={"family": "mock"}) for worker in settings.workers]
    family = settings.model_copy(update={"workers": tuple(alike)})
    cases = [
        replace(
            case,
            answers=tuple(
                a.model_copy(update={"text": case.example.answer}) if a.worker == "w1" else a
                for a in case.answers
            ),
        )
        for case in cases
    ]
    assert _correlations(cases, family) == {"mock": 1.0}


def test_the_verdict_is_as_often_right_as_it_says(stored, settings, data):
    """Judged on images that were left out, by bins of its confidence."""
    cases, _ = hear([stored], data)
    line = calibrate([stored], settings, data).verdict["en"]
    told = sorted(
        (line(opinion.winner.share), opinion.winner.text == case.example.answer)
        for case, opinion in zip(cases, cross_fitted(cases, settings), strict=True)
    )
    for part in (told[: len(told) // 2], told[len(told) // 2 :]):
        sure = sum(confidence for confidence, _ in part) / len(part)
        assert sum(right for _, right in part) / len(part) == pytest.approx(sure, abs=0.08)


def with_likenesses(stored, tell) -> None:
    """`tell` gives each worker's likeness, if any, by worker and the number of the question."""
    path = stored / "verdicts.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    for number, record in enumerate(records):
        for answer in record["verdict"]["answers"]:
            answer["likeness"] = tell(answer["worker"], number)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def test_of_a_manner_in_which_few_are_asked_nothing_is_learned(stored, settings, data):
    """Three questions that are put as another set puts its own say nothing of that set: no line, no
    voice, no bound to the familiar. All three have the same answer, right or wrong."""

    def tell(worker: str, number: int) -> dict[str, object] | None:
        manner = "rare" if number in (1, 3, 5) else "slake"
        return {"image": 0.9, "question": 0.9, "manner": manner} if worker == "w1" else None

    with_likenesses(stored, tell)
    learned = calibrate([stored], settings, data)

    assert learned.verdict.keys() == learned.familiarity.keys() == {"en", "en/@slake"}
    assert learned.voices.keys() == {"en", "en/@slake"}
    assert not any("@rare" in name for name in learned.workers["w0"].skills)


def test_one_worker_tells_what_is_familiar(stored, settings, data):
    """Of two that do, whose likenesses are on scales of their own, the one that tells more."""

    def tell(worker: str, number: int) -> dict[str, object] | None:
        image = {"w0": 0.1, "w1": 0.9}.get(worker)
        if image is None or (worker == "w0" and number == 0):
            return None
        return {"image": image, "question": 0.9, "manner": "slake"}

    with_likenesses(stored, tell)
    learned = calibrate([stored], settings, data)

    assert learned.tells == ("w1",)
    assert set(learned.familiarity["en"].image) == {0.9}


def test_policies_are_compared_on_the_same_answers(stored, settings, data, tmp_path, capsys):
    learned = calibrate([stored], settings, data).model_copy(update={"images": ()})
    seated = settings.model_copy(update={"competence": learned})  # as if from other images
    summary = replay([stored], seated, data, tmp_path / "pictures", cross_fit=True)
    right = {name: each["accuracy"]["value"] for name, each in summary["policies"].items()}
    assert right["vote"] == right["w0"] == right["w2"]  # the twins outvote w1
    assert right["panel"] > right["vote"] + 0.1 and right["panel"] > right["w1"]
    assert right["cross-fitted"] == pytest.approx(right["panel"], abs=0.05)
    assert right["any worker"] >= max(right.values())
    best = summary["best_worker"]
    assert summary["policies"][best]["over_best_worker"]["value"] == 0
    error = {name: each["calibration_error"] for name, each in summary["policies"].items()}
    assert error["vote"] is None
    assert error["panel"]["value"] < 0.1 < error["confidence"]["value"]
    found = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    pictures = ["agreement.png", "coverage.png", "policies.png", "reliability.png"]
    assert found == sorted([*pictures, "replay.json", "weighed"])
    for name in pictures:
        with Image.open(tmp_path / "pictures" / name) as picture:
            assert picture.width > 400 and len(set(picture.convert("L").getdata())) > 10
    printed = capsys.readouterr().out
    assert "over " + best in printed and "nan" not in printed
    (vote,) = [line for line in printed.splitlines() if line.startswith("vote")]
    assert vote.split()[-4:] == ["–"] * 4 and "\n–: it does not say" in printed


def test_what_was_learned_is_not_scored_on_the_images_it_was_learned_from(stored, settings, data):
    learned = calibrate([stored], settings, data)
    seated = settings.model_copy(update={"competence": learned})
    with pytest.raises(
        EvaluationError, match=r"(\d+) of these \1 cases show images .* --cross-fit"
    ):
        replay([stored], seated, data)
    summary = replay([stored], seated, data, cross_fit=True)
    assert "panel" not in summary["policies"] and not summary["sets"]
    assert summary["policies"]["cross-fitted"]["accuracy"]["value"] > 0


def test_without_a_competence_file_there_is_only_the_vote(stored, settings, data):
    assert "panel" not in replay([stored], settings, data)["policies"]


@pytest.mark.parametrize("program", [calibrate, replay])
def test_a_run_of_another_panel_is_told_how_to_name_it(program, stored, settings, data):
    """Its verdicts cannot be weighed by seats that nobody knows."""
    elsewhere = settings.model_copy(update={"workers": settings.workers[:1]})
    with pytest.raises(EvaluationError, match=r"are of w1, w2 too, and .* w0 only; .* --panel"):
        program([stored], elsewhere, data)


def test_what_was_said_over_grey_is_told_again(stored, settings, data, tmp_path):
    """As it was said last, to three digits; from a run of blank images alone."""
    with pytest.raises(EvaluationError, match="not grey; take a --blank-images run"):
        grey_answers([stored], settings, data)
    run = json.loads((stored / "run.json").read_text())
    run |= {"blank_images": True, "models": {"w0": "0123"}}
    (stored / "run.json").write_text(json.dumps(run))
    record = json.loads((stored / "verdicts.jsonl").read_text().splitlines()[-1])
    answer = record["verdict"]["answers"][0]
    answer |= {"text": "Middle", "confidence": 0.70049}
    keys = ("begins", "whole", "probability")
    others = [("Left", True, 0.15), ("Right", False, 0.02), ("x", True, 0.01999)]
    answer["alternatives"] = [dict(zip(keys, o, strict=True)) for o in others]
    with (stored / "verdicts.jsonl").open("a") as file:
        file.write(json.dumps(record) + "\n")

    save_grey_answers(grey_answers([stored], settings, data), tmp_path / "grey.json")

    found = load_grey_answers(tmp_path / "grey.json")
    assert found.answers["en"].keys() == {YES_NO, PLACE}
    told = found.answers["en"][PLACE]["w0"]
    assert told == ("Middle", 0.7, (("Left", True, 0.15), ("Right", False, 0.02)))
    assert {name: each.weights for name, each in found.workers.items()} == {
        "w0": "0123",
        "w1": None,
        "w2": None,
    }


def test_runs_that_teach_nothing_are_refused(stored, settings, data, tmp_path):
    with pytest.raises(EvaluationError, match="holds no evaluation of this version"):
        calibrate([tmp_path / "none"], settings, data)
    few = (stored / "verdicts.jsonl").read_text().splitlines(keepends=True)[:20]
    (stored / "verdicts.jsonl").write_text("".join(few))
    with pytest.raises(EvaluationError, match="20 answers of w0 with a confidence; at least 50"):
        calibrate([stored], settings, data)
    shuffled = tmp_path / "shuffled"
    claim(shuffled, Run("slake", "validate", "en", 0, False, None, "never", "hash", {}))
    with pytest.raises(EvaluationError, match="its images were changed"):
        calibrate([shuffled], settings, data)
    with pytest.raises(EvaluationError, match="nobody has answered"):
        replay([shuffled], settings, data)
    with pytest.raises(EvaluationError, match="shuffled is no part of the same evaluation"):
        replay([stored, shuffled], settings, data)


def test_who_is_right_in_all_of_a_part_is_named(stored, settings, data):
    """And only one of its answers is wrong."""
    path = stored / "verdicts.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    for number, record in enumerate(records):
        (answer,) = [a for a in record["verdict"]["answers"] if a["worker"] == "w1"]
        answer["text"] = "Left" if number % 2 else "Yes" if number else "No"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    with pytest.raises(EvaluationError, match="In a part of the images every answer of w1 is"):
        calibrate([stored], settings, data)


@pytest.mark.parametrize("images", [4, 5])
def test_so_few_images_are_told(images, stored, settings, data):
    """Of five, four are left to learn from where one is left out."""
    asked = data / "slake" / "validate.json"
    rows = json.loads(asked.read_text())
    for row in rows:
        row["img_name"] = f"xmlab{row['qid'] % images}/source.jpg"
    asked.write_text(json.dumps(rows))
    with pytest.raises(EvaluationError, match="about 4 images or patients; at least 5"):
        replay([stored], settings, data, cross_fit=True)


def test_a_question_counts_once(stored, settings, data):
    says = f"answer the same questions, {IMAGES * EACH} of them: give one of the two"
    for program in (calibrate, replay):
        with pytest.raises(EvaluationError, match=says):
            program([stored, stored], settings, data)


def test_the_surest_do_not_depend_on_the_order_of_rows():
    sure, rights = [0.9, 0.9, 0.9, None], [True, False, True, False]
    for order in ([0, 1, 2, 3], [3, 1, 0, 2]):
        given = [sure[n] for n in order], [rights[n] for n in order]
        assert [round(each["wrong"], 9) for each in coverage(*given)] == [
            0.333333333, 0.333333333, 0.333333333, 0.5,
        ]  # fmt: skip
        assert [each["right"] for each in reliability(*given)] == [pytest.approx(2 / 3)] * 3
        part = part_of_the_surest(given[0], 0.5)
        assert sorted(part) == [0, *[pytest.approx(2 / 3)] * 3]
    tied = mean([True, False] * 8, range(16), weights=[0.5] * 16)
    assert tied.value == 0.5 and tied.low < 0.4 and tied.high > 0.6


def test_who_is_silent_in_some_cases_is_as_loud_in_the_others(stored, settings, data):
    """A worker joined half-way, or was away: nothing is learned from its silence."""
    before = calibrate([stored], settings, data).voices["en"]
    path = stored / "verdicts.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    for record in records[: len(records) // 2]:
        answers = record["verdict"]["answers"]
        record["verdict"]["answers"] = [each for each in answers if each["worker"] != "w1"]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))

    after = calibrate([stored], settings, data).voices["en"]
    # Half the cases prove half as much: nearer to equal, and no quieter than that.
    assert 1.1 < after["w1"] / after["w0"] <= before["w1"] / before["w0"]
