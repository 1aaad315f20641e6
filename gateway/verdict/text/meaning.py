"""What an answer says, as far as rules can tell: two answers with one meaning count together.

Only what is certain is made equal: spelling and marks, what stands around an answer ("the image
shows the left lung"), the order of a list, number words, the field's synonyms for whole answers,
and a sentence that is the question again, with a yes or a no to it. Sides, organs, numbers and
negations always tell answers apart; whatever no rule knows does too.

`meaning` is the order of it: marks, labels and explanations go (`_bare`); words and numbers are
spelled one way (`_spelled`); then whole answers that a table knows, a side's letter, an option's,
yes or no (`_yes_or_no`); of anything else the question's own words go (`_news`), and what is left
is a list (`_items`). Another language has its entry in the tables of `words`, `numbers`,
`spelling`, `questions` and `claims`, and its words in those of `modality` and `declining`.
"""

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import dropwhile, islice, takewhile

from gateway.contract import Language
from gateway.verdict.text.modality import named_in
from gateway.verdict.text.numbers import COMPARISONS, NUMBERS, UNITS, in_digits
from gateway.verdict.text.questions import kind_of
from gateway.verdict.text.spelling import FOLDED, spelled_one_way
from gateway.verdict.text.words import (
    ANSWERS,
    BESIDE,
    NO,
    NONE,
    NOT_SEEN,
    NOT_SO,
    NOT_THERE,
    SO,
    SYNONYMS,
    THERE,
    WORDS,
    YES,
    Words,
)

Meaning = tuple[str, ...]
YES_OR_NO = YES | NO
BOTH = {"both", "ambos", "ambas"}

HAN = re.compile(r"[\u3400-\u9fff]")
# A comma between digits is a decimal one, or parts thousands.
COMMA = re.compile(r"(?<!\d),|,(?!\d)|[、;\n]")
LEVEL = re.compile(r"[;\n]")
SIDES = {"left", "right", "bilateral", "izquierdo", "izquierda", "derecho", "derecha"} | set(
    "左右双"
)
SIDE = {"side", "lado", "侧", "边"}
SENTENCE = re.compile(r"(?<=[.!?]) |(?<=[。!?])|\n")  # a Western full stop has a space behind it
HEAD = re.compile(
    rf"({'|'.join(sorted(YES_OR_NO, key=len, reverse=True))})"
    r"(?: ?([,.;:!。\n]|[-–—] |[–—])\s*|$|(?= \(| (?:it|there|this|that|they|these|because)\b)"
    r"|(?<=^si)(?= (?:hay|se|es|existe|tiene)\b))"
)
HYPHEN = re.compile(r"(?<=[^\W\d_])-(?=\w)|(?<=\w)-(?=[^\W\d_])")  # a minus or a range stays
SIGN = rf"[{COMPARISONS}]|(?<=[a-z0-9])[*+-](?![\w*])"  # T2* is not T2
NUMBER = r"\d+(?:[.,]\d+)*(?![\d°])"
# So many, or so much; not which: "4th rib", "T2".
COUNTED = re.compile(
    rf"(?:[{COMPARISONS}] ?)?{NUMBER}(?:(?:-| x ){NUMBER})*"
    rf"(?: ?(?:{'|'.join(sorted(set(UNITS.values())))})(?![a-z]))?"
)
WORD = re.compile(rf"\d+(?:[.,]\d+)*°?|[^\W\d_]+|{SIGN}")
# "There used to be one" says of today what "formerly" does; "used to take the image" is no past.
FORMERLY = re.compile(
    r"\b(?:used to (?=(?:be|have|exist|appear|show|contain|include|lie|sit)\b)|had (?=been\b))"
)
NOT = re.compile(r"n't\b|(?<=\bcan)(?=not\b)")
DOUBLE_NO = re.compile(r"(\bno (?:\w+ ){1,3})ningun[oa]?\b")  # in Spanish no more than one
# Hyphens and a minus unlike the others, too.
VARIANTS = FOLDED | dict.fromkeys(map(ord, "\u2010\u2212"), "-") | {ord("’"): "'"}
RANGE = re.compile(r"–(?<=\d–)(?=\w)")
# 10² is not 102, and 1ª not 1a.
RAISED = {ord(raised): f"^{number}" for number, raised in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")}
RAISED |= dict.fromkeys(map(ord, "ºª"), "°")
# A search takes a tenth of what a translation takes, and most texts need none.
HAS_RAISED, HAS_VARIANTS = (
    re.compile(f"[{''.join(map(chr, table))}]") for table in (RAISED, VARIANTS)
)
# "What is the size of", and no "what is the cause of", or "the opposite side of".
OF = re.compile(
    r"(?:what (?:is|are) the|¿?cual(?:es)? (?:es|son) (?:el|la)) (?:size|color|shape|density|"
    r"diameter|length|width|thickness|height|volume|texture|intensity|tamaño|forma|densidad|"
    r"diametro|longitud|anchura|grosor|altura|volumen|textura|intensidad) (?:of|del?) "
)
# "Is there a missing tooth?": who says that it is absent may say yes, and "Yes, there is a tooth"
# is no part of that question.
ABSENCE = re.compile(
    r"missing|absen|\black\b|\bloss of|\blost\b|agene|aplas|non-?(?:visual|contrast)|without|"
    r"negativ|resolution of|resolved|remov|resect|ectomy|amputat|\bhealed\b|\bfalta|ausen|"
    r"p[eé]rdida de (?!volumen|peso)|\bsin\b|extirpa|amputac|缺(?![血氧损陷])|消失|切除"
)
NORMAL = re.compile(r"\bnormal\b")
BRACKETS = re.compile(r"([^(]+?) ?\(([^()]+)\)( [^()]+)?")

# Callers choose what is read here: no pattern may take more than a few steps for each character, so
# none looks for an end that it has looked for before.
# Marks of a chat, by what is left of them.
MARKS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"</?(?:b|i|em|strong|p|br)\s*/?>"), " "),
    (re.compile(r"<\|im_start\|>\s?assistant\b|<start_of_turn>\s?model\b"), " "),
    (
        re.compile(
            r"</?s>|<(?:pad|[be]os|(?:start|end)_of_turn)>|<\|(?:im_(?:start|end)|assistant|user|"
            r"system|end|endoftext|(?:begin|end)_of_text|eot_id|(?:start|end)_header_id)\|>"
        ),
        " ",
    ),
    (re.compile(r"`+"), ""),
    (re.compile(r"(\*\*|__)(.+?)\1"), r"\2"),
    (re.compile(r"\*(?=\S)([^*\n]++)(?<=\S)\*(?!\w)"), r"\1"),
    (re.compile(r"^[^\S\n]*+(?:#+|>(?!\s*\d))\s+", re.M), ""),
)
MARKED = re.compile(r"[*_`<>#\\{]")
ROLE = re.compile(r"^\s*(?:#+ )?(?:assistant|asistente|chatbot|gpt|助手) ?:\s*")
FACE = re.compile(r"\\(?:text(?:bf|it|rm)?|math(?:bf|rm|it))\{([^{}]*)\}")
BOX = re.compile(r"\\boxed\{([^{}]*)\}|<answer>((?:(?!</?answer>).)*+)</answer>", re.S)
OBJECT = re.compile(r"\{[^{}\[\]]+\}", re.S)
BULLET = re.compile(r"^[^\S\n]*+(?:[-*•]|\d+[.)])\s+", re.M)
DASH = re.compile(r"^[^\S\n]*+(?:[*•]|-(?!\s+\d))\s+", re.M)  # "- 3" may be a minus
QUOTED = re.compile(
    r"""["'“‘「](.+)["'”’」]|\(([^()]+)\)|\[([^\[\]]+)\]|【([^【】]+)】|\$\$?([^$]+)\$\$?"""
)
PARTS = {"type", "kind", "tipo", "clase"}  # of none there is no kind
# What has a number, and is no count of anything.
NUMBERED = {"number", "numero", "image", "figure", "picture", "scan", "patient", "imagen", "figura"}
NUMBERED |= {"foto", "paciente", "图像", "图片", "影像", "图"}
# A short answer that stands behind a label, or any as a list's one line.
LABELLED = re.compile(r"(?:a|ans|response|reply|r|respuesta) ?: ?(.+)", re.S)
LISTED = re.compile(r"1[.)] ([^\W\d](?:(?!\d[.)] ).)*+)", re.S)
FENCE = re.compile(r"^\s*```\w*\s*$", re.M)
LETTERS = "ABCDEFGH"
OPTION = re.compile(r"(?:^|(?<=[\s,;?(]))\(?([A-H])[).:](?=\s)")
CHOSEN = re.compile(
    r"(?:(?:option |choice |opcion |选项?|选择 ?))?\(?([a-h])\)?(?:[.:,] ?|$| (?=\w))(.*)", re.S
)
LETTERED = re.compile(r"^\(?[a-h]\) ")
# What beside a number may say that it is not just that many: a sign, a comparison, a unit.
INEXACT = re.compile(r"""[^\w\s.,;:!()'"“”。、]|(?<!\d)[.,]\d""")
COMPARING = ("modality", "which_of", "other")  # a question of these may ask which image shows it
COPULAS = 8  # of an answer that are looked at: no sentence has more
# Between what a thing is in and that thing.
ARTICLES = {"the", "a", "an", "this", "that", "these", "those", "its", "su", "este", "esta"}
QUALITIES = {"normal", "size", "appearance", "shape", "position", "contour", "midline", "density"}
QUALITIES |= {"tamaño", "aspecto", "forma", "posicion", "contorno", "densidad"}
ARTICLES |= {"el", "la", "los", "las", "lo", "un", "una"}


@dataclass(frozen=True)
class Asked:
    """What a question leaves open. `content` is what it holds beside words that any question has,
    `orders` are those in which a statement may have it, links and all (`_stated`); unless the
    question `states` something ("is there"), a statement needs no such word either. `before` are
    the contents that an answer may have before it comes to something new: none, or the question
    again; `behind` what it may have after that. It `counts` things that are called `counted`, asks
    which of other things than sides where it is `either`, and for what is not there where it is for
    an `absence`. An `ordered` one asks for several things or for an order: a list's order tells
    something. Of an answer that is taken `whole`, nothing goes that claims anything itself.
    """

    content: Meaning = ()
    orders: tuple[Meaning, ...] = ((),)
    states: bool = True
    one_modality: bool = False  # "the CT shows" is "the image shows"
    told: frozenset[str] = frozenset()  # its sides and organs
    yes_or_no: bool = False
    before: frozenset[Meaning] = frozenset({()})
    options: Mapping[str, Meaning] = field(default_factory=dict)  # by letter
    counts: bool = False
    counted: Meaning = ()
    either: bool = False
    absence: bool = False
    may: bool = False
    is_of_sight: bool = False  # it asks what can be seen
    where: bool = False
    sides: bool = False
    behind: Meaning | None = None
    front: Meaning = ()  # the content of what is asked, before the things that it is asked of
    echo: re.Pattern[str] | None = None  # what says all of the question again of "it"
    chosen: re.Pattern[str] | None = None  # names one of the two sides that it asks to choose from
    there: bool = False
    found: bool = False
    ordered: bool = False
    whole: bool = False

    def is_again(self, content: Meaning, negations: int) -> bool:
        """Whether what has this content is the question again, as a statement."""
        return bool(content) and content in self.orders and not negations


NOTHING = Asked()
# What is said most of the time needs no rules.
SHORT: dict[str, Meaning] = {phrase: (name,) for phrase, name in SYNONYMS.items()}
SHORT |= dict.fromkeys(YES, ("yes",)) | dict.fromkeys(NO, ("no",))


# The same words come again: from other workers, over grey, and as the others arrive.
@lru_cache(maxsize=2_000)
def meaning(
    text: str, language: Language = "en", question: str = "", whole: bool = False
) -> Meaning:
    """What makes two answers to a question in `language` equal; () where nothing was said.

    "Right lung, left lung." and "left lung, right lung" are equal, so are "Magnetic resonance" and
    "MRI"; "yes" and "yes, left" are not. To "Is there an effusion?" "There is no effusion." is no.

    What only explains an answer is no part of its meaning: "Yes, because fluid is seen" is a yes.
    With `whole` it is one: only what claims nothing itself goes, and the question said again.
    """
    words = _words_of(text, language)
    asked = _asked(question, language) if question else NOTHING
    if whole:
        asked = replace(asked, one_modality=False, whole=True)
    said = _spelled(_bare(text, asked, words), words)
    if not said.strip("*_#`…"):
        return ()
    if said in NONE and asked.counts:
        return ("0",)
    if said in SHORT and not (said in BOTH and asked.either):
        return SHORT[said]
    if asked.sides and said in words.initials:
        return SHORT[words.initials[said]]
    if not asked.options:
        labelled = LABELLED.fullmatch(said)
        right = said[:2] in ("r:", "r ") and words.language != "es"
        if labelled and not right and labelled[1] in SHORT:
            said = labelled[1]
        elif listed := LISTED.fullmatch(said):
            said = listed[1]
    if option := _option(said, asked, language):
        return option
    if answer := _yes_or_no(said, asked, words):
        return (answer,)
    news = _news(said, asked, words)
    if asked.chosen and not asked.whole:
        chosen = asked.chosen.fullmatch(said) or asked.chosen.fullmatch(news)
        if chosen:
            return SHORT[chosen[1]]
    found = _items(news, asked, words)
    # "Both" of two things that a question names are no sides.
    return ("both",) if asked.either and found == SHORT["both"] and news in BOTH else found


@lru_cache(maxsize=64)
def meanings(
    choices: tuple[str, ...], language: Language, question: str
) -> Mapping[Meaning, tuple[str, ...]]:
    """Which of a question's choices mean what: it is asked again for every worker's answer."""
    found: dict[Meaning, tuple[str, ...]] = {}
    for choice in choices:
        meant = meaning(choice, language, question)
        found[meant] = (*found.get(meant, ()), choice)
    return found


def core(text: str, language: Language, question: str) -> str:
    """What an answer says without marks, labels and the question's words around it, as it is
    spelled there; the whole, where it does not stand there in one piece."""
    words = _words_of(text, language)
    plain = _plain(text)
    asked = _asked(question, language) if question else NOTHING
    said = _news(_bare(text, asked, words), asked, words)
    at = plain.find(said)
    return text[at : at + len(said)] if at >= 0 and len(plain) == len(text) else text


def adds_nothing(text: str, language: Language, question: str) -> bool:
    """Whether it says yes, no, or words of the question alone."""
    if meaning(text, language, question) in (("yes",), ("no",)):
        return True
    content, _ = _content(_plain(text), _words_of(text, language))
    return set(content) <= set(_asked(question, language).content)


def telling(text: str, language: Language) -> tuple[frozenset[str], bool]:
    """The sides, organs, numbers and doubts that a text names, what it holds of words that are
    half a denial ("营养不良"), and whether it denies anything."""
    words = _words_of(text, language)
    plain = _plain(text)
    tokens = _tokens(plain, words)
    told = _told(plain, tokens, words).union(words.whole & set(tokens))
    return told, _content_of(tokens, words)[1] > 0


def _words_of(text: str, language: Language) -> Words:
    """Chinese is known by its script; what else a Chinese case holds is taken for English."""
    if HAN.search(text):
        return WORDS["zh"]
    return WORDS["en" if language == "zh" else language]


def _plain(text: str) -> str:
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


def _spelled(plain: str, words: Words) -> str:
    """With every number in digits, and every word as its language's tables have it."""
    return in_digits(spelled_one_way(plain, words.language), words.language)


def with_letters(choices: Sequence[str], question: str) -> str:
    """The question with its choices behind it where these have letters: who says "B" means one."""
    marks = [OPTION.match(choice) for choice in choices]
    letters = "".join(mark[1] for mark in marks if mark)
    lettered = len(choices) > 1 and letters == LETTERS[: len(choices)]
    return "\n".join([question, *choices]) if lettered else question


@lru_cache(maxsize=64)
def _asked(question: str, language: Language) -> Asked:
    words = _words_of(question, language)
    options = list(OPTION.finditer(question))
    if len(options) < 2 or "".join(option[1] for option in options) != LETTERS[: len(options)]:
        options = []
    ends = [option.start() for option in options[1:]] + [len(question)]
    plain = _plain(question[: options[0].start()] if options else question)
    plain = words.around.sub("", " ".join(plain.split()))
    kind = kind_of(plain, "zh" if words.language == "zh" else language)
    yes_no = kind == "yes_no" or (kind != "which_of" and bool(words.polar.match(plain)))
    tokens = _tokens(plain, words)
    told = _told(plain, tokens, words)
    named = kind == "which_of" and told.issuperset(words.initials.values())
    sides = named or bool(words.sides.search(plain))
    content, negations = _content_of(tokens, words)
    # "Which is bigger, the liver or the spleen?" asks what is bigger.
    front = re.split("[,:]", plain)[0] if kind == "which_of" else plain
    before = [] if negations else _asked_again(plain, tokens, content, words)
    if kind == "which_of" and not negations:
        before.append(_before_options(plain, words))
    of_two = _behind_options(plain, words) if kind == "which_of" else ()
    # "Where is it located?" – "It is in the lung."
    before += [tuple(word for word in each if word not in words.placed) for each in before]
    stated, _ = _stated(plain, words)
    counts = words.counts.search(plain)
    either = any(part.strip(" ,") for part in words.either.findall(plain))
    either = either and told.isdisjoint(SIDES | SIDE | BOTH) and not words.sides.search(plain)
    absence = bool(ABSENCE.search(plain))
    return Asked(
        content=content,
        orders=(stated, tuple(word for word in stated if word != "<and>"), *_turned(plain, words)),
        states=bool(words.states.search(_without_whether(plain, words))),
        one_modality=kind not in COMPARING and not named_in(plain),
        told=told,
        yes_or_no=yes_no and not negations,
        before=frozenset({(), *before}),
        options={
            option[1].lower(): meaning(question[option.end() : end].strip(" \n\r\t,;("), language)
            for option, end in zip(options, ends, strict=bool(options))
        },
        counts=bool(counts),
        counted=_counted_by(plain[counts.end() :], words) if counts else (),
        either=either,
        absence=absence,
        may=words.may.search(plain) is not None,
        is_of_sight=words.seen.search(plain) is not None,
        where=kind in ("plane", "place") or sides or bool(words.wheres.search(plain)),
        sides=sides,
        behind=None if negations else of_two or _asked_behind(front, tokens, words),
        front=() if of_two else _content(front, words)[0],
        echo=_filled(words.echoes, _spelled(plain, words)),
        chosen=_filled(words.chooses, _spelled(plain, words)),
        there=bool(words.there.search(plain)) and not (absence or NORMAL.search(plain)),
        found=bool(words.found.search(plain)),
        ordered=bool(words.joins.search(plain) or words.in_order.search(plain) or "、" in plain),
    )


def _without_whether(question: str, words: Words) -> str:
    """ "肝脏是否增大?" asks of the liver, and its 是 states nothing; "是否CT?" is left."""
    whether = words.whether.search(question)
    if not whether or not _content(question[: whether.start()], words)[0]:
        return question
    return question[: whether.start()] + question[whether.end() :]


def _before_options(question: str, words: Words) -> Meaning:
    """What a question holds before the things that it names: the lesion, of "Is the lesion benign
    or malignant?". These are as long as the last one, or sides."""
    chunks = [chunk for chunk in words.either.split(question) if chunk.strip()]
    if len(chunks) < 2:
        return ()
    first, last = (_content(chunk, words)[0] for chunk in (chunks[0], chunks[-1]))
    first = tuple(word for word in first if word not in words.asks)
    if not first or not last:
        return ()
    sides = first[-1] in SIDES and last[0] in SIDES
    return first[: max(0, len(first) - (1 if sides else len(last)))]


def _behind_options(question: str, words: Words) -> Meaning:
    """By what a question compares the two things that it names: larger, of "Is the liver or the
    spleen larger?"."""
    chunks = [chunk for chunk in words.either.split(question) if chunk.strip()]
    if len(chunks) != 2 or words.language == "zh":
        return ()
    first, last = (_content(chunk, words)[0] for chunk in chunks)
    behind = last[len(first) :]
    return behind if first and len(behind) == 1 and behind[0] in words.greater else ()


def _turned(question: str, words: Words) -> Iterator[Meaning]:
    """ "¿Es normal el corazón?" – "El corazón es normal." """
    for form, statement in words.turned:
        if found := form.fullmatch(question):
            parts = {name: part or "" for name, part in found.groupdict().items()}
            yield _stated(statement.format(**parts), words)[0]


def _filled(forms: Sequence[tuple[re.Pattern[str], str]], question: str) -> re.Pattern[str] | None:
    """What an answer to a question of one of these forms may look like, with its own words."""
    for form, answer in forms:
        if found := form.fullmatch(question):
            words = {name: re.escape(word or "") for name, word in found.groupdict().items()}
            return re.compile(answer.format(**words))
    return None


def _asked_behind(question: str, tokens: Sequence[str], words: Words) -> Meaning | None:
    """How an answer may repeat a question after it has said what was asked: "is affected", of
    "Which side is affected?", "is the largest organ" of "What is the largest organ?"."""
    if words.language == "zh" or not tokens or tokens[0] not in words.asks:
        return None
    copula = words.copula.search(question)
    return _stated(question[copula.end() :], words, led=True)[0] if copula else None


def _asked_again(
    question: str, tokens: Sequence[str], content: Meaning, words: Words
) -> list[Meaning]:
    """How an answer may repeat a question before it says what was asked: "the largest organ is",
    of "What is the largest organ?"; "the lung is", of "What color is the lung?"."""
    if words.language == "zh":
        # There the question is the answer with a word for what is not known.
        unknown = next((token for token in tokens if token in words.asks), None)
        return [_content(question.partition(unknown)[0], words)[0]] if unknown else []
    opening = words.fillers - words.asks
    tokens = list(dropwhile(opening.__contains__, tokens))
    if not tokens or tokens[0] not in words.asks:
        return []
    content = tuple(token for token in content if token not in words.asks)
    again = [content]
    if tokens[1:] and tokens[1] not in words.fillers | words.asks:  # what color, which organ
        again += [content[1:], content[1:] + content[:1]]
    elif found := OF.match(question):  # "What is the size of the nodule?" – "The nodule is 3 cm."
        again.append(_content(question[found.end() :], words)[0])
    return again


def _bare(text: str, asked: Asked, words: Words) -> str:
    """In lower case, without marks, labels, and what only explains the answer behind it."""
    plain = _plain(text)
    if MARKED.search(plain):
        plain = FACE.sub(r"\1", FENCE.sub("", plain))
        if not asked.whole:
            plain = _in_a_box(plain)
        for mark, left in MARKS:
            plain = mark.sub(left, plain)
    plain = ROLE.sub("", plain)
    plain = DASH.sub("", plain) if len(BULLET.findall(plain)) == 1 else BULLET.sub(",", plain)
    plain = "\n".join(filter(None, (" ".join(line.split()) for line in plain.splitlines())))
    labels = list(words.label.finditer(plain)) if words.answer in plain else ()
    # Whoever answers twice may have asked himself another question.
    if len(labels) == 1 and not _says_something(plain[: labels[0].start()], asked, words):
        plain = plain[labels[0].end() :]
    explained = words.explanation.search(plain) if ":" in plain and not asked.whole else None
    if explained and explained.start():
        plain = plain[: explained.start()]
    if quoted := QUOTED.fullmatch(plain.strip().rstrip(".。")):
        plain = next(filter(None, quoted.groups()))
    plain = plain.strip("¡ \n")
    if asked.one_modality:
        plain = words.pictures.sub(words.image, plain)
    return words.source.sub("", plain).rstrip(".。! ")


def _in_a_box(text: str) -> str:
    """The answer that stands in an object or in a box, whatever is around it; else the whole."""
    if OBJECT.fullmatch(text.strip()):
        text = _in_json(text)
    boxes = {" ".join("".join(found).split()) for found in BOX.findall(text)} - {""}
    return boxes.pop() if len(boxes) == 1 else text


def _in_json(text: str) -> str:
    """The answer that an object holds beside nothing but why and how sure; else the whole."""
    try:
        text_of_json = text if '"' in text else text.replace("'", '"')
        told = json.loads(text_of_json, parse_float=str, object_pairs_hook=list)
    except ValueError:
        return text
    answers = [value for name, value in told if name in ANSWERS]
    if len(answers) != 1 or any(name not in ANSWERS | BESIDE for name, _ in told):
        return text
    if isinstance(answers[0], bool):
        return "yes" if answers[0] else "no"
    return str(answers[0]) if isinstance(answers[0], str | int) else text


def _says_something(before: str, asked: Asked, words: Words) -> bool:
    """Whether what stands before an answer's label may itself be an answer, or the first items of
    one; whole sentences lead to it."""
    if asked.whole:
        return bool(before.strip())
    listed = before.rstrip().endswith(",") and bool(_content(before, words)[0])
    return listed or HEAD.match(before) is not None


def _option(said: str, asked: Asked, language: Language) -> Meaning | None:
    """The option whose letter was given, where what is said beside it is that option too."""
    if not asked.options or not (given := CHOSEN.fullmatch(said)):
        return None
    option = asked.options.get(given[1])
    return option if option and (not given[2] or meaning(given[2], language) == option) else None


def _yes_or_no(said: str, asked: Asked, words: Words) -> str | None:
    """The answer, where it is yes or no and no more than that."""
    if asked.yes_or_no and said not in asked.content:
        if said in SO:
            return "yes"
        framed = words.frames.match(said)
        told = said[framed.end() :] if framed else said  # "It is absent."
        if said in NOT_SO or (asked.there and told in NOT_THERE):
            return "no"
        if said in NOT_SEEN and not asked.absence:
            return "no"
        if asked.there and told in THERE:
            return "yes"
    topic, _, after = said.partition(": ")
    if after and HEAD.match(after) and asked.yes_or_no and asked.is_again(*_stated(topic, words)):
        said = after  # "Effusion: no"
    head = HEAD.match(said)
    first, *others = SENTENCE.split(said[head.end() :] if head else said)
    if head is None:
        if words.asking.search(first):
            return None
        content, negations = _stated(first, words)
        echo = asked.echo.fullmatch(first) if asked.yes_or_no and asked.echo else None
        if echo:
            answer = "no" if any(echo.groups()) else "yes"  # "It is not enlarged."
        else:
            again = asked.yes_or_no and content and content in asked.orders and negations < 2
            again = again and _is_as_certain(first, asked, words)
            if not again or not (negations or words.states.search(first) or not asked.states):
                return None
            answer = "no" if negations else "yes"
    else:
        answer = "yes" if head[1] in YES else "no"
        if first and head[2] in (".", "!", "。", "\n"):
            others.insert(0, first)
        elif (first := first.strip()) and not (
            first in (SO if answer == "yes" else NOT_SO) or _echoes(first, answer, asked, words)
        ):
            because = words.because.match(first)
            if not because:
                return None
            others.insert(0, first[because.end() :])
    explained = (_explains(other, answer, asked, words) for other in others if other)
    return answer if all(explained) else None


def _echoes(sentence: str, answer: str, asked: Asked, words: Words) -> bool:
    """Whether it says the question again, as the answer has it."""
    content, negations = _stated(sentence, words)
    # To "CT or MRI?" one of them is no echo.
    again = (asked.yes_or_no or not content) and _is_as_certain(sentence, asked, words)
    if asked.whole or (asked.absence and not ABSENCE.search(sentence)):
        again = again and content in ((), *asked.orders) and not words.asking.search(sentence)
        return again and negations == (answer == "no")
    again = again and any(_is_within(content, order) for order in asked.orders)
    again = again and _tells_no_more(sentence, asked, words) and not words.asking.search(sentence)
    return again and bool(negations) == (answer == "no")


def _is_as_certain(sentence: str, asked: Asked, words: Words) -> bool:
    """It neither says only that something may be so, nor that what may be so is."""
    may = words.may.search(sentence) is not None
    if may and not asked.may:
        return words.seen.search(sentence) is not None
    return may or not asked.may or asked.is_of_sight


def _explains(sentence: str, answer: str, asked: Asked, words: Words) -> bool:
    """Whether it may go without saying: it neither contradicts the answer nor tells a side, an
    organ or a number that was not asked about."""
    if words.asking.search(sentence) or _contradicts(sentence, answer, words):
        return False
    if asked.whole or _echoes(sentence, answer, asked, words):
        return _echoes(sentence, answer, asked, words)
    content, negations = _content(sentence, words)
    if not asked.yes_or_no or _is_within(content, asked.content) or (negations and answer == "yes"):
        return False
    # "Yes. Ileum." and "Yes. It is in the ileum." say more of what was asked about.
    if words.of_it.match(sentence) or (len(content) < 5 and not words.states.search(sentence)):
        return False
    # "No. A small amount is present." has it after all.
    if answer == "no" and not negations:
        has_it = asked.found and words.found.search(sentence)
        if has_it or set(content) & set(asked.content):
            return False
    return _tells_no_more(sentence, asked, words)


def _contradicts(sentence: str, answer: str, words: Words) -> bool:
    """Whether it says yes where the answer is no, or no where it is yes."""
    other = NO if answer == "yes" else YES
    if words.language == "zh":  # there a yes is a word of any sentence, but for its end
        said = sentence.rstrip("。.! ")
        return any(re.search(rf"(?:^|[是为:, ]){each}$", said) for each in other)
    # A "no" may be another word's; what that negates is told elsewhere.
    return not (other - words.negators).isdisjoint(_tokens(sentence, words))


def _tells_no_more(sentence: str, asked: Asked, words: Words) -> bool:
    """One of two sides that were asked about is more than both."""
    told = _told(sentence, _tokens(sentence, words), words)
    state = told & words.states_of_it
    return state <= asked.told and told - state in (set(), asked.told - words.states_of_it)


def _told(sentence: str, tokens: Sequence[str], words: Words) -> frozenset[str]:
    tokens = [NUMBERS.get(token, token) for token in tokens]
    numbers = [token for token in tokens if token[0].isdecimal() or token in COMPARISONS]
    if words.language == "zh":
        return frozenset([*numbers, *(word for word in words.telling if word in sentence)])
    return frozenset([*numbers, *(words.telling & set(tokens))])


def _is_within(some: Meaning, whole: Meaning) -> bool:
    """In this order, perhaps with others between."""
    rest = iter(whole)
    return all(each in rest for each in some)


def _news(said: str, asked: Asked, words: Words) -> str:
    """What an answer says beyond "the image shows" and the question's own words."""
    begins = said.partition(" ")[0]
    short = said.count(" ") < 2 and begins.isascii() and begins.isalpha()
    if short and begins not in words.fillers and not asked.counts:
        return said
    framed = words.frames.match(said)
    news = said[framed.end() :] if framed else said
    if tail := words.tails.search(news):
        news = news[: tail.start()]
    for copula in list(islice(words.copula.finditer(news), COPULAS))[::-1]:
        content, negations = _content(news[: copula.start()], words)
        if not negations and content in asked.before:
            news = news[copula.end() :]
            break
    else:
        news = _before(news, asked, words)
    if asked.where:
        news = words.place.sub("", news)
    if asked.counts:
        news = _count(news, asked, words) or news
    return news or said


def _count(news: str, asked: Asked, words: Words) -> str | None:
    """The number, where an answer to "how many" says no more than so many of them."""
    if news in NONE:
        return "0"
    if words.language == "es" and news in words.single:
        return "1"
    content, negations = _content(news, words)
    # Of "how many" an answer says nothing by "many".
    told = {*asked.content, *words.sums} - words.asks
    counted = [token for token in content if token not in told and token not in words.single]
    tokens = _tokens(news, words)
    exact = words.compares.isdisjoint(tokens) and not INEXACT.search(HYPHEN.sub(" ", news))
    if asked.whole:  # "3 in the left" of two sides is more than 3
        named = {each for each in _told(news, tokens, words) if not each[0].isdecimal()}
        exact = exact and named in (set(), asked.told)
    if not exact:
        return None
    digits = [NUMBERS.get(token, token)[0].isdecimal() for token in tokens]
    number = digits.index(True) if True in digits else None
    if number is not None and not negations and len(counted) == 1 and counted[0].isdecimal():
        before = tokens[number - 1 : number]
        # Of ribs one, and not so many: "rib 4", "number 4", "image 4".
        of_many = bool(before) and before[0] in NUMBERED | {*asked.content}
        same = _is_of(_counted(tokens[number + 1 :], words), asked, words)
        return counted[0] if same and not of_many else None
    # "A number of nodules" may be any, and "no nodule in the left lung and a nodule in the right
    # one" is no 0.
    once = bool(content) and not counted and words.sums.isdisjoint(content)
    once = once and len(set(content)) == len(content) and len(COMMA.split(news)) == 1
    denied = next((at for at, token in enumerate(tokens) if token in words.negators), -1)
    of_it = not (NONE.isdisjoint(tokens[:1]) and PARTS.isdisjoint(asked.counted)) or _is_of(
        _counted(tokens[denied + 1 :], words), asked, words
    )
    if not once or not of_it:
        return None
    if negations == 1:
        return "0"
    return "1" if not negations and tokens[0] in words.single else None


def _counted_by(asked: str, words: Words) -> Meaning:
    """What a question counts; () of several things."""
    several = words.joins.search(asked) or words.either.search(asked)
    return () if several else _counted(_tokens(asked, words), words)


def _counted(tokens: Sequence[str], words: Words) -> Meaning:
    """What is asked how many there are of: arteries, of "arteries supply the kidney"."""
    if words.language != "en":
        return _first_named(tokens, words)
    end = next((at for at, token in enumerate(tokens) if words.plural.search(token)), len(tokens))
    return _first_named(tokens[: end + 1], words)


def _first_named(tokens: Sequence[str], words: Words) -> Meaning:
    """What is named first, in one go: ribs, of "ribs have fractures"."""
    beside = words.fillers | words.negators | words.sums | words.single
    named = dropwhile(beside.__contains__, tokens)
    return _content_of(list(takewhile(lambda token: token not in beside, named)), words)[0]


def _is_of(named: Meaning, asked: Asked, words: Words) -> bool:
    """Whether so many of these are so many of what is asked about: not fractures for ribs."""
    if not named or not asked.counted:
        return True
    if words.language == "es":  # there adjectives stand behind
        return named[0] == asked.counted[0]
    short, long = sorted((named, asked.counted), key=len)
    return named[-1] == asked.counted[-1] or short == long[: len(short)]


def _before(said: str, asked: Asked, words: Words) -> str:
    """What an answer says before the question again: "the left side is affected"."""
    if asked.behind is None or "?" in said:
        return said
    for copula in islice(words.copula.finditer(said), COPULAS):
        thing = said[: copula.start()]
        content, negations = _content(thing, words)
        new = content and not negations and not _is_within(content, asked.front)
        if new and _stated(said[copula.end() :], words, led=True) == (asked.behind, 0):
            return thing
    return said


def _items(said: str, asked: Asked, words: Words) -> Meaning:
    """The parts of a list, each by the name of its meaning. Where one is negated, or says where or
    how much another is, the order may tell which; and of what, where several things were asked."""
    parts = COMMA.split(said)
    if len(parts) == 1 and not words.joins.search(said):
        return (_item(parts[0], words),) if said else ()
    negated = _content(said, words)[1] > 0
    if not negated:
        parts = [item for part in parts for item in _joined(part, words) if item.strip()]
    items = [item for part in parts if (item := _item(part, words))]
    ordered = asked.ordered or negated or words.in_order.search(said) or _has_two_levels(said)
    ordered = ordered or _pairs(parts, words) or _are_of_others(parts, words)
    return tuple(items if ordered else sorted(items))


def _has_two_levels(said: str) -> bool:
    """Whether it has two lists or more: "3 cm, left; 2 cm, right", "large: liver, spleen; small:
    heart", or bullets under two headings."""
    rows = [row for row in LEVEL.split(said) if row.strip(", ")]
    bullets = sum(row.startswith(",") for row in rows)
    lists = sum(bool(COMMA.search(row.strip(", "))) for row in rows)
    rows_of_lists = ";" in said and lists > 0 and len(rows) > 1
    return (
        rows_of_lists or lists > 1 or said.count(":") > 1 or min(bullets, len(rows) - bullets) > 1
    )


def _pairs(parts: Sequence[str], words: Words) -> bool:
    """Whether two parts or more name a number, a side or an organ, and as many none of these, so
    that the order may tell whose each is: "left lung, effusion, right lung, clear"."""
    if len(parts) < 4:
        return False
    told = [_told(part, _tokens(part, words), words) for part in parts]
    return sum(map(bool, told)) > 1 and sum(not named for named in told) > 1


def _are_of_others(parts: Sequence[str], words: Words) -> bool:
    """Whether two parts or more are sides alone, or so many of the same, so that the order alone
    tells what each is of: "2 and 1", "10 cm and 12 cm", "left, right"."""
    counted, sides = [], 0
    for part in parts:
        content = set(_content(part, words)[0])
        sides += bool(content & SIDES) and content <= SIDES | SIDE
        if number := COUNTED.match(part.strip()):
            rest = _content(part.strip()[number.end() :], words)[0]
            counted.append(" ".join(word for word in rest if word not in words.sums))
    some_alike = len(set(counted)) < len(counted)
    return sides > 1 or some_alike or (len(counted) > 1 and "" in counted)


def _joined(part: str, words: Words) -> list[str]:
    """ "liver and heart" → both; "large bowel and stomach" is left whole: both may be large."""
    items = [
        words.article.sub("", LETTERED.sub("", item.strip()))
        for item in words.joins.split(f" {part}")
    ]
    lengths = {len(item) if words.language == "zh" else len(item.split()) for item in items if item}
    return items if len(lengths) == 1 else [part]


def _item(text: str, words: Words) -> str:
    plain = HYPHEN.sub(" ", words.article.sub("", LETTERED.sub("", text.strip())))
    if plain in YES_OR_NO:
        return "yes" if plain in YES else "no"
    plain = words.denial.sub(words.none, NUMBERS.get(plain, plain))
    if (twice := BRACKETS.fullmatch(plain)) and twice[1] in SYNONYMS:
        names = {SYNONYMS.get(each) for each in (twice[1], twice[2], twice[1] + (twice[3] or ""))}
        plain = twice[1] if len(names) == 1 else plain
    return SYNONYMS.get(plain, plain)


def _content(text: str, words: Words) -> tuple[Meaning, int]:
    """The words that make one sentence another than the next, and how often it is negated."""
    return _content_of(_tokens(text, words), words)


def _stated(text: str, words: Words, led: bool = False) -> tuple[Meaning, int]:
    """As `_content`, of a sentence that is held to another: with what links one thing to the next,
    so that a cyst in a mass is no mass in a cyst. What links the first thing to nothing before it
    is kept where the sentence is `led` to it.
    """
    tokens = _tokens(text, words)
    linked = [
        f"<{words.links[token]}>" if token in words.links and _links(tokens, at, words) else token
        for at, token in enumerate(tokens)
    ]
    content, negations = _content_of(linked, words)
    ends = {f"<{link}>" for link in words.links.values()}
    # "In the liver and in the spleen" is "in the liver and spleen".
    content = tuple(
        word for at, word in enumerate(content) if word not in ends or content[at - 1] not in ends
    )
    while content and content[-1] in ends:
        content = content[:-1]
    while not led and content and content[0] in ends:
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


def _content_of(tokens: Sequence[str], words: Words) -> tuple[Meaning, int]:
    tokens = [token for token in tokens if token not in words.fillers]
    negations = sum(token in words.negators for token in tokens)
    content = (NUMBERS.get(token, token) for token in tokens if token not in words.negators)
    return tuple(_singular(token, words) for token in content), negations


def _tokens(text: str, words: Words) -> list[str]:
    text = _spelled(text, words)
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
