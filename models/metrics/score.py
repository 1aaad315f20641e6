"""A score over cases, with its interval.

A scorer turns each case into a row of numbers that add up; from their sums it makes its score. So
means, corpus BLEU and calibration errors all get their interval in one way: questions share images,
so the bootstrap draws whole images.
"""

import functools
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 2_000
BLOCK = 100  # of them, whose draws are numbers at a time

Sums = NDArray[np.float64]


@dataclass(frozen=True)
class Score:
    """A score between 0 and 1 over so many cases, with its 95 % interval clustered by image (or by
    whatever else the clusters name, such as patients)."""

    value: float
    cases: int
    low: float
    high: float


def score(
    rows: ArrayLike, combine: Callable[[Sums], float], clusters: Sequence[Hashable], seed: int = 0
) -> Score:
    """`combine` of the summed rows, [cases, k] → [k]; `clusters` names each case's image.

    Raises:
        ValueError: nothing was scored, or there is not one cluster for each row.
    """
    table = np.asarray(rows, dtype=np.float64)
    if len(table) == 0 or len(table) != len(clusters):
        raise ValueError(f"{len(table)} scored answers in {len(clusters)} clusters have no score")
    numbers = {image: number for number, image in enumerate(dict.fromkeys(clusters))}
    sums = np.zeros((len(numbers), table.shape[1]))
    np.add.at(sums, [numbers[image] for image in clusters], table)
    # The sums of a block of resamples are one product.
    drawn = _times_drawn(len(numbers), RESAMPLES, seed)
    blocks = (drawn[start : start + BLOCK] @ sums for start in range(0, RESAMPLES, BLOCK))
    resampled = [combine(total) for block in blocks for total in block]
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Score(float(combine(table.sum(axis=0))), len(table), float(low), float(high))


@functools.lru_cache(maxsize=2)  # one group of questions is scored for voice after voice
def _times_drawn(images: int, resamples: int, seed: int) -> NDArray[np.uint8]:
    """How often each resample holds each image, [resamples, images]: once on average, so that a
    byte holds it."""
    random = np.random.default_rng(seed)
    times = np.empty((resamples, images), dtype=np.uint8)
    for resample in times:
        resample[:] = np.bincount(random.integers(images, size=images), minlength=images)
    return times


def mean(values: Sequence[float], clusters: Sequence[Hashable], seed: int = 0) -> Score:
    """The mean of one value per case, as a score."""
    return score([(value, 1.0) for value in values], _ratio, clusters, seed)


def _ratio(sums: Sums) -> float:
    return float(sums[0] / sums[1])
