"""What a confidence is worth: how often is right what was said so sure, and how much is wrong where
only the surest answers are given.

Whoever is sure is given as how sure it was of each answer, None where it claimed nothing, and which
of them were right.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

BINS = 8
FEWEST = 5  # percent of the answers: of fewer the surest tell nothing


def shared_among_ties(sure: Sequence[float | None], rights: Sequence[bool]) -> NDArray[np.float64]:
    """What part was right of those that were as sure, for each answer: which of them come first
    tells nothing, so nothing may depend on it."""
    _, group = np.unique(_ranks(sure), return_inverse=True)
    shares: NDArray[np.float64] = np.bincount(group, rights) / np.bincount(group)
    return shares[group]


def part_of_the_surest(sure: Sequence[float | None], share: float) -> NDArray[np.float64]:
    """How much of each answer is among so large a share of them: all of those that are surer than
    the last one in it, and as much of each that is as sure as that."""
    ranks, room = _ranks(sure), max(round(share * len(sure)), 1)
    last = np.sort(ranks)[-room]
    surer, as_sure = ranks > last, ranks == last
    part: NDArray[np.float64] = surer + as_sure * (room - surer.sum()) / as_sure.sum()
    return part


def _ranks(sure: Sequence[float | None]) -> NDArray[np.float64]:
    """What claimed nothing is below what claimed 0."""
    ranks: NDArray[np.float64] = np.nan_to_num(np.array(sure, dtype=float), nan=-1.0)
    return ranks


def reliability(sure: Sequence[float | None], rights: Sequence[bool]) -> list[dict[str, float]]:
    """The answers in bins of as many each, the least sure first: how many, how sure they were on
    average, and what part of them was right. What was claimed of none is in none."""
    told = np.array(sure, dtype=float)
    order = np.argsort(told, kind="stable")[: np.count_nonzero(~np.isnan(told))]  # nan comes last
    right = shared_among_ties(sure, rights)
    return [
        {
            "cases": len(part),
            "confidence": float(told[part].mean()),
            "right": float(right[part].mean()),
        }
        for part in np.array_split(order, min(BINS, len(order)))
    ]


def coverage(sure: Sequence[float | None], rights: Sequence[bool]) -> list[dict[str, float]]:
    """By the share of answers that are given, the surest first: what part of them is wrong. A point
    for each percent; those of which nothing was claimed come last."""
    surest_first = np.argsort(-np.array(sure, dtype=float), kind="stable")
    right = np.cumsum(shared_among_ties(sure, rights)[surest_first])
    given = sorted({-(-len(right) * percent // 100) for percent in range(FEWEST, 101)})
    return [{"answered": n / len(right), "wrong": float(1 - right[n - 1] / n)} for n in given]
