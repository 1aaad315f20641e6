"""Whether a model's sentence tells a panel's opinion, and nothing else.

By construction, not by judgement: what the workers claim must stand in it word for word, each claim
once, the winner first, each with how many make it; and what stands between the claims may be made
of a few words alone, none of which can claim, deny, doubt or choose. Whatever else is said, a side,
a number or a negation of its own too, is refused.
"""

import re
import unicodedata

from gateway.contract import Language
from gateway.verdict.text.numbers import NUMBERS, in_digits
from gateway.verdict.weigh import Opinion

TOKEN = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_\u3400-\u9fff]+|\S")
MARKS = ".,;:()'\"“”«»、。！"

# Words that may stand before the winner, and behind it: there nothing else is called the answer.
OPENS: dict[Language, str] = {
    "en": "the panel s answer is says said decided of workers models readers say by",
    "es": "la el respuesta del panel es dice dijo de los modelos lectores dicen por",
    "zh": "小 组 的 答 案 是 结 论 个 位 名 成 员 模 型 中 有 说 认 为",
}
BESIDE: dict[Language, str] = {
    "en": "said say says by of the workers models readers reader and but while also other others",
    "es": "dicha dicho dicen dice por de los las y pero mientras también otro otra otros lector",
    "zh": "个 位 名 成 员 模 型 中 有 说 认 为 是 这 样 另 其 他 而 则 也 还 和 的",
}


def tells(text: str, opinion: Opinion, language: Language) -> bool:
    """Whether `text` says who won, everything else that is claimed, and how many claim each."""
    claims = [_plain(cluster.text).rstrip(".。 ") for cluster in opinion.clusters]
    # The longest first: "psoriasis" stands in "psoriasis vulgaris" too.
    longest = "|".join(_alone(each, language) for each in sorted(claims, key=len, reverse=True))
    gaps = re.split(f"({longest})", _plain(text))
    order = [claims.index(each) for each in gaps[1::2]]
    if sorted(order) != list(range(len(claims))) or order[0] != 0:
        return False
    counted = []
    for position, gap in enumerate(gaps[::2]):
        tokens = [NUMBERS.get(token, token) for token in TOKEN.findall(in_digits(gap, language))]
        allowed = {*MARKS, *(BESIDE if position else OPENS)[language].split()}
        if not all(token.isdecimal() or token in allowed for token in tokens):
            return False
        counted.append([token for token in tokens if token.isdecimal()])
    return _are_counted(counted, [len(opinion.clusters[each].workers) for each in order], opinion)


def _alone(claim: str, language: Language) -> str:
    """A pattern of it where it is no part of a longer word or number: 3 is not in 3.2 or 23."""
    begins, ends = ("", "") if language == "zh" else (r"(?<!\w)", r"(?!\w)")
    if claim[:1].isdecimal():
        begins += r"(?<!\d)(?<!\d[.,])"
    if claim[-1:].isdecimal():
        ends += r"(?!\d|[.,]\d)"
    return f"{begins}{re.escape(claim)}{ends}"


def _are_counted(gaps: list[list[str]], makers: list[int], opinion: Opinion) -> bool:
    """Whether the numbers around each claim, before it or behind it, say how many make it."""
    whole = str(len(opinion.voices))
    # What a gap must begin with, by each reading so far: the last claim's count, or nothing.
    due: list[list[str]] = [[]]
    for gap, k in zip(gaps[:-1], map(str, makers), strict=True):
        counts = [[k], [k, whole], [whole, k]]
        behind = counts if gap in due else []
        before: list[list[str]] = (
            [[]] if any(gap == begun + count for begun in due for count in counts) else []
        )
        due = behind + before
    return gaps[-1] in due


def _plain(text: str) -> str:
    text = text.replace("，", ", ")  # 3，2个 is not 3.2
    return " ".join(unicodedata.normalize("NFKC", text).casefold().replace("’", "'").split())
