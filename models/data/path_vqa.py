"""PathVQA (He et al. 2020, MIT): `qas/SPLIT/SPLIT_qa.pkl`, `images/SPLIT/`.

Not run on the real set: its images cannot be had here, so it is tested on files that a test wrote.
"""

import pickle
from io import BytesIO
from pathlib import Path
from typing import Any, NoReturn

from models.data.example import (
    DataError,
    Example,
    answered,
    asked,
    missing_file,
    require_images,
    require_known,
)

SPLITS = {"train": "train", "validate": "val", "test": "test"}
LANGUAGES = ("en",)


def load(root: Path, split: str, language: str) -> list[Example]:
    """The examples of one split, in file order.

    Raises:
        DataError: an unknown split or language, a missing or broken file, a missing image.
    """
    require_known("PathVQA", split, SPLITS, language, LANGUAGES)
    name = SPLITS[split]
    path = root / "qas" / name / f"{name}_qa.pkl"
    found = [
        _example(row, root / "images" / name, f"{split}-{number}", path)
        for number, row in enumerate(_read(path))
    ]
    examples = answered(found, str(path))
    require_images(examples, "download PathVQA's images again")
    return examples


class _PlainData(pickle.Unpickler):
    """Lists, dicts and strings only: a pickle that names a class could run anything."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it names {module}.{name}")


def _read(path: Path) -> list[Any]:
    try:
        rows = _PlainData(BytesIO(path.read_bytes())).load()
    except FileNotFoundError:
        raise missing_file(path) from None
    except (pickle.UnpicklingError, EOFError, LookupError, TypeError, ValueError) as error:
        raise DataError(f"{path} holds more or less than plain data ({error}).") from error
    if not isinstance(rows, list):
        raise DataError(f"{path} holds no list of questions: download it again.")
    return rows


def _example(row: Any, images: Path, id: str, path: Path) -> Example | None:
    try:
        if (said := asked(row["question"], row["answer"], f"{path}: {id}")) is None:
            return None
        question, answer = said
        return Example(
            id=id,
            images=(images / f"{row['image']}.jpg",),
            question=question,
            answer=answer.strip(),
            language="en",
            closed=answer.strip().lower() in ("yes", "no"),
        )
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: {id} is no question ({error}): download it again.") from error
