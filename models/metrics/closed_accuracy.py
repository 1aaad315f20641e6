"""Closed accuracy: the share of closed questions whose answer is the reference.

Where the reference is yes or no, the answer may be a sentence: what counts is its one word of the
two, and saying both is saying neither. Every other closed answer is held to exact match. Every
question counts. LLaVA-Med's score of the same name (`llava_med.closed_accuracy`) differs in all.
"""

import re
from collections.abc import Hashable, Sequence

from models.metrics import exact_match
from models.metrics.score import Score, mean

_YES_OR_NO = re.compile(r"\b(yes|no)\b")  # words of their own: "abnormal" says nothing


def matches(answer: str, reference: str) -> bool:
    wanted = exact_match.normalise(reference)
    if wanted in ("yes", "no"):
        return set(_YES_OR_NO.findall(answer.lower())) == {wanted}
    return exact_match.matches(answer, reference)


def score(
    answers: Sequence[str], references: Sequence[str], clusters: Sequence[Hashable], seed: int = 0
) -> Score:
    """Over closed questions; `clusters` names each one's image."""
    hits = [matches(*pair) for pair in zip(answers, references, strict=True)]
    return mean(hits, clusters, seed)
