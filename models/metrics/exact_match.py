"""Exact match: the share of answers that are the reference, but for case, blanks and a full stop.

A rate comes with its interval. Questions share images, so the bootstrap draws whole images.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2_000


def normalise(text: str) -> str:
    """Lower-cased, trimmed, without one final full stop."""
    text = text.lower().strip()
    return text[:-1].strip() if text.endswith((".", "。")) else text


def matches(answer: str, reference: str) -> bool:
    return normalise(answer) == normalise(reference)


@dataclass(frozen=True)
class Rate:
    """How many of the scored cases were right, with a 95 % interval clustered by image."""

    correct: int
    scored: int
    low: float
    high: float

    @property
    def accuracy(self) -> float:
        return self.correct / self.scored


def rate(hits: Sequence[bool], clusters: Sequence[str], seed: int = 0) -> Rate:
    """The rate of `hits`; `clusters` names each hit's image.

    Raises:
        ValueError: nothing was scored, or the two differ in length.
    """
    if not hits or len(hits) != len(clusters):
        raise ValueError(f"{len(hits)} scored answers in {len(clusters)} clusters have no rate")
    groups: dict[str, list[bool]] = {}
    for hit, cluster in zip(hits, clusters, strict=True):
        groups.setdefault(cluster, []).append(hit)
    right = np.array([sum(group) for group in groups.values()])
    total = np.array([len(group) for group in groups.values()])
    drawn = np.random.default_rng(seed).integers(len(groups), size=(RESAMPLES, len(groups)))
    accuracies = right[drawn].sum(axis=1) / total[drawn].sum(axis=1)
    low, high = np.quantile(accuracies, [0.025, 0.975])
    return Rate(sum(hits), len(hits), float(low), float(high))
