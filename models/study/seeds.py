"""How far a difference goes beyond what another seed of training would change of it."""

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from models.metrics.score import Score, mean

LEVEL = 0.975


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
    return Score(of_cases.value, of_cases.cases, float(low), float(high))


def holm(p_values: Sequence[float]) -> list[float]:
    """Each p-value as it stands among so many (Holm 1979)."""
    order = np.argsort(p_values)
    scaled = np.asarray(p_values)[order] * np.arange(len(order), 0, -1)
    found = np.empty(len(order))
    found[order] = np.minimum(np.maximum.accumulate(scaled), 1)
    return found.tolist()
