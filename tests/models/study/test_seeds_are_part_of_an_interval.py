"""A difference is told from chance by cases and by seeds of training, not by either alone."""

import numpy as np
import pytest

from models.metrics.score import Score, mean
from models.study.seeds import chances, over_seeds, pooled

CASES = list(range(200))
RANDOM = np.random.default_rng(0)


def test_seeds_that_agree_leave_the_cases_own_interval() -> None:
    of_cases = RANDOM.normal(size=200)

    found = over_seeds(np.stack([of_cases] * 3), CASES)

    alone = mean(of_cases.tolist(), CASES)
    assert (found.low, found.high) == pytest.approx((alone.low, alone.high))


def test_seeds_that_disagree_widen_it_by_student_s_t() -> None:
    """Of cases that leave no doubt: seeds at -1, 0 and 1 have a mean of 0 +- 4.303 / sqrt 3."""
    found = over_seeds(np.array([[-1.0], [0.0], [1.0]]) * np.ones(200), CASES)

    assert found.value == 0
    assert (found.low, found.high) == pytest.approx((-2.484, 2.484), abs=0.001)


def test_what_a_seed_moves_is_pooled_over_what_differs_in_nothing_else() -> None:
    assert pooled([(0, 2), (10, 12), (5,)]) == (pytest.approx(2**0.5), 2)
    assert pooled([(1,), (2,)]) == (0, 0)


def sure(value: float) -> Score:
    return Score(value, 200, value, value, 200)


def test_a_difference_within_what_seeds_do_is_no_finding() -> None:
    """Two seeds each that move by 2.24 points: 4 points are 1.8 errors, 10.4 are 4.6."""
    small, large = chances([(sure(0.04), 2), (sure(0.104), 2)], 0.0224, 20)

    assert small > 0.05 > 0.001 > large


def test_among_many_comparisons_each_must_be_further_off() -> None:
    alone = chances([(sure(0.06), 2)], 0.0224, 20)[0]

    many = chances([(sure(0.06), 2), *[(sure(0.0), 2)] * 9], 0.0224, 20)

    assert many == pytest.approx([10 * alone, *[1.0] * 9])
