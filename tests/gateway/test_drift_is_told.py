"""Cases that are no longer like those of the calibration are told to be so, and others are not."""

import random

import pytest
from prometheus_client import CollectorRegistry, Gauge

from gateway.contract import Answer, AnswerError, Likeness, Summary, Verdict
from gateway.drift import WINDOW, Drift, excess
from gateway.verdict.competence import Calibrated, Competence, Likenesses

STEPS = tuple(n / 100 for n in range(101))
LIKE = Likenesses(image=STEPS, question=STEPS)
KNOWN = Competence(
    learned_from="",
    workers={},
    correlation={},
    verdict={},
    calibrated={"en": Calibrated(images=10_000, agreements=STEPS)},
    familiarity={"en": LIKE},
    tells=("memory",),
)


def verdict(
    image: float, question: float, agreement: float | None, manner: str = "slake"
) -> Verdict:
    likeness = Likeness(image=image, question=question, manner=manner)
    return Verdict(
        id="1",
        answer="yes",
        language="en",
        agreement=agreement,
        answers=(Answer(worker="memory", text="yes", seconds=1, likeness=likeness),),
        dissent=(),
        summary=Summary(by="vote", faithful=None, seconds=0),
        panel="0",
        seconds=1,
    )


@pytest.fixture
def gauge() -> Gauge:
    return Gauge("drift", "", ["language", "of"], registry=CollectorRegistry())


def ratios(gauge: Gauge) -> dict[str, float]:
    samples = gauge.collect()[0].samples
    return {each.labels["of"]: each.value for each in samples if each.labels["language"] == "en"}


def test_cases_such_as_the_calibrations_are_no_drift_but_for_one_window_in_a_hundred(gauge, caplog):
    """As often as is stated, and no oftener: 400 windows are looked at."""
    chance, drift = random.Random(0), Drift(gauge, KNOWN)
    for n in range(400 * WINDOW):
        drift.saw(verdict(chance.random(), chance.random(), chance.random()), n)
    assert 1 <= caplog.text.count("calibrate_anew") <= 10


@pytest.mark.parametrize("what", ["image", "question", "agreement"])
def test_more_of_the_odd_ones_than_there_were_is_drift(gauge, caplog, what):
    chance, drift = random.Random(0), Drift(gauge, KNOWN)
    for n in range(WINDOW):
        seen = {each: chance.random() for each in ("image", "question", "agreement")}
        seen[what] **= 2
        drift.saw(verdict(**seen), n)
    assert [of for of, ratio in ratios(gauge).items() if ratio > 1] == [what]
    assert caplog.text.count("calibrate_anew") == 1


def test_agreements_of_a_few_cases_of_ones_own_leave_the_images_drift_in_sight(gauge):
    """As after `calibrate --onto`: the likenesses are still those of the many."""
    of_own = KNOWN.calibrated["en"].model_copy(update={"agreed_images": 10})
    known = KNOWN.model_copy(update={"calibrated": {"en": of_own}})
    chance, drift = random.Random(0), Drift(gauge, known)
    for n in range(WINDOW):
        drift.saw(verdict(chance.random() ** 2, chance.random() ** 2, chance.random() ** 2), n)
    found = ratios(gauge)
    assert found["image"] > 1 and found["question"] > 1 > found["agreement"] > 0


def test_one_image_counts_once_and_what_nobody_tells_not_at_all(gauge):
    """Nor what a part of the panel answered."""
    drift = Drift(gauge, KNOWN)
    untold = verdict(0.0, 0.0, 0.0).model_copy(update={"answers": ()})
    for n in range(WINDOW - 1):
        drift.saw(verdict(0.0, 0.0, None), n)
        drift.saw(verdict(0.0, 0.0, None), 0)
        drift.saw(untold, -n)
        failed = Answer(worker="w", error=AnswerError(kind="timeout", detail=""), seconds=1)
        said = verdict(0.0, 0.0, 0.0)
        drift.saw(said.model_copy(update={"answers": (*said.answers, failed)}), -n)
    assert set(ratios(gauge).values()) == {0}
    drift.saw(verdict(0.0, 0.0, None), WINDOW)
    found = ratios(gauge)
    assert found["image"] > 1 and found["agreement"] == 0


def test_what_is_common_everywhere_is_no_excess():
    assert excess([1.0] * 10) == 0 and excess([]) == 0
    assert excess([0.1] * 10) == pytest.approx(0.9)


def test_another_mixture_of_known_manners_is_no_drift(gauge, caplog):
    """In the calibration one in two was of each; now all are of the one that is less like. Each is
    held to its own; of a manner that nobody calibrated in, to all of its language."""
    mixed = tuple(sorted((*(n / 200 for n in range(101)), *(0.5 + n / 200 for n in range(101)))))
    near, far = (
        Likenesses(image=tuple(low + n / 200 for n in range(101)), question=STEPS)
        for low in (0.5, 0.0)
    )
    known = KNOWN.model_copy(
        update={
            "calibrated": dict.fromkeys(("en", "en/@near", "en/@far"), KNOWN.calibrated["en"]),
            "familiarity": {
                "en": Likenesses(image=mixed, question=STEPS),
                "en/@near": near,
                "en/@far": far,
            },
        }
    )
    chance, drift = random.Random(0), Drift(gauge, known)
    for n in range(WINDOW):
        said = (chance.random() / 2, chance.random(), chance.random())
        drift.saw(verdict(*said, manner="far"), n)
    assert 0 < max(ratios(gauge).values()) < 1
    for n in range(WINDOW):
        said = (chance.random() / 2, chance.random(), chance.random())
        drift.saw(verdict(*said, manner="another"), n)
    assert ratios(gauge)["image"] > 1 and "calibrate_anew" in caplog.text
    for n in range(WINDOW):  # what drifted stays in sight
        drift.saw(verdict(0.5 + chance.random() / 2, 1.0, 1.0, manner="near"), n)
    assert ratios(gauge)["image"] > 1
