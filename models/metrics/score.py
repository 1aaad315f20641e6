"""A score over cases, with its interval.

A scorer turns each case into a row of numbers that add up; from their sums it makes its score. So
means, corpus BLEU and calibration errors all get their interval in one way: questions share images,
so the bootstrap draws whole images.
"""

import functools
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 2_000
BLOCK = 100  # of them, or of rows, are numbers at a time
# Of more images so many groups are drawn, made at random: the interval is as wide, to one part in a
# hundred, and its draws are 20 MB however many images there are.
MOST_DRAWN = 10_000

Sums = NDArray[np.float64]


@dataclass(frozen=True)
class Score:
    """A score between 0 and 1 over so many cases, with its 95 % interval clustered by image (or by
    whatever else the clusters name, such as patients)."""

    value: float
    cases: int
    low: float
    high: float
    images: int  # clusters: of one there is no interval


def score(
    rows: Iterable[ArrayLike],
    combine: Callable[[Sums], Sums],
    clusters: Sequence[Hashable],
    seed: int = 0,
) -> Score:
    """Rows [k], one for each case, are summed; `combine` makes a score of each row of sums, [n, k]
    → [n]. `clusters` names each case's image. Rows that come one by one are never in memory at
    once.

    Raises:
        ValueError: nothing was scored, or there is not one cluster for each row.
    """
    numbers = {image: number for number, image in enumerate(dict.fromkeys(clusters))}
    clustered = len(numbers)
    if clustered > MOST_DRAWN:
        shuffled = np.random.default_rng(seed).permutation(len(numbers))
        numbers = dict(zip(numbers, (shuffled % MOST_DRAWN).tolist(), strict=True))
    images, cases = min(len(numbers), MOST_DRAWN), 0
    sums = np.zeros((images, 0))
    ahead = iter(rows)
    while block := list(islice(ahead, BLOCK)):
        table = np.array(block, dtype=np.float64)
        if not cases:
            sums = np.zeros((images, table.shape[1]))
        of = [numbers[image] for image in clusters[cases : cases + BLOCK]]
        if len(of) == len(table):
            np.add.at(sums, of, table)
        cases += len(table)
    if not cases or cases != len(clusters):
        raise ValueError(f"{cases} scored answers in {len(clusters)} clusters have no score")
    # The sums of a block of resamples are one product.
    drawn = _times_drawn(images, RESAMPLES, seed)
    blocks = (drawn[start : start + BLOCK] @ sums for start in range(0, RESAMPLES, BLOCK))
    low, high = np.quantile(np.concatenate([combine(block) for block in blocks]), [0.025, 0.975])
    (value,) = combine(sums.sum(axis=0, keepdims=True))
    return Score(float(value), cases, float(low), float(high), clustered)


@functools.lru_cache(maxsize=2)  # one group of questions is scored for voice after voice
def _times_drawn(images: int, resamples: int, seed: int) -> NDArray[np.uint8]:
    """How often each resample holds each image, [resamples, images]: once on average, so that a
    byte holds it."""
    random = np.random.default_rng(seed)
    times = np.empty((resamples, images), dtype=np.uint8)
    for resample in times:
        resample[:] = np.bincount(random.integers(images, size=images), minlength=images)
    return times


def mean(
    values: Sequence[float],
    clusters: Sequence[Hashable],
    seed: int = 0,
    weights: Sequence[float] | None = None,
) -> Score:
    """The mean of one value per case, as a score; weights are 0 or more, and what has none is no
    case of it."""
    if weights is None:
        return score(((value, 1.0) for value in values), _ratio, clusters, seed)
    rows = [(v * w, w, c) for v, w, c in zip(values, weights, clusters, strict=True) if w > 0]
    return score((row[:2] for row in rows), _ratio, [cluster for _, _, cluster in rows], seed)


def _ratio(sums: Sums) -> Sums:
    ratios: Sums = sums[:, 0] / sums[:, 1]
    return ratios
