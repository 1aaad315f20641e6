"""What another seed of training may change: how far a difference goes beyond it."""

from collections.abc import Hashable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from models.metrics.score import Score, mean

LEVEL = 0.975  # of each side of a 95 % interval


def over_seeds(values: NDArray[np.floating], clusters: Sequence[Hashable]) -> Score:
    """The mean of values [seeds, cases], with a 95 % interval that knows of both: the cases' own
    error, as whole `clusters` are drawn, and the seeds', by Student's t of so few, are added as
    independent errors are.
    """
    of_cases = mean(values.mean(axis=0).tolist(), clusters)
    seeds = len(values)
    apart = values.mean(axis=1).std(ddof=1) / np.sqrt(seeds) * stats.t.ppf(LEVEL, seeds - 1)
    low = of_cases.value - np.hypot(of_cases.value - of_cases.low, apart)
    high = of_cases.value + np.hypot(of_cases.high - of_cases.value, apart)
    return Score(of_cases.value, of_cases.cases, float(low), float(high), of_cases.images)


def pooled(groups: Iterable[Sequence[float]]) -> tuple[float, int]:
    """By how much a seed moves a score, where each group differs in nothing else: the standard
    deviation, and its degrees of freedom, 0 where no group has two.
    """
    several = [np.asarray(group) for group in groups if len(group) > 1]
    freedom = sum(len(group) - 1 for group in several)
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in several)
    return (squares / freedom) ** 0.5 if freedom else 0.0, freedom


def chances(
    differences: Sequence[tuple[Score, int]], deviation: float, freedom: int
) -> list[float]:
    """For each difference of two means over so many seeds each: how likely one so large would come
    of the seeds, which move a score by `deviation`, and of the cases, among so many differences
    (Holm 1979). Two-sided, by Student's t.
    """
    found = np.empty(len(differences))
    for place, (difference, seeds) in enumerate(differences):
        of_cases = (difference.high - difference.low) / 2 / stats.norm.ppf(LEVEL)
        error = np.hypot(of_cases, deviation * np.sqrt(2 / seeds))
        found[place] = 2 * stats.t.sf(abs(difference.value) / max(error, 1e-12), freedom)
    order = np.argsort(found)
    scaled = found[order] * np.arange(len(order), 0, -1)
    found[order] = np.minimum(np.maximum.accumulate(scaled), 1)
    return found.tolist()
