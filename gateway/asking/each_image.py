"""A case of several images, for a worker that sees one at a time: each image alone, one answer.

A question that names one of them ("Image 2: …", "in the second image", "the lateral view") is asked
about that one, which it need not name then. Others are asked about every image, and what the worker
believes is averaged over them (the sum rule: Kittler et al. 1998, On combining classifiers): it
says what it believes most. What only the images together can answer, such as which of them differs,
it cannot.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from gateway.asking.which_image import named, together, unnamed, viewed
from gateway.case import Case, CaseImage
from gateway.contract import Alternative, Answer, Modality, OfImage, Tokens
from gateway.verdict.text.meaning import meaning
from gateway.verdict.text.sentences import Meaning

MOST_ALTERNATIVES = 20


def one_by_one(case: Case) -> list[tuple[int, Case]] | None:
    """The cases of one image that a worker is asked in place of `case`, each with its image's
    number from 1; None where only the images together can answer it. Two images that are the same
    are asked about once. Of a series, a place in the question is a slice's.
    """
    language = case.language
    series = case.images[0].shown.series
    count = series.of if series else len(case.images)
    asked = " ".join(case.question.split())
    places = named(asked, count, language)
    numbers = {number for place in places for number in _at(place, case)}
    if len(places) > 1 or len(numbers) != len(places) or together(asked, language):
        return None
    views = viewed(asked, [image.shown.view for image in case.images], language)
    numbers |= set(views.values())
    if len(numbers) > 1:
        return None
    if any(named(choice, count, language) for choice in case.choices or ()):
        return None
    question = unnamed(asked, language, views) if numbers else case.question
    numbers = numbers or set(range(1, len(case.images) + 1))
    alone = {number: case.images[number - 1] for number in numbers}
    first = {_as_told(image): number for number, image in reversed(alone.items())}
    return [
        (number, replace(case, question=question, images=(image,), modality=_modality(image, case)))
        for number, image in alone.items()
        if first[_as_told(image)] == number
    ]


def _modality(image: CaseImage, case: Case) -> Modality | None:
    """What is known of all of the case's images goes before one's own header."""
    return case.modality or image.modality


def _as_told(image: CaseImage) -> tuple[str, str | None]:
    """What a worker sees of it, and reads."""
    return image.identity, image.shown.view


def _at(place: int, case: Case) -> list[int]:
    """The images at a place, by their numbers: of a series, those that show the slice."""
    slices = [image.shown.series for image in case.images]
    return [
        number
        for number, of in enumerate(slices, 1)
        if (of.first <= place <= of.last if of else place == number)
    ]


def in_its_own_words(case: Case) -> Case:
    """The case of the one image that is named, without its name: by that question its kind is
    known, and by that image its modality."""
    alone = one_by_one(case) if len(case.images) > 1 else None
    if not alone:
        return case
    about = alone[0][1]
    return about if len(alone) == 1 else replace(case, question=about.question)


def as_one(said: Sequence[tuple[int, Answer]], case: Case) -> Answer:
    """One worker's answer to the whole case, of what it said to each image, which was asked as
    `case` is; its failure, where it failed at one of them. What means the same counts as one, in
    the wording that it believes most. Without confidences, what it said to most images, the first
    ones first.
    """
    answers = [answer for _, answer in said]
    seconds = max(answer.seconds for answer in answers)
    failed = next((answer for answer in answers if answer.error is not None), None)
    if failed:
        return failed.model_copy(update={"seconds": seconds})
    sure = all(answer.confidence is not None for answer in answers)
    beliefs: dict[Meaning, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for answer in answers:
        own = {each.begins: each.probability for each in answer.alternatives if each.whole}
        own[answer.text or ""] = answer.confidence or 0.0
        for text, belief in (own if sure else {answer.text or "": 1.0}).items():
            meant = meaning(text, case.language, case.question)
            beliefs[meant][text] += belief / len(answers)
    worded = [
        (max(texts, key=texts.__getitem__), sum(texts.values())) for texts in beliefs.values()
    ]
    (text, belief), *others = sorted(worded, key=lambda each: -each[1])
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
            "tokens": Tokens.sum(answer.tokens for answer in answers),
        }
    )
