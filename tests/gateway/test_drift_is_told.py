"""Cases that are no longer like those of the calibration are told to be so, and others are not."""

import random

import pytest
from prometheus_client import CollectorRegistry, Gauge

from gateway.contract import Answer, AnswerError, Familiarity, Summary, Verdict
from gateway.drift import WINDOW, Drift, excess
from gateway.verdict.competence import Calibrated

KNOWN = {"en": Calibrated(images=10_000, agreements=tuple(n / 100 for n in range(101)))}


def verdict(image: float, question: float, agreement: float | None) -> Verdict:
    return Verdict(
        id="1",
        answer="yes",
        language="en",
        agreement=agreement,
        familiarity=Familiarity(image=image, question=question, unfamiliar=False),
        answers=(),
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
    known = {"en": KNOWN["en"].model_copy(update={"agreed_images": 10})}
    chance, drift = random.Random(0), Drift(gauge, known)
    for n in range(WINDOW):
        drift.saw(verdict(chance.random() ** 2, chance.random() ** 2, chance.random() ** 2), n)
    found = ratios(gauge)
    assert found["image"] > 1 and found["question"] > 1 > found["agreement"] > 0


def test_one_image_counts_once_and_what_nobody_tells_not_at_all(gauge):
    """Nor what a part of the panel answered."""
    drift = Drift(gauge, KNOWN)
    untold = verdict(0.0, 0.0, 0.0).model_copy(update={"familiarity": None})
    for n in range(WINDOW - 1):
        drift.saw(verdict(0.0, 0.0, None), n)
        drift.saw(verdict(0.0, 0.0, None), 0)
        drift.saw(untold, -n)
        failed = Answer(worker="w", error=AnswerError(kind="timeout", detail=""), seconds=1)
        drift.saw(verdict(0.0, 0.0, 0.0).model_copy(update={"answers": (failed,)}), -n)
    assert set(ratios(gauge).values()) == {0}
    drift.saw(verdict(0.0, 0.0, None), WINDOW)
    found = ratios(gauge)
    assert found["image"] > 1 and found["agreement"] == 0


def test_what_is_common_everywhere_is_no_excess():
    assert excess([1.0] * 10) == 0 and excess([]) == 0
    assert excess([0.1] * 10) == pytest.approx(0.9)
