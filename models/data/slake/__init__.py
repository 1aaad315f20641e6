"""SLAKE (Liu et al. 2021, CC BY 4.0): `train.json`, `validate.json`, `test.json`, `imgs/`.

The official splits share no image. Its Spanish is ours: the English by `models.data.slake.spanish`.
"""

from dataclasses import replace
from pathlib import Path

from models.data.example import (
    DataError,
    Example,
    answered,
    asked,
    read_json,
    require_images,
    require_known,
    text_of,
)
from models.data.slake import spanish

SPLITS = ("train", "validate", "test")
LANGUAGES = ("en", "zh", "es")


def load(root: Path, split: str, language: str) -> list[Example]:
    """The examples of one split and language, in file order.

    Raises:
        DataError: an unknown split or language, a missing or broken file, a missing image.
    """
    require_known("SLAKE", split, SPLITS, language, LANGUAGES)
    if language == "es":
        return [_in_spanish(example) for example in load(root, split, "en")]
    path = root / f"{split}.json"
    found = [
        _example(root, row, f"{split}-{number}", path)
        for number, row in enumerate(read_json(path))  # `qid` is not unique in train.json
        if row.get("q_lang", language) == language
    ]
    examples = answered(found, str(path))
    require_images(examples, "download SLAKE's imgs/ again")
    return examples


def _in_spanish(example: Example) -> Example:
    return replace(
        example,
        id=f"{example.id}-es",
        question=spanish.question(example.question),
        answer=spanish.answer(example.answer),
        language="es",
    )


def _example(root: Path, row: dict[str, object], id: str, path: Path) -> Example | None:
    where = f"{path}: question {row.get('qid')}"
    try:
        if (said := asked(row["question"], row["answer"], where)) is None:
            return None
        question, answer = said
        return Example(
            id=id,
            images=(root / "imgs" / str(row["img_name"]),),
            question=question,
            answer=answer,
            language=str(row["q_lang"]),
            closed=row["answer_type"] == "CLOSED",
            modality=text_of(row["modality"], f"{where}: its modality"),
            kind=str(row["content_type"]) if row.get("content_type") else None,
            organ=text_of(row.get("location"), f"{where}: its location"),
        )
    except KeyError as error:
        raise DataError(f"{where} has no {error}: download it again.") from error
