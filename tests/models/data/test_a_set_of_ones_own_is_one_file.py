"""A set of one's own is a file as one has it; whatever is wrong with it is one sentence."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from models.data import datasets
from models.data.example import DataError, Example, without_images
from models.data.splits import folds
from models.recipe.stage import Source
from models.training.inputs.examples import examples_of

ROWS: list[dict[str, Any]] = [
    {"id": 1, "images": "a.png; b.png", "question": "Is there a stone, or not?", "answer": "yes",
     "closed": True, "modality": "CT", "alternatives": "Yes, two", "patient": "P1"},
    {"id": 2, "images": "sub/c.png", "question": "¿Dónde está?", "answer": 'left "upper"; lobe',
     "kind": "Place"},
    {"id": 3, "images": "b.png", "question": "Which?", "answer": "CT", "choices": "CT;MRI",
     "language": "EN", "patient": "P1"},
]  # fmt: skip
COLUMNS = [*ROWS[0], "kind", "choices", "language"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "sub").mkdir()
    for shade, name in enumerate(("a.png", "b.png", "sub/c.png")):
        Image.linear_gradient("L").resize((8, 8)).rotate(90 * shade).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def as_csv(mark: str, end: str = "\r\n") -> str:
    def cell(value: object) -> str:
        text = "" if value is None else str(value)
        return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',;\t"') else text

    lines = [COLUMNS, *([row.get(name) for name in COLUMNS] for row in ROWS)]
    return end.join(mark.join(map(cell, line)) for line in lines) + end


def write_parquet(path: Path) -> None:
    """With columns of its own: times in nanoseconds, as pandas has them, under one name twice."""
    table = pyarrow.Table.from_pylist(
        [{name: row.get(name) for name in COLUMNS} for row in ROWS])  # fmt: skip
    times = pyarrow.array([1, 2, 3], pyarrow.timestamp("ns"))
    parquet.write_table(table.append_column("taken", times).append_column("taken", times), path)


WRITERS: dict[str, Callable[[Path], object]] = {
    "lines.jsonl": lambda path: path.write_text("\n\n".join(map(json.dumps, ROWS)), "utf-8-sig"),
    "rows.parquet": write_parquet,
    "comma.csv": lambda path: path.write_text(as_csv(",", "\n"), "utf-8"),
    "semicolon.csv": lambda path: path.write_text(as_csv(";"), "utf-8-sig", newline=""),
    "said.csv": lambda path: path.write_text("\r\nsep=;\r\n" + as_csv(";"), "utf-8", newline=""),
    "tab.TSV": lambda path: path.write_text(as_csv("\t") + "\t" * 10 + "\r\n", "utf-8", newline=""),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_file_gives_the_same_examples(name: str, here: Path) -> None:
    """As spreadsheets save them: marks of byte order, line ends, separators, quotes, empty rows."""
    WRITERS[name](here / name)

    english, spanish = (datasets.load(name, Path("none"), "all", each) for each in ("en", "es"))

    assert [(e.id, e.language, e.closed, e.patient) for e in english + spanish] == [
        ("1", "en", True, "P1"), ("3", "en", True, "P1"), ("2", "es", False, None)
    ]  # fmt: skip
    assert english[0].images == (Path("a.png"), Path("b.png"))
    assert (english[0].alternatives, english[0].modality) == (("Yes, two",), "CT")
    assert english[1].choices == ("CT", "MRI")
    assert (spanish[0].answer, spanish[0].kind) == ('left "upper"; lobe', "Place")


GOOD = {"id": "1", "images": "a.png", "question": "Is it?", "answer": "Yes"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"images": "gone.png"}, r"line 2: gone\.png is missing: put it there, or mend its path"),
        ({"images": "."}, r"line 2: \. is no file: put it there, or mend its path"),
        ({"images": "a" * 300 + ".png"}, r"line 2: a+\.png is missing: put it there"),
        ({"images": "empty.png"}, r"line 2: empty\.png is empty: put it there, or mend"),
        ({"images": " ; "}, r"line 2: its images is empty"),
        ({"answer": " "}, r"line 2: its answer is empty: fill it in, or take the row out"),
        ({"answer": None}, r"line 2: its answer is empty"),
        ({"answer": True}, r"line 2: its answer is true or false where text is expected"),
        ({"id": "0"}, r"line 2: .*line 1 has the id '0' too: give each its own"),
        ({"language": "de"}, r"line 2: its language is 'de': write en, es, zh"),
        ({"closed": "maybe"}, r"line 2: its closed is 'maybe': write true or false"),
        ({"choices": "CT;MRI"}, r"line 2: its answer is none of its choices"),
        ({"choices": "yes"}, r"line 2 has one choice"),
        ({"views": "frontal; "}, r"line 2 has 2 views of 1 images: give one for each"),
        ({"id": "\ud83d"}, r"line 2: its id holds half a character: mend that row"),
    ],
)
def test_what_is_wrong_with_a_row_is_named_by_its_line(
    change: dict[str, Any], says: str, here: Path
) -> None:
    (here / "own.jsonl").write_text(
        f"{json.dumps(GOOD | {'id': '0'})}\n{json.dumps(GOOD | change)}"
    )
    (here / "empty.png").touch()

    with pytest.raises(DataError, match=rf"^own\.jsonl, {says}"):
        datasets.load("own.jsonl", Path(), "all", "en")


HEAD = "id,images,question,answer\n"


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("own.csv", "", r"own\.csv holds no questions: give it a row"),
        ("own.csv", HEAD, r"own\.csv holds no questions"),
        ("own.csv", "id,images,question\n1,a.png,?\n", r"line 1 names no column 'answer': add"),
        ("own.csv", "id,images,question,answer,Answer\n", r"line 1 has two 'answer': take one"),
        ("own.csv", HEAD + "1,a.png,Is it, say?,Yes\n", r"line 2 has 5 cells under 4 columns"),
        ("own.csv", HEAD + '\n1,a.png,"Is it?,Yes\n', r"line 3 is no row .*: mend its quotes"),
        ("own.csv", (HEAD + "1,a.png,¿Qué?,Sí\n").encode("latin-1"), r"line 2, is not UTF-8"),
        ("own.csv", HEAD.encode("utf-16"), r"line 1, is not UTF-8 .*: save it as UTF-8"),
        ("own.csv", HEAD.encode() + b"1" * 2**20, r"line 2, is endless: give a row its own line"),
        ("own.csv", HEAD.encode("utf-16-le"), r"line 1, holds a NUL byte: save it as UTF-8"),
        ("own.csv", HEAD + "1,a.png,这是什么？,CT\n", r"asks nothing in 'en', but in zh"),
        ("own.jsonl", "[1]", r"line 1 is no row \(no JSON object\): mend that line"),
        ("own.jsonl", '\n{"id": 1,', r"line 2 is no row \(Expecting .* at character 10\)"),
        ("own.jsonl", '{"id": 1, "ID": 2}', r"line 1 has two 'id'"),
        ("own.jsonl", '{"id": 1}', r"line 1 has no 'images': add it"),
        ("own.parquet", "PAR1", r"own\.parquet cannot be read as Parquet .*: write it again"),
        ("own.txt", "", r"No dataset 'own\.txt'.* ends in \.csv, \.tsv, \.jsonl, \.parquet"),
    ],
)  # fmt: skip
def test_a_file_that_is_none_is_one_sentence(
    name: str, content: str | bytes, says: str, here: Path
) -> None:
    (here / name).write_bytes(content.encode() if isinstance(content, str) else content)

    with pytest.raises(DataError, match=says):
        datasets.load(name, Path(), "all", "en")


@pytest.mark.parametrize("type_", [pyarrow.timestamp("ns"), pyarrow.duration("ns")])
def test_parquet_of_what_is_no_text_is_one_sentence(type_: pyarrow.DataType, here: Path) -> None:
    columns = GOOD | {"patient": pyarrow.scalar(1, type_)}
    parquet.write_table(pyarrow.table({n: [each] for n, each in columns.items()}), "own.parquet")

    # pyarrow refuses nanoseconds, or where pandas is installed makes a type of its of them.
    says = r"own\.parquet cannot be read as Parquet with texts|own\.parquet, row 1: .* of type Time"
    with pytest.raises(DataError, match=says):
        datasets.load("own.parquet", Path(), "all", "en")


def test_a_path_that_is_none_is_said() -> None:
    with pytest.raises(DataError, match=r"gone\.csv cannot be read \(No such file.*\): is that"):
        datasets.load("gone.csv", Path(), "all", "en")
    with pytest.raises(DataError, match=r"gone\.csv has no 'test' in 'en': splits are all"):
        datasets.load("gone.csv", Path(), "test", "en")


def test_stored_answers_can_be_looked_at_without_the_images(here: Path) -> None:
    (here / "own.jsonl").write_text(json.dumps(GOOD | {"images": "gone.png"}))

    with without_images():
        (example,) = datasets.load("own.jsonl", Path(), "all", "en")

    assert example.images == (Path("gone.png"),)


def test_a_recipe_learns_from_it(here: Path) -> None:
    """And an id that a caller may see tells no folder."""
    WRITERS["comma.csv"](here / "comma.csv")
    source = Source(set=str(here / "comma.csv"), languages=("en", "es"))

    assert [e.id for e in examples_of([source], Path("none"))] == ["comma/1", "comma/3", "comma/2"]


def test_a_patient_is_on_one_side_of_a_split(here: Path) -> None:
    """Whatever the images are."""

    def asked(id: str, image: str, patient: str | None) -> Example:
        return Example(id, (here / image,), "?", "yes", "en", True, patient=patient)

    shown = [asked("1", "a.png", "P1"), asked("2", "b.png", None), asked("3", "sub/c.png", "P1")]
    parts = folds(shown, 2, seed=0)

    assert sorted(sorted(each.id for each in part) for part in parts) == [["1", "3"], ["2"]]
    with pytest.raises(DataError, match="1 groups of images"):
        folds([*shown, asked("4", "b.png", "P1")], 2, seed=0)
