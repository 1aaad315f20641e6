"""Expected calibration error (Guo et al. 2017, section 2): how far confidence is from accuracy, in
bins of equal width, each weighted by how many answers fall into it.
"""

from collections.abc import Hashable, Iterator, Sequence

import numpy as np

from models.metrics.score import Score, Sums
from models.metrics.score import score as clustered

BINS = 15


Judged = tuple[Sequence[float], Sequence[bool]]  # confidences from 0 to 1, and which were right


def score(
    confidences: Sequence[float], hits: Sequence[bool], clusters: Sequence[Hashable], seed: int = 0
) -> Score:
    """Of answers given with `confidences` from 0 to 1. Its bootstrap interval leans upwards: noise
    within a bin only ever adds to the error.

    Raises:
        ValueError: a confidence outside 0 to 1, or nothing to score.
    """
    return clustered(_rows((confidences, hits)), _combine, clusters, seed)


def difference(
    pairs: Sequence[tuple[Judged, Judged]], clusters: Sequence[Hashable], seed: int = 0
) -> Score:
    """By how much the first of a pair has a larger error than the second, on average of the pairs;
    all of them answered the same cases, so one draw of the images is for all.

    Raises:
        ValueError: a confidence outside 0 to 1, or nothing to score.
    """
    every = [_rows(judged) for pair in pairs for judged in pair]

    def combine(sums: Sums) -> Sums:
        errors = [_combine(each) for each in np.split(sums, len(every), axis=1)]
        apart: Sums = np.mean(errors[0::2], axis=0) - np.mean(errors[1::2], axis=0)
        return apart

    return clustered(map(np.concatenate, zip(*every, strict=True)), combine, clusters, seed)


def _rows(judged: Judged) -> Iterator[Sums]:
    sure = np.asarray(judged[0], dtype=np.float64)
    if not ((sure >= 0) & (sure <= 1)).all():
        raise ValueError("a confidence must lie between 0 and 1")
    bins = np.clip(np.ceil(sure * BINS).astype(int) - 1, 0, None)  # (0, 1/15], (1/15, 2/15], …
    return (_row(*each) for each in zip(bins, sure, judged[1], strict=True))


def _row(bin: int, confidence: float, hit: bool) -> Sums:
    row = np.zeros((3, BINS))
    row[:, bin] = 1, confidence, hit
    return row.ravel()


def _combine(sums: Sums) -> Sums:
    count, confidence, correct = sums.reshape(-1, 3, BINS).swapaxes(0, 1)
    errors: Sums = np.abs(confidence - correct).sum(-1) / count.sum(-1)
    return errors
