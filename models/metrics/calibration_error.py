"""Expected calibration error (Guo et al. 2017, section 2): how far confidence is from accuracy, in
bins of equal width, each weighted by how many answers fall into it.
"""

from collections.abc import Hashable, Sequence

import numpy as np

from models.metrics.score import Score, Sums
from models.metrics.score import score as clustered

BINS = 15


def score(
    confidences: Sequence[float], hits: Sequence[bool], clusters: Sequence[Hashable], seed: int = 0
) -> Score:
    """Of answers given with `confidences` from 0 to 1. Its bootstrap interval leans upwards: noise
    within a bin only ever adds to the error.

    Raises:
        ValueError: a confidence outside 0 to 1, or nothing to score.
    """
    sure = np.asarray(confidences, dtype=np.float64)
    if not ((sure >= 0) & (sure <= 1)).all():
        raise ValueError("a confidence must lie between 0 and 1")
    bins = np.clip(np.ceil(sure * BINS).astype(int) - 1, 0, None)  # (0, 1/15], (1/15, 2/15], …
    rows = (_row(*each) for each in zip(bins, sure, hits, strict=True))
    return clustered(rows, _combine, clusters, seed)


def _row(bin: int, confidence: float, hit: bool) -> Sums:
    row = np.zeros((3, BINS))
    row[:, bin] = 1, confidence, hit
    return row.ravel()


def _combine(sums: Sums) -> Sums:
    count, confidence, correct = sums.reshape(-1, 3, BINS).swapaxes(0, 1)
    errors: Sums = np.abs(confidence - correct).sum(-1) / count.sum(-1)
    return errors
