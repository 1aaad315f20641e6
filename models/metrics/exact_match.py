"""Exact match: the share of answers that are the reference.

Case, outer blanks and one final full stop do not count.
"""

from collections.abc import Hashable, Sequence

from models.metrics.score import Score, mean


def normalise(text: str) -> str:
    """Lower-cased, trimmed, without one final full stop."""
    text = text.lower().strip()
    return text[:-1].strip() if text.endswith((".", "。")) else text


def matches(answer: str, reference: str) -> bool:
    return normalise(answer) == normalise(reference)


def score(
    answers: Sequence[str], references: Sequence[str], clusters: Sequence[Hashable], seed: int = 0
) -> Score:
    """`clusters` names each case's image."""
    hits = [matches(*pair) for pair in zip(answers, references, strict=True)]
    return mean(hits, clusters, seed)
