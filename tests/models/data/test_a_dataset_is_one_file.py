"""docs/datasets.md is enough to add one: its code, in a file of its own, does what is owed."""

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from models import data as package
from models.data import datasets
from models.data.example import DataError, Example
from tests import pages

PAGE = pages.read("datasets.md")
ROWS = [
    {"image": "b.png", "question": "Is there a stone?", "answer": " Yes "},
    {"image": "a.png", "question": "Where?", "answer": "left kidney"},
]


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The page's dataset as one file and one line more; its name."""
    name = pages.add_module(PAGE, package, tmp_path, monkeypatch)
    module = importlib.import_module(f"models.data.{name}")
    line = eval(f"{{{pages.entry(PAGE)}}}", {name: module})
    monkeypatch.setattr(datasets, "LOADERS", datasets.LOADERS | line)
    return name


@pytest.fixture
def load(added: str, tmp_path: Path) -> Callable[..., list[Example]]:
    """Writes the set in the layout that the page names, and reads it by its name."""
    root = tmp_path / "data" / added
    (root / "images").mkdir(parents=True)
    for name in ("a.png", "b.png"):
        Image.new("L", (8, 8)).save(root / "images" / name)

    def read(rows: Any = ROWS, split: str = "test", language: str = "en") -> list[Example]:
        (root / "test.json").write_text(json.dumps(rows))
        return datasets.load(added, tmp_path / "data", split, language)

    return read


def test_the_documented_set_is_read_in_its_order(load: Callable[..., list[Example]]) -> None:
    first, second = load()

    assert (first.question, first.answer, first.closed) == ("Is there a stone?", "Yes", True)
    assert (second.answer, second.closed, second.language) == ("left kidney", False, "en")
    assert [example.images[0].name for example in (first, second)] == ["b.png", "a.png"]
    assert first.id != second.id
    assert load() == [first, second]


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"split": "validate"}, "no 'validate' in 'en': splits are train, test"),
        ({"language": "zh"}, "languages en"),
        ({"split": "train"}, r"train\.json is missing"),
        ({"rows": {"image": "a.png"}}, r"test\.json is no list of questions"),
        ({"rows": [{"image": "a.png", "question": "?"}]}, r"test\.json: test-0 has no 'answer'"),
        ({"rows": [ROWS[0] | {"image": "c.png"}]}, r"c\.png is missing: copy it into"),
    ],
)
def test_what_is_wrong_with_it_is_named(
    given: dict[str, Any], named: str, load: Callable[..., list[Example]]
) -> None:
    """The file and the mend, before anything is trained or asked."""
    with pytest.raises(DataError, match=named):
        load(**given)
