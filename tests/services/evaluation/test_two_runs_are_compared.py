"""`consilium compare`: what changed on the same questions, and whether that can be told."""

import json
from pathlib import Path
from typing import Any

import pytest

from services.evaluation.compare import compare, mcnemar, show
from services.evaluation.stored_run import EvaluationError
from tests.services.evaluation.runs import Said, write_run, write_set

ROWS: list[dict[str, object]] = [
    {"id": n, "images": f"{'x' * (n // 2)}.png", "question": f"Is it {n}?", "answer": "yes",
     "kind": "odd" if n % 2 else "even"}
    for n in range(2, 42)
]  # fmt: skip
RIGHT: Said = {"panel": "Yes", "a": "Yes"}
WRONG: Said = {"panel": "no", "a": "Yes"}


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return write_set(tmp_path, ROWS)


def run(own: Path, name: str, right: set[int], **more: Any) -> Path:
    """Where the panel was right about these of its questions."""
    said = {str(row["id"]): RIGHT if row["id"] in right else WRONG for row in ROWS}
    return write_run(own.parent / name, own, said, **more)


def test_a_change_has_its_interval_its_odds_and_its_flips(own: Path) -> None:
    """Twelve are right that were wrong, two the reverse; the member said the same both times."""
    before = run(own, "before", set(range(2, 22)))
    after = run(own, "after", set(range(4, 34)), shuffle_images=0)

    found = compare(before, after, Path("none"))

    panel = found["voices"]["panel"]
    assert (panel["questions"], panel["images"]) == (40, 20)
    assert (panel["before"], panel["after"], panel["gained"], panel["lost"]) == (0.5, 0.75, 12, 2)
    change = panel["change"]
    assert change["value"] == 0.25 and 0 <= change["low"] < 0.25 < change["high"] <= 0.5
    assert panel["mcnemar_p"] == pytest.approx(2 * (1 + 14 + 91) / 2**14)
    # Four of five tries tell it where its error is 2.8 times as small as it.
    error = (change["high"] - change["low"]) / 3.92
    assert panel["needed"] == pytest.approx(40 * (2.8 * error / 0.25) ** 2, abs=1)
    assert found["voices"]["a"]["change"] == {
        "value": 0,
        "cases": 40,
        "low": 0,
        "high": 0,
        "images": 20,
    }
    assert found["other_images"] == 0
    assert found["voices"]["a"]["mcnemar_p"] == 1 and found["voices"]["a"]["needed"] is None
    assert [(each["by"], each["of"], each["gained"]) for each in found["slices"]] == [
        ("kind of question", "even", 6), ("kind of question", "odd", 6)
    ]  # fmt: skip
    assert len(found["flips"]) == 14
    assert found["flips"][0] == {
        "id": "2", "question": "Is it 2?", "right": ["yes"], "before": "Yes", "after": "no",
        "gained": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("gained", "lost", "p"),
    [(0, 0, 1), (5, 5, 1), (0, 5, 0.0625), (1, 9, 22 / 1024), (9, 1, 22 / 1024)],
)
def test_the_odds_are_those_of_a_fair_coin(gained: int, lost: int, p: float) -> None:
    assert mcnemar(gained, lost) == pytest.approx(p)


def test_what_cannot_be_compared_is_refused(own: Path, tmp_path: Path) -> None:
    """In a sentence that says why."""
    before = run(own, "before", {2})
    others = [{**row, "answer": "no"} if row["id"] == 7 else row for row in ROWS]
    mended = run(write_set(tmp_path / "mended", others), "mended", {2})
    with pytest.raises(EvaluationError, match="other right answers, by 1 of 40 ids, such as 7: "):
        compare(before, mended, Path("none"))
    elsewhere = write_set(tmp_path / "elsewhere", [{**row, "id": f"x{row['id']}"} for row in ROWS])
    strange = write_run(tmp_path / "strange", elsewhere, {"x2": RIGHT})
    with pytest.raises(EvaluationError, match="have no question in common: compare runs over one"):
        compare(before, strange, Path("none"))
    with pytest.raises(EvaluationError, match="holds no evaluation of this version"):
        compare(before, tmp_path / "none", Path("none"))
    with pytest.raises(EvaluationError, match="empty holds no verdict yet: run its"):
        compare(before, write_run(tmp_path / "empty", own, {}), Path("none"))
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"file cannot be made: a file stands there\. Name another"):
        compare(before, before, Path("none"), tmp_path / "file")


def test_questions_about_other_images_are_counted(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = run(own, "before", {2})
    rows = [{**row, "images": "y.png"} if row["id"] in (2, 3) else row for row in ROWS]
    cropped = run(write_set(tmp_path / "cropped", rows), "cropped", {2, 3})

    show(found := compare(before, cropped, Path("none"), tmp_path / "out"))

    assert found["other_images"] == 2
    assert "2 of them show other images in the second" in capsys.readouterr().out
    page = (tmp_path / "out" / "compare.html").read_text("utf-8")
    assert "2 of them show other images in the second" in page


def test_it_is_told_on_a_page_that_stands_alone(own: Path, tmp_path: Path) -> None:
    """Of many flips some each way, with their images and who said what; hostile words are words."""
    rows = [{**row, "answer": "<b>yes</b>"} if row["id"] == 2 else row for row in ROWS]
    own = write_set(tmp_path / "hostile", rows)
    before = run(own, "before", set(range(3, 22)))
    after = run(own, "after", {*range(4, 34)} - {5}, shuffle_images=0)
    (own.parent / "x.png").unlink()

    found = compare(before, after, Path("none"), tmp_path / "out")

    assert json.loads((tmp_path / "out" / "compare.json").read_text("utf-8")) == found
    page = (tmp_path / "out" / "compare.html").read_text("utf-8")
    assert "own all en, images shuffled by seed 0" in page and str(tmp_path) not in page
    assert "<h2>Right now, and wrong before</h2>\n<p>12 questions.</p>" in page
    assert "<h2>Wrong now, and right before</h2>\n<p>2 questions.</p>" in page
    assert page.count('src="data:image/jpeg;base64,') == 13 and page.count('class="gone"') == 1
    assert '<th scope="row">panel</th><td>no ✗</td><td>Yes ✓ right</td>' in page
    assert page.count("<h2>The panel by kind of question</h2>") == 1
    assert "default-src 'none'" in page and "<script" not in page and "://" not in page


def test_it_is_told_in_a_table(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of many flips a dozen in each direction."""
    before, after = run(own, "before", set(), blank_images=True), run(own, "after", {*range(2, 30)})

    show(compare(before, after, Path("none")))

    said = capsys.readouterr().out
    (panel,) = [line for line in said.splitlines() if line.startswith("panel  ")]
    assert panel.split()[1:4] == ["0.0%", "70.0%", "+70.0"]
    assert f"before: {before}, own all en, images blank, panel 0123456789ab" in said
    assert "right now, and wrong before: 28, of which 12" in said
    assert "  2: Is it 2? no → Yes (yes)" in said and "wrong now, and right before: 0" in said
    assert said.count(" → ") == 12
