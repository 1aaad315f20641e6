"""**Synthetic** stacks: SLAKE's images of one body part, with questions about which one it is.

Two to four images of one split, body part and size, drawn by lot, and asked for what SLAKE says of
exactly one of them: its modality, or what is boxed in it (what has no box counts as not shown).
They are of different patients: a stack that teaches to tell images apart, and no scan.
"""

import random
from collections import defaultdict
from pathlib import Path

from models.data import slake
from models.data.example import DataError, Example, read_json
from models.data.pixels import size_of
from models.data.slake.captions import boxes

LANGUAGES = ("en",)
SEED = 0
SIZES = (2, 3, 4)  # of a stack, in images
QUESTIONS = 3  # about one stack, at most
ORDINALS = ("the first", "the second", "the third", "the fourth")
PARTS = {"Chest": "Lung", "Brain": "Brain"}  # SLAKE's finer names, by how they begin


def load(root: Path, split: str, language: str) -> list[Example]:
    """Stack by stack, each begun by another image of one split of SLAKE, whose folder lies beside
    `root`; the same on every machine.

    Raises:
        DataError: an unknown split or language, a missing or broken file, a missing image.
    """
    if language not in LANGUAGES:
        raise DataError(f"SLAKE's synthetic stacks are in en, not in {language!r}.")
    folder = root.with_name("slake")
    parts = {row["img_name"]: row.get("location") for row in read_json(folder / f"{split}.json")}
    modality = {each.images[0]: each.modality for each in slake.load(folder, split, "en")}
    alike: dict[tuple[str, tuple[int, int]], list[Path]] = defaultdict(list)
    for image in modality:
        part = str(parts[f"{image.parent.name}/{image.name}"])
        broad = next((name for begins, name in PARTS.items() if part.startswith(begins)), part)
        alike[broad, size_of(image)].append(image)
    dice = random.Random(f"{SEED} {split}")
    examples: list[Example] = []
    for group in alike.values():
        for image in group:
            if len(group) > 1:
                examples += _stack(image, group, modality, dice, split)
    return examples


def _stack(
    image: Path,
    group: list[Path],
    modality: dict[Path, str | None],
    dice: random.Random,
    split: str,
) -> list[Example]:
    """The questions that exactly one image of a stack answers, `image` being in it."""
    others = [each for each in group if each != image]
    stack = [image, *dice.sample(others, min(dice.choice(SIZES) - 1, len(others)))]
    dice.shuffle(stack)
    shown = [_shown(each, modality[each]) for each in stack]
    asked = [
        (what, place)
        for place, here in enumerate(shown)
        for what in here
        if sum(what in there for there in shown) == 1
    ]
    kinds = {modality[each] for each in stack}
    of_one_kind = kinds.pop() if len(kinds) == 1 else None
    return [
        Example(
            id=f"{split}-{image.parent.name}-{number}",
            images=tuple(stack),
            question=f"Which image {what}?",
            answer=ORDINALS[place],
            language="en",
            closed=False,
            modality=of_one_kind,
            kind="Stack",
        )
        for number, (what, place) in enumerate(dice.sample(asked, min(QUESTIONS, len(asked))))
    ]


def _shown(image: Path, modality: str | None) -> list[str]:
    """What SLAKE says of it, as a question does."""
    made = [f"shows {'a' if modality == 'CT' else 'an'} {modality}"] if modality else []
    boxed = {what.lower() for each in boxes(image) for what in each}
    return [*made, *(f"contains {what}" for what in sorted(boxed))]
