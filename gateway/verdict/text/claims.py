"""What an answer claims: mostly one thing; where it names several that may be, each of them.

"Psoriasis vulgaris, consider tinea" claims two things, its lead first, and so do "psoriasis or
tinea" and "1. Psoriasis 2. Tinea". Answers with a claim in common meet there. Only a mark of doubt
or of choice, or a semicolon, parts an answer: a list ("liver, heart") says all of its items, and is
one claim. So is whatever might lose a word by being parted: what denies anything, parts that name
different sides, organs or numbers, an adjective without its noun ("acute or chronic eczema"), a
letter without what it counts ("hepatitis A or B"). What is less likely is claimed beside something
that is likelier, never first and never alone.
"""

import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from gateway.contract import Language
from gateway.verdict.text.bare import unsigned
from gateway.verdict.text.declining import answered
from gateway.verdict.text.meaning import adds_nothing, core, meaning
from gateway.verdict.text.questions import Kind, kind_of
from gateway.verdict.text.sentences import HAN, Meaning, telling, words_of

MOST = 8  # who names more has told a story
# To these a doubt is an answer, where it is of what was asked.
DOUBTED: frozenset[Kind] = frozenset({"yes_no", "which_of"})


@dataclass(frozen=True)
class Claim:
    """`asked`: there was a question mark to it, which `text` lacks."""

    text: str
    meaning: Meaning
    asked: bool = False

    @property
    def told(self) -> str:
        """As it is to be told where nobody claims it but with a question mark."""
        if not self.asked:
            return self.text
        return f"{self.text}{'？' if HAN.search(self.text) else '?'}"


@dataclass(frozen=True)
class Hedges:
    """How one language offers more than one thing, or one without being sure. `label` opens a
    differential, in which `joins` stands before the last; `before` and `after` stand around a
    claim, `either` between two. What `excludes` may be ruled out or still to be, where it leads. A
    `partial` word is none without the next part's noun, and any other than a `noun` may be such;
    what stands behind an `of` may be the next part's too. Of several what somebody `prefers` leads.
    What meets `asks` is a question, and no doubt. A `chance` that is high is named around a claim.
    A doubt with `less` is one beside another claim. What `hangs` at the end of one waits for more.
    """

    label: re.Pattern[str]
    before: re.Pattern[str]
    after: re.Pattern[str]
    either: re.Pattern[str]
    joins: re.Pattern[str]
    excludes: re.Pattern[str]
    partial: re.Pattern[str]
    noun: re.Pattern[str]
    of: re.Pattern[str]
    prefers: re.Pattern[str]
    asks: re.Pattern[str]
    chance: re.Pattern[str]
    less: re.Pattern[str]
    trails: re.Pattern[str]
    hangs: re.Pattern[str]
    parts: re.Pattern[str]  # where a new claim may begin
    marks: re.Pattern[str]  # in every answer that may hold more than one, or a doubt


# What turns all that follows, beside the negations that `meaning` knows.
TURNS = re.compile(
    r"\b(?:neither|nor|free of|lacks?|against|unlike|than|exclud(?:es|ed|ing)|rule[ds] out|"
    r"den(?:y|ies|ied)|doubt(?:s|ful)?|unlikely|improbable|hardly|barely|scarcely|ni|libre de|"
    r"carece|contra|exclu(?:ye|id[oa]s?)|descartad[oa]s?|excepto|más que|antes que|"
    r"(?:poco|nada) (?:probable|posible)|apenas|dud(?:o|oso|osa))\b|缺乏|除了|而非|排除|除外|"
    r"可能性[^,，;；。]{0,3}[小低]",
    re.IGNORECASE,
)
# Who rules something out has no doubt of it left; who needs to has one.
RULES_OUT = re.compile(
    r"\b(?:i|we|you|they|he|she|it|this|that|these|which|findings?|images?|scans?)\s"
    r"(?:(?!(?:can'?t|cannot|not|needs?|must|should|to)\b)[\w']+\s){0,3}?rule out\b",
    re.IGNORECASE,
)
# Callers choose what is read here, as in `meaning`: every pattern is linear, or nearly.
ENDS = r"[;；\n]+|(?<=[?？])[,，]|(?<=[.!?])(?<!\bvs\.)\s|(?<=[。！？])"
NUMBERED = re.compile(
    r"(?:^|(?<=[\s,;?，；。？\u3400-\u9fff]))(?:[(（]?([1-9])[.)）、．] ?|([①-⑨]))(?=[^\W\d])", re.M
)
COMMA = re.compile(r"(?<=[^\d\s])[,，]|[,，](?!\d)|、")
MARKDOWN = re.compile(r"[*_`#]{2,}|^[*•] ", re.M)
QUESTION_MARKS = ("?", "？")
# "psoriasis (?)", "?psoriasis": the mark goes where it is looked for.
IN_BRACKETS = re.compile(r" ?[(（]\s?([?？])\s?[)）](?=\s*(?:$|[,;，；。.\n]))")
BEFORE = re.compile(r"(?:^([?？]) ?|(?<=[\s,;，；(（])([?？]))(?=\w)([^\n?？,;，；。]{1,80})", re.M)
# "hepatitis A;B", "Le Fort I;II", "grade A;B esophagitis": one side has more than its letter.
_LETTER = r"(?:[a-z]\d*|\d+[a-z]?|[ivx]+[a-c]?)"
LETTERS = re.compile(rf"(.+[\s-])?{_LETTER};{_LETTER}( [^;]+)?", re.IGNORECASE)
SURE = "?？.。!！ "
AROUND = " \n,.;:，。；：、!！¿"


def _hedges(
    label: str,
    lead: str,
    before: str,
    opens: str,
    after: str,
    either: str,
    joins: str,
    excludes: str,
    partial: str,
    noun: str,
    of: str,
    prefers: str,
    asks: str,
    chance: str,
    less: str,
    hangs: str,
) -> Hedges:
    """`opens` is as `before`, but only where nothing stands before it."""
    goes_on = r"(?!了| (?:que|to be)\b)"  # then it is no hedge of what stands behind
    doubt = rf"(?:{lead})*+(?:{before}|{excludes}){goes_on}"
    doubted = rf"[^,，;；.。\n]{{1,40}}(?: ?(?:{after}))+\s*(?:$|[,，;；.。])"
    return Hedges(
        label=_compiled(rf"^(?:{label})\s*[:：]?"),
        before=_compiled(
            rf"^[¿¡]?(?:(?:{lead})*+(?:{before}|{excludes}|{opens}){goes_on}[\s:：,，]*+)+"
            rf"|^(?:{joins})"
        ),
        after=_compiled(rf"(?: ?[-–—(（]? ?(?:{after})){{1,2}}[)）]?$"),
        either=_compiled(rf"[,，]?(?:{either})"),
        joins=_compiled(rf"\s?(?:{joins})"),
        excludes=_compiled(rf"^(?:{excludes})"),
        partial=_compiled(partial),
        noun=_compiled(noun),
        of=_compiled(of),
        prefers=_compiled(rf"^(?:{lead}){{0,3}}?(?:{prefers})(?![)）])"),
        asks=_compiled(rf"^¿?(?:{asks})"),
        chance=_compiled(chance),
        less=_compiled(less),
        trails=_compiled(rf"(?:[,，]?(?:{either})|\s(?:{joins}))$"),
        hangs=_compiled(rf"\b(?:{hangs}|{of})$"),
        parts=_compiled(rf"{ENDS}|(?:[,，、]| ?[(（]) ?(?={doubt}|{label}|{doubted})"),
        marks=_compiled(
            rf"{label}|{before}|{opens}|{chance}|{excludes}|{after}|{either}|[?？;；]|2[.)）、．]|②"
        ),
    )


def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


HEDGES: dict[Language, Hedges] = {
    "en": _hedges(
        label=r"(?:the )?(?:differentials?(?: diagnos[ie]s)?|ddx|possible diagnoses)"
        r"(?:\s*:| includes?\b| is\b| are\b)",
        lead=r"\b(?:i|we|would|should|must|also|most|very|less|more|it|it's|this|is|to|need|there|"
        r"please|and|or|but|then|the|findings|are|main|primary|leading|first|symptoms?|rash|"
        r"lesions?|patient|picture|images?|seems?|appears?|looks?|feels?)\s",
        before=r"\b(?:consider(?:ed|ing)?(?: as| to be| (?:it|this) (?:as|to be))?|"
        r"(?:(?:possible|probable|likely|main|primary|leading|final|working|clinical) )?"
        r"diagnosis(?: is|(?=\s*:))|(?:dx|impression)(?=\s*:)|possibl[ye]|"
        r"(?:probabl[ye]|likely)(?: (?:has|represents))?|maybe|either|alternatively|"
        r"presumed|perhaps|suspect(?:ed)?|(?:suspicious|concerning) (?:for|of)|"
        r"suggest(?:s|ive of)?(?! to\b)|(?:consistent|compatible) with|(?<=\blooks )like|"
        r"think (?:it is|of)|favou?r(?:s|ed|ing)?|(?:may|might|could) (?:also )?be|versus|vs|"
        r"(?:cannot|can't|can not|would not) (?:rule out|exclude))\b(?: to be\b)?",
        opens=r"\b(?:(?:(?<=\bseems )|(?<=\bseem )|(?<=\blook )|(?<=\bmore )|"
        r"(?<=\bappears )|(?<=\bfeels )|(?<=\bfeel ))like|"
        r"(?:(?<=\bseems to )|(?<=\bappears to )|(?<=\bappear to ))be|estimated to be(?! \d)|"
        r"lean towards?|definitely|certainly|(?<=\bwould )say|"
        r"(?:think|believe)(?: (?:it is|it's|this is))?|(?:(?<=\bshould )|(?<=\bmust ))be"
        r"(?! (?:\w+(?:ed|en)|done|made|kept|sent|put|cut|out|careful)\b))\b",
        after=r"\b(?:(?:is|are|should|must|could|would|seems?|remains?|needs?|to|be|also|still|less|"
        r"more|most|very|quite|rather|fairly|highly|equally)\s){0,4}(?:possible|probable|likely|suspected|"
        r"considered|in the differential|(?<!could )be ruled out|"
        r"(?:cannot|can't|can not) be (?:ruled out|excluded)|not (?:ruled out|excluded))",
        either=r"\s(?:or|vs\.?|versus|and/or|r/o)\s",
        joins=r"\b(?:and|or|but)\s",
        excludes=r"\b(?:rule out|r/o)\b(?!')",
        partial=r"^\S*(?:al|ic|ous|ive|ar|ary|ute|ed|oid|ile|mild|moderate|severe|small|large|"
        r"benign|malignant|early|late|simple|complex|single|multiple|solid|diffuse|open)$",
        noun=r"(?:is|oma|ia|as|us|es|um|ion|or|er|ne|igo|ea|st|rt|ure|ess|oke|hage|sm|orm|ema)$|"
        r"^(?:ct|mri?|pet)$",
        of=r"\b(?:from|of|to|with|in|on|by|for)\b",
        prefers=r"favou?r(?:s|ed|ing)?|more likely|most likely",
        asks=r"(?:is|are|was|were|do|does|did|has|have|can|could|will|would|should|what|which|"
        r"where|how|who|why|when|any)\b",
        chance=r"(?:^|(?<=[.,;] ))(?:the )?(?:possibility|probability|likelihood) of "
        r"([^.;,\n]{1,60}?) is (?:(?:very|relatively|quite|rather|fairly) )?high\b",
        less=r"\bless\b",
        hangs=r"is|are|was|were|be|been|can|could|may|might|would|should|will|must|has|have|seems?|"
        r"appears?|looks?|remains?|possibly|somewhat|hardly|barely|scarcely|remotely|least|the",
    ),
    "es": _hedges(
        label=r"(?:el |los )?(?:(?:diagn[oó]sticos? )?diferencial(?:es)?|dd|"
        r"posibles diagn[oó]sticos)(?:\s*:| incluyen?\b| es\b| son\b)",
        lead=r"\b(?:se|debe|debería|debemos|hay que|también|más|menos|muy|lo|el|es|y|o|pero|"
        r"aunque|un poco)\s",
        before=r"\b(?:diagn[oó]stico(?: más probable)?(?: es|(?=\s*:))|"
        r"probable es|(?:ya )?sea|compatible con|sugestiv[oa] de|"
        r"considera(?:r|rse|ndo)?|considere|pensar en|piensa en|"
        r"posible(?:mente)?|probable(?:mente)?|quizás?|tal vez|"
        r"sospech[ao](?! (?:muy )?(?:baja|escasa|mínima))(?: de)?|sugiere|"
        r"no se puede descartar|parece(?: ser)?(?: más)?|"
        r"(?:podría|puede) (?:ser|tratarse de)|versus|vs)\b"
        r"(?: que (?:sea|es|se trat[ae] de|(?:podría|debería|puede) ser)\b)?",
        opens=r"\b(?:(?<=\bpoco )como|creo que es|impresión(?=\s*:)|"
        r"(?:(?<=\bdebe )|(?<=\bdebería ))ser(?! \w+[ai]d[oa]\b))\b",
        after=r"\b(?:(?:es|son|lo|muy|más|menos|también)\s){0,4}(?<!poco )(?<!nada )"
        r"(?:posibles?|probables?|(?:a|por) descartar|no (?:se puede descartar|descartad[oa]s?))",
        either=r"\s(?:o|u|vs\.?|versus|y/o)\s",
        joins=r"\b(?:y|e|o|pero|aunque)\s",
        excludes=r"\bdescartar\b",
        partial=r"^\S*(?:al(?:es)?|ar(?:es)?|(?:ic|os|iv|ad|ud|ari|malign|benign|sever|pequeñ|"
        r"difus|complej|abiert|cerrad)[oa]s?|leves?|graves?|grandes?|simples?|múltiples?)$",
        noun=r".",  # adjectives stand behind theirs
        of=r"\b(?:de|del|por|a|al|con|en|para)\b",
        prefers=r"más probable(?:mente)?|(?:me inclino|a favor) (?:por|de)",
        asks=r"(?:qué|cuál|cuáles|dónde|cuánt[oa]s?|cómo|quién|es|son|hay|tiene|existe|se)\b",
        chance=r"(?:^|(?<=[.,;] ))(?:la )?(?:posi|proba)bilidad de ([^.;,\n]{1,60}?) es "
        r"(?:(?:muy|bastante|relativamente) )?alta\b",
        less=r"\bmenos\b",
        hangs=r"es|son|está|están|sería|puede|parece|poco|apenas|el|la|los|las|un|una",
    ),
    "zh": _hedges(
        label=r"(?:鉴别诊断|鑑別診斷)(?:包括|有|为|\s*[:：])",
        lead=r"首先|先|应该|应|需要|需|还|也|要|请|再|建议|最|很|更|或者|或|并|但|"
        r"从图片?上?看(?:起来)?[,，]?|看起来|看上去|看着|看|感觉|觉得|我|有点",
        before=r"考虑为?|可能的诊断[是为]|诊断(?:[是为]|(?=\s*[:：]|可能|考虑))|可能是|可能为|可能(?!性)|"
        r"疑似|疑为|疑(?!病症|难)|怀疑为?|像是?|不能排除|不排除|不除外|大概是?|也许是?|"
        r"倾向于?|其次是?|符合|提示|"
        r"(?<=应该)是|(?<=应)是|与(?=[^，。]{1,40}鉴别)",
        opens=r"[好很]?像是?|[好象]象|象是|似乎是?|估计是?(?!\d)|认为是?|多为|必是|"
        r"(?:初步|临床)诊断(?=\s*[:：])",
        after=r"的?可能性(?:比?较|很)?[大高]|的可能|可能|待排除?|待除外|待查|不能排除|不排除|不除外|相?鉴别|吧",
        either=r"或者是?|或是?|还是|\s?vs\.?\s?",
        joins=r"[和与及]",
        excludes=r"(?:(?<=[需应该要须请议])|待)(?:排除|除外)",
        partial=r"[性型期级度类大小轻重急慢]$",
        noun=r"[炎癣病疹癌瘤症疮疣痣斑疱肿核血疡石疥化损折胀麻敏染变甲影灶水气a-z]$",
        of=r"(?!)",  # nothing stands behind
        prefers=r"倾向于?|首先考虑|更可能|最可能|更像",
        asks=r".*(?:什么|哪|吗|呢|有没有|有无|是否|是不是|多少|几)",
        chance=r"((?!))",  # it stands behind
        less=r"其次",
        hangs=r"(?!)",
    ),
}


# An answer is weighed anew as each of the others arrives, and a long one takes 20 ms to read.
@lru_cache(maxsize=2_000)
def claims(text: str, language: Language = "en", question: str = "") -> tuple[Claim, ...]:
    """What an answer to the question claims, its lead first; one claim, the whole, of most.

    "Psoriasis, consider tinea" claims psoriasis and tinea, "possibly psoriasis" claims psoriasis.
    """
    said, doubted = answered(text)
    kind = kind_of(question, language)
    # "As an AI, I cannot diagnose, but" claims nothing, and neither does "I'm not sure, but" where
    # a doubt is no answer.
    if said and not (doubted and _is_decided(said, kind, language, question)):
        text = said
    whole = (Claim(text, meaning(text, language, question)),)
    hedges = _hedges_of(text, language)
    if not hedges.marks.search(text):
        return whole
    lines = "\n".join(filter(None, (" ".join(line.split()) for line in text.splitlines())))
    lines = hedges.chance.sub(r"; \1; ", IN_BRACKETS.sub(r"\1", lines))
    lines = BEFORE.sub(r"; \3\1\2", lines).strip("; ")
    lines = unsigned(MARKDOWN.sub("", core(lines, language, question)), words_of(text, language))
    parted = _parts(lines.strip(), hedges)
    parts = [part for part, _ in parted]
    told = [telling(part, language) for part in parts]
    denied = any(denies for _, denies in told) or any(map(TURNS.search, parts))
    denied = denied or RULES_OUT.search(text) is not None
    doubts = kind in DOUBTED and any(adds_nothing(part, language, question) for part in parts)
    if not parts or denied or doubts or kind == "count" or len({names for names, _ in told}) > 1:
        return whole
    found: dict[Meaning, Claim] = {}
    for part, asked in parted:
        meant = meaning(part, language, question)
        if meant not in found or (found[meant].asked and not asked):
            found[meant] = Claim(part, meant, asked)
    found.pop((), None)
    return tuple(found.values()) if 0 < len(found) <= MOST else whole


def _is_decided(said: str, kind: Kind, language: Language, question: str) -> bool:
    """Whether what is said is one of few things to say, so that in doubt it is not said."""
    decided = kind in {*DOUBTED, "count"}
    return decided or meaning(said, language, question) in (("yes",), ("no",))


def _hedges_of(text: str, language: Language) -> Hedges:
    """Chinese is known by its script."""
    if HAN.search(text):
        return HEDGES["zh"]
    return HEDGES["en" if language == "zh" else language]


def _parts(text: str, hedges: Hedges) -> list[tuple[str, bool]]:
    """Each claim in its own words, and whether a question mark stands behind it; none where one of
    them could not stand alone."""
    found: list[tuple[str, bool]] = []
    preferred: list[tuple[str, bool]] = []
    opened = ""  # the last of a piece, where a word of choice ends that
    pieces = _pieces(text, hedges)
    if len(pieces) > 1 and hedges.excludes.match(pieces[0][0]):
        return []
    for piece, listed in pieces:
        if hedges.asks.match(piece) and not hedges.before.match(piece):
            found.append((piece, False))
            continue
        said = piece.rstrip(SURE)
        chosen = hedges.either.search(f"{said} ")  # "effusion or, less likely, edema"
        ends = hedges.trails.search(f"{said} ")
        said = said[: ends.start()] if ends else said
        asked = any(mark in piece[len(said) :] for mark in QUESTION_MARKS)
        bare = _bare(said, hedges)
        items = [bare]
        if listed or bare != said or chosen:
            either = [each for each in hedges.either.split(bare) if each.strip(AROUND)]
            if not any(_may_share(*pair, hedges) for pair in pairwise(either)):
                items = [item for each in either for item in COMMA.split(each)]
            elif len(pieces) == 1 and bare == said and not asked:
                return []
        if opened and items and _may_share(opened, items[0], hedges):
            return []
        opened = items[-1] if ends and items else ""
        if listed:
            items = [item for each in items for item in _joined(each, hedges)]
        items = [_bare(_stripped(item), hedges) for item in items]
        claimed = [(item, asked) for item in items if any(map(str.isalnum, item))]
        lesser = _less_likely(said, len(claimed), hedges)
        if lesser is not None and len(found) + lesser < 2:
            return []
        if hedges.prefers.match(piece):
            preferred += claimed
        found += claimed
    # "Psoriasis or tinea, favor tinea": of what is said of one thing alone nothing is preferred.
    times = Counter(item.casefold() for item, _ in found)
    found = [each for each in preferred if times[each[0].casefold()] > 1] + found
    texts = [text for text, _ in found]
    # "Cyst, simple or complex" is of one thing.
    if any(text.count("(") != text.count(")") for text in texts):  # "cyst (simple or complex)"
        return []
    partial = [hedges.partial.search(text) is not None for text in texts]
    if len(texts) > 2 and partial == [False] + [True] * (len(texts) - 1):
        return []
    return [] if _are_cut(texts, hedges) else found


def _are_cut(texts: list[str], hedges: Hedges) -> bool:
    """Whether one of them lacks what another has, or waits for more: "axial" and "coronal" are two,
    "acute" and "chronic eczema" have their noun but once, "hepatitis A" and "B" their name."""
    if len(_lengths(texts, hedges)) > 1 and any(map(hedges.partial.search, texts)):
        return True
    if any(map(hedges.hangs.search, texts)):
        return True
    letters = (LETTERS.fullmatch(f"{one};{other}") for one, other in pairwise(texts))
    return any(each is not None and (each[1] or each[2]) for each in letters)


def _less_likely(said: str, claimed: int, hedges: Hedges) -> int | None:
    """Which of the claims of a piece is called less likely, 0 where it is the one before; None
    where none is."""
    before, after = hedges.before.match(said), hedges.after.search(said)
    if before and hedges.less.search(before[0]):
        return 1 if claimed and said[before.end() :][:1] not in (")", "）") else 0
    return claimed if after and hedges.less.search(after[0]) else None


def _may_share(one: str, other: str, hedges: Hedges) -> bool:
    """Whether the shorter of two may lack a word that the longer has: "contact or atopic
    dermatitis", "allergy to nickel or latex"."""
    first, second = (
        len(each) if hedges is HEDGES["zh"] else len(each.split()) for each in (one, other)
    )
    if first < second or one.endswith("-"):
        return not hedges.noun.search(one.strip(AROUND))
    return first > second == 1 and hedges.of.search(one) is not None


def _joined(item: str, hedges: Hedges) -> list[str]:
    """ "tinea and scabies" → both; of unequal lengths they may be one thing: "osteomyelitis of the
    spine and discitis"."""
    items = hedges.joins.split(item)
    return items if len(_lengths(items, hedges)) == 1 else [item]


def _lengths(items: list[str], hedges: Hedges) -> set[int]:
    return {len(item) if hedges is HEDGES["zh"] else len(item.split()) for item in items}


def _bare(said: str, hedges: Hedges) -> str:
    return _stripped(hedges.after.sub("", hedges.before.sub("", said)))


def _stripped(text: str) -> str:
    """Without what stands around it, but for the point of ".5"."""
    said = text.strip(AROUND)
    point = text[: text.find(said)][-1:] if said[:1].isdecimal() else ""
    return f"{point}{said}" if point in (".", ",", "，") else said


def _pieces(text: str, hedges: Hedges) -> list[tuple[str, bool]]:
    """What may hold a claim each, and whether it stands in a list of what is possible."""
    numbers = list(NUMBERED.finditer(text))
    places = ["123456789".find(each[1]) if each[1] else ord(each[2]) - ord("①") for each in numbers]
    if len(numbers) > 1 and places == list(range(len(numbers))):
        ends = [0, *(number.start() for number in numbers), len(text)]
        starts = [0, *(number.end() for number in numbers)]
        first, *pieces = [text[start:end] for start, end in zip(starts, ends[1:], strict=True)]
        pieces = [*hedges.parts.split(first), *pieces]
    else:
        pieces = hedges.parts.split(text)
    found, listed = [], False
    for piece in map(str.lstrip, pieces):
        label = hedges.label.match(piece)
        listed = listed or label is not None
        bare = _stripped(piece[label.end() if label else 0 :])
        found.append((bare if "(" in bare else bare.rstrip(")）"), listed))
    return [(piece, listed) for piece, listed in found if piece]
