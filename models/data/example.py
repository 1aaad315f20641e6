"""One question about one image, whatever dataset it came from."""

from dataclasses import dataclass
from pathlib import Path


class DataError(Exception):
    """A dataset folder that is not what it should be; names the file and the mend."""


@dataclass(frozen=True)
class Example:
    id: str  # unique within its dataset
    image: Path
    question: str
    answer: str
    language: str  # "en", "zh", "es"
    closed: bool  # the dataset calls it a closed question
    modality: str | None = None
    kind: str | None = None  # the dataset's own kind of question, where it has one
