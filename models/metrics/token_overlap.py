"""Token recall and F1: how many of the reference's words the answer has, each counted once for
each time it stands in both (as SQuAD's F1, Rajpurkar et al. 2016, section 6.1).

So nothing is gained by saying a word again, unlike in LLaVA-Med's (`llava_med.open_recall`). A
Chinese character is a word.
"""

import re
from collections import Counter
from collections.abc import Hashable, Sequence

from models.metrics.score import Score, mean

_WORD = re.compile(r"[\u4e00-\u9fff]|[^\W\u4e00-\u9fff]+")


def recall(
    answers: Sequence[str], references: Sequence[str], clusters: Sequence[Hashable], seed: int = 0
) -> Score:
    pairs = zip(answers, references, strict=True)
    return mean([_f1_and_recall(*pair)[1] for pair in pairs], clusters, seed)


def f1(
    answers: Sequence[str], references: Sequence[str], clusters: Sequence[Hashable], seed: int = 0
) -> Score:
    pairs = zip(answers, references, strict=True)
    return mean([_f1_and_recall(*pair)[0] for pair in pairs], clusters, seed)


def _f1_and_recall(answer: str, reference: str) -> tuple[float, float]:
    said, wanted = Counter(words_of(answer)), Counter(words_of(reference))
    shared = (said & wanted).total()
    if not shared:
        return 0.0, 0.0
    return 2 * shared / (said.total() + wanted.total()), shared / wanted.total()


def words_of(text: str) -> list[str]:
    """In small letters."""
    return _WORD.findall(text.lower())
