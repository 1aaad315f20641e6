"""One question about one or more images, whatever dataset it came from."""

import functools
import json
import math
import random
import sys
from collections.abc import Collection, Hashable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from models.files import NotUtf8, read_text

Images = TypeVar("Images", Path, tuple[Path, ...])


class DataError(Exception):
    """A dataset folder that is not what it should be; names the file and the mend."""


@dataclass(frozen=True, slots=True)
class Example:
    id: str  # unique within its dataset
    images: tuple[Path, ...]
    question: str
    answer: str  # what a model is taught to say; blank where the dataset has no answer
    language: str  # "en", "zh", "es"
    closed: bool  # the dataset calls it a closed question
    modality: str | None = None
    kind: str | None = None  # the dataset's own kind of question, where it has one
    alternatives: tuple[str, ...] = ()  # other answers that are as right
    weights: tuple[float, ...] = ()  # of answer and alternatives, where the dataset weighs them
    organ: str | None = None  # what the image shows of the body, where the dataset says so
    choices: tuple[str, ...] = ()  # the only answers allowed, where the dataset says so
    patient: str | None = None  # who is shown, where the dataset says so
    context: str | None = None  # what a panel is told beside the question, and no training reads
    views: tuple[str, ...] = ()  # likewise: what each image is, in their order
    cameras: tuple[Path, ...] = ()  # what took each image, in their order: models.parts.places

    @property
    def group(self) -> Hashable:
        """What it shares with questions that are not independent of it: its patient, or else its
        images."""
        return self.patient or self.images


_missing_allowed = ContextVar("_missing_allowed", default=False)


@contextmanager
def without_images() -> Iterator[None]:
    """Inside the block sets are read whose images are not all there: a stored run's answers can be
    looked at without them."""
    token = _missing_allowed.set(True)
    try:
        yield
    finally:
        _missing_allowed.reset(token)


def images_may_be_missing() -> bool:
    return _missing_allowed.get()


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
    """Raises DataError, which names the first image that is missing and ends in `mend`; not
    `without_images`."""
    if images_may_be_missing():
        return
    for image in sorted({image for example in examples for image in example.images}):
        if not image.is_file():
            raise DataError(f"{image} is missing: {mend}.")


def text_of(value: object, where: str) -> str | None:
    """What a row holds, as text: null is None, a number its digits.

    Raises:
        DataError: it is anything else than text; `where` names the row.
    """
    if value is None:
        return None
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise DataError(f"{where} holds half a character: mend that row.") from error
        return value
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return str(value)
    kind = "true or false" if isinstance(value, bool) else f"of type {type(value).__name__}"
    raise DataError(f"{where} is {kind} where text is expected: mend that row.")


def asked(question: object, answer: object, where: str) -> tuple[str, str] | None:
    """A row's question and answer as text; None where one of them is null.

    Raises:
        DataError: one of them is something else.
    """
    said = text_of(question, f"{where}: its question"), text_of(answer, f"{where}: its answer")
    return None if said[0] is None or said[1] is None else (said[0], said[1])


def answered(found: Iterable[Example | None], where: str) -> list[Example]:
    """Those that are there; how many are not, having no question or no answer, is told once."""
    rows = list(found)
    examples = [example for example in rows if example is not None]
    if left_out := len(rows) - len(examples):
        _tell(f"{where}: left out for want of a question or an answer: {left_out} of {len(rows)}")
    return examples


@functools.cache  # the same files are read more than once in a run
def _tell(line: str) -> None:
    print(line, file=sys.stderr)


def another_for_each(images: Iterable[Images], seed: int) -> dict[Images, Images]:
    """For each of them another one of them, by lot: who does not look will not notice."""
    ordered = sorted(set(images))
    random.Random(seed).shuffle(ordered)
    # One cycle through all of them, so that none stays where it was.
    return dict(zip(ordered, ordered[1:] + ordered[:1], strict=True))


def missing_file(path: Path) -> DataError:
    return DataError(
        f"{path} is missing: point --data or CONSILIUM_DATA at the folder that holds the sets."
    )


def read_file(path: Path) -> str:
    """The text of one of a dataset's files.

    Raises:
        DataError: it is missing, or not UTF-8.
    """
    try:
        return read_text(path)
    except FileNotFoundError:
        raise missing_file(path) from None
    except NotUtf8 as error:
        raise DataError(str(error)) from error


def read_json(path: Path) -> list[dict[str, Any]]:
    """The rows of a dataset's JSON file.

    Raises:
        DataError: it is missing, not UTF-8, or no list of objects.
    """
    try:
        rows = json.loads(read_file(path))
    except (ValueError, RecursionError) as error:
        place = f" (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
        raise DataError(f"{path} is not JSON{place}: download it again.") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path} is no list of questions: download it again.")
    return rows
