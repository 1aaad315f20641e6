"""`consilium report-training`: a tiny real run's curves, scores by kind, and answers."""

import json
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from models.data import slake
from models.recipe import Recipe
from models.training.record.progress import read_log
from models.training.stages import train
from services.cli.__main__ import app
from tests import tiny

EPOCHS = 30  # after which it is sure of every answer, on any machine


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn images, of which the held-out white square is said to be of another colour."""
    drawn = tiny.draw_slake(tmp_path_factory.mktemp("data"))
    held_out = drawn / "slake" / "validate.json"
    held_out.write_text(held_out.read_text().replace('"white"', '"mauve"'))
    return drawn


@pytest.fixture(scope="module")
def run(tiny_language: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    whole = {"language": "full", "lora": None, "language_lr": 1e-2, "connector_lr": 1e-2}
    content = tiny.recipe(tiny_language, **whole, epochs=EPOCHS, warmup_steps=5)
    train(Recipe.model_validate(content), data, runs)
    return runs / "tiny"


def told(run: Path, data: Path, out: Path) -> tuple[int, str]:
    command = ["report-training", str(run), "--data", str(data), "--out", str(out)]
    done = CliRunner().invoke(app, command)
    return done.exit_code, done.output


def test_a_report_shows_the_log_and_what_the_last_checkpoint_says(
    run: Path, data: Path, tmp_path: Path
) -> None:
    status, said = told(run, data, tmp_path)

    assert status == 0, said
    page = (tmp_path / "index.md").read_text()
    for picture in ("curves.png", "kinds.png"):
        assert f"]({picture})" in page
        assert min(Image.open(tmp_path / picture).size) > 200
    tables = [line for line in page.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in tables]
    validated = [x for x in read_log(run / "vqa" / "log.jsonl") if x["part"] == "validation"]
    assert len(validated) == EPOCHS
    for line in validated:
        keys = ("step", "answer_loss", "reconstruction_loss", "exact_match")
        assert ["vqa", *(str(line[key]) for key in keys)] in rows
    # Validation decided which questions were right without generating: the answers must agree.
    newest = max((run / "vqa").glob("step-*"), key=lambda path: int(path.name[5:]))
    right = json.loads((newest / "validation.json").read_text())
    assert set(right.values()) == {True, False}
    known = {f"slake/{e.id}": e for e in slake.load(data / "slake", "validate", "en")}
    samples = [row for row in rows if row[0].startswith("![slake/")]
    assert len(samples) == 8
    for image, question, reference, answer in samples:
        id, name = re.fullmatch(r"!\[(.*)\]\((.*)\)", image).groups()  # type: ignore[union-attr]
        assert (question, reference) == (known[id].question, known[id].answer)
        assert (answer == reference) == right[id]
        assert Image.open(tmp_path / name).size == (64, 64)


def test_what_was_validated_on_other_questions_is_told_and_not_guessed(
    run: Path, data: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(run, tmp_path / "other")
    for path in other.rglob("validation.json"):
        path.write_text(json.dumps({"validate-0": True}))

    status, said = told(other, data, tmp_path / "out")

    assert status == 0, said
    page = (tmp_path / "out" / "index.md").read_text()
    assert page.count("`vqa/step-") == 3  # both that are kept, and the one that answers
    assert "kinds.png" not in page
    assert not (tmp_path / "out" / "kinds.png").exists()


def test_of_what_cannot_be_asked_there_is_no_sample(
    tiny_language: Path, data: Path, tmp_path: Path
) -> None:
    content = tiny.recipe(tiny_language, epochs=1)
    content["language"] |= {"image_attention": "bidirectional"}
    train(Recipe.model_validate(content), data, tmp_path)

    status, said = told(tmp_path / "tiny", data, tmp_path / "out")

    assert status == 0, said
    page = (tmp_path / "out" / "index.md").read_text()
    assert "No sample: what sees images in both directions trains and validates only." in page


@pytest.mark.parametrize(
    ("gone", "why"), [("log.jsonl", "log.jsonl is missing"), ("step-*", "no whole checkpoint")]
)
def test_a_run_without_what_is_to_be_told_is_refused(
    gone: str, why: str, run: Path, data: Path, tmp_path: Path
) -> None:
    bare = shutil.copytree(run, tmp_path / "bare")
    for path in (bare / "vqa").glob(gone):
        path.unlink() if path.is_file() else shutil.rmtree(path)

    status, said = told(bare, data, tmp_path / "out")

    assert status == 1
    assert said.count("\n") == 1
    assert why in said
