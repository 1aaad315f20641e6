"""An answer without what stands around it: marks, boxes, labels, and what explains it."""

import json
import re
from collections import Counter

from gateway.verdict.text.asked import Asked
from gateway.verdict.text.numbers import DIGIT, NUMBERS
from gateway.verdict.text.sentences import content_of, plain_text, spelled
from gateway.verdict.text.words import ANSWERS, BESIDE, NO, YES, Words

YES_OR_NO = YES | NO
HEAD = re.compile(
    rf"({'|'.join(sorted(YES_OR_NO, key=len, reverse=True))})"
    r"(?: ?([,.;:!。\n]|[-–—] |[–—])\s*|$|(?= \(| (?:it|there|this|that|they|these|because)\b)"
    r"|(?<=^si)(?= (?:hay|se|es|existe|tiene)\b))"
)
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
    (re.compile(r"^[^\S\n]*+#+\s+", re.M), ""),
)
MARKED = re.compile(r"[*_`<>#\\{]")
ROLE = re.compile(r"^\s*(?:#+ )?(?:assistant|asistente|chatbot|gpt|助手) ?:\s*")
FACE = re.compile(r"\\(?:text(?:bf|it|rm)?|math(?:bf|rm|it))\{([^{}]*)\}")
BOX = re.compile(r"\\boxed\{([^{}]*)\}|<answer>((?:(?!</?answer>).)*+)</answer>", re.S)
OBJECT = re.compile(r"\{[^{}\[\]]+\}", re.S)
BULLET = re.compile(r"^[^\S\n]*+(?:[-*•]|\d+[.)])\s+", re.M)
STAR = re.compile(r"^[^\S\n]*+[*•]\s+", re.M)
SO_MUCH = re.compile(r"(?!\d+°)\d")  # "- 3rd rib" is no minus
SIGN = re.compile(r"^[^\S\n]*+([->–−])\s+(?=(.*))", re.M)
QUOTED = re.compile(
    r"""["'“‘「](.+)["'”’」]|\(([^()]+)\)|\[([^\[\]]+)\]|【([^【】]+)】|\$\$?([^$]+)\$\$?"""
)
FENCE = re.compile(r"^\s*```\w*\s*$", re.M)


def bare(text: str, asked: Asked, words: Words) -> str:
    """In lower case, without marks, labels, and what only explains the answer behind it."""
    plain = plain_text(text)
    if MARKED.search(plain):
        plain = FACE.sub(r"\1", FENCE.sub("", plain))
        if not asked.whole:
            plain = _in_a_box(plain)
        for mark, left in MARKS:
            plain = mark.sub(left, plain)
    plain = ROLE.sub("", plain)
    listed = len(BULLET.findall(plain)) > 1
    plain = BULLET.sub(", ", plain) if listed else STAR.sub("", plain)
    plain = unsigned(plain, words)
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


def unsigned(text: str, words: Words) -> str:
    """Without the dashes of a list and the marks of a quotation; one alone before a number may be
    a minus, or say that it is more ("- 2.5", "> grade II")."""
    times = Counter(sign for sign, _ in SIGN.findall(text))

    def counts(found: re.Match[str]) -> bool:
        behind = spelled(plain_text(found[2]), words)
        if found[1] == ">":
            return DIGIT.search(behind) is not None
        return SO_MUCH.match(behind) is not None or behind[:1] in NUMBERS

    def left(found: re.Match[str]) -> str:
        return found[0] if times[found[1]] == 1 and counts(found) else ""

    return SIGN.sub(left, text)


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
    listed = before.rstrip().endswith(",") and bool(content_of(before, words)[0])
    return listed or HEAD.match(before) is not None
