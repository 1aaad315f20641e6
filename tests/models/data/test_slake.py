"""SLAKE: the official files, read as they are; broken ones named."""

import json
from pathlib import Path

import pytest

from models.data import slake
from models.data.datasets import one_spelling
from models.data.example import DataError, Example


@pytest.mark.parametrize(
    ("split", "language", "questions", "images"),
    [
        ("train", "en", 4919, 450),
        ("validate", "en", 1053, 96),
        ("test", "en", 1061, 96),
        ("train", "zh", 4878, 450),
        ("validate", "zh", 1050, 96),
        ("test", "zh", 1067, 96),
        ("train", "es", 4919, 450),
        ("validate", "es", 1053, 96),
        ("test", "es", 1061, 96),
    ],
)
def test_the_official_splits_are_whole(
    dataset: Path, split: str, language: str, questions: int, images: int
) -> None:
    examples = slake.load(dataset / "slake", split, language)

    assert len({example.id for example in examples}) == len(examples) == questions
    assert len({example.images for example in examples}) == images


def test_train_and_test_share_no_image(dataset: Path) -> None:
    seen = {
        split: {e.images[0].read_bytes() for e in slake.load(dataset / "slake", split, "en")}
        for split in slake.SPLITS
    }

    assert not seen["train"] & seen["test"] and not seen["train"] & seen["validate"]


def test_one_spelling_per_answer_the_commonest() -> None:
    def example(answer: str) -> Example:
        return Example("1", (Path("x"),), "?", answer, "en", closed=True)

    chosen = one_spelling([example(a) for a in ("Yes", "yes.", "Yes ", "MRI")])

    assert [e.answer for e in chosen] == ["Yes", "Yes", "Yes", "MRI"]
    learned = [example(a) for a in ("mri", "yes", "yes", "Yes")]
    spelled = one_spelling([example(a) for a in ("Yes", "Yes", "CT", "MRI")], learned)
    assert [e.answer for e in spelled] == ["yes", "yes", "CT", "mri"]


def test_a_folder_that_is_not_slake_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"test.json is missing: point --data or CONSILIUM_DATA"):
        slake.load(tmp_path, "test", "en")
    (tmp_path / "test.json").write_text("{")
    with pytest.raises(DataError, match=r"test.json is not JSON \(line 1\)"):
        slake.load(tmp_path, "test", "en")
    row = {
        "img_name": "gone.jpg",
        "question": "?",
        "answer": "x",
        "q_lang": "en",
        "modality": "CT",
        "answer_type": "OPEN",
        "qid": 7,
    }
    (tmp_path / "test.json").write_text(json.dumps([row]))
    with pytest.raises(DataError, match=r"gone.jpg is missing: download SLAKE's imgs/ again"):
        slake.load(tmp_path, "test", "en")
    del row["answer"]
    (tmp_path / "test.json").write_text(json.dumps([row]))
    with pytest.raises(DataError, match=r"test.json: question 7 has no 'answer'"):
        slake.load(tmp_path, "test", "en")


def test_an_unknown_split_or_language_says_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="splits are train, validate, test, languages en, zh"):
        slake.load(tmp_path, "dev", "en")
