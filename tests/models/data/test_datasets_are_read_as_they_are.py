"""The official files of every set but SLAKE: whole, and named where they are broken."""

import json
import pickle
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from models.data import datasets, mediqa_m3g, path_vqa, vqa_med_2019, vqa_rad
from models.data.example import DataError


def draw(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(path)


@pytest.mark.parametrize(
    ("load", "folder", "split", "questions", "images", "closed"),
    [
        (vqa_rad.load, "vqa_rad", "train", 3064, 314, 1823),
        (vqa_rad.load, "vqa_rad", "test", 451, 203, 272),
        (vqa_rad.load, "vqa_rad", "all", 3515, 314, 2095),
        (vqa_med_2019.load, "vqa_med_2019", "train", 12792, 3200, 1294),
        (vqa_med_2019.load, "vqa_med_2019", "validate", 2000, 500, 202),
    ],
)
def test_the_official_splits_are_whole(
    dataset: Path,
    load: Callable[..., Any],
    folder: str,
    split: str,
    questions: int,
    images: int,
    closed: int,
) -> None:
    examples = load(dataset / folder, split, "en")

    assert len({example.id for example in examples}) == len(examples) == questions
    assert len({example.images for example in examples}) == images
    assert sum(example.closed for example in examples) == closed
    assert all(example.question and example.answer for example in examples)


def test_vqa_med_has_four_kinds_of_question(dataset: Path) -> None:
    kinds = Counter(e.kind for e in vqa_med_2019.load(dataset / "vqa_med_2019", "validate", "en"))

    assert kinds == {"Modality": 500, "Plane": 500, "Organ": 500, "Abnormality": 500}


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("axial", ("axial",)),
        ("ct w/contrast (iv)", ("ct w/contrast (iv)", "ct w/contrast")),
        ("stroke#cerebral infarction", ("stroke", "cerebral infarction")),
        ("a (b) c#d", ("a (b) c", "a c", "d")),
    ],
)
def test_vqa_med_hashes_and_brackets(written: str, meant: tuple[str, ...]) -> None:
    assert vqa_med_2019.answers(written) == meant


@pytest.mark.parametrize(
    ("split", "encounters", "answers"), [("train", 842, 5871), ("validate", 56, 417)]
)
@pytest.mark.parametrize("language", ["en", "es", "zh"])
def test_mediqa_answers_are_whole(
    dataset: Path, split: str, language: str, encounters: int, answers: int
) -> None:
    responses = mediqa_m3g.responses(dataset / "mediqa_m3g", split, language)

    assert len(responses) == encounters
    assert sum(map(len, responses.values())) == answers


def test_mediqa_weights_lie_where_the_task_puts_them(dataset: Path) -> None:
    responses = mediqa_m3g.responses(dataset / "mediqa_m3g", "test", "zh")
    weights = {round(r.weight, 1) for each in responses.values() for r in each}

    assert weights == {0.6, 0.7, 0.8, 0.9, 1.0}


def test_a_mediqa_case_has_all_its_images(tmp_path: Path) -> None:
    encounter = {
        "encounter_id": "ENC1",
        "image_ids": ["a.jpg", "b.jpg"],
        "query_title_es": "¿Vitíligo?",
        "query_content_es": "Mano.",
        "responses": [
            {"author_id": "U1", "content_es": " Sí "},
            {"author_id": "U2", "content_es": "No"},
        ],
    }
    (tmp_path / "train.json").write_text(json.dumps([encounter]))
    (tmp_path / "df_userinfo.csv").write_text(
        "author_id,validation_level,rank_level\nU1,md,level_5\nU2,unk,unk\n"
    )
    with pytest.raises(DataError, match=r"a\.jpg is missing: get MEDIQA-M3G's images"):
        mediqa_m3g.load(tmp_path, "train", "es")
    for name in ("a.jpg", "b.jpg"):
        draw(tmp_path / "images_train" / name)

    (case,) = mediqa_m3g.load(tmp_path, "train", "es")

    assert [image.name for image in case.images] == ["a.jpg", "b.jpg"]
    assert (case.question, case.answer, case.alternatives) == ("¿Vitíligo? Mano.", "Sí", ("No",))
    assert case.weights == pytest.approx((0.8, 0.6))
    with pytest.raises(DataError, match=r"ENC1 has no 'query_content_zh'"):
        mediqa_m3g.load(tmp_path, "train", "zh")


def test_a_case_that_stands_in_a_set_twice_is_told(tmp_path: Path) -> None:
    """Its verdict would be the other's; of MEDIQA-M3G it had the other's answers."""
    root = tmp_path / "mediqa_m3g"
    draw(root / "images_train" / "a.jpg")
    case = {"encounter_id": "ENC1", "image_ids": ["a.jpg"]}
    case |= {"query_title_en": "Vitiligo?", "query_content_en": "Hand."}
    both = [
        case | {"responses": [{"author_id": "U1", "content_en": said}]} for said in ("Yes", "No")
    ]
    (root / "train.json").write_text(json.dumps(both))
    (root / "df_userinfo.csv").write_text("author_id,validation_level,rank_level\n")

    with pytest.raises(DataError, match="train in en: 1 ids stand there twice, such as ENC1"):
        datasets.load("mediqa_m3g", tmp_path, "train", "en")


@pytest.mark.parametrize("blank", [None, "", " "])
def test_a_mediqa_case_without_a_query_is_left_out_and_told(
    blank: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A title or a text alone is a query; of what is left out no image is wanted."""
    queries = [("Rash?", blank), (blank, "Arm."), (blank, blank)]
    encounters = [
        {
            "encounter_id": f"ENC{number}",
            "image_ids": [f"{number}.jpg"],
            "query_title_en": title,
            "query_content_en": content,
            "responses": [{"author_id": "U1", "content_en": "Yes"}],
        }
        for number, (title, content) in enumerate(queries)
    ]
    (tmp_path / "train.json").write_text(json.dumps(encounters))
    (tmp_path / "df_userinfo.csv").write_text("author_id,validation_level,rank_level\n")
    for number in (0, 1):
        draw(tmp_path / "images_train" / f"{number}.jpg")

    found = mediqa_m3g.load(tmp_path, "train", "en")

    assert [case.question for case in found] == ["Rash?", "Arm."]
    assert "left out for want of a question or an answer: 1 of 3" in capsys.readouterr().err


def test_path_vqa_is_read_from_plain_pickles_only(tmp_path: Path) -> None:
    path = tmp_path / "qas" / "val" / "val_qa.pkl"
    path.parent.mkdir(parents=True)
    rows = [
        {"image": "val_0001", "question": "what is present?", "answer": "liver"},
        {"image": "val_0001", "question": "is liver present?", "answer": "Yes"},
    ]
    path.write_bytes(pickle.dumps(rows))
    draw(tmp_path / "images" / "val" / "val_0001.jpg")

    examples = path_vqa.load(tmp_path, "validate", "en")

    assert [(e.answer, e.closed) for e in examples] == [("liver", False), ("Yes", True)]
    path.write_bytes(pickle.dumps(rows)[:-9])
    with pytest.raises(DataError, match=r"val_qa\.pkl holds more or less than plain data"):
        path_vqa.load(tmp_path, "validate", "en")
    path.write_bytes(pickle.dumps([Path("x")]))
    with pytest.raises(DataError, match=r"plain data \(it names pathlib"):
        path_vqa.load(tmp_path, "validate", "en")


def test_broken_lines_and_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"trainset\.json is missing: point --data or CONSILIUM_DATA"
    ):
        vqa_rad.load(tmp_path, "train", "en")
    (tmp_path / "trainset.json").write_text('{"qid": 1}')
    with pytest.raises(DataError, match=r"trainset\.json is no list of questions"):
        vqa_rad.load(tmp_path, "train", "en")
    folder = tmp_path / "training" / "QAPairsByCategory"
    folder.mkdir(parents=True)
    (folder / "C1_Modality_train.txt").write_text("synpic1|what is it?|ct\nsynpic2|what is it?\n")
    with pytest.raises(DataError, match=r"C1_Modality_train\.txt, line 2: 2 fields"):
        vqa_med_2019.load(tmp_path, "train", "en")


@pytest.mark.parametrize("load", [vqa_rad.load, vqa_med_2019.load, path_vqa.load, mediqa_m3g.load])
def test_an_unknown_split_or_language_says_what_there_is(
    load: Callable[..., Any], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"splits are train, .* languages .*en"):
        load(tmp_path, "train", "fr")
