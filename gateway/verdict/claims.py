"""What an answer claims: mostly one thing; where it names several that may be, each of them.

"Psoriasis vulgaris, consider tinea" claims two things, its lead first, and so do "psoriasis or
tinea" and "1. Psoriasis 2. Tinea". Answers with a claim in common meet there. Only a mark of doubt
or of choice parts an answer: a list ("liver, heart") says all of its items, and is one claim. So is
whatever might lose a word by being parted: what denies anything, parts that name different sides,
organs or numbers, an adjective without its noun ("acute or chronic eczema").
"""

import re
from dataclasses import dataclass

from gateway.contract import Language
from gateway.verdict.meaning import HAN, Meaning, adds_nothing, core, meaning, telling
from gateway.verdict.questions import kind_of

MOST = 8  # who names more has told a story
# To these a doubt is an answer, where it is of what was asked.
CLOSED = {"yes_no", "which_of"}


@dataclass(frozen=True)
class Claim:
    text: str
    meaning: Meaning


@dataclass(frozen=True)
class Hedges:
    """How one language offers more than one thing, or one without being sure. `label` opens a
    differential, `before` and `after` stand around a claim, `either` between two. A `partial` word
    is none without the next part's noun; what meets `asks` is a question, and no doubt.
    """

    label: re.Pattern[str]
    before: re.Pattern[str]
    after: re.Pattern[str]
    either: re.Pattern[str]
    partial: re.Pattern[str]
    asks: re.Pattern[str]
    parts: re.Pattern[str]  # where a new claim may begin
    marks: re.Pattern[str]  # in every answer that may hold more than one, or a doubt


# What turns all that follows, beside the negations that `meaning` knows.
TURNS = re.compile(
    r"\b(?:neither|nor|free of|lacks?|against|unlike|other than|exclud(?:es|ed|ing)|rule[ds] out|"
    r"den(?:y|ies)|ni|libre de|carece|contra|excluye|descartad[oa]s?|excepto)\b|缺乏|除了",
    re.IGNORECASE,
)
# Callers choose what is read here, as in `meaning`: every pattern is linear, or nearly.
ENDS = r"[;；\n]+|(?<=[.!?])(?<!\bvs\.)\s|(?<=[。！？])"
NUMBERED = re.compile(r"(?:^|(?<=[\s,;，；。\u3400-\u9fff]))\(?([1-9])[.)、] ?(?=[^\W\d])", re.M)
COMMA = re.compile(r"(?<!\d)[,，]|[,，](?!\d)|、")
MARKDOWN = re.compile(r"[*_`#]{2,}|^[-*•] ", re.M)
SURE = "?？.。!！ "
AROUND = " \n,.;:，。；：、!！¿"


def _hedges(
    label: str, lead: str, before: str, after: str, either: str, partial: str, asks: str
) -> Hedges:
    doubt = rf"(?:{lead})*+(?:{before})"
    return Hedges(
        label=_compiled(rf"^(?:{label})\s*[:：]?"),
        before=_compiled(rf"^[¿¡]?(?:{doubt}[\s:：,，]*+)+"),
        after=_compiled(rf"(?: ?(?:{after})){{1,2}}$"),
        either=_compiled(rf"[,，]?(?:{either})"),
        partial=_compiled(partial),
        asks=_compiled(rf"^¿?(?:{asks})"),
        parts=_compiled(rf"{ENDS}|[,，] ?(?={doubt})"),
        marks=_compiled(rf"{label}|{before}|{after}|{either}|[?？]|2[.)、]"),
    )


def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


HEDGES: dict[Language, Hedges] = {
    "en": _hedges(
        label=r"(?:the )?(?:differential(?: diagnos[ie]s)?|ddx)(?:\s*:| includes?\b| is\b| are\b)",
        lead=r"\b(?:i|we|would|should|also|most|very|less|more|it|it's|this|is|to|need|there|please|"
        r"and|or|but|then)\s",
        before=r"\b(?:consider(?:ed|ing)?|rule out|r/o|possibl[ye]|probabl[ye]|likely|maybe|"
        r"perhaps|suspect(?:ed)?|suspicious (?:for|of)|suggest(?:s|ive of)|looks like|think of|"
        r"favou?rs?|(?:may|might|could) (?:also )?be|(?:cannot|can't|can not|would not) "
        r"(?:rule out|exclude)|versus|vs)\b",
        after=r"\b(?:(?:is|are|should|must|needs?|to|be|also|less|more|most|very)\s){0,4}"
        r"(?:possible|probable|likely|suspected|in the differential|be (?:ruled out|considered)|"
        r"(?:cannot|can't|can not) be (?:ruled out|excluded)|not (?:ruled out|excluded))",
        either=r"\s(?:or|vs\.?|versus)\s",
        partial=r"^\S*(?:al|ic|ous|ive|ar|ary|ute|ed|oid|ile|mild|severe|small|large|benign|"
        r"malignant|early|late)$",
        asks=r"(?:is|are|was|were|do|does|did|has|have|can|could|will|would|should|what|which|"
        r"where|how|who|why|when|any)\b",
    ),
    "es": _hedges(
        label=r"(?:el )?(?:diagn[oó]stico )?diferencial(?:\s*:| incluye\b| es\b)",
        lead=r"\b(?:se|debe|debería|debemos|hay que|también|más|menos|muy|lo|es|y|o|pero)\s",
        before=r"\b(?:considera(?:r|rse)?|considere|pensar en|piensa en|posible(?:mente)?|"
        r"probable(?:mente)?|quizás?|tal vez|sospech[ao](?: de)?|sugiere|"
        r"(?:no se puede )?descartar|parece(?: ser)?|(?:podría|puede) ser|versus|vs)\b",
        after=r"\b(?:(?:es|son|muy|más|menos|también)\s){0,4}(?:posibles?|probables?|(?:a|por) "
        r"descartar|no (?:se puede descartar|descartad[oa]s?))",
        either=r"\s(?:o|u|vs\.?|versus)\s",
        partial=r"^\S*(?:al|ar|ic[oa]|os[oa]|iv[oa]|ad[oa]|ud[oa]|ari[oa]|leve|grave)$",
        asks=r"(?:qué|cuál|cuáles|dónde|cuánt[oa]s?|cómo|quién|es|son|hay|tiene|existe|se)\b",
    ),
    "zh": _hedges(
        label=r"鉴别诊断(?:包括|有|为|\s*[:：])",
        lead=r"首先|先|应该|应|需要|需|还|也|要|请|再|建议|最|很|更|或者|或|并|但",
        before=r"考虑为?|可能是|可能为|可能|疑似|疑为|疑|怀疑为?|像是?|不能排除|不排除|不除外|排除|"
        r"除外|大概是?|也许是?|倾向于?",
        after=r"可能性大|的可能|可能|待排除?|待查|不能排除|不排除|不除外|吧",
        either=r"或者是?|或是?|还是",
        partial=r"(?:性|[大小轻重急慢])$",
        asks=r".*(?:什么|哪|吗|呢|有没有|有无|是否|是不是|多少|几)",
    ),
}


def claims(text: str, language: Language = "en", question: str = "") -> tuple[Claim, ...]:
    """What an answer to the question claims, its lead first; one claim, the whole, of most.

    "Psoriasis, consider tinea" claims psoriasis and tinea, "possibly psoriasis" claims psoriasis.
    """
    whole = (Claim(text, meaning(text, language, question)),)
    hedges = _hedges_of(text, language)
    if not hedges.marks.search(text):
        return whole
    kind = kind_of(question, language)
    lines = "\n".join(filter(None, (" ".join(line.split()) for line in text.splitlines())))
    parts = _parts(MARKDOWN.sub("", core(lines, language, question)).strip(), hedges)
    told = [telling(part, language) for part in parts]
    denied = any(denies for _, denies in told) or any(map(TURNS.search, parts))
    doubts = kind in CLOSED and any(adds_nothing(part, language, question) for part in parts)
    if not parts or denied or doubts or kind == "count" or len({names for names, _ in told}) > 1:
        return whole
    found: dict[Meaning, Claim] = {}
    for part in parts:
        meant = meaning(part, language, question)
        found.setdefault(meant, Claim(part, meant))
    found.pop((), None)
    return tuple(found.values()) if 0 < len(found) <= MOST else whole


def _hedges_of(text: str, language: Language) -> Hedges:
    """Chinese is known by its script."""
    if HAN.search(text):
        return HEDGES["zh"]
    return HEDGES["en" if language == "zh" else language]


def _parts(text: str, hedges: Hedges) -> list[str]:
    """Each claim in its own words; none where one of them could not stand alone."""
    found: list[str] = []
    for piece, listed in _pieces(text, hedges):
        if hedges.asks.match(piece) and not hedges.before.match(piece):
            found.append(piece)
            continue
        said = piece.rstrip(SURE)
        bare = hedges.after.sub("", hedges.before.sub("", said))
        offered = listed or bare != said or hedges.either.search(bare)
        items = [bare]
        if offered:
            items = [item for each in hedges.either.split(bare) for item in COMMA.split(each)]
        items = [item for item in (item.strip(AROUND) for item in items) if item]
        # "axial or coronal" are two; "acute or chronic eczema" has its noun but once.
        lengths = {len(item) if hedges is HEDGES["zh"] else len(item.split()) for item in items}
        if len(lengths) > 1 and any(map(hedges.partial.search, items)):
            return []
        found += items
    return found


def _pieces(text: str, hedges: Hedges) -> list[tuple[str, bool]]:
    """What may hold a claim each, and whether it stands in a list of what is possible."""
    label = hedges.label.match(text)
    numbers = list(NUMBERED.finditer(text))
    if len(numbers) > 1 and [int(each[1]) for each in numbers] == list(range(1, len(numbers) + 1)):
        before = text[label.end() if label else 0 : numbers[0].start()].strip(AROUND)
        ends = [number.start() for number in numbers[1:]] + [len(text)]
        pieces = [text[each.end() : end] for each, end in zip(numbers, ends, strict=True)]
        pieces = [before, *pieces]
    else:
        pieces = hedges.parts.split(text[label.end() :] if label else text)
    pieces = [piece.strip(AROUND) for piece in pieces]
    return [(piece, label is not None) for piece in pieces if piece]
