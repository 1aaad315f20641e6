"""In parts, on several processes, with layers computed twice, planned on paper: the same step."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from models.parts.vlm import build_model
from models.recipe import Recipe, WholeRecipe
from models.training.inputs.examples import examples_of
from models.training.learning import tuning
from models.training.learning.losses import Objective, in_batches
from models.training.planning.dry_run import plan
from models.training.record.checkpoints import Checkpoint, newest
from models.training.stages import train
from tests import tiny, tiny_vlm
from tests.models.one_step import one_step
from tests.models.training.learning.test_a_stage_trains_what_it_declares import STAGES
from tests.tiny import write_toml

RecipeMaker = Callable[..., Recipe]
NO_DROPOUT = {"rank": 2, "dropout": 0.0}
STEPS: dict[str, dict[str, Any]] = {
    "one without a row": {"rows_per_step": 1},
    "two rows and one": {"rows_per_step": 3},
    "shared out, one without a row": {"rows_per_step": 1, "shard": True},
    "shared out, two parts and one": {"rows_per_step": 3, "shard": True, "accumulate": 2},
}
WHOLE_STEPS: dict[str, dict[str, Any]] = {
    "whole, two rows and one": {"rows_per_step": 3, "tower": "lora"},
    "whole, shared out": {"rows_per_step": 3, "shard": True, "accumulate": 2},
}


@pytest.mark.parametrize(
    "changed",
    [{"accumulate": 3}, {"accumulate": 4}, {"checkpoint_activations": True}],
    ids=["in three parts", "row by row", "layers twice"],
)
def test_a_steps_gradient_does_not_depend_on_how_it_is_computed(
    tiny_recipe: RecipeMaker, drawn_slake: Path, tmp_path: Path, changed: dict[str, object]
) -> None:
    """But for bfloat16's last digits: parts are padded otherwise."""
    whole = tiny_recipe(name="whole", lora=NO_DROPOUT, rows_per_step=4)
    other = tiny_recipe(name="other", lora=NO_DROPOUT, rows_per_step=4, **changed)

    expected, found = (
        one_step(recipe, drawn_slake, tmp_path)["gradient"] for recipe in (whole, other)
    )

    assert (found - expected).norm() < 0.02 * expected.norm()


def mixed(language: Path, step: str) -> Recipe:
    """A mixture of experts that all rows of a step balance."""
    content = tiny.recipe(language, named(step), lora=NO_DROPOUT, **STEPS[step])
    content["connector"] = {"name": "moe", "experts": 4, "hidden": 8}
    return Recipe.model_validate(content)


def published(model: Path, step: str) -> WholeRecipe:
    content = tiny_vlm.recipe(model, **WHOLE_STEPS[step])
    return WholeRecipe.model_validate(content | {"name": named(step)})


def named(step: str) -> str:
    return step.replace(" ", "-").replace(",", "")


@pytest.fixture(scope="module")
def tiny_published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_vlm.save_qwen(tmp_path_factory.mktemp("tiny_published"))


@pytest.fixture(scope="module")
def on_two(
    tiny_language: Path,
    tiny_published: Path,
    drawn_slake: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """All steps, and a training, by the same two processes: to start them takes far longer."""
    runs = tmp_path_factory.mktemp("two")
    recipes: list[Recipe | WholeRecipe] = [shared_out(tiny_language)]
    recipes += [mixed(tiny_language, step) for step in STEPS]
    recipes += [published(tiny_published, step) for step in WHOLE_STEPS]
    files = [write_toml(each.model_dump(), runs / f"{each.name}.toml") for each in recipes]
    launch("tests.models.one_step", drawn_slake, runs, *files)
    return runs


def shared_out(language: Path) -> Recipe:
    still = {"language": "full", "lora": None, "reconstruction": 0.0}
    return Recipe.model_validate(tiny.recipe(language, "shared", shard=True, average=0.5, **still))


@pytest.mark.parametrize("step", STEPS)
def test_two_processes_take_the_step_of_one(
    tiny_language: Path, drawn_slake: Path, tmp_path: Path, on_two: Path, step: str
) -> None:
    """The gradient of all rows, and a mixture balanced by all of them."""
    alone = one_step(mixed(tiny_language, step), drawn_slake, tmp_path)

    shared = load_file(on_two / f"{named(step)}.safetensors")
    assert_same(shared, alone)
    assert torch.equal(shared["bias"], alone["bias"])


@pytest.mark.parametrize("step", WHOLE_STEPS)
def test_two_processes_take_the_step_of_one_that_takes_a_model_whole(
    tiny_published: Path, drawn_slake: Path, tmp_path: Path, on_two: Path, step: str
) -> None:
    alone = one_step(published(tiny_published, step), drawn_slake, tmp_path)

    assert_same(load_file(on_two / f"{named(step)}.safetensors"), alone)


def assert_same(shared: dict[str, torch.Tensor], alone: dict[str, torch.Tensor]) -> None:
    assert shared["processes"] == 2
    difference = (shared["gradient"] - alone["gradient"]).norm()
    assert difference < 0.02 * alone["gradient"].norm()


def test_processes_that_read_other_images_are_told(on_two: Path) -> None:
    """Under the same names, with the same questions."""
    said = (on_two / "unequal.txt").read_text()

    assert "its processes read unequal data (24 and 24 questions" in said


def test_two_processes_train_from_beginning_to_end(
    tiny_recipe: RecipeMaker, drawn_slake: Path, tmp_path: Path
) -> None:
    """Stage after stage; one of them speaks, and one saves. Each validates its share."""
    recipe = tiny_recipe(epochs=1, more=[{"name": "more", "parent": "vqa"}])
    file = write_toml(recipe.model_dump(), tmp_path / "recipe.toml")

    said = launch("services.cli", "train", file, "--data", drawn_slake, "--runs", tmp_path / "runs")

    assert said.count("8 rows, 4 steps") == 2
    last = tmp_path / "runs" / recipe.name / "more" / "step-4"
    assert newest(last.parent) == Checkpoint(last, 4, True)
    held_out = examples_of(recipe.validation, drawn_slake)
    assert json.loads((last / "validation.json").read_text()).keys() == {e.id for e in held_out}


def test_weights_that_are_shared_out_learn_what_whole_ones_do(
    tiny_language: Path, drawn_slake: Path, tmp_path: Path, on_two: Path
) -> None:
    """Kept whole, by any number of processes to be trained on; and a run that was stopped ends as
    an unbroken one. Each validates its share, of which there are an odd number."""
    alone = train(shared_out(tiny_language), drawn_slake, tmp_path)
    together = on_two / alone.relative_to(tmp_path)

    for name, began in weights(alone.parent / "step-4").items():
        one, two = weights(alone)[name], weights(on_two / "unbroken")[name]
        assert torch.equal(weights(together)[name], two)
        assert (two - one).norm() <= 0.1 * (one - began).norm() + 1e-6
    assert logged(together)[-1]["answer_loss"] == pytest.approx(
        logged(alone)[-1]["answer_loss"], rel=0.02
    )


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    parts = ("connector", "language")
    return {
        f"{part}.{name}": weight
        for part in parts
        for name, weight in load_file(checkpoint / f"{part}.safetensors").items()
    }


def logged(checkpoint: Path) -> list[dict[str, Any]]:
    return [*map(json.loads, (checkpoint.parent / "log.jsonl").read_text().splitlines())]


def launch(module: str, *arguments: object) -> str:
    """Runs it on two processes; returns what they print."""
    # What `accelerate launch --multi_gpu` starts; without GPUs that would start a single process.
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, "-m", module, *map(str, arguments)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize("mode", STAGES)
def test_a_dry_run_counts_what_will_train(tiny_recipe: RecipeMaker, mode: str) -> None:
    recipe = tiny_recipe(**STAGES[mode])

    (planned,) = plan(recipe)

    model = build_model(recipe)
    tuning.prepare(model, recipe.stage[0])
    objective = Objective(model, recipe.stage[0])
    trained = sum(p.numel() for p in objective.parameters() if p.requires_grad)
    still = sum(p.numel() for p in objective.parameters() if not p.requires_grad)
    assert (sum(planned.trains.values()), sum(planned.frozen.values())) == (trained, still)
    a_weight = 6 if recipe.stage[0].optimiser == "adamw_8bit" else 12
    assert planned.gradients_and_optimiser == a_weight * trained
    assert f"vqa: {trained:,} parameters train" in str(planned)


def test_a_stage_without_a_parent_is_planned_on_a_fresh_model(tiny_recipe: RecipeMaker) -> None:
    """Whatever the stage before it has adapted."""
    frozen = {"language": "frozen", "lora": None}

    _, after = plan(tiny_recipe(more=[{"name": "again"} | frozen]))

    (alone,) = plan(tiny_recipe(**frozen))
    assert (after.trains, after.frozen) == (alone.trains, alone.frozen)


def test_an_accelerator_sees_batches_of_one_size() -> None:
    """Its library looks for kernels anew for every other; what is added comes back to nobody."""
    sizes = []

    class Tower(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            sizes.append(len(pixels))
            return pixels.flatten(2)

    seen = in_batches(Tower(), torch.empty(70, 3, 4, 4, device="meta"))

    assert seen.shape == (70, 3, 16) and sizes == [32, 32, 32]
