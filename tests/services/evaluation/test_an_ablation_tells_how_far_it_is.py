"""`consilium ablate`: the plan, the tables and pictures so far, and one line for what is wrong."""

from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from models.recipe import load_recipe
from models.study.ablation import Cell, Row, Screening
from models.study.variants import BASELINE
from services.cli.__main__ import app
from services.evaluation.ablate import list_plan, show
from tests import tiny

RIGHT = {BASELINE: 40, "connector-linear": 60, "reconstruction-0": 20}


@pytest.fixture
def screening(data: Path, tmp_path: Path) -> Screening:
    """Three variants done with the first of two seeds, and the baseline's look at nothing."""
    made = Screening(load_recipe("screening"), 60, 2, tmp_path / "out")
    asked = [f"slake/validate-{number}" for number in range(480)]
    cells = [*(Cell(variant, 0) for variant in RIGHT), Cell(BASELINE, 0, "blank")]
    for cell in cells:
        count = RIGHT[cell.variant] * (cell.shown == "own")
        row = Row(*cell, "hash", 60, "abc1234", count / 480, 480, 1.5, 90.0)
        (tmp_path / "out").mkdir(exist_ok=True)
        made._append(row, {each: number < count for number, each in enumerate(asked)})
    return made


def test_the_plan_says_what_is_done_and_how_long_the_rest_takes(screening: Screening) -> None:
    """By what it took here: every finished cell took a minute and a half."""
    said: list[str] = []

    list_plan(screening, ["reconstruction"], said.append)

    assert said[:-1] == [
        "reconstruction: 2 of 10 done",
        "  open with seed 0, 1: reconstruction-1, reconstruction-3, reconstruction-10",
        "  open with seed 1: baseline, reconstruction-0",
        "2 of 10 done",
    ]
    assert said[-1] == (
        f"about {8 * 90 / 3600:.1f} hours left; the same command, without --plan or --show, goes on"
    )


def test_the_whole_plan_is_a_few_lines(screening: Screening) -> None:
    """Of its 120 cells; of what is open a dozen are named."""
    said: list[str] = []

    list_plan(screening, [], said.append)

    assert len(said) < 20 and max(map(len, said)) < 400
    assert any(line.endswith(" more") for line in said)


def test_what_is_done_is_shown_and_the_rest_is_open(screening: Screening, data: Path) -> None:
    """Right in 8.3 and 12.5 % of the same 480 questions: a difference of 4.2, and less without an
    image."""
    said: list[str] = []

    show(screening, [], data, said.append)

    table = (screening.out / "table.md").read_text().splitlines()
    assert set(table) <= set(said)
    (linear,) = [line for line in table if line.startswith("| linear |")]
    assert (
        "| 0 | 12.5 (" in linear
        and "| +4.2 (" in linear
        and "| +4.2 |  | 1.500 | 60 | abc1234 |" in linear  # one seed knows nothing of others
    )
    assert "open: medical, vqa; align, medical, vqa" in table
    (blank,) = [line for line in table if line.startswith("| baseline, blank | 0 ")]
    assert "| -8.3 (" in blank
    best = "connector-linear, baseline, reconstruction-0"
    assert f"right most often: {best}; `ablate full` runs each in full" in said
    assert not (screening.out / "stages.png").exists()  # there is nothing to compare
    for name in ("connectors", "reconstruction", "images"):
        with Image.open(screening.out / f"{name}.png") as picture:
            assert picture.width > 400


def test_the_command_trains_compares_and_goes_on(tmp_path: Path) -> None:
    """One variant beside the baseline, within a budget and then in full; what is done stays."""
    data = tiny.draw_slake(tmp_path / "data")
    content = tiny.recipe(tiny.save_llama(tmp_path / "language"), "ablated", epochs=1)
    recipe = tiny.write_toml(content, tmp_path / "ablated.toml")
    out = tmp_path / "out"

    def ablated(*analyses: str) -> str:
        where = ["--recipe", str(recipe), "--data", str(data), "--out", str(out)]
        few = ["--only", "image-bidirectional", "--steps", "4", "--seeds", "1"]
        done = CliRunner().invoke(app, ["ablate", *analyses, *few, *where])
        assert done.exit_code == 0, done.output
        return done.output

    told = ablated("image-attention")
    rows = (out / "table.jsonl").read_text()

    assert "2 of 2 done" in told and "| bidirectional | 0 | " in told
    assert (out / "table.md").exists() and (out / "image-attention.png").exists()
    ablated("image-attention")
    assert (out / "table.jsonl").read_text() == rows
    assert "| image-bidirectional | 0 | " in ablated("full")


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("conectors", "--plan"), 1, "consilium: No analysis conectors. There are: connectors, re"),
        (("--plan", "--recipe", "mobilenet"), 1, "take one whose tower is frozen in every stage"),
        (("--steps", "1", "--plan"), 2, "--steps"),
        ((), 2, "needs --data"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(
    tmp_path: Path, arguments: tuple[str, ...], status: int, says: str
) -> None:
    command = ["ablate", "--out", str(tmp_path / "out"), *arguments]

    done = CliRunner().invoke(app, command, env={"CONSILIUM_DATA": None})

    assert done.exit_code == status and says in done.stderr
    assert not (tmp_path / "out").exists()
