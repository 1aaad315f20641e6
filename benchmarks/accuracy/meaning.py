"""How often two phrasings of one answer count together, and which different answers do:
python -m benchmarks.accuracy.meaning [--data FOLDER]

Every question and answer of SLAKE (English, Chinese, Spanish), VQA-RAD and VQA-Med 2019 is said in
the styles of published families of models. A style may have several forms; one that does not suit
a question is left out. Met: the share of the phrasings that mean what the bare answer means.
Merged: of each language's distinct answers, held against each other under a question of every kind
and in each style, the pairs with one meaning, of all pairs; each must be on the list that was READ.
Claimed: two answers are offered together in
such a style ("X, consider Y"), or one is doubted ("possibly X"): the share that claims just these,
or stays whole where it must. Left whole: what might have been parted. Wrong: anything else. Exit
status 1 where a language meets in less than 97 %, a merge was not read, or anything is wrong.
"""

import argparse
import json
import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from itertools import chain, combinations, pairwise
from pathlib import Path

from benchmarks import needs
from gateway.contract import Language
from gateway.verdict.text.claims import DOUBTED, claims
from gateway.verdict.text.declining import declines
from gateway.verdict.text.meaning import meaning
from gateway.verdict.text.questions import KINDS, Kind, kind_of
from gateway.verdict.text.sentences import Meaning, telling
from models.data import datasets

BAR = 0.97
CLAIMS_OF = 5  # of so many questions one, since each is put in a hundred ways
SETS: Mapping[Language, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "en": (
        ("slake", ("train", "validate", "test")),
        ("vqa_rad", ("train", "test")),
        ("vqa_med_2019", ("train", "validate")),
    ),
    "es": (("slake", ("train", "validate", "test")),),
    "zh": (("slake", ("train", "validate", "test")),),
}

# How a model's family says it: {a} is the answer, {said} the answer as a sentence of the question's
# own words, {yes} is yes or no where that is the answer, {thing} any other.
STYLES: Mapping[Language, Mapping[str, tuple[str, ...]]] = {
    "en": {
        "fine-tuned": ("{a}", "{a}.", " {a} "),
        "LLaVA-Med": ("{yes}, {said}.", "The image shows {thing}.", "{said} in the image."),
        "MedGemma": (
            "**{a}**",
            "**Answer:** {a}",
            "{yes}.\n\n**Explanation:** {said}, as is seen.",
        ),
        "Qwen2.5-VL": (
            "The answer is {a}.",
            "\\boxed{{{a}}}",
            "<answer>{a}</answer>",
            "{yes}. {said}.",
        ),
        "HuatuoGPT-Vision": (
            "Based on the image, {said}.",
            "According to the image, the answer is {a}.",
        ),
        "InternVL": ("Answer: {a}", "It is {thing}.", "- {a}", "{yes}, because {said}."),
    },
    "es": {
        "fine-tuned": ("{a}", "{a}.", " {a} "),
        "LLaVA-Med": ("{yes}, {said}.", "La imagen muestra {thing}."),
        "MedGemma": ("**{a}**", "**Respuesta:** {a}"),
        "Qwen2.5-VL": ("La respuesta es {a}.", "\\boxed{{{a}}}", "{yes}. {said}."),
        "HuatuoGPT-Vision": ("Según la imagen, {said}.", "Según la imagen, la respuesta es {a}."),
        "InternVL": ("Respuesta: {a}", "Es {thing}.", "- {a}", "{yes}, porque {said}."),
    },
    "zh": {
        "fine-tuned": ("{a}", "{a}。", " {a} "),
        "LLaVA-Med": ("{yes}，{said}。", "图像显示{thing}。"),
        "MedGemma": ("**{a}**", "**答案：**{a}"),
        "Qwen2.5-VL": ("答案是{a}。", "\\boxed{{{a}}}", "{yes}。{said}。"),
        "HuatuoGPT-Vision": ("根据图像，{said}。", "根据图片，答案是{a}。"),
        "InternVL": ("答案：{a}", "这是{thing}。", "- {a}", "{yes}，因为{said}。"),
    },
}

# How an answer offers two things, a and b, or one with a doubt.
OFFERS: Mapping[Language, tuple[str, ...]] = {
    "en": (
        "{a} or {b}",
        "{a}, consider {b}",
        "{a}; rule out {b}",
        "1. {a} 2. {b}",
        "Differential diagnosis: {a}, {b}",
        "Most likely {a}, possibly {b}",
        "Possibly {a}",
        "{a}?",
    ),
    "es": (
        "{a} o {b}",
        "{a}, considerar {b}",
        "{a}; descartar {b}",
        "1. {a} 2. {b}",
        "Diagnóstico diferencial: {a}, {b}",
        "Probablemente {a}, posiblemente {b}",
        "Posiblemente {a}",
        "¿{a}?",
    ),
    "zh": (
        "{a}或{b}",
        "{a}，考虑{b}",
        "{a}；需排除{b}",
        "1. {a} 2. {b}",
        "鉴别诊断：{a}、{b}",
        "可能是{a}，也不排除{b}",
        "考虑{a}",
        "{a}？",
    ),
}

# A question that yes or no answers → the sentences that say so. Other questions give none.
STATEMENTS: Mapping[Language, tuple[tuple[str, str, str], ...]] = {
    "en": (
        (r"(?:is|are|is/are) there (?:an? |any )?(.+)", "there is {0}", "there is no {0}"),
        (
            r"does the picture contain (.+)",
            "the picture contains {0}",
            "the picture does not contain {0}",
        ),
        (r"(?:is|are|is/are) (the \w+) (\w+)", "{0} is {1}", "{0} is not {1}"),
        (r"is this (an? .+)", "this is {0}", "this is not {0}"),
    ),
    "es": (
        (r"¿se puede ver (.+)", "se puede ver {0}", "no se puede ver {0}"),
        (r"¿hay (.+)", "hay {0}", "no hay {0}"),
    ),
    "zh": (
        (r"(.*)包含(.+?)吗", "{0}包含{1}", "{0}不包含{1}"),
        (r"(.*)是(.+?)吗", "{0}是{1}", "{0}不是{1}"),
    ),
}
# And the question that asks for one thing → the sentence that names it.
NAMED: Mapping[Language, tuple[tuple[str, str], ...]] = {
    "en": (
        (r"(?:what|which) is (the .+)", "{0} is {a}"),
        (r"where (is|are) (.+)", "{1} {0} in {a}"),
    ),
    "es": ((r"¿cuál es (.+)", "{0} es {a}"),),
    "zh": ((r"(.+)是什么", "{0}是{a}"), (r"(.+)在哪里", "{0}在{a}")),
}

# Pairs of the sets' own answers that mean the same, read by a person. Lists that are alike but for
# their order, and spellings that differ in hyphens, apostrophes, an article or "and", are told by
# `alike`; what remains stands here, with its reason.
READ = {
    # The same modality, plane or weighting by another of its names.
    ("x ray", "xray", "plain film"),
    ("transverse", "transverse plane", "axial", "axial plane"),
    ("coronal", "coronal plane"),
    ("t2", "t2 weighted"),
    ("mri", "核磁共振"),
    ("x ray", "x光"),
    # A number in letters.
    ("1", "one", "just one"),
    # Where it was counted.
    ("0", "none"),
    ("0", "没有", "无", "不存在"),
    # With and without a blank before a unit.
    ("5 cm", "5cm"),
    # Where it was asked for a place, that it lies in it.
    ("left", "on the left", "left side"),
    # A side, or both, by another of its names.
    ("right", "right side"),
    ("右肺, 左", "右肺, 左侧"),
    ("both lungs", "bilateral lungs"),
    ("bilateral", "bilaterally", "both sides", "both"),
    # An organ by another of its names.
    ("肺", "肺脏"),
    ("midline", "in the midline"),
    ("vasculature", "in the vasculature"),
    # A Chinese yes repeats the question's verb.
    ("是", "是的", "有", "包含", "包括", "可以", "存在"),
    ("不是", "否", "没有", "无", "不包含", "不包括", "不可以", "不存在"),
}

Pair = tuple[str, str]  # a question and an answer to it


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    needs.data_folder(arguments)
    data = arguments.parse_args().data
    shares, merges, wrong = {}, {}, 0
    for language in SETS:
        asked = pairs(data, language)
        found = met(language, asked)
        for style, (equal, said) in found.items():
            print(f"{language} {style:18} {equal / said:7.2%} of {said}")
        groups = merged(language, asked)
        for group in groups.values():
            print(f"{language} one meaning: {' | '.join(sorted(group))}")
        together = pairs_of(groups)
        distinct = len({spelled(answer) for _, answer in asked})
        of_all = distinct * (distinct - 1) // 2
        print(
            f"{language} merged {len(together)} of {of_all} pairs ({len(together) / of_all:.4%}), "
            f"of which nobody read {len(unread(together))}"
        )
        for pair in sorted(unread(together)):
            print(f"{language} UNREAD {' | '.join(pair)}")
        merges[language] = [len(together), of_all, len(unread(together))]
        shares[language] = round(share(found), 4)
        for style, (right, whole, said) in claimed(language, asked[::CLAIMS_OF]).items():
            others = said - right - whole
            print(
                f"{language} {style:18} claims {right / said:.2%}, left whole {whole / said:.2%}, "
                f"wrong {others} of {said}"
            )
            wrong += others
    print(json.dumps({"met": shares, "merged, of pairs, unread": merges, "wrong": wrong}))
    unheard = any(count for *_, count in merges.values())
    raise SystemExit(min(shares.values()) < BAR or unheard or wrong > 0)


def share(found: Mapping[str, tuple[int, int]]) -> float:
    """Of all styles' phrasings."""
    return sum(equal for equal, _ in found.values()) / sum(said for _, said in found.values())


def pairs(data: Path, language: Language) -> list[Pair]:
    """Every question of the sets in this language, with each of its answers once."""
    return list(
        dict.fromkeys(
            (example.question, answer)
            for name, splits in SETS[language]
            for split in splits
            for example in datasets.load(name, data, split, language)
            for answer in (example.answer, *example.alternatives)
            if answer.strip()
        )
    )


def met(language: Language, asked: list[Pair]) -> dict[str, tuple[int, int]]:
    """By style: how many phrasings mean what the bare answer means, of how many."""
    found: dict[str, tuple[int, int]] = {}
    for style, forms in STYLES[language].items():
        equal = [
            meaning(said, language, question) == meaning(answer, language, question)
            for question, answer in asked
            for form in forms
            if (said := phrased(form, language, question, answer)) is not None
        ]
        found[style] = sum(equal), len(equal)
    return found


def claimed(language: Language, asked: list[Pair]) -> dict[str, tuple[int, int, int]]:
    """By style: how many answers that offer or doubt something claim just that, how many are left
    whole that could be parted, of how many. Each answer is offered with the next other one of its
    kind; where they tell of different sides, organs or numbers, or one denies, whole is right."""
    by_kind: dict[Kind, list[Pair]] = defaultdict(list)
    for question, answer in asked:
        kind = kind_of(question, language)
        if kind not in {*DOUBTED, "count"} and _is_one_thing(answer, language):
            by_kind[kind].append((question, answer.strip().rstrip(".。 ")))
    found: dict[str, tuple[int, int, int]] = {}
    for style, forms in STYLES[language].items():
        right = left_whole = said = 0
        for (question, a), (_, b) in chain.from_iterable(map(pairwise, by_kind.values())):
            meant = [meaning(each, language, question) for each in (a, b)]
            for offer in OFFERS[language] if meant[0] != meant[1] else ():
                offered = [a, b] if "{b}" in offer else [a]
                told = [telling(each, language) for each in offered]
                parts = len({names for names, _ in told}) == 1 and not any(no for _, no in told)
                for form in forms:
                    text = phrased(form, language, question, offer.format(a=a, b=b))
                    # "- 4 cm?" may be a minus.
                    minus = form.startswith("- ") and meaning(f"- {a}", language, question)
                    if text is None or (minus and minus != meant[0]):
                        continue
                    given = [claim.meaning for claim in claims(text, language, question)]
                    whole = given == [meaning(text, language, question)]
                    said += 1
                    right += given == meant[: len(offered)] if parts else whole
                    left_whole += parts and whole
        found[style] = right, left_whole, said
    return found


def _is_one_thing(answer: str, language: Language) -> bool:
    """Neither a list, nor two sentences, a doubt or a choice of its own, nor "Not sure"."""
    meant = meaning(answer, language)
    one = len(meant) == 1 and meant == claims(answer, language)[0].meaning
    return one and ". " not in answer and not declines(answer)


def phrased(form: str, language: Language, question: str, answer: str) -> str | None:
    """The answer in that form; None where question or answer do not suit it."""
    bare = meaning(answer, language)
    fields = dict.fromkeys(("a", "yes", "thing"), answer.strip().removesuffix(".").rstrip("。 "))
    fields["thing" if bare in (("yes",), ("no",)) else "yes"] = fields["said"] = ""
    asked = question.strip(" ?？").lower() if language != "zh" else question.strip(" ?？")
    if fields["yes"]:
        for pattern, yes, no in STATEMENTS[language]:
            if match := re.fullmatch(pattern, asked):
                fields["said"] = (yes if bare == ("yes",) else no).format(*match.groups())
                break
    else:
        for pattern, named in NAMED[language]:
            if match := re.fullmatch(pattern, asked):
                fields["said"] = named.format(*match.groups(), a=fields["a"])
                break
    needed = re.findall(r"\{(yes|said|thing)\}", form)
    if not all(fields[name] for name in needed):
        return None
    if form.startswith("{said}"):
        fields["said"] = fields["said"][:1].upper() + fields["said"][1:]
    return form.format(**fields)


def merged(
    language: Language,
    asked: list[Pair],
    kinds: Collection[Kind] = KINDS,
    styles: bool = True,
) -> dict[Meaning, set[str]]:
    """The distinct answers that mean the same without a question or under one of these kinds, and,
    with `styles`, in some style; those that are spelled alike but for capitals, blanks and a full
    stop are one."""
    one_of_each = {kind_of(question, language): question for question, _ in reversed(asked)}
    answers = list(dict.fromkeys(answer for _, answer in asked))
    groups: dict[Meaning, set[str]] = defaultdict(set)
    for kind, question in [("", ""), *one_of_each.items()]:
        if kind and kind not in kinds:
            continue
        for answer in answers:
            groups[meaning(answer, language, question)].add(spelled(answer))
        # That the image shows the liver is a yes where that was asked.
        for form in all_forms(language) if styles and kind != "yes_no" else ():
            for answer in answers:
                if (said := phrased(form, language, question, answer)) is not None:
                    groups[meaning(said, language, question)].add(spelled(answer))
    return {key: group for key, group in groups.items() if len(group) > 1}


def pairs_of(groups: Mapping[Meaning, Collection[str]]) -> set[Pair]:
    """The answers that mean the same, two by two."""
    return {pair for group in groups.values() for pair in combinations(sorted(group), 2)}


def unread(together: Collection[Pair]) -> set[Pair]:
    """Those of which nobody has read that they may be one: not alike, nor on a line of READ."""
    lines = [set(map(alike, line)) for line in READ]
    return {
        pair
        for pair in together
        if len(names := set(map(alike, pair))) > 1 and not any(names <= line for line in lines)
    }


def alike(answer: str) -> tuple[str, ...]:
    """The words of each item of a list, without articles."""
    plain = spelled(answer).replace("-", " ").replace("’", "'").replace("，", ",")
    plain = plain.replace(" and ", ",").replace(" e ", ",").replace(" y ", ",").replace("和", ",")
    items = (item.strip().removeprefix("the ") for item in plain.split(","))
    return tuple(sorted(items))


def all_forms(language: Language) -> list[str]:
    return [form for forms in STYLES[language].values() for form in forms if "{said}" not in form]


def spelled(answer: str) -> str:
    return " ".join(answer.lower().split()).rstrip(". 。")


if __name__ == "__main__":
    with needs.told():
        main()
