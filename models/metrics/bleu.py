"""Corpus BLEU-1 to BLEU-4 (Papineni et al. 2002), by sacrebleu, lower-cased, between 0 and 1.

BLEU-n is the geometric mean of the precisions up to n. Answers of one word have no bigrams, so
beyond BLEU-1 a set of short answers is scored by its few long ones.
"""

from collections.abc import Hashable, Sequence
from functools import lru_cache

import numpy as np
from sacrebleu.metrics.bleu import BLEU

from models.metrics.score import Score, Sums
from models.metrics.score import score as clustered

TOKENIZERS = {"en": "13a", "es": "13a", "zh": "zh"}
MAX_ORDER = 4


def score(
    answers: Sequence[str],
    references: Sequence[str],
    clusters: Sequence[Hashable],
    *,
    order: int,
    language: str,
    seed: int = 0,
) -> Score:
    """BLEU-`order` of `answers`, one reference each."""
    pairs = zip(answers, references, strict=True)
    counted = (_counts(answer, reference, language) for answer, reference in pairs)
    rows = ([*matched[:order], *total[:order], *lengths] for matched, total, lengths in counted)
    return clustered(rows, combine, clusters, seed)


def combine(sums: Sums) -> Sums:
    """Summed matches and totals for each n, then the lengths of answers and references, [rows, k] →
    BLEU, [rows]."""
    return np.array([_bleu(row) for row in sums])


def _bleu(sums: Sums) -> float:
    order = len(sums) // 2 - 1
    matched, total = sums[:order].tolist(), sums[order : 2 * order].tolist()
    found = BLEU.compute_bleu(
        matched,
        total,
        int(sums[-2]),
        int(sums[-1]),
        smooth_method="exp",
        effective_order=True,
        max_ngram_order=order,
    )
    return float(found.score) / 100


@lru_cache(maxsize=10_000)  # four orders ask for the same, and short answers are often the same
def _counts(
    answer: str, reference: str, language: str
) -> tuple[list[int], list[int], tuple[int, int]]:
    """Matches and totals for each n up to 4, and the lengths of answer and reference."""
    bleu = BLEU(max_ngram_order=MAX_ORDER, lowercase=True, tokenize=TOKENIZERS[language])
    one = bleu.corpus_score([answer], [[reference]])
    return one.counts, one.totals, (one.sys_len, one.ref_len)
