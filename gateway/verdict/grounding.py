"""How far a case's answer depends on its image: what each worker says of it, beside what the same
worker says to the same question over an even grey. Pure functions.

Who answers alike over a grey picture has answered the question alone. That is how visual question
answering comes to be right without looking (Goyal et al. 2017, "Making the V in VQA Matter", CVPR).
"""

from collections import defaultdict
from collections.abc import Iterable
from functools import lru_cache

from gateway.contract import Alternative, Answer, Language, Verdict
from gateway.verdict.meaning import Meaning, meaning

LEAST = 0.02  # of an alternative that is told apart; the others count together
HARDLY = 0.05  # grounding below which a person is told
SAID_OF_IT: dict[Language, str] = {
    "en": "The same answer as without the image.",
    "es": "La misma respuesta que sin la imagen.",
    "zh": "没有图像时也是同样的回答。",
}
REST: Meaning = ("", "")  # no answer means that, and none begins so


def grounding(
    pairs: Iterable[tuple[Answer, Answer]], language: Language, question: str
) -> float | None:
    """A verdict's, 0 to 1: the mean shift of the workers' answers, each with its own over grey;
    None without any. All have a text."""
    shifts = [shift(shown, grey, language, question) for shown, grey in pairs]
    return sum(shifts) / len(shifts) if shifts else None


def shift(shown: Answer, grey: Answer, language: Language, question: str) -> float:
    """How far a worker's answer goes from what it says over grey, 0 (the same) to 1 (nothing in
    common): the total variation distance, half the sum of all differences, of the two distributions
    as far as they are told (Levin, Peres & Wilmer 2009, Markov Chains and Mixing Times, 4.1).

    A worker that tells no confidence is taken to be sure. Of an alternative only the beginning may
    be known: it counts as the likeliest answer of the other side that begins so, else for itself.
    """
    one = _distribution(shown, grey, language, question)
    other = _distribution(grey, shown, language, question)
    return sum(abs(one[each] - other[each]) for each in {*one, *other}) / 2


def remark(verdict: Verdict) -> str | None:
    """What a person is told of an answer that hardly depends on the image."""
    if verdict.answer is None or verdict.grounding is None or verdict.grounding >= HARDLY:
        return None
    return SAID_OF_IT[verdict.language]


def _distribution(
    answer: Answer, other: Answer, language: Language, question: str
) -> defaultdict[Meaning, float]:
    found = defaultdict[Meaning, float](float)
    whole = [each.begins for each in _told(other) if each.whole]
    for each in _told(answer):
        text: str | None = each.begins
        if not each.whole:
            begins = _plain(each.begins)
            text = next((text for text in whole if _plain(text).startswith(begins)), None)
        meant = _meaning(text, language, question) if text is not None else ("", begins)
        found[meant] += each.probability
    found[REST] = max(1 - sum(found.values()), 0.0)
    return found


def _told(answer: Answer) -> list[Alternative]:
    """The answer itself and what it came near to saying, the likeliest first."""
    sure = 1.0 if answer.confidence is None else answer.confidence
    own = Alternative(begins=answer.text or "", whole=True, probability=sure)
    return [own, *(each for each in answer.alternatives if each.probability >= LEAST)]


# The same words come again over grey, from other workers and with the question's next image.
_meaning = lru_cache(maxsize=2_000)(meaning)


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
