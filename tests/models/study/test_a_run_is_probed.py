"""`consilium probe`: a tiny real run, and folders that cannot be probed."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from models.recipe import Recipe
from models.study import probe as study_probe
from models.study import projection
from models.study.probe import Task, coordinates, right
from models.study.projection import POOLINGS, _alike
from models.training.stages import train
from services.cli.__main__ import app
from tests import tiny

IMAGES = 30  # of each split
TINTS = {"CT": (255, 80, 80), "MRI": (80, 255, 80), "X-Ray": (80, 80, 255)}


def draw_split(root: Path, split: str, first: int) -> None:
    """Noise, tinted by modality, bright in the half where the finding lies."""
    rows = []
    for number in range(first, first + IMAGES):
        modality = list(TINTS)[number % 3]
        left = number % 2 == 0
        noise = np.random.default_rng(number).integers(0, 200, size=(9, 9, 1))
        noise[:, slice(0, 4) if left else slice(5, 9)] += 55
        pixels = (noise * np.array(TINTS[modality]) / 255).astype(np.uint8)
        folder = root / "imgs" / f"probe{number}"
        folder.mkdir(parents=True)
        Image.fromarray(pixels).resize((64, 64)).save(folder / "source.jpg", quality=95)
        box = [4 if left else 44, 20, 16, 16]
        (folder / "detection.json").write_text(json.dumps([{"Mass": box}]))
        rows.append(
            {
                "img_name": f"probe{number}/source.jpg",
                "question": "Does the picture contain liver?",
                "answer": "Yes" if number % 4 < 2 else "No",
                "q_lang": "en",
                "modality": modality,
                "location": "Lung" if number % 5 < 3 else "Brain_Tissue",
                "answer_type": "CLOSED",
                "content_type": "Organ",
                "qid": number,
            }
        )
    (root / f"{split}.json").write_text(json.dumps(rows))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny.draw_slake(tmp_path_factory.mktemp("probed"))
    draw_split(folder / "slake", "validate", 0)
    draw_split(folder / "slake", "test", IMAGES)
    return folder


@pytest.fixture(scope="module")
def run(tiny_language: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    train(Recipe.model_validate(tiny.recipe(tiny_language, epochs=1)), data, runs)
    return runs / "tiny"


@pytest.fixture
def probe(data: Path, tmp_path: Path) -> Callable[..., tuple[int, str]]:
    def probe(*runs: Path, data: Path = data) -> tuple[int, str]:
        """Exit status, and what was said."""
        command = ["probe", *map(str, runs), "--data", str(data), "--out", str(tmp_path / "out")]
        done = CliRunner().invoke(app, command)
        return done.exit_code, done.output

    return probe


def test_a_run_is_probed_before_and_after_each_stage(
    probe: Callable[..., tuple[int, str]],
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # One of three foldings, one ridge, no MLP: what is plain and what is absent show all the same.
    monkeypatch.setattr(projection, "SEEDS", (0,))
    linear = study_probe.KINDS["linear"]
    few = replace(linear, ridges=linear.ridges[-1:], decoder_ridges=linear.decoder_ridges[-1:])
    monkeypatch.setattr(study_probe, "KINDS", dict.fromkeys(study_probe.KINDS, few))
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")  # here, where it is patched
    again, other, another = (shutil.copytree(run, tmp_path / f"copy-{n}") for n in range(3))
    rewrite_recipe(again, seed=1)
    rewrite_recipe(other, prompt="{question}?", seed=1)
    rewrite_recipe(another, prompt="{question}?")

    status, said = probe(run, again, other, another)

    assert status == 0, said
    assert (tmp_path / "out" / "projection.png").stat().st_size > 10_000
    found = json.loads((tmp_path / "out" / "projection.json").read_text())
    start, vqa = found["runs"]["tiny"]["stages"]
    assert (start["stage"], start["step"], vqa["stage"]) == ("start", 0, "vqa")
    assert vqa["step"] == json.loads(next(run.glob("vqa/*/state.json")).read_text())["step"]
    assert set(vqa["after"]["read"]) == {
        f"{task} {pooling}"
        for task in ("modality", "organ", "side", "answer", "all")
        for pooling in (*POOLINGS, "whole mlp")
    }
    # The tint is plain to a tower; the organ and the answer are in no pixel.
    assert start["before"]["read"]["modality mean"]["value"] > 0.9
    assert start["before"]["read"]["answer whole"]["low"] < 0.6
    assert found["tasks"]["answer"]["majority"]["value"] < 0.6
    # The tower keeps still; the connector does not, and at its start training has changed nothing.
    assert start["before"] == vqa["before"]
    assert start["after"]["cosine"] != vqa["after"]["cosine"]
    assert start["training"]["read"]["all mean"] == {
        "value": 0,
        "cases": found["images"] * 4,
        "low": 0,
        "high": 0,
        "images": found["images"],
    }
    # Runs that differ in their seed alone are told together: it draws what they start from.
    together = found["over seeds of training"]
    assert together["tiny"]["runs"] == ["tiny", "copy-0"]
    by_seed = [found["runs"][name]["stages"][-1]["training"] for name in ("tiny", "copy-0")]
    values = [each["cosine"]["value"] for each in by_seed]
    assert values[0] != values[1]
    assert together["tiny"]["training"]["cosine"]["value"] == pytest.approx(sum(values) / 2)
    # And beside the first recipe's, seed by seed: a copy of each is no better than it.
    assert together["copy-2"]["runs"] == ["copy-2", "copy-1"]
    beside = together["copy-2"]["beside"]["tiny"]["training"]["cosine"]
    assert (beside["value"], beside["low"], beside["high"]) == (0, 0, 0)
    assert "copy-2, 2 seeds, beside tiny" in said


@pytest.mark.parametrize(("pooling", "expected"), [("mean", False), ("whole", True)])
def test_only_all_tokens_beside_each_other_tell_where(pooling: str, expected: bool) -> None:
    """The same two tokens, in one order or the other."""
    random = np.random.default_rng(0)
    here, there = random.normal(size=(2, 8))
    sides = random.permutation(["left", "right"] * 30)
    tokens = np.array([[here, there] if side == "left" else [there, here] for side in sides])
    tokens = tokens + 0.1 * random.normal(size=tokens.shape)
    task = Task("side", np.arange(60), np.full(60, ""), sides)

    found = right(coordinates(POOLINGS[pooling](tokens)), task, np.arange(60), (0,))

    assert (found.mean() > 0.9) == expected


def test_tokens_that_say_the_same_are_alike() -> None:
    tokens = np.random.default_rng(0).normal(size=(2, 4, 256))
    tokens[0] = tokens[0, 0] * np.arange(1, 5)[:, None]

    same, different = _alike(tokens)

    assert same == pytest.approx(1)
    assert abs(different) < 0.1


def rewrite_recipe(run: Path, **changes: Any) -> None:
    recipe = json.loads((run / "recipe.json").read_text())
    (run / "recipe.json").write_text(json.dumps(recipe | changes))


def replace_by_a_file(run: Path) -> None:
    shutil.rmtree(run)
    run.write_text("a report")


def drop_connectors(run: Path) -> None:
    for path in run.rglob("connector.safetensors"):
        path.unlink()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda run: rewrite_recipe(run, projector="mlp"), "no recipe of this version"),
        (replace_by_a_file, "no recipe of this version: give a run folder"),
        (lambda run: rewrite_recipe(run, connector={"name": "fusion"}), "of an image alone"),
        (drop_connectors, "holds no connector: train its stage again"),
        (lambda run: shutil.rmtree(run / "vqa"), "no whole checkpoint"),
    ],
)
def test_a_run_that_cannot_be_probed_is_refused_before_anything_is_read(
    probe: Callable[..., tuple[int, str]],
    run: Path,
    tmp_path: Path,
    spoil: Callable[[Path], None],
    says: str,
) -> None:
    """Of an older version, of a connector that waits for the question, without one, only begun."""
    spoilt = shutil.copytree(run, tmp_path / "spoilt")
    spoil(spoilt)

    status, said = probe(spoilt, data=tmp_path / "no data")

    assert status == 1
    assert said.count("\n") == 1
    assert says in said


def test_two_runs_of_one_name_are_refused(
    probe: Callable[..., tuple[int, str]], run: Path, tmp_path: Path
) -> None:
    twin = shutil.copytree(run, tmp_path / run.name)

    status, said = probe(run, twin, data=tmp_path / "no data")

    assert (status, said.count("\n")) == (1, 1)
    assert f"two runs are called {run.name}" in said


def test_a_class_of_two_images_is_refused(
    probe: Callable[..., tuple[int, str]], run: Path, data: Path, tmp_path: Path
) -> None:
    few = shutil.copytree(data, tmp_path / "few")
    rows = json.loads((few / "slake" / "test.json").read_text())
    for row in rows[:2]:
        row["location"] = "Neck"
    (few / "slake" / "test.json").write_text(json.dumps(rows))

    status, said = probe(run, data=few)

    assert status == 1
    assert said.count("\n") == 1
    assert "'neck' is shown by 2 group(s) of images" in said


def test_a_run_that_has_learned_from_the_probed_images_is_refused(
    probe: Callable[..., tuple[int, str]], run: Path, data: Path, tmp_path: Path
) -> None:
    """It may remember what they show."""
    mixed = shutil.copytree(data, tmp_path / "mixed")
    rows = json.loads((mixed / "slake" / "train.json").read_text())
    rows += json.loads((mixed / "slake" / "test.json").read_text())[:1]
    (mixed / "slake" / "train.json").write_text(json.dumps(rows))

    status, said = probe(run, data=mixed)

    assert status == 1
    assert "is also a training image" in said
