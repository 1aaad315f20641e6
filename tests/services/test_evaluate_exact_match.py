"""The scorer: what counts as the same answer, and how sure a rate is."""

import pytest

from models.metrics.exact_match import matches, rate


@pytest.mark.parametrize(
    "answer", ["Left Lung", " left lung ", "left lung.", "LEFT LUNG。", "left lung ."]
)
def test_case_blanks_and_a_final_full_stop_do_not_count(answer):
    assert matches(answer, "Left lung")


@pytest.mark.parametrize("answer", ["left", "the left lung", "left lung..", "lung left", ""])
def test_anything_else_counts(answer):
    assert not matches(answer, "left lung")


def test_an_interval_draws_whole_images():
    """Ten questions on one image are not ten independent ones."""
    hits = [True] * 10 + [False] * 10
    apart = rate(hits, [str(n) for n in range(20)])
    together = rate(hits, ["a"] * 10 + ["b"] * 10)
    assert apart.accuracy == together.accuracy == 0.5
    assert (together.low, together.high) == (0, 1)
    assert 0 < apart.low < 0.5 < apart.high < 1


def test_a_rate_of_nothing_is_an_error():
    """A dead run must not look like a bad model."""
    with pytest.raises(ValueError, match="0 scored answers"):
        rate([], [])
