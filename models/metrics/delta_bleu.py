"""deltaBLEU (Galley et al. 2015): BLEU against several references, each with a weight.

An n-gram that matches counts for the best weight among the references that have it; one in the
answer could have counted for the best weight of all. `score` is as MEDIQA-M3G (Yim et al. 2024)
means it: lower-cased, effective order. `official` is what its script says, bug for bug. The script
also compares the references' ids with themselves, so a shuffled submission scores silently; here
ids must be the same.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a
from sacrebleu.tokenizers.tokenizer_zh import TokenizerZh

from models.metrics import bleu
from models.metrics.score import Score, Sums
from models.metrics.score import score as clustered

ORDER = 4


@dataclass(frozen=True)
class Reference:
    text: str
    weight: float = 1.0


def weight(*, validated: bool, rank: int, frequent: bool, complete: bool) -> float:
    """MEDIQA-M3G's weight of a reference: 0.6, and 0.1 for each thing that speaks for it.

    `validated`: its author is a validated physician; `rank`: the author's level; `frequent`: it
    contains the most frequent answer; `complete`: it is a complete answer.
    """
    return 0.6 + 0.1 * (validated + (rank >= 4) + frequent + complete)


def score(
    answers: Mapping[str, str],
    references: Mapping[str, Sequence[Reference]],
    *,
    language: str,
    seed: int = 0,
) -> Score:
    """Over encounters, by their ids, each a cluster of its own; all lower-cased.

    Raises:
        ValueError: an answer without references or the reverse, or references without weight.
    """
    return _score(answers, _lowered(references), language, seed)


def difference(
    answers: Mapping[str, str],
    others: Mapping[str, str],
    references: Mapping[str, Sequence[Reference]],
    *,
    language: str,
    seed: int = 0,
) -> Score:
    """How much higher `answers` score than `others`, -1 to 1, paired by encounter.

    Raises:
        ValueError: as `score`.
    """
    lowered = _lowered(references)
    pairs = zip(_rows(answers, lowered, language), _rows(others, lowered, language), strict=True)

    def lead(sums: Sums) -> Sums:
        own, other = np.split(sums, 2, axis=1)
        return bleu.combine(own) - bleu.combine(other)

    return clustered([[*own, *other] for own, other in pairs], lead, list(references), seed)


def of_one(answer: str, references: Sequence[Reference], language: str) -> float:
    """One answer's own score, 0 to 1, lower-cased."""
    [row] = _rows({"": answer}, _lowered({"": references}), language)
    (found,) = bleu.combine(np.array([row]))
    return float(found)


def official(
    answers: Mapping[str, str],
    references: Mapping[str, Sequence[Reference]],
    *,
    language: str,
    seed: int = 0,
) -> Score:
    """What the task's own script gives a submission in this language alone: answers are lower-cased
    and references are not, and only in Chinese do references have weights.

    Raises:
        ValueError: as `score`.
    """
    weighed = {
        id: [replace(each, weight=1.0) if language != "zh" else each for each in given]
        for id, given in references.items()
    }
    return _score(answers, weighed, language, seed)


def _lowered(
    references: Mapping[str, Sequence[Reference]],
) -> dict[str, list[Reference]]:
    return {
        id: [replace(each, text=each.text.lower()) for each in given]
        for id, given in references.items()
    }


def _score(
    answers: Mapping[str, str],
    references: Mapping[str, Sequence[Reference]],
    language: str,
    seed: int,
) -> Score:
    rows = _rows(answers, references, language)
    return clustered(rows, bleu.combine, list(references), seed)


def _rows(
    answers: Mapping[str, str], references: Mapping[str, Sequence[Reference]], language: str
) -> list[list[float]]:
    """One for each encounter, in the references' order."""
    if differing := sorted(answers.keys() ^ references.keys()):
        raise ValueError(
            f"answers and references are of different encounters: {', '.join(differing[:5])}"
            f"{' …' if len(differing) > 5 else ''} stand on one side only"
        )
    tokenise = TokenizerZh() if language == "zh" else Tokenizer13a()
    return [_row(answers[id], references[id], tokenise, id) for id in references]


def _row(answer: str, references: Sequence[Reference], tokenise: Any, id: str) -> list[float]:
    """Weighted matches for each n, what they could have been, the answer's length, the nearest
    reference's."""
    best = max((reference.weight for reference in references), default=0.0)
    if best <= 0:
        raise ValueError(f"{id} has no reference of a weight above 0")
    said = tokenise(answer.lower().rstrip()).split()
    most: Counter[tuple[str, ...]] = Counter()
    worth: dict[tuple[str, ...], float] = {}
    lengths = []
    for reference in references:
        words = tokenise(reference.text.rstrip()).split()
        lengths.append(len(words))
        for ngram, times in _ngrams(words).items():
            most[ngram] = max(most[ngram], times)
            worth[ngram] = max(worth.get(ngram, 0.0), reference.weight)
    matched, possible = [0.0] * ORDER, [0.0] * ORDER
    for ngram, times in _ngrams(said).items():
        possible[len(ngram) - 1] += best * times
        matched[len(ngram) - 1] += worth.get(ngram, 0.0) * min(times, most[ngram])
    nearest = min(lengths, key=lambda length: (abs(length - len(said)), length))
    return [*matched, *possible, len(said), nearest]


def _ngrams(words: Sequence[str]) -> Counter[tuple[str, ...]]:
    return Counter(
        tuple(words[start : start + n])
        for n in range(1, ORDER + 1)
        for start in range(len(words) - n + 1)
    )
