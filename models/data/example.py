"""One question about one or more images, whatever dataset it came from."""

import json
import random
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

Images = TypeVar("Images", Path, tuple[Path, ...])


class DataError(Exception):
    """A dataset folder that is not what it should be; names the file and the mend."""


@dataclass(frozen=True)
class Example:
    id: str  # unique within its dataset
    images: tuple[Path, ...]
    question: str
    answer: str  # what a model is taught to say
    language: str  # "en", "zh", "es"
    closed: bool  # the dataset calls it a closed question
    modality: str | None = None
    kind: str | None = None  # the dataset's own kind of question, where it has one
    alternatives: tuple[str, ...] = ()  # other answers that are as right
    weights: tuple[float, ...] = ()  # of answer and alternatives, where the dataset weighs them


def require_known(
    name: str,
    split: str,
    splits: Collection[str],
    language: str,
    languages: Collection[str],
) -> None:
    """Raises DataError where dataset `name` has no such split or language."""
    if split not in splits or language not in languages:
        raise DataError(
            f"{name} has no {split!r} in {language!r}: splits are {', '.join(splits)}, "
            f"languages {', '.join(languages)}."
        )


def require_images(examples: Iterable[Example], mend: str) -> None:
    """Raises DataError, which names the first image that is missing and ends in `mend`."""
    for image in sorted({image for example in examples for image in example.images}):
        if not image.is_file():
            raise DataError(f"{image} is missing: {mend}.")


def another_for_each(images: Iterable[Images], seed: int) -> dict[Images, Images]:
    """For each of them another one of them, by lot: who does not look will not notice."""
    ordered = sorted(set(images))
    random.Random(seed).shuffle(ordered)
    # One cycle through all of them, so that none stays where it was.
    return dict(zip(ordered, ordered[1:] + ordered[:1], strict=True))


def missing_file(path: Path) -> DataError:
    return DataError(f"{path} is missing: point CONSILIUM_DATA at the folder that holds the sets.")


def read_json(path: Path) -> list[dict[str, Any]]:
    """The rows of a dataset's JSON file.

    Raises:
        DataError: it is missing, or no list of objects.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise missing_file(path) from None
    except ValueError as error:
        place = f" (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
        raise DataError(f"{path} is not JSON{place}: download it again.") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path} is no list of questions: download it again.")
    return rows
