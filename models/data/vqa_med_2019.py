"""ImageCLEF VQA-Med 2019 (Ben Abacha et al. 2019, CC BY 4.0): `training/`, `validation/`.

A line is `image|question|answer`. `#` stands between answers that are as right; what stands in
brackets may be left out.
"""

import re
from pathlib import Path

from models.data.example import DataError, Example, read_file, require_images, require_known

SPLITS = {"train": ("training", "train"), "validate": ("validation", "val")}
LANGUAGES = ("en",)
KINDS = {"C1": "Modality", "C2": "Plane", "C3": "Organ", "C4": "Abnormality"}


def load(root: Path, split: str, language: str) -> list[Example]:
    """The examples of one split, kind by kind, each in file order.

    Raises:
        DataError: an unknown split or language, a missing or broken file, a missing image.
    """
    require_known("VQA-Med 2019", split, SPLITS, language, LANGUAGES)
    folder, suffix = SPLITS[split]
    examples = []
    for number, kind in KINDS.items():
        path = root / folder / "QAPairsByCategory" / f"{number}_{kind}_{suffix}.txt"
        images = root / folder / f"{suffix}_images"
        # Not splitlines: other marks that end a line may stand within an answer.
        lines = read_file(path).split("\n")
        examples += [
            _example(line, images, kind, f"{split}-{number}-{place}", path, place)
            for place, line in enumerate(lines, start=1)
            if line.strip()
        ]
    require_images(examples, "download VQA-Med 2019's images again")
    return examples


def answers(text: str) -> tuple[str, ...]:
    """Every answer that `text` allows, the first as it is written: "a (b)#c" → a (b), a, c."""
    found = []
    for written in filter(None, map(str.strip, text.split("#"))):
        found += [written, " ".join(re.sub(r"\([^)]*\)", " ", written).split())]
    return tuple(dict.fromkeys(filter(None, found)))


def _example(line: str, images: Path, kind: str, id: str, path: Path, place: int) -> Example:
    parts = line.split("|")
    if len(parts) != 3:
        raise DataError(
            f"{path}, line {place}: {len(parts)} fields where image|question|answer was expected: "
            "download it again."
        )
    image, question, answer = (part.strip() for part in parts)
    first, *alternatives = answers(answer) or ("",)
    return Example(
        id=id,
        images=(images / f"{image}.jpg",),
        question=question,
        answer=first,
        language="en",
        closed=first in ("yes", "no"),
        kind=kind,
        alternatives=tuple(alternatives),
    )
