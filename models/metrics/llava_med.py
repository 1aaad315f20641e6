"""What LLaVA-Med's script reports (microsoft/LLaVA-Med, llava/eval/run_eval.py, commit ad758b6),
quirks included: the "open recall" and "closed accuracy" of many papers.

Each quirk has a test:

- A word that is said and asked for counts as often as it was said, a missing one as often as the
  reference has it: "lung lung lung" for "left lung" has recall 0.75.
- Yes and no are looked for as substrings: "abnormal" and "unknown" say no.
- A closed answer that says yes or no but does not contain the reference is left out, neither right
  nor wrong. One that says neither is wrong, even where it is the reference ("CT").

`token_overlap` and `closed_accuracy` are what these should have been. The script's table of English
contractions is left out: it gives "dont" its apostrophe, on both sides.
"""

import re
from collections import Counter
from collections.abc import Hashable, Sequence

from models.metrics.score import Score, mean

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_NUMBERS = dict(
    none="0", zero="0", one="1", two="2", three="3", four="4", five="5", six="6", seven="7",
    eight="8", nine="9", ten="10",
)  # fmt: skip
_ARTICLES = {"a", "an", "the"}
_PERIODS = 32  # the script hands re.UNICODE to sub() as its count


def normalise(text: str) -> str:
    """The VQA challenge's normal form as LLaVA-Med has it: no punctuation, articles or capitals.

    A mark beside a blank vanishes, one within a word becomes a blank ("x-ray" → "x ray"); but where
    the text holds a number like 1,000 every mark vanishes.
    """
    text = text.lower()
    long_number = re.search(r"\d,\d", text) is not None
    bare = text
    for mark in _PUNCTUATION:
        vanishes = long_number or f"{mark} " in text or f" {mark}" in text
        bare = bare.replace(mark, "" if vanishes else " ")
    bare = re.sub(r"\.(?!\d)", "", bare, count=_PERIODS)
    words = (_NUMBERS.get(word, word) for word in bare.split())
    return " ".join(word for word in words if word not in _ARTICLES)


def open_recall(
    answers: Sequence[str], references: Sequence[str], clusters: Sequence[Hashable], seed: int = 0
) -> Score:
    """The mean recall of the references' words, over open questions."""
    pairs = zip(answers, references, strict=True)
    return mean([_f1_and_recall(*pair)[1] for pair in pairs], clusters, seed)


def open_f1(
    answers: Sequence[str], references: Sequence[str], clusters: Sequence[Hashable], seed: int = 0
) -> Score:
    """The mean F1 of the words, over open questions."""
    pairs = zip(answers, references, strict=True)
    return mean([_f1_and_recall(*pair)[0] for pair in pairs], clusters, seed)


def closed_accuracy(
    answers: Sequence[str], references: Sequence[str], clusters: Sequence[Hashable], seed: int = 0
) -> Score:
    """The share that is right of the closed questions that are counted; `cases` says how many are.

    Raises:
        ValueError: none is counted.
    """
    hits, counted = [], []
    for answer, reference, cluster in zip(answers, references, clusters, strict=True):
        said, wanted = normalise(answer), normalise(reference)
        says_either = "yes" in said or "no" in said
        if not says_either or wanted in said:
            hits.append(float(says_either))
            counted.append(cluster)
    return mean(hits, counted, seed)


def _f1_and_recall(answer: str, reference: str) -> tuple[float, float]:
    said, wanted = Counter(normalise(answer).split()), Counter(normalise(reference).split())
    right = sum(said[word] for word in said if word in wanted)
    if not right:
        return 0.0, 0.0
    missing = sum(wanted[word] for word in wanted if word not in said)
    precision, recall = right / said.total(), right / (right + missing)
    return 2 * precision * recall / (precision + recall), recall
