"""In parts, on several processes, with layers computed twice, planned on paper: the same step."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from models import tuning
from models.checkpoints import claim
from models.dry_run import plan
from models.losses import Objective
from models.progress import Tally
from models.stages import Recipe
from models.training import StageRun, train
from models.vlm import build_model
from tests.models.test_a_stage_trains_what_it_declares import STAGES
from tests.tiny import write_toml

RecipeMaker = Callable[..., Recipe]
NO_DROPOUT = {"rank": 2, "dropout": 0.0}


def gradients(recipe: Recipe, data: Path, runs: Path) -> torch.Tensor:
    """What the optimiser sees at the first step, all in one."""
    run = StageRun(recipe, recipe.stage[0], claim(runs / recipe.name, recipe), data, None)
    with optimiser_held(run):
        run.step(run.rows_of(0), Tally())
        return torch.cat([p.grad.flatten() for p in run.objective.parameters() if p.requires_grad])


@contextmanager
def optimiser_held(run: StageRun) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run.optimiser, "step", lambda: None)
        patch.setattr(run.schedule, "step", lambda: None)
        patch.setattr(run.optimiser, "zero_grad", lambda **_: None)
        yield


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

    expected, found = (gradients(recipe, drawn_slake, tmp_path) for recipe in (whole, other))

    assert (found - expected).norm() < 0.02 * expected.norm()


def test_two_processes_train_as_one(
    tiny_recipe: RecipeMaker, drawn_slake: Path, tmp_path: Path
) -> None:
    """A step of three rows, shared by two processes, moves the weights as one process does."""
    recipe = tiny_recipe(lora=NO_DROPOUT, rows_per_step=3, epochs=1)
    alone = train(recipe, drawn_slake, tmp_path / "alone")
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_machines", "1"]
    launch += ["--num_processes", "2", "--mixed_precision", "no", "--dynamo_backend", "no"]
    command = [
        "-m",
        "services.cli",
        "train",
        str(write_toml(recipe.model_dump(), tmp_path / "recipe.toml")),
    ]
    where = ["--data", str(drawn_slake), "--runs", str(tmp_path / "two")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}

    done = subprocess.run(
        [*launch, *command, *where], env=environment, capture_output=True, text=True
    )

    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("8 rows, 3 steps") == 1  # one of them speaks
    fresh = build_model(recipe).connector.state_dict()
    one, two = (load_file(runs / "connector.safetensors") for runs in (
        alone, tmp_path / "two" / recipe.name / "vqa" / alone.name))  # fmt: skip
    step_one, step_two = (
        torch.cat([(after[name] - fresh[name]).flatten() for name in fresh]) for after in (one, two)
    )
    assert torch.cosine_similarity(step_one, step_two, dim=0) > 0.98


@pytest.mark.parametrize("mode", STAGES)
def test_a_dry_run_counts_what_will_train(tiny_recipe: RecipeMaker, mode: str) -> None:
    recipe = tiny_recipe(**STAGES[mode])

    (planned,) = plan(recipe)

    model = build_model(recipe)
    tuning.prepare(model, recipe.stage[0])
    objective = Objective(model)
    trained = sum(p.numel() for p in objective.parameters() if p.requires_grad)
    still = sum(p.numel() for p in objective.parameters() if not p.requires_grad)
    assert (sum(planned.trains.values()), sum(planned.frozen.values())) == (trained, still)
    assert planned.gradients_and_optimiser == 12 * trained
    assert f"vqa: {trained:,} parameters train" in str(planned)
