"""`consilium train RECIPE --smoke`: everything once, on a handful of everything."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from models.parts.vision import Tower, TowerConfig
from models.recipe import Recipe, load_programme
from models.serving.export import load_served, served_folder
from models.serving.parity import Comparison, Parity
from models.training import parts
from models.training.inputs import features
from models.training.inputs.features import cached_features
from models.training.record.progress import read_log
from models.training.stages import train
from services.cli import workers
from services.running.verify import questions
from tests.tiny import write_toml

RecipeMaker = Callable[..., Recipe]


@pytest.fixture
def featured(monkeypatch: pytest.MonkeyPatch) -> list[set[Path]]:
    """The images that the tower was run on, call by call."""
    calls: list[set[Path]] = []

    def noted(tower: Any, images: Iterable[Path], copy: int) -> Any:
        calls.append(set(images))
        return cached_features(tower, calls[-1], copy)

    monkeypatch.setattr(parts, "cached_features", noted)
    return calls


@pytest.fixture(autouse=True)
def verified(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """What vLLM is started on: tests/end_to_end starts it."""
    found: list[Path] = []

    def verify(zoo: Path, data: Path) -> Parity:
        found.append(zoo)
        (example, *_) = questions(load_programme(zoo / "recipe.toml"), data)
        return Parity((Comparison(example, "red", " red", None),))

    monkeypatch.setattr("services.running.verify.verify", verify)
    return found


def test_every_stage_sees_a_few_images_once_and_the_last_is_exported(
    tiny_recipe: RecipeMaker,
    drawn_slake: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    verified: list[Path],
) -> None:
    """Under a name of its own, so that the real run is not taken for begun; what is exported can be
    asked, and vLLM is started on it and asked, where there is one."""
    recipe = tiny_recipe(more=[{"name": "more", "parent": "vqa"}], epochs=9)
    file = write_toml(recipe.model_dump(), tmp_path / "tiny.toml")
    command = ["train", str(file), "--smoke", "--data", str(drawn_slake), "--runs", str(tmp_path)]

    done = CliRunner().invoke(workers.app, command)

    run = tmp_path / "tiny-smoke"
    assert done.exit_code == 0, done.output
    assert verified == [run / "exported"]
    assert "parity holds: 0 of 1 answers differ" in done.output
    assert "asked: Which colour? – red" in done.output
    for stage in ("vqa", "more"):
        lines = read_log(run / stage / "log.jsonl")
        assert [line["step"] for line in lines if line["part"] == "validation"] == [4]
    served = load_served(served_folder(run / "exported"))
    assert served.answer([Image.new("RGB", (64, 64))], "Which colour? Answer:", max_tokens=2)
    monkeypatch.setattr(workers, "find_spec", lambda _: None)
    workers._serve_and_ask(run / "exported", drawn_slake)
    assert "not served: vLLM is not installed here." in capsys.readouterr().out


def test_another_recipes_run_is_not_deleted_for_a_smoke_run(
    tiny_recipe: RecipeMaker, drawn_slake: Path, tmp_path: Path
) -> None:
    kept = tiny_recipe().model_copy(update={"name": "tiny-smoke"})
    (tmp_path / "tiny-smoke").mkdir()
    (tmp_path / "tiny-smoke" / "recipe.json").write_text(kept.model_dump_json())
    file = write_toml(tiny_recipe().model_dump(), tmp_path / "tiny.toml")
    command = ["train", str(file), "--smoke", "--data", str(drawn_slake), "--runs", str(tmp_path)]

    done = CliRunner().invoke(workers.app, command)

    assert done.exit_code == 1 and "no smoke run" in " ".join(done.output.split())
    assert (tmp_path / "tiny-smoke" / "recipe.json").exists()


@pytest.mark.parametrize(("gap", "status"), [(3.0, 1), (0.5, 1), (0.25, 0), (0.0, 0)])
def test_a_smoke_run_whose_parity_does_not_hold_has_failed(
    gap: float,
    status: int,
    tiny_recipe: RecipeMaker,
    drawn_slake: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """But for near-ties, which one that has learned nothing may meet in every answer."""

    def verify(zoo: Path, data: Path) -> Parity:
        (example, *_) = questions(load_programme(zoo / "recipe.toml"), data)
        return Parity((Comparison(example, "red", "green", gap),))

    monkeypatch.setattr("services.running.verify.verify", verify)
    file = write_toml(tiny_recipe().model_dump(), tmp_path / "tiny.toml")
    command = ["train", str(file), "--smoke", "--data", str(drawn_slake), "--runs", str(tmp_path)]

    done = CliRunner().invoke(workers.app, command)

    assert done.exit_code == status and "parity does not hold: 1 of 1" in done.output
    assert ("That is rounding: what has learned nothing" in done.output) == (status == 0)


def test_a_smoke_run_is_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each would delete the others' run."""
    monkeypatch.setenv("WORLD_SIZE", "2")

    done = CliRunner().invoke(workers.app, ["train", "mobilenet", "--smoke"])

    assert done.exit_code == 2 and "without accelerate launch" in done.output


def test_a_smoke_run_of_what_vllm_cannot_serve_says_why_it_ends_there(
    tiny_recipe: RecipeMaker, drawn_slake: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe(language="prompt", lora=None)
    file = write_toml(recipe.model_dump(), tmp_path / "tiny.toml")
    command = ["train", str(file), "--smoke", "--data", str(drawn_slake), "--runs", str(tmp_path)]

    done = CliRunner().invoke(workers.app, command)

    assert done.exit_code == 0, done.output
    early, late = done.output.split("trained: ")
    assert "Note: it trains, and will have no seat. stage vqa trains" in early
    assert "not exported: stage vqa trains the language model by 'prompt'" in late


def test_the_tower_runs_on_what_the_steps_come_to_and_no_more(
    tiny_recipe: RecipeMaker, drawn_slake: Path, tmp_path: Path, featured: list[set[Path]]
) -> None:
    """A stage that ends after a step of two images has no use for the other six."""
    train(tiny_recipe(steps=1), drawn_slake, tmp_path)

    (images,) = featured
    assert len([image for image in images if int(image.parent.name[5:]) < 8]) == 2


def test_features_that_are_not_to_be_kept_are_computed_in_the_step(
    tiny_recipe: RecipeMaker, drawn_slake: Path, tmp_path: Path, featured: list[set[Path]]
) -> None:
    """For more images than a disk holds the features of."""
    train(tiny_recipe(steps=1, cache_features=False), drawn_slake, tmp_path)

    assert featured == []


def test_features_lie_in_files_and_are_computed_once(
    drawn_slake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that computes its share adds files; whoever asks for all finds the others'."""
    monkeypatch.setenv("CONSILIUM_CACHE", str(tmp_path))
    monkeypatch.setattr(features, "SHARD", 1)
    monkeypatch.setattr(features, "BATCH", 2)
    images = sorted((drawn_slake / "slake" / "imgs").glob("*/source.jpg"))[:5]
    torch.manual_seed(0)
    config = TowerConfig("mobilenetv2_100", "timm", 64)
    tower = Tower(config, load_weights=False)

    cached_features(tower, images[::2])
    cached_features(tower, images[1::2])
    monkeypatch.setattr(Tower, "forward", None)
    found = cached_features(tower, images)

    assert len(list(tmp_path.glob("features/*.safetensors"))) == 3
    assert list(found) == images and found[images[1]].shape == (4, tower.dim)
    assert not torch.equal(found[images[1]], found[images[2]])
