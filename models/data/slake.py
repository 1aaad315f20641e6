"""SLAKE (Liu et al. 2021, CC BY 4.0): `train.json`, `validate.json`, `test.json`, `imgs/`.

The official splits share no image.
"""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

from models.data.example import DataError, Example

SPLITS = ("train", "validate", "test")
LANGUAGES = ("en", "zh")


def load(root: Path, split: str, language: str) -> list[Example]:
    """The examples of one split and language, in file order.

    Raises:
        DataError: an unknown split or language, a missing or broken file, a missing image.
    """
    if split not in SPLITS or language not in LANGUAGES:
        raise DataError(
            f"SLAKE has no {split!r} in {language!r}: splits are {', '.join(SPLITS)}, "
            f"languages {', '.join(LANGUAGES)}."
        )
    path = root / f"{split}.json"
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        message = f"{path} is missing: point CONSILIUM_DATA at the folder that holds slake/."
        raise DataError(message) from None
    except json.JSONDecodeError as error:
        raise DataError(f"{path} is not JSON (line {error.lineno}): download it again.") from error
    examples = [
        _example(root, row, f"{split}-{number}", path)
        for number, row in enumerate(rows)  # `qid` is not unique in train.json
        if row.get("q_lang", language) == language
    ]
    for image in {example.image for example in examples}:
        if not image.is_file():
            raise DataError(f"{image} is missing: download SLAKE's imgs/ again.")
    return examples


def one_spelling(examples: list[Example]) -> list[Example]:
    """The same examples with one spelling per answer: its most common capitals, no final stop.

    SLAKE writes "Yes" and "yes", "Lung" and "lung"; a model should not have to guess which.
    """

    def bare(answer: str) -> str:
        return answer.strip().removesuffix(".").removesuffix("。").strip()

    spellings: dict[str, Counter[str]] = {}
    for example in examples:
        answer = bare(example.answer)
        spellings.setdefault(answer.lower(), Counter())[answer] += 1
    chosen = {key: counter.most_common(1)[0][0] for key, counter in spellings.items()}
    return [replace(e, answer=chosen[bare(e.answer).lower()]) for e in examples]


def _example(root: Path, row: dict[str, object], id: str, path: Path) -> Example:
    try:
        return Example(
            id=id,
            image=root / "imgs" / str(row["img_name"]),
            question=str(row["question"]),
            answer=str(row["answer"]),
            language=str(row["q_lang"]),
            closed=row["answer_type"] == "CLOSED",
            modality=str(row["modality"]),
            kind=str(row["content_type"]) if row.get("content_type") else None,
        )
    except KeyError as error:
        raise DataError(
            f"{path}: question {row.get('qid')} has no {error}: download it again."
        ) from error
