"""VQA-RAD (Lau et al. 2018, CC0 1.0): `trainset.json`, `testset.json`, `images/`.

Every test image is also a training image, so a score on this test split says nothing of images that
were not seen; folds of "all" (a recipe's `folds`, `models.data.splits.folds`) do.
"""

from pathlib import Path

from models.data.example import (
    DataError,
    Example,
    answered,
    asked,
    read_json,
    require_images,
    require_known,
)

FILES = {"train": "trainset.json", "test": "testset.json"}
SPLITS = {"train": ["train"], "test": ["test"], "all": ["train", "test"]}
LANGUAGES = ("en",)


def load(root: Path, split: str, language: str) -> list[Example]:
    """The examples of one split, in file order.

    Raises:
        DataError: an unknown split or language, a missing or broken file, a missing image.
    """
    require_known("VQA-RAD", split, SPLITS, language, LANGUAGES)
    examples = []
    for part in SPLITS[split]:
        path = root / FILES[part]
        examples += answered(
            (_example(root, row, part, path) for row in read_json(path)), str(path)
        )
    require_images(examples, "download VQA-RAD's images again")
    return examples


def _example(root: Path, row: dict[str, object], split: str, path: Path) -> Example | None:
    where = f"{path}: question {row.get('qid')}"
    try:
        if (said := asked(row["question"], row["answer"], where)) is None:
            return None
        question, answer = said
        return Example(
            id=f"{split}-{row['qid']}",
            images=(root / "images" / str(row["image_name"]),),
            question=question,
            answer=answer.strip(),
            language="en",
            closed=str(row["answer_type"]).strip() == "CLOSED",
            kind=str(row["question_type"]),
        )
    except KeyError as error:
        raise DataError(f"{where} has no {error}: download it again.") from error
