"""SLAKE's images, one region after another: which organ lies in a box that is told in words.

Made for a connector that is to tell places apart; the words are ours, the facts SLAKE's.
"""

from pathlib import Path

from models.data import slake
from models.data.example import DataError, Example
from models.data.pixels import size_of
from models.data.slake.captions import boxes, original_side

LANGUAGES = ("en",)


def load(root: Path, split: str, language: str) -> list[Example]:
    """One example per organ that is boxed in one split of SLAKE, whose folder lies beside `root`.

    Raises:
        DataError: an unknown split or language, a missing or broken file, a missing image.
    """
    if language not in LANGUAGES:
        raise DataError(f"SLAKE's regions are in en, not in {language!r}.")
    made = {e.images[0]: e.modality for e in slake.load(root.with_name("slake"), split, "en")}
    examples = []
    for image, modality in made.items():
        organs = [pair for each in boxes(image) for pair in each.items()]
        if not organs:
            continue
        side = original_side(max(size_of(image)), [box for _, box in organs])
        examples += [
            Example(
                id=f"{split}-{image.parent.name}-{number}",
                images=(image,),
                question=f"What lies in {region(box, side)}?",
                answer=organ,
                language="en",
                closed=False,
                modality=modality,
                kind="Region",
            )
            for number, (organ, box) in enumerate(organs)
        ]
    return examples


def region(box: list[float], side: int) -> str:
    """Its corners in hundredths of the image. A box is [x, y, width, height] in pixels of a square
    of `side`."""
    x, y, width, height = (each / side for each in box)
    corners = (y, x, y + height, x + width)
    top, left, bottom, right = (min(100, max(0, round(100 * each))) for each in corners)
    return f"rows {top} to {bottom}, columns {left} to {right}"
