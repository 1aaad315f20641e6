"""What an answer says, as far as rules can tell: two answers with one meaning count together.

Only what is certain is made equal: spelling and marks, what stands around an answer ("the image
shows the left lung"), the order of a list, number words, the field's synonyms for whole answers,
and a sentence that is the question again, with a yes or a no to it. Sides, organs, numbers and
negations always tell answers apart; whatever no rule knows does too.

`meaning` is the order of it: marks, labels and explanations go (`bare`); words and numbers are
spelled one way (`spelled`); then whole answers that a table knows, a side's letter, an option's,
yes or no (`_yes_or_no`); of anything else the question's own words go (`_news`), and what is left
is a list (`_items`). Another language has its entry in the tables of `words`, `numbers`,
`spelling`, `questions` and `claims`, and its words in those of `modality` and `declining`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import islice

from gateway.contract import Language
from gateway.verdict.text.asked import (
    ABSENCE,
    BOTH,
    NOTHING,
    Asked,
    asked_of,
    counted_in,
    with_one_or,
)
from gateway.verdict.text.bare import HEAD, YES_OR_NO, bare
from gateway.verdict.text.numbers import COMPARISONS, NUMBERS, UNITS
from gateway.verdict.text.sentences import (
    SIDE,
    SIDES,
    Meaning,
    as_stated,
    content_of,
    is_within,
    plain_text,
    spelled,
    tokens_of,
    told_in,
    words_of,
)
from gateway.verdict.text.words import (
    NO,
    NONE,
    NOT_SEEN,
    NOT_SO,
    NOT_THERE,
    SO,
    SYNONYMS,
    THERE,
    YES,
    Words,
)

# A comma between digits is a decimal one, or parts thousands; before one, with nothing there, it
# may be decimal too: ",5 cm".
COMMA = re.compile(r"(?<=[^\d\s]),|,(?!\d)|[、;\n]")
LEVEL = re.compile(r"[;\n]")
SENTENCE = re.compile(r"(?<=[.!?]) |(?<=[。!?])|\n")  # a Western full stop has a space behind it
HYPHEN = re.compile(r"(?<=[^\W\d_])-(?=\w)|(?<=\w)-(?=[^\W\d_])")  # a minus or a range stays
NUMBER = r"\d+(?:[.,]\d+)*(?![\d°])"
# So many, or so much; not which: "4th rib", "T2".
COUNTED = re.compile(
    rf"(?:[{COMPARISONS}] ?)?{NUMBER}(?:(?:-| x ){NUMBER})*"
    rf"(?: ?(?:{'|'.join(sorted(set(UNITS.values())))})(?![a-z]))?"
)
BRACKETS = re.compile(r"([^(]+?) ?\(([^()]+)\)( [^()]+)?")
PARTS = {"type", "kind", "tipo", "clase"}  # where there are no lesions, there are no kinds of them
# What has a number, and is no count of anything.
NUMBERED = {"number", "numero", "image", "figure", "picture", "scan", "patient", "imagen", "figura"}
NUMBERED |= {"photo", "photograph", "foto", "fotografia", "paciente"}
NUMBERED |= {f"{word}s" for word in NUMBERED} | {"imagenes", "图像", "图片", "影像", "图"}
# A short answer that stands behind a label, or any as a list's one line.
LABELLED = re.compile(r"(?:a|ans|response|reply|r|respuesta) ?: ?(.+)", re.S)
LISTED = re.compile(r"1[.)] ([^\W\d](?:(?!\d[.)] ).)*+)", re.S)
# A letter with what is said beside it: "Option B: CT", "B is correct"; and behind it: "CT (B)".
CHOSEN = re.compile(
    r"(?:it(?:'s| is) |es )?(?:(?:the |la )?(?:correct |right |best )?"
    r"(?:option|choice|letter|opcion)(?: correcta)?(?: is| es)?:? |"
    r"i (?:choose|select|pick) (?:option )?|la |"
    r"(?:我的?|答案|应该?)*[选是][项择]? ?)?"
    r"\(?(?P<letter>[a-h])\)?(?:选?项)?"
    r"(?: is (?:the )?(?:correct|best)(?: (?:answer|option|choice))?)?"
    r"(?:[.:,] ?| - |$| (?:(?:is|es) )?(?=[\w(]))(?P<beside>.*)",
    re.S,
)
CHOSEN_BEHIND = re.compile(
    r"(?P<beside>.+?)(?:,? ?[(\[]|,? (?=option|choice|opcion)| [-–—] |,(?=选项))"
    r"(?:(?:option|choice|opcion) |选项)?(?P<letter>[a-h])[)\]]?",
    re.S,
)
BRACKET = re.compile(r"[()\[\]]")
LETTER = re.compile(r"\(?[a-h]\)?")
LETTERED = re.compile(r"^\(?[a-h]\) ")
# What beside a number may say that it is not just that many: a sign, a comparison, a unit.
INEXACT = re.compile(r"""[^\w\s.,;:!()'"“”。、]|(?<!\d)[.,]\d""")
COPULAS = 8  # of an answer that are looked at: no sentence has more
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
    words = words_of(text, language)
    asked = asked_of(question, language) if question else NOTHING
    if whole:
        asked = replace(asked, one_modality=False, whole=True)
    said = spelled(bare(text, asked, words), words)
    if asked.of_no_test and (asked.yes_or_no or asked.any_of):
        for tested, so in words.tested:
            said = tested.sub(so, said)
    if not said.strip("*_#`…"):
        return ()
    if said in NONE and asked.counts:
        return ("0",)
    normal = asked.echo and SHORT.get(said) == ("normal",) and asked.echo.fullmatch(said)
    if said in SHORT and not (normal or (said in BOTH and asked.either)):
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
    words = words_of(text, language)
    plain = plain_text(text)
    asked = asked_of(question, language) if question else NOTHING
    said = _news(bare(text, asked, words), asked, words)
    at = plain.find(said)
    return text[at : at + len(said)] if at >= 0 and len(plain) == len(text) else text


def adds_nothing(text: str, language: Language, question: str) -> bool:
    """Whether it says yes, no, or words of the question alone."""
    if meaning(text, language, question) in (("yes",), ("no",)):
        return True
    content, _ = content_of(plain_text(text), words_of(text, language))
    return set(content) <= set(asked_of(question, language).content)


def _option(said: str, asked: Asked, language: Language) -> Meaning | None:
    """The option whose letter was given, where what is said beside it is that option too."""
    for form in (CHOSEN, CHOSEN_BEHIND) if asked.options else ():
        given = form.fullmatch(said)
        option = meaning(asked.options.get(given["letter"], ""), language) if given else ()
        if not given or not option:
            continue
        if not given["beside"]:
            return option
        # "Hepatitis (B)" may be hepatitis B, where that is an option.
        all_of_it = meaning(BRACKET.sub("", said), language)
        if meaning(given["beside"], language) == option and not any(
            meaning(each, language) == all_of_it for each in asked.options.values()
        ):
            return option
    return None


def _yes_or_no(said: str, asked: Asked, words: Words) -> str | None:
    """The answer, where it is yes or no and no more than that."""
    topic, _, after = said.partition(": ")
    so = after in THERE or after in NOT_THERE or (after and HEAD.match(after))
    if so and asked.yes_or_no and asked.is_again(*as_stated(topic, words)):
        said = after  # "Effusion: no"
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
    head = HEAD.match(said)
    first, *others = SENTENCE.split(said[head.end() :] if head else said)
    if head is None:
        if words.asking.search(first):
            return None
        content, negations = as_stated(first, words)
        echo = asked.echo.fullmatch(first) if asked.yes_or_no and asked.echo else None
        # Unstable angina is told by more than that it is no stable one.
        if echo and words.whole.isdisjoint({*tokens_of(first, words)} - {*asked.content}):
            answer = "no" if any(echo.groups()) else "yes"  # "It is not enlarged."
        else:
            again = asked.yes_or_no and content and content in asked.orders and negations < 2
            again = again or _is_of_any(content, negations, asked)
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
    content, negations = as_stated(sentence, words)
    if not content and not set("+-±").isdisjoint(sentence):  # "yes (-)"
        return False
    # To "CT or MRI?" one of them is no echo.
    of_any = _is_of_any(content, negations, asked)
    again = (asked.yes_or_no or not content or of_any) and _is_as_certain(sentence, asked, words)
    if asked.whole or (asked.absence and not ABSENCE.search(sentence)):
        again = again and content in ((), *asked.orders) and not words.asking.search(sentence)
        return again and negations == (answer == "no")
    again = again and (of_any or any(is_within(content, order) for order in asked.orders))
    again = again and _tells_no_more(sentence, asked, words) and not words.asking.search(sentence)
    return again and bool(negations) == (answer == "no")


def _is_of_any(content: Meaning, negations: int, asked: Asked) -> bool:
    """Whether it says or denies all of what is asked whether there is any of it: "no fracture or
    dislocation", "no fracture and no dislocation"; not "no fracture, dislocation"."""
    said = with_one_or(content)
    if said in asked.any_of:
        return negations < 2
    parts = {"or", "<and>", "<y>"}
    things = tuple(word for word in said if word not in parts)
    return any(
        negations > order.count("or") and things == tuple(w for w in order if w not in parts)
        for order in asked.any_of
    )


def _is_as_certain(sentence: str, asked: Asked, words: Words) -> bool:
    """It neither says only that something may be so, or was, nor that what may be so is."""
    if not asked.past and words.past.search(sentence):
        return False
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
    content, negations = content_of(sentence, words)
    if not asked.yes_or_no or is_within(content, asked.content) or (negations and answer == "yes"):
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
    return not (other - words.negators).isdisjoint(tokens_of(sentence, words))


def _tells_no_more(sentence: str, asked: Asked, words: Words) -> bool:
    """One of two sides that were asked about is more than both."""
    told = told_in(sentence, tokens_of(sentence, words), words)
    state = told & words.states_of_it
    return state <= asked.told and told - state in (set(), asked.told - words.states_of_it)


def _news(said: str, asked: Asked, words: Words) -> str:
    """What an answer says beyond "the image shows" and the question's own words."""
    begins = said.partition(" ")[0]
    short = said.count(" ") < 2 and begins.isascii() and begins.isalpha()
    if short and begins not in words.fillers and not asked.counts:
        return said
    framed = words.frames.match(said)
    news = said[framed.end() :] if framed else said
    if (tail := words.tails.search(news)) and not _is_side_of_image(news, tail, words):
        news = news[: tail.start()]
    for copula in list(islice(words.copula.finditer(news), COPULAS))[::-1]:
        thing = news[: copula.start()]
        content, negations = content_of(thing, words)
        # "A is left" is of what has that letter, and no article.
        if not negations and content in asked.before and not LETTER.fullmatch(thing):
            news = news[copula.end() :]
            break
    else:
        news = _before(news, asked, words)
    if asked.where:
        news = words.place.sub("", news)
    if asked.counts:
        news = _count(news, asked, words) or news
    return news or said


def _is_side_of_image(said: str, tail: re.Match[str], words: Words) -> bool:
    """The left in the image may be the patient's right."""
    content, _ = content_of(said[: tail.start()], words)
    side = bool(content) and {*content} <= SIDES | SIDE
    return side and not NUMBERED.isdisjoint(tokens_of(tail[0], words))


def _count(news: str, asked: Asked, words: Words) -> str | None:
    """The number, where an answer to "how many" says no more than so many of them."""
    if news in NONE:
        return "0"
    if words.language == "es" and news in words.single:
        return "1"
    content, negations = content_of(news, words)
    # Of "how many" an answer says nothing by "many".
    told = {*asked.content, *words.sums} - words.asks
    counted = [token for token in content if token not in told and token not in words.single]
    tokens = tokens_of(news, words)
    exact = words.compares.isdisjoint(tokens) and not INEXACT.search(HYPHEN.sub(" ", news))
    if asked.whole:  # "3 in the left" of two sides is more than 3
        named = {each for each in told_in(news, tokens, words) if not each[0].isdecimal()}
        exact = exact and named in (set(), asked.told)
    if not exact:
        return None
    digits = [NUMBERS.get(token, token)[0].isdecimal() for token in tokens]
    number = digits.index(True) if True in digits else None
    if number is not None and not negations and len(counted) == 1 and counted[0].isdecimal():
        before = tokens[number - 1 : number]
        # Of ribs one, and not so many: "rib 4", "number 4", "image 4".
        of_many = bool(before) and before[0] in NUMBERED | {*asked.content}
        # "One image" counts no nodules.
        of_many |= bool(asked.counted) and not NUMBERED.isdisjoint(tokens[number + 1 : number + 3])
        same = _is_of(counted_in(tokens[number + 1 :], words), asked, words)
        return counted[0] if same and not of_many else None
    # "A number of nodules" may be any, and "no nodule in the left lung and a nodule in the right
    # one" is no 0.
    once = bool(content) and not counted and words.sums.isdisjoint(content)
    once = once and len(set(content)) == len(content) and len(COMMA.split(news)) == 1
    denied = next((at for at, token in enumerate(tokens) if token in words.negators), -1)
    of_any = not (NONE.isdisjoint(tokens[:1]) and PARTS.isdisjoint(asked.counted))
    if not once or not (of_any or _is_of(counted_in(tokens[denied + 1 :], words), asked, words)):
        return None
    if negations == 1:
        return "0"
    return "1" if not negations and tokens[0] in words.single else None


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
        content, negations = content_of(thing, words)
        new = content and not negations and not is_within(content, asked.front)
        if new and as_stated(said[copula.end() :], words, led=True) == (asked.behind, 0):
            return thing
    return said


def _items(said: str, asked: Asked, words: Words) -> Meaning:
    """The parts of a list, each by the name of its meaning. Where one is negated, or says where or
    how much another is, the order may tell which; and of what, where several things were asked."""
    parts = COMMA.split(said)
    if len(parts) == 1 and not words.joins.search(said):
        return (_item(parts[0], words),) if said else ()
    negated = content_of(said, words)[1] > 0
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
    told = [told_in(part, tokens_of(part, words), words) for part in parts]
    return sum(map(bool, told)) > 1 and sum(not named for named in told) > 1


def _are_of_others(parts: Sequence[str], words: Words) -> bool:
    """Whether two parts or more are sides alone, or so many of the same, so that the order alone
    tells what each is of: "2 and 1", "10 cm and 12 cm", "left, right"; or one of three or more is
    of another: "mass, left, cyst", "mass, 3 cm, cyst", "mass, large, cyst"."""
    counted, sides, degrees = [], 0, 0
    for part in parts:
        content = set(content_of(part, words)[0])
        sides += bool(content & SIDES) and content <= SIDES | SIDE
        degrees += bool(content) and words.degrees >= {*tokens_of(part, words)} - words.fillers
        if number := COUNTED.match(part.strip()):
            rest = content_of(part.strip()[number.end() :], words)[0]
            counted.append(" ".join(word for word in rest if word not in words.sums))
    some_alike = len(set(counted)) < len(counted)
    some_alone = "" in counted and len(counted) > 1
    of_another = len(parts) > 2 and (sides or degrees or "" in counted)
    return bool(sides > 1 or some_alike or some_alone or of_another)


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
