"""A case of several images, for a worker that sees one at a time: each image alone, one answer.

A question that names one of them ("Image 2: …", "in the second image") is asked about that one,
which it need not name then. Others are asked about every image, and what the worker believes is
averaged over them (the sum rule: Kittler et al. 1998, On combining classifiers): it says what it
believes most. What only the images together can answer, such as which of them differs, it cannot.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from gateway.case import Case
from gateway.contract import Alternative, Answer, Language, OfImage

MOST_ALTERNATIVES = 20

ORDINALS: dict[Language, tuple[str, ...]] = {
    "en": ("first|1st", "second|2nd", "third|3rd", "fourth|4th", "fifth|5th", "sixth|6th"),
    "es": ("primera|1[ªa]", "segunda|2[ªa]", "tercera|3[ªa]", "cuarta|4[ªa]", "quinta|5[ªa]",
           "sexta|6[ªa]"),
    "zh": ("一|1", "二|2", "三|3", "四|4", "五|5", "六|6"),
}  # fmt: skip
LAST: dict[Language, str] = {"en": "last", "es": "última|ultima", "zh": "最后一"}
# {nth} is an ordinal, {n} a figure, {image} any word for an image.
NAMED: dict[Language, tuple[str, ...]] = {
    "en": (r"\b(?:the )?(?:{nth}) {image}", r"\b{image} (?:no\.? ?|number |#)?{n}\b"),
    "es": (r"\b(?:la )?(?:{nth}) {image}", r"\b(?:la )?{image} (?:n[.ºo°]* ?|número )?{n}\b"),
    "zh": (r"(?<!最后)第?(?:{nth})[张幅个]{image}", r"{image}(?:{n}|{nth})"),
}
IMAGE: dict[Language, str] = {
    "en": r"(?:image|picture|slice|view|scan|film|photo|photograph|radiograph)",
    "es": r"(?:imagen|foto|corte|vista|placa|proyección|radiografía)",
    "zh": r"(?:图像|图片|影像|切片|片子|照片|图)",
}
THIS: dict[Language, str] = {"en": "this image", "es": "esta imagen", "zh": "这张图像"}
# The place alone, before what is asked.
LEAD: dict[Language, str] = {
    "en": r"^(?:(?:in|on|for|about) {named}(?: ?[:,.–—-] ?| )|{named} ?[:,.–—-] ?)",
    "es": r"^(?:(?:en|sobre|de|para) {named}(?: ?[:,.–—-] ?| )|{named} ?[:,.–—-] ?)",
    "zh": r"^在?{named}(?:[中里上]的? ?[：:，,]? ?|的|[：:，,] ?)",
}
TOGETHER: dict[Language, str] = {
    "en": r"\b(?:which|what) (?:one of )?(?:the |these )?{image}s? (?:is|are|shows?|has|have|"
    r"contains?|was|were|does|looks?|differs?)\b|\bwhich of the(?:se)? {image}s\b|"
    r"\bcompar|\b(?:between|among|across) the(?:se)?(?: \w+)? {image}s\b|"
    r"\b(?:the )?other {image}s?\b|\bprevious {image}\b|\bhas (?:it|\w+) changed\b",
    "es": r"\b(?:qué|cuál(?:es)?|en qué) (?:de las |de estas )?{image}(?:es|s)?\b|\bcompar|"
    r"\bentre las(?: \w+)? {image}(?:es|s)\b|\botras? {image}|\b{image} anterior",
    "zh": r"哪一?[张幅个]?{image}|哪一?[张幅]|比较|对比|{image}之间|变化|"
    r"(?:其他|另)一?[张幅]?{image}",
}


def views(case: Case) -> list[tuple[int, Case]] | None:
    """The cases of one image that a worker is asked in place of `case`, each with its image's
    number from 1; None where only the images together can answer it. Two images that are the same
    are asked about once.
    """
    count, language = len(case.images), case.language
    asked = " ".join(case.question.split())
    named = {number for number, _ in _named(asked, count, language)}
    together = TOGETHER[language].format(image=IMAGE[language])
    if len(named) > 1 or named - set(range(1, count + 1)) or _found(together, asked):
        return None
    question = _unnamed(asked, count, language) if named else case.question
    numbers = named or range(1, count + 1)
    alone = {number: case.images[number - 1] for number in numbers}
    first = {image.identity: number for number, image in reversed(alone.items())}
    return [
        (number, replace(case, question=question, images=(image,), modality=image.modality))
        for number, image in alone.items()
        if first[image.identity] == number
    ]


def in_its_own_words(case: Case) -> Case:
    """With the question as it is without the name of an image, by which its kind is known."""
    alone = views(case) if len(case.images) > 1 else None
    return replace(case, question=alone[0][1].question) if alone else case


def as_one(said: Sequence[tuple[int, Answer]]) -> Answer:
    """One worker's answer to the whole case, of what it said to each image; its failure, where it
    failed at one of them. Without confidences, what it said to most images, the first ones first.
    """
    answers = [answer for _, answer in said]
    seconds = max(answer.seconds for answer in answers)
    failed = next((answer for answer in answers if answer.error is not None), None)
    if failed:
        return failed.model_copy(update={"seconds": seconds})
    sure = all(answer.confidence is not None for answer in answers)
    beliefs: dict[str, float] = defaultdict(float)
    for answer in answers:
        own = {each.begins: each.probability for each in answer.alternatives if each.whole}
        own[answer.text or ""] = answer.confidence or 0.0
        for text, belief in (own if sure else {answer.text or "": 1.0}).items():
            beliefs[text] += belief / len(answers)
    (text, belief), *others = sorted(beliefs.items(), key=lambda each: -each[1])
    likenesses = [answer.likeness for answer in answers if answer.likeness is not None]
    remembers = [case for answer in answers for case in answer.remembers]
    most = max(len(answer.remembers) for answer in answers)
    return answers[0].model_copy(
        update={
            "text": text,
            "confidence": belief if sure else None,
            "alternatives": tuple(
                Alternative(begins=other, whole=True, probability=probability)
                for other, probability in others[:MOST_ALTERNATIVES]
                if sure
            ),
            "likeness": min(likenesses, key=lambda each: each.image, default=None),
            "remembers": tuple(sorted(remembers, key=lambda each: -each.likeness)[:most]),
            "by_image": tuple(
                OfImage(image=number, text=answer.text or "", confidence=answer.confidence)
                for number, answer in said
            ),
            "seconds": seconds,
        }
    )


def _named(asked: str, count: int, language: Language) -> list[tuple[int, str]]:
    """The images that are named, there or not, by their numbers, and by what words."""
    found = []
    for number in range(1, 10):
        nths = [*ORDINALS[language][number - 1 : number], *[LAST[language]] * (number == count)]
        for form in NAMED[language]:
            pattern = form.format(nth="|".join(nths) or "(?!)", n=number, image=IMAGE[language])
            found += [(number, match[0]) for match in re.finditer(pattern, asked, re.IGNORECASE)]
    return found


def _unnamed(asked: str, count: int, language: Language) -> str:
    """The question about the one image that is named, without its name."""
    for _, words in _named(asked, count, language):
        lead = LEAD[language].format(named=re.escape(words))
        rest = re.sub(lead, "", asked, count=1, flags=re.IGNORECASE)
        asked = rest if rest != asked and rest else asked.replace(words, THIS[language])
    return asked[:1].upper() + asked[1:]


def _found(pattern: str, asked: str) -> bool:
    return re.search(pattern, asked, re.IGNORECASE) is not None
