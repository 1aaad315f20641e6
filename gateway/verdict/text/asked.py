"""What a question leaves open, and how an answer may say it again."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import dropwhile

from gateway.contract import Language
from gateway.verdict.text.modality import named_in
from gateway.verdict.text.questions import kind_of
from gateway.verdict.text.sentences import (
    SIDE,
    SIDES,
    Meaning,
    as_stated,
    content_of,
    content_of_tokens,
    first_named,
    plain_text,
    spelled,
    tokens_of,
    told_in,
    words_of,
)
from gateway.verdict.text.words import Words

BOTH = {"both", "ambos", "ambas"}
OR = {"or", "nor", "o", "u", "ni"}
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
# With a verb of its own: "Does the tumor invade the liver?"
DO = re.compile(r"^(?:so |and )?(?:do|does|did) ")
LETTERS = "ABCDEFGH"
OPTION = re.compile(r"(?:^|(?<=[\s,;?(]))\(?([A-H])[).:](?=\s)")
COMPARING = ("modality", "which_of", "other")  # a question of these may ask which image shows it


@dataclass(frozen=True)
class Asked:
    """What a question leaves open. `content` is what it holds beside words that any question has,
    `orders` are those in which a statement may have it, links and all (`as_stated`); unless the
    question `states` something ("is there"), a statement needs no such word either. `before` are
    the contents that an answer may have before it comes to something new: none, or the question
    again; `behind` what it may have after that. It `counts` things that are called `counted`, asks
    which of other things than sides where it is `either`, whether there is any of several where it
    has orders of such (`any_of`, with one word for or), and for what is not there where it is for
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
    options: Mapping[str, str] = field(default_factory=dict)  # by letter
    counts: bool = False
    counted: Meaning = ()
    either: bool = False
    any_of: tuple[Meaning, ...] = ()
    absence: bool = False
    may: bool = False
    past: bool = False
    is_of_sight: bool = False  # it asks what can be seen
    where: bool = False
    sides: bool = False
    behind: Meaning | None = None
    front: Meaning = ()  # the content of what is asked, before the things that it is asked of
    echo: re.Pattern[str] | None = None  # what says all of the question again of "it"
    chosen: re.Pattern[str] | None = None  # names one of the two sides that it asks to choose from
    there: bool = False
    of_no_test: bool = False  # who says "positive for it" says that it is there
    found: bool = False
    ordered: bool = False
    whole: bool = False

    def is_again(self, content: Meaning, negations: int) -> bool:
        """Whether what has this content is the question again, as a statement."""
        return bool(content) and content in self.orders and not negations


NOTHING = Asked()


def with_letters(choices: Sequence[str], question: str) -> str:
    """The question with its choices behind it where these have letters: who says "B" means one."""
    marks = [OPTION.match(choice) for choice in choices]
    letters = "".join(mark[1] for mark in marks if mark)
    lettered = len(choices) > 1 and letters == LETTERS[: len(choices)]
    return "\n".join([question, *choices]) if lettered else question


@lru_cache(maxsize=64)
def asked_of(question: str, language: Language) -> Asked:
    words = words_of(question, language)
    options = list(OPTION.finditer(question))
    if len(options) < 2 or "".join(option[1] for option in options) != LETTERS[: len(options)]:
        options = []
    ends = [option.start() for option in options[1:]] + [len(question)]
    plain = plain_text(question[: options[0].start()] if options else question)
    plain = words.around.sub("", " ".join(plain.split()))
    kind = kind_of(plain, "zh" if words.language == "zh" else language)
    yes_no = kind == "yes_no" or (kind != "which_of" and bool(words.polar.match(plain)))
    tokens, in_one_way = tokens_of(plain, words), spelled(plain, words)
    told = told_in(plain, tokens, words)
    named = kind == "which_of" and told.issuperset(words.initials.values())
    sides = named or bool(words.sides.search(plain))
    content, negations = content_of_tokens(tokens, words)
    # "Which is bigger, the liver or the spleen?" asks what is bigger.
    front = re.split("[,:]", plain)[0] if kind == "which_of" else plain
    before = [] if negations else _asked_again(plain, tokens, content, words)
    if kind == "which_of" and not negations:
        before.append(_before_options(plain, words))
    of_two = _behind_options(plain, words) if kind == "which_of" else ()
    # "Where is it located?" – "It is in the lung."
    before += [tuple(word for word in each if word not in words.placed) for each in before]
    stated, _ = as_stated(plain, words)
    past = []  # "Did the fracture heal?" – "The fracture healed."
    if plain.startswith("did "):
        ed = [f"{word.removesuffix('e')}ed" for word in stated]
        past = [(*stated[:at], verb, *stated[at + 1 :]) for at, verb in enumerate(ed)]
    orders = (stated, tuple(word for word in stated if word != "<and>"))
    counts = words.counts.search(plain)
    either = any(part.strip(" ,") for part in words.either.findall(plain))
    either = either and told.isdisjoint(SIDES | SIDE | BOTH) and not words.sides.search(plain)
    absence = bool(ABSENCE.search(plain))
    there = bool(words.there.search(plain)) and not (absence or NORMAL.search(plain))
    return Asked(
        content=content,
        orders=(*orders, *past, *_turned(plain, words)),
        states=bool(words.states.search(_without_whether(plain, words))),
        one_modality=kind not in COMPARING and not named_in(plain),
        told=told,
        yes_or_no=yes_no and not negations,
        before=frozenset({(), *before}),
        options={
            option[1].lower(): question[option.end() : end].strip(" \n\r\t,;(")
            for option, end in zip(options, ends, strict=bool(options))
        },
        counts=bool(counts),
        counted=_counted_by(plain[counts.end() :], words) if counts else (),
        either=either,
        absence=absence,
        may=words.may.search(plain) is not None,
        past=words.past.search(plain) is not None,
        is_of_sight=words.seen.search(plain) is not None,
        where=kind in ("plane", "place") or sides or bool(words.wheres.search(plain)),
        sides=sides,
        behind=None if negations else of_two or _asked_behind(front, tokens, words),
        front=() if of_two else content_of(front, words)[0],
        echo=_filled(words.echoes, in_one_way),
        chosen=_filled(words.chooses, in_one_way),
        any_of=tuple(map(with_one_or, orders)) if there and kind == "which_of" else (),
        there=there,
        of_no_test=not absence and not any(form.search(plain) for form, _ in words.tested),
        found=bool(words.found.search(plain)),
        ordered=bool(words.joins.search(plain) or words.in_order.search(plain) or "、" in plain),
    )


def with_one_or(content: Meaning) -> Meaning:
    return tuple("or" if word in OR else word for word in content)


def _without_whether(question: str, words: Words) -> str:
    """ "肝脏是否增大?" asks of the liver, and its 是 states nothing; "是否CT?" is left. A "does"
    states nothing either."""
    question = DO.sub("", question)
    whether = words.whether.search(question)
    if not whether or not content_of(question[: whether.start()], words)[0]:
        return question
    return question[: whether.start()] + question[whether.end() :]


def _before_options(question: str, words: Words) -> Meaning:
    """What a question holds before the things that it names: the lesion, of "Is the lesion benign
    or malignant?". These are as long as the last one, or sides."""
    chunks = [chunk for chunk in words.either.split(question) if chunk.strip()]
    if len(chunks) < 2:
        return ()
    first, last = (content_of(chunk, words)[0] for chunk in (chunks[0], chunks[-1]))
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
    first, last = (content_of(chunk, words)[0] for chunk in chunks)
    behind = last[len(first) :]
    return behind if first and len(behind) == 1 and behind[0] in words.greater else ()


def _turned(question: str, words: Words) -> Iterator[Meaning]:
    """ "¿Es normal el corazón?" – "El corazón es normal." """
    for form, statement in words.turned:
        if found := form.fullmatch(question):
            parts = {name: part or "" for name, part in found.groupdict().items()}
            yield as_stated(statement.format(**parts), words)[0]


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
    return as_stated(question[copula.end() :], words, led=True)[0] if copula else None


def _asked_again(
    question: str, tokens: Sequence[str], content: Meaning, words: Words
) -> list[Meaning]:
    """How an answer may repeat a question before it says what was asked: "the largest organ is",
    of "What is the largest organ?"; "the lung is", of "What color is the lung?"."""
    if words.language == "zh":
        # There the question is the answer with a word for what is not known.
        unknown = next((token for token in tokens if token in words.asks), None)
        return [content_of(question.partition(unknown)[0], words)[0]] if unknown else []
    opening = words.fillers - words.asks
    tokens = list(dropwhile(opening.__contains__, tokens))
    if not tokens or tokens[0] not in words.asks:
        return []
    content = tuple(token for token in content if token not in words.asks)
    again = [content]
    if tokens[1:] and tokens[1] not in words.fillers | words.asks:  # what color, which organ
        again += [content[1:], content[1:] + content[:1]]
    elif found := OF.match(question):  # "What is the size of the nodule?" – "The nodule is 3 cm."
        again.append(content_of(question[found.end() :], words)[0])
    return again


def _counted_by(asked: str, words: Words) -> Meaning:
    """What a question counts; () of several things."""
    several = words.joins.search(asked) or words.either.search(asked)
    return () if several else counted_in(tokens_of(asked, words), words)


def counted_in(tokens: Sequence[str], words: Words) -> Meaning:
    """What is asked how many there are of: arteries, of "arteries supply the kidney"."""
    if words.language != "en":
        return first_named(tokens, words)
    end = next((at for at, token in enumerate(tokens) if words.plural.search(token)), len(tokens))
    return first_named(tokens[: end + 1], words)
