"""No question and no answer breaks what reads them: callers choose the one, models the other."""

import random

import pytest

from gateway.verdict.text.claims import claims
from gateway.verdict.text.declining import declines
from gateway.verdict.text.meaning import meaning

# What is looked for in a text, in each language, and what may stand around it.
PIECES = (
    *(
        " or ",
        ", or ",
        "or",
        " vs ",
        " o ",
        " u ",
        "还是",
        " and ",
        " y ",
        "和",
        "、",
        "，",
        "each",
    ),
    *("which", "Which is", "is there", "where", "how many", "是否", "是不是", "哪", "¿", "?"),
    *("no", "No.", "not", "less likely", "possibly", "consider", "I cannot", "but", "I don't know"),
    *(
        "used to be",
        "there",
        "it is",
        "is the",
        "the",
        "larger",
        "of",
        "only",
        "</s>",
        "assistant: ",
        "I'm not sure, but",
        "a number of",
        "left",
        "right",
        "左",
        "lung",
        "肝",
        "A",
    ),
    *("0", "1", "2 cm", "4-5", ":", ";", ",", ".", "(", ")", "\n", "", "\ud800", "*", "1."),
)


@pytest.mark.parametrize("language", ["en", "es", "zh"])
def test_pieces_in_any_order(language):
    chance = random.Random(0)

    def text(most: int) -> str:
        pieces = chance.choices(PIECES, k=chance.randint(0, most))
        return "".join(piece + chance.choice(("", " ")) for piece in pieces)

    for _ in range(3_000):
        question, answer = text(7), text(9)
        declines(answer)
        assert isinstance(meaning(answer, language, question), tuple), (question, answer)
        assert claims(answer, language, question), (question, answer)


@pytest.mark.parametrize("question", [" or ", "还是 、", ", o ", "or", "?", ""])
@pytest.mark.parametrize("answer", ["or vs", "还是 vs", "no or 2 cm, or ;or less likely", "或", ""])
def test_no_more_than_a_word_of_choice(question, answer):
    for language in ("en", "es", "zh"):
        meaning(answer, language, question)
        assert claims(answer, language, question)
