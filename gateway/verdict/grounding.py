"""How far a case's answer depends on its image: what each worker says of it, beside what the same
worker says to the same question over an even grey. Pure functions.

Who answers alike over a grey picture has answered the question alone. That is how visual question
answering comes to be right without looking (Goyal et al. 2017, "Making the V in VQA Matter", CVPR).
"""

from collections.abc import Iterable, Sequence

from gateway.contract import Answer, Language
from gateway.verdict.text.meaning import meaning
from gateway.verdict.text.sentences import Meaning

LEAST = 0.02  # of an alternative that is told apart; the others count together
Said = tuple[str, bool, float]  # a text, whether it is all of an answer, its probability
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
    told, of_grey = _told(shown), _told(grey)
    one = _distribution(told, of_grey, language, question)
    other = _distribution(of_grey, told, language, question)
    return sum(abs(one.get(each, 0.0) - other.get(each, 0.0)) for each in {*one, *other}) / 2


def _told(answer: Answer) -> list[Said]:
    """The answer itself and what it came near to saying, the likeliest first."""
    sure = 1.0 if answer.confidence is None else answer.confidence
    others = [(e.begins, e.whole, e.probability) for e in answer.alternatives]
    return [(answer.text or "", True, sure), *(each for each in others if each[2] >= LEAST)]


def _distribution(
    told: Sequence[Said], elsewhere: Sequence[Said], language: Language, question: str
) -> dict[Meaning, float]:
    """The probability of everything that is `told`; `elsewhere` is what the other side tells."""
    found: dict[Meaning, float] = {}
    for text, whole, probability in told:
        meant: Meaning = ("", begins := _plain(text))
        if not whole:
            fits = (each for each, is_whole, _ in elsewhere if is_whole)
            text = next((each for each in fits if _plain(each).startswith(begins)), "")
        if text:
            meant = meaning(text, language, question)
        found[meant] = found.get(meant, 0.0) + probability
    found[REST] = max(1 - sum(found.values()), 0.0)
    return found


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
