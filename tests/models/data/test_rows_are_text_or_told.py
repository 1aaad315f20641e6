"""Whatever a data set's file holds in the place of a question or an answer: text is text, nothing
is nothing, and the rest is named. Whatever the file's encoding: read, or named."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from models.data import datasets
from models.data.example import DataError, Example
from models.recipe import RECIPES, load_recipe
from models.recipe.programme import RecipeError
from models.recipe.stage import Source
from models.training.inputs.examples import examples_of

Row = tuple[Any, Any]  # question and answer


def write_json(path: Path, rows: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows))


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8)).save(path)


def slake(root: Path, rows: list[Row]) -> None:
    picture(root / "imgs" / "a.jpg")
    same = {"img_name": "a.jpg", "q_lang": "en", "modality": "CT", "answer_type": "OPEN"}
    write_json(
        root / "train.json",
        [{"qid": n, "question": q, "answer": a} | same for n, (q, a) in enumerate(rows)],
    )


def vqa_rad(root: Path, rows: list[Row]) -> None:
    picture(root / "images" / "a.jpg")
    same = {"image_name": "a.jpg", "answer_type": "OPEN", "question_type": "ORGAN"}
    write_json(
        root / "trainset.json",
        [{"qid": n, "question": q, "answer": a} | same for n, (q, a) in enumerate(rows)],
    )


def path_vqa(root: Path, rows: list[Row]) -> None:
    picture(root / "images" / "train" / "a.jpg")
    path = root / "qas" / "train" / "train_qa.pkl"
    path.parent.mkdir(parents=True)
    said = [{"image": "a", "question": q, "answer": a} for q, a in rows]
    path.write_bytes(pickle.dumps(said))


def captions(root: Path, rows: list[Row]) -> None:
    picture(root / "images" / "a.jpg")
    entries = [
        {
            "id": str(n),
            "image": "a.jpg",
            "conversations": [{"from": "human", "value": q}, {"from": "gpt", "value": a}],
        }
        for n, (q, a) in enumerate(rows)
    ]
    write_json(root / "train.json", entries)


def mediqa_m3g(root: Path, rows: list[Row]) -> None:
    picture(root / "images_train" / "a.jpg")
    encounters = [
        {
            "encounter_id": str(n),
            "image_ids": ["a.jpg"],
            "query_title_en": q,
            "query_content_en": "",
            "responses": [{"author_id": "U", "content_en": said} for said in (a, None)],
        }
        for n, (q, a) in enumerate(rows)
    ]
    write_json(root / "train.json", encounters)
    (root / "df_userinfo.csv").write_bytes(
        b"\xef\xbb\xbfauthor_id,validation_level,rank_level\r\nU,md,level_1\r\n"
    )


Write = Callable[[Path, list[Row]], None]
SETS = pytest.mark.parametrize("write", [slake, vqa_rad, path_vqa, captions, mediqa_m3g])


def read(write: Write, data: Path, rows: list[Row]) -> list[Example]:
    write(data / write.__name__, rows)
    return datasets.load(write.__name__, data, "train", "en")


@SETS
@pytest.mark.parametrize("nothing", [None, "", " \n"])
def test_a_row_without_an_answer_is_left_out_and_told(
    write: Write, nothing: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is not taught, or scored, as the word "None". So is one without a question."""
    found = read(write, tmp_path, [("Is it?", "Yes"), ("And it?", nothing), (nothing, "No")])

    assert [(each.question, each.answer) for each in found] == [("Is it?", "Yes")]
    assert "left out for want of a question or an answer: " in capsys.readouterr().err
    source = Source(set=write.__name__, split="train", languages=("en",))
    assert [each.answer for each in examples_of([source], tmp_path)] == ["Yes"]
    assert capsys.readouterr().err == ""  # once is enough


@SETS
@pytest.mark.parametrize(("number", "text"), [(4, "4"), (0, "0"), (-2.5, "-2.5")])
def test_a_number_is_its_digits(write: Write, number: float, text: str, tmp_path: Path) -> None:
    assert [each.answer for each in read(write, tmp_path, [("How many?", number)])] == [text]


@SETS
@pytest.mark.parametrize("wrong", [True, False, ["Yes"], {"text": "Yes"}, float("nan")])
def test_anything_else_is_named_by_its_row(write: Write, wrong: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train.*1.* where text is expected: mend that row"):
        read(write, tmp_path, [("Is it?", "Yes"), ("Is it?", wrong)])


def test_an_answer_keeps_marks_that_end_a_line_elsewhere(tmp_path: Path) -> None:
    """VQA-Med's lines end at a line feed alone; a byte order mark and CRLF are no part of them."""
    folder = tmp_path / "vqa_med_2019" / "training"
    picture(folder / "train_images" / "a.jpg")
    (folder / "QAPairsByCategory").mkdir()
    for kind in ("C1_Modality", "C2_Plane", "C3_Organ", "C4_Abnormality"):
        content = "\ufeffa|what is it?|left\u2028lung\x85\x0c\r\n\r\na|what is it?|ct\r\n"
        path = folder / "QAPairsByCategory" / f"{kind}_train.txt"
        path.write_text(content, "utf-8", newline="")
    found = datasets.load("vqa_med_2019", tmp_path, "train", "en")
    assert [each.answer for each in found[:2]] == ["left\u2028lung", "ct"]
    path.write_bytes("a|what is it?|ct\na|où?|tête\n".encode("latin-1"))
    with pytest.raises(
        DataError, match=r"C4_Abnormality_train\.txt, line 2, is not UTF-8 \(byte 0xf9\)"
    ):
        datasets.load("vqa_med_2019", tmp_path, "train", "en")


@pytest.mark.parametrize(
    ("encoding", "says"), [("utf-8-sig", ""), ("latin-1", "line 2"), ("utf-16", "line 1")]
)
def test_a_file_is_utf_8_or_named(encoding: str, says: str, tmp_path: Path) -> None:
    """With a byte order mark or without; sets and recipes alike."""
    slake(tmp_path / "slake", [("Où?", "À gauche")])
    path = tmp_path / "slake" / "train.json"
    rows = json.loads(path.read_text())
    path.write_bytes(json.dumps(rows, ensure_ascii=False, indent=0).encode(encoding))
    recipe = tmp_path / "mine.toml"
    source = (RECIPES / "screening.toml").read_text()
    recipe.write_bytes(f"\n# é\r\n{source}".encode(encoding))
    if not says:
        assert datasets.load("slake", tmp_path, "train", "en")[0].answer == "À gauche"
        assert load_recipe(recipe) == load_recipe("screening")
        return
    with pytest.raises(DataError, match=r"train\.json, line \d+, is not UTF-8 .*: save it as"):
        datasets.load("slake", tmp_path, "train", "en")
    with pytest.raises(RecipeError, match=rf"mine\.toml, {says}, is not UTF-8 .*: save it as"):
        load_recipe(recipe)
