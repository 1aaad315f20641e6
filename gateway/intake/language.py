"""Which language a question is in, where its script and its words leave no doubt."""

import re

from gateway.contract import Language
from gateway.refusals import InvalidCase

NAMES: dict[Language, str] = {"en": "English", "es": "Spanish", "zh": "Chinese"}
HAN = re.compile(r"[\u3400-\u9fff]")
# Kana, and characters that were shortened in Japan alone.
JAPANESE = re.compile(r"[\u3040-\u30ff図検単対発変経観圧脳様歴読応実験児薬拡顕総沢]")
WORD = re.compile(r"[^\W\d_]+")
# No word of English stands in the others' list, nor is any the name of a thing. The last are no
# words of Portuguese, French or Italian, and the letters none of Spanish.
ENGLISH, SPANISH, ONLY_SPANISH = (
    frozenset(words.split())
    for words in (
        "what which where who whose why when how is are was were be been does did do have had "
        "could should would will the this that these those there any some of with from and or it "
        "its on at by for to in",
        "qué que cuál cual cuáles cuales dónde donde cuántos cuantos cuántas cuantas cómo quién "
        "está están esta este estos estas hay se observa muestra puede ver tiene existe imagen el "
        "los las una del",
        "qué cuál cual cuáles cuales dónde donde cuántos cuantos cuántas cuantas cómo quién están "
        "hay muestra puede imagen el",
    )
)
NOT_SPANISH = re.compile("[ãõçàèìòùâêîôûœ]")


def language_of(question: str) -> Language | None:
    """Chinese is told by its characters where no word of English or Spanish grammar stands beside
    them, Spanish by its opening question mark or by two of its words, one of which its neighbours
    do not share, where there is none of English; None where neither is so: most often that is
    English."""
    folded = question.casefold()
    words = set(WORD.findall(folded))
    english, spanish = len(words & ENGLISH), len(words & SPANISH)
    if HAN.search(question):
        return None if english or spanish or JAPANESE.search(question) else "zh"
    told = spanish > 1 and words & ONLY_SPANISH and not NOT_SPANISH.search(folded)
    return "es" if not english and ("¿" in question or told) else None


def asked_in(question: str, named: Language | None) -> Language:
    """The language that was named, else the question's own, else English.

    Raises:
        InvalidCase: another was named than the question is in, by its characters: words alone
            are no proof against who should know.
    """
    found = language_of(question)
    by_characters = found == "zh" or "¿" in question
    if named and found and named != found and by_characters:
        raise InvalidCase(
            f"language: {named}, but the question is in {NAMES[found]}. Send {found}, or leave it "
            "out.",
            code="other_language",
        )
    return named or found or "en"
