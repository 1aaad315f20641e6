"""The words of a sentence: what makes it another one than the next, and what it tells of."""

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from itertools import dropwhile, pairwise, takewhile

from gateway.contract import Language
from gateway.verdict.text.numbers import COMPARISONS, NUMBERS, in_digits
from gateway.verdict.text.spelling import FOLDED, spelled_one_way
from gateway.verdict.text.words import WORDS, Words

Meaning = tuple[str, ...]
HAN = re.compile(r"[\u3400-\u9fff]")
SIDES = {"left", "right", "bilateral", "izquierdo", "izquierda", "derecho", "derecha"} | set(
    "左右双"
)
SIDE = {"side", "lado", "侧", "边"}
SIGN = rf"[{COMPARISONS}]|(?<=[a-z0-9])[*+-](?![\w*])"  # T2* is not T2
WORD = re.compile(rf"\d+(?:[.,]\d+)*°?|[^\W\d_]+|{SIGN}")
# "There used to be one" says of today what "formerly" does; "used to take the image" is no past.
FORMERLY = re.compile(
    r"\b(?:used to (?=(?:be|have|exist|appear|show|contain|include|lie|sit)\b)|had (?=been\b))"
)
NOT = re.compile(r"n't\b|(?<=\bcan)(?=not\b)")
DOUBLE_NO = re.compile(r"(\bno (?:\w+ ){1,3})ningun[oa]?\b")  # in Spanish no more than one
# Hyphens and a minus unlike the others, too.
VARIANTS = FOLDED | dict.fromkeys(map(ord, "\u2010\u2212"), "-") | {ord("’"): "'"}
VARIANTS |= {ord("\u2044"): "/"}
RANGE = re.compile(r"–(?<=\d–)(?=\w)|^–(?=\s?\d)")  # of a range, or a minus
# 10² is not 102, and 1ª not 1a.
RAISED = {ord(raised): f"^{number}" for number, raised in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")}
RAISED |= dict.fromkeys(map(ord, "ºª"), "°")
# 1½ is not 11/2.
RAISED |= {
    ord(part): " " + unicodedata.normalize("NFKC", part).replace("\u2044", "/")
    for part in "½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"
}
# A search takes a tenth of what a translation takes, and most texts need none.
HAS_RAISED, HAS_VARIANTS = (
    re.compile(f"[{''.join(map(chr, table))}]") for table in (RAISED, VARIANTS)
)
# Between what a thing is in and that thing.
ARTICLES = {"the", "a", "an", "this", "that", "these", "those", "its", "su", "este", "esta"}
ARTICLES |= {"el", "la", "los", "las", "lo", "un", "una"}
# "Normal in size" is of normal size.
QUALITIES = {"normal", "size", "appearance", "shape", "position", "contour", "midline", "density"}
QUALITIES |= {"tamaño", "aspecto", "forma", "posicion", "contorno", "densidad"}


def words_of(text: str, language: Language) -> Words:
    """Chinese is known by its script; what else a Chinese case holds is taken for English."""
    if HAN.search(text):
        return WORDS["zh"]
    return WORDS["en" if language == "zh" else language]


def plain_text(text: str) -> str:
    if text.isascii():  # then none of what follows is in it
        return text.lower()
    if HAS_RAISED.search(text):
        text = text.translate(RAISED)
    plain = unicodedata.normalize("NFKC", text).casefold()
    if len(plain) > 3 * len(text):  # a single character may stand for a sentence
        plain = text.casefold()
    if HAS_VARIANTS.search(plain):
        plain = plain.translate(VARIANTS)
    return RANGE.sub("-", plain)


def spelled(plain: str, words: Words) -> str:
    """With every number in digits, and every word as its language's tables have it."""
    return in_digits(spelled_one_way(plain, words.language), words.language)


def content_of(text: str, words: Words) -> tuple[Meaning, int]:
    """The words that make one sentence another than the next, and how often it is negated."""
    return content_of_tokens(tokens_of(text, words), words)


def as_stated(text: str, words: Words, led: bool = False) -> tuple[Meaning, int]:
    """As `content_of`, of a sentence that is held to another: with what links one thing to the
    next, so that a cyst in a mass is no mass in a cyst. What links the first thing to nothing
    before it is kept where the sentence is `led` to it.
    """
    tokens = tokens_of(text, words)
    linked = [
        f"<{words.links[token]}>" if token in words.links and _links(tokens, at, words) else token
        for at, token in enumerate(tokens)
    ]
    content, negations = content_of_tokens(linked, words)
    ends = {f"<{link}>" for link in words.links.values()}
    # "In the liver and in the spleen" is "in the liver and spleen".
    content = tuple(word for before, word in pairwise(("", *content)) if not {before, word} <= ends)
    if content and content[-1] in ends:
        content = content[:-1]
    if not led and content and content[0] in ends:
        content = content[1:]
    return content, negations


def _links(tokens: Sequence[str], at: int, words: Words) -> bool:
    """Whether the word there links a thing to another: not in "in the image", "appears to be",
    "evidence of", or "normal in size"."""
    after = next(
        (t for t in tokens[at + 1 : at + 5] if t not in ARTICLES and t not in words.links), ""
    )
    of_nothing = tokens[at] in ("of", "de") and at > 0 and tokens[at - 1] in words.fillers
    return after not in words.fillers | QUALITIES | {""} and not of_nothing


def content_of_tokens(tokens: Sequence[str], words: Words) -> tuple[Meaning, int]:
    tokens = [token for token in tokens if token not in words.fillers]
    negations = sum(token in words.negators for token in tokens)
    content = (NUMBERS.get(token, token) for token in tokens if token not in words.negators)
    return tuple(_singular(token, words) for token in content), negations


def tokens_of(text: str, words: Words) -> list[str]:
    text = spelled(text, words)
    if words.language == "zh":
        return _chinese().findall(text)
    text = DOUBLE_NO.sub(r"\1", text) if "ningun" in text else text
    if "n't" in text or "cannot" in text:
        text = NOT.sub(" not" if "n't" in text else " ", text)
    if words.language == "en" and ("used to" in text or "had been" in text):
        text = FORMERLY.sub("formerly ", text)
    return WORD.findall(text)


@lru_cache(maxsize=1)
def _chinese() -> re.Pattern[str]:
    """Chinese has no spaces: what is no known word is taken character by character."""
    zh = WORDS["zh"]
    known = zh.fillers | zh.negators | zh.asks | zh.sums | zh.whole | zh.placed
    return re.compile(
        "|".join([*sorted(known, key=len, reverse=True), r"[a-z]+|\d+(?:\.\d+)?°?|\w", SIGN])
    )


def _singular(word: str, words: Words) -> str:
    """Good enough to find a question's word again."""
    return word if len(word) < 4 or word in words.asks else words.plural.sub("", word)


def first_named(tokens: Sequence[str], words: Words) -> Meaning:
    """What is named first, in one go: ribs, of "ribs have fractures"."""
    beside = words.fillers | words.negators | words.sums | words.single
    named = dropwhile(beside.__contains__, tokens)
    return content_of_tokens(list(takewhile(lambda token: token not in beside, named)), words)[0]


def is_within(some: Meaning, whole: Meaning) -> bool:
    """In this order, perhaps with others between."""
    rest = iter(whole)
    return all(each in rest for each in some)


def told_in(sentence: str, tokens: Sequence[str], words: Words) -> frozenset[str]:
    tokens = [NUMBERS.get(token, token) for token in tokens]
    numbers = [token for token in tokens if token[0].isdecimal() or token in COMPARISONS]
    if words.language == "zh":
        return frozenset([*numbers, *(word for word in words.telling if word in sentence)])
    return frozenset([*numbers, *(words.telling & set(tokens))])


def telling(text: str, language: Language) -> tuple[frozenset[str], bool]:
    """The sides, organs, numbers and doubts that a text names, what it holds of words that are
    half a denial ("营养不良"), and whether it denies anything."""
    words = words_of(text, language)
    plain = plain_text(text)
    tokens = tokens_of(plain, words)
    told = told_in(plain, tokens, words).union(words.whole & set(tokens))
    return told, content_of_tokens(tokens, words)[1] > 0
