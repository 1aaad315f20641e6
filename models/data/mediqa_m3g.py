"""MEDIQA-M3G 2024 (Yim et al. 2024, CC BY 4.0): free-text questions with several images, in
English, Spanish and Chinese: `train.json`, `valid_ht.json`, `test_ht_spanishtestsetcorrected.json`,
`df_userinfo.csv`, and the images in `images_train/`, `images_valid/`, `images_test/`.

The English and Spanish training text is machine-translated from the Chinese. Not run with the real
images, which cannot be had here; the texts are the real ones.
"""

import csv
import io
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.data.example import (
    DataError,
    Example,
    answered,
    read_file,
    read_json,
    require_images,
    require_known,
    text_of,
)
from models.metrics import delta_bleu

SPLITS = {
    "train": ("train.json", "images_train"),
    "validate": ("valid_ht.json", "images_valid"),
    "test": ("test_ht_spanishtestsetcorrected.json", "images_test"),
}
LANGUAGES = ("en", "es", "zh")


@dataclass(frozen=True)
class Response:
    """One author's answer, with what MEDIQA-M3G weighs it by."""

    text: str
    validated: bool  # a validated physician
    rank: int  # the author's level
    frequent: bool  # holds the most frequent answer; false where nobody marked it (train)
    complete: bool  # likewise

    @property
    def weight(self) -> float:
        """As a reference of deltaBLEU."""
        return delta_bleu.weight(
            validated=self.validated,
            rank=self.rank,
            frequent=self.frequent,
            complete=self.complete,
        )


def load(root: Path, split: str, language: str) -> list[Example]:
    """One example per encounter, its first answer the one to learn, in file order.

    Raises:
        DataError: an unknown split or language, a missing or broken file, a missing image.
    """
    encounters = _encounters(root, split, language)
    given = responses(root, split, language)
    folder = root / SPLITS[split][1]
    path = root / SPLITS[split][0]
    examples = answered(
        (
            _example(each, given[each["encounter_id"]], folder, language, path)
            for each in encounters
        ),
        str(path),
    )
    require_images(examples, "get MEDIQA-M3G's images from its authors")
    return examples


def _example(
    encounter: dict[str, Any], given: list[Response], folder: Path, language: str, path: Path
) -> Example | None:
    said = [response for response in given if response.text.strip()]
    if not said:
        return None
    where = f"{path}: encounter {encounter['encounter_id']}: its query"
    queries = [
        text_of(encounter[f"query_{part}_{language}"], where) for part in ("title", "content")
    ]
    question = " ".join(part.strip() for part in queries if part).strip()
    if not question:
        return None
    first, *others = (response.text.strip() for response in said)
    return Example(
        id=encounter["encounter_id"],
        images=tuple(folder / image for image in encounter["image_ids"]),
        question=question,
        answer=first,
        language=language,
        closed=False,
        modality="photograph",
        alternatives=tuple(others),
        weights=tuple(response.weight for response in said),
    )


def responses(root: Path, split: str, language: str) -> dict[str, list[Response]]:
    """Every encounter's answers, by its id. Needs no image.

    Raises:
        DataError: an unknown split or language, or a missing or broken file.
    """
    known = _authors(root / "df_userinfo.csv")
    authors = defaultdict(lambda: (False, 0), known)  # whom the task's list leaves out
    path = root / SPLITS[split][0]
    found = {}
    for each in _encounters(root, split, language):
        where = f"{path}: encounter {each['encounter_id']}: a response"
        found[each["encounter_id"]] = [
            Response(
                text=text_of(response[f"content_{language}"], where) or "",
                validated=authors[response["author_id"]][0],
                rank=authors[response["author_id"]][1],
                frequent=response.get("contains_freq_ans") == 1.0,
                complete=response.get("completeness") == 1.0,
            )
            for response in each["responses"]
        ]
    return found


def _encounters(root: Path, split: str, language: str) -> list[dict[str, Any]]:
    require_known("MEDIQA-M3G", split, SPLITS, language, LANGUAGES)
    path = root / SPLITS[split][0]
    encounters = read_json(path)
    wanted = {"encounter_id", "image_ids", "responses"}
    wanted |= {f"query_{part}_{language}" for part in ("title", "content")}
    for each in encounters:
        if missing := wanted - each.keys():
            raise DataError(
                f"{path}: encounter {each.get('encounter_id')} has no {sorted(missing)[0]!r}: "
                "download it again."
            )
        if not each["responses"]:
            raise DataError(f"{path}: encounter {each['encounter_id']} has no response.")
        if any({"author_id", f"content_{language}"} - given.keys() for given in each["responses"]):
            raise DataError(
                f"{path}: a response to {each['encounter_id']} has no author or no text in "
                f"{language}: download it again."
            )
    return encounters


def _authors(path: Path) -> dict[str, tuple[bool, int]]:
    """Who is a validated physician, and of which rank; an unknown rank is 0."""
    try:
        return {
            row["author_id"]: (
                row["validation_level"].startswith("md"),
                int(row["rank_level"].removeprefix("level_").replace("unk", "0")),
            )
            for row in csv.DictReader(io.StringIO(read_file(path), newline=""))
        }
    except (KeyError, AttributeError, ValueError) as error:
        raise DataError(f"{path} is no list of authors ({error}): download it again.") from error
