"""**Synthetic** cases of several images: two to four of SLAKE's, drawn by lot from one split.

A question is SLAKE's own, either told which of the images it is about ("Image 2: …"), or one that
SLAKE answers alike for every one of them. The images are of different patients: such cases teach to
tell images apart by their order and to look at all of them, and are no studies.
"""

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from models.data import slake
from models.data.example import DataError, Example

LANGUAGES = slake.LANGUAGES
SEED = 0
SIZES = (2, 3, 4)  # of a case, in images
QUESTIONS = 4  # about one case, at most
SHARED = 3  # of so many images one begins a case whose images are asked the same

# The n-th image, in figures or in words.
PLACES = {
    "en": (
        ("Image 1", "Image 2", "Image 3", "Image 4"),
        ("In the first image", "In the second image", "In the third image", "In the fourth image"),
    ),
    "es": (
        ("Imagen 1", "Imagen 2", "Imagen 3", "Imagen 4"),
        (
            "En la primera imagen",
            "En la segunda imagen",
            "En la tercera imagen",
            "En la cuarta imagen",
        ),
    ),
    "zh": (
        ("图1", "图2", "图3", "图4"),
        ("第一张图像中", "第二张图像中", "第三张图像中", "第四张图像中"),
    ),
}
TOLD = {"en": "{place}: {question}", "es": "{place}: {question}", "zh": "{place}：{question}"}


def load(root: Path, split: str, language: str) -> list[Example]:
    """Case by case, each begun by another image of one split of SLAKE, whose folder lies beside
    `root`; the same on every machine. Every language asks about the same images in the first kind
    of case.

    Raises:
        DataError: an unknown split or language, a missing or broken file, a missing image.
    """
    if language not in LANGUAGES:
        raise DataError(f"Several of SLAKE's images are asked about in {', '.join(LANGUAGES)}.")
    about: dict[Path, list[Example]] = defaultdict(list)
    for example in slake.load(root.with_name("slake"), split, language):
        about[example.images[0]].append(example)
    drawn = random.Random(f"{SEED} {split}")  # which images: of no language
    dice = random.Random(f"{SEED} {split} {language}")
    found: list[Example] = []
    for number, image in enumerate(sorted(about)):
        others = drawn.sample(
            sorted(set(about) - {image}), min(drawn.choice(SIZES), len(about)) - 1
        )
        case = [image, *others]
        drawn.shuffle(case)
        found += _about_one(case, about, dice, f"{split}-one-{image.parent.name}", language)
        if number % SHARED == 0:
            found += _about_all(image, about, dice, f"{split}-all-{image.parent.name}")
    return [replace(each, id=f"{each.id}-{language}") for each in found]


def _about_one(
    case: Sequence[Path],
    about: dict[Path, list[Example]],
    dice: random.Random,
    name: str,
    language: str,
) -> list[Example]:
    """Questions about one image of the case each, which they name by its place."""
    asked = [(place, each) for place, image in enumerate(case) for each in about[image]]
    return [
        replace(
            each,
            id=f"{name}-{number}",
            images=tuple(case),
            question=TOLD[language].format(
                place=dice.choice(PLACES[language])[place], question=each.question
            ),
        )
        for number, (place, each) in enumerate(dice.sample(asked, min(QUESTIONS, len(asked))))
    ]


def _about_all(
    image: Path, about: dict[Path, list[Example]], dice: random.Random, name: str
) -> list[Example]:
    """Questions that have one answer for all images of a case; none where no other image has one
    in common with `image`.
    """
    said = {other: {(each.question, each.answer) for each in about[other]} for other in about}
    alike = [other for other in sorted(about) if other != image and said[other] & said[image]]
    if not alike:
        return []
    case = [image]
    for other in dice.sample(alike, min(dice.choice(SIZES) - 1, len(alike))):
        if set.intersection(*(said[each] for each in [*case, other])):
            case.append(other)
    shared = set.intersection(*(said[each] for each in case))
    asked = [each for each in about[image] if (each.question, each.answer) in shared]
    dice.shuffle(case)
    return [
        replace(each, id=f"{name}-{number}", images=tuple(case))
        for number, each in enumerate(dice.sample(asked, min(QUESTIONS, len(asked))))
    ]
