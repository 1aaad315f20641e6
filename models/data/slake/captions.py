"""SLAKE's images, captioned from what it says of them: modality, body part, and organs' boxes.

Made for the medical alignment of a connector; the words are ours, the facts SLAKE's. A place is the
box's in the picture, where SLAKE's questions about findings mean the patient's side.
"""

from pathlib import Path

from models.data import slake
from models.data.example import DataError, Example, read_json
from models.data.pixels import size_of

LANGUAGES = ("en",)
PLACES = (("upper left", "top", "upper right"), ("left", "middle", "right"),
          ("lower left", "bottom", "lower right"))  # fmt: skip


def load(root: Path, split: str, language: str) -> list[Example]:
    """One example per image of one split of SLAKE, whose folder lies beside `root`.

    Raises:
        DataError: an unknown split or language, a missing or broken file, a missing image.
    """
    if language not in LANGUAGES:
        raise DataError(f"SLAKE's captions are in en, not in {language!r}.")
    folder = root.with_name("slake")
    seen: dict[Path, Example] = {}
    for example in slake.load(folder, split, "en"):
        seen.setdefault(example.images[0], example)
    parts = {row["img_name"]: row.get("location") for row in read_json(folder / f"{split}.json")}
    return [
        Example(
            id=f"{split}-{image.parent.name}",
            images=(image,),
            question="Describe the image.",
            answer=caption(
                example.modality or "Image",
                parts[f"{image.parent.name}/{image.name}"] or "body",
                boxes(image),
                _side_of(image),
            ),
            language="en",
            closed=False,
            modality=example.modality,
            kind="Caption",
        )
        for image, example in seen.items()
    ]


def caption(modality: str, part: str, boxes: list[dict[str, list[float]]], side: int) -> str:
    """In words. A box is {organ: [x, y, width, height]} in pixels of a square of `side`."""
    told = f"{modality} of the {part.lower().replace('_', ' ')}"
    organs = [pair for each in boxes for pair in each.items()]
    if not organs:
        return f"{told}."
    original = original_side(side, [box for _, box in organs])
    places = [f"{organ.lower()} at the {_place(box, original)}" for organ, box in organs]
    return f"{told}: {', '.join(places)}."


def original_side(side: int, boxes: list[list[float]]) -> int:
    """Boxes are in the original's pixels, and copies of SLAKE are often reduced, to 384 pixels or
    less. Its originals of more than 320 pixels have 512 or 1024.
    """
    furthest = max(max(x + width, y + height) for x, y, width, height in boxes)
    known = [side] if side <= 320 else [512, 1024]
    return next((each for each in (*known, 512, 1024) if each >= max(furthest, side)), side)


def _place(box: list[float], side: int) -> str:
    x, y, width, height = box
    column, row = (min(2, int(3 * at / side)) for at in (x + width / 2, y + height / 2))
    return PLACES[row][column]


def boxes(image: Path) -> list[dict[str, list[float]]]:
    """The organs of one of SLAKE's images, each {organ: [x, y, width, height]}.

    Raises:
        DataError: their file is missing or broken.
    """
    path = image.with_name("detection.json")
    found = read_json(path)
    if not all(len(box) == 4 for each in found for box in each.values()):
        raise DataError(f"{path}: a box is not [x, y, width, height]: download it again.")
    return found


def _side_of(image: Path) -> int:
    return max(size_of(image))
