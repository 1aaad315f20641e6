"""A dry run's memory, held against torch's own count of a step on fake tensors; and what fits."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from bitsandbytes.nn.modules import Linear4bit
from torch import nn
from torch.distributed.fsdp import fully_shard
from typer.testing import CliRunner

from benchmarks.training.recipe_memory import peak, quantised, talking_to_nobody
from models.recipe import Recipe, load_recipe
from models.training.learning.losses import cast
from models.training.loop import StageRun
from models.training.planning.dry_run import NF4_BITS, plan
from models.training.planning.fits import told
from models.training.planning.published import MODELS
from services.cli import workers
from tests.tiny import write_toml

RecipeMaker = Callable[..., Recipe]


@pytest.fixture
def four_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """As wide as it is: what one takes is to be counted, and thirty-two take minutes."""
    config = MODELS["mistralai/Mistral-7B-Instruct-v0.2"].config
    monkeypatch.setattr(config, "num_hidden_layers", 4)


@pytest.mark.usefixtures("four_layers")
@pytest.mark.parametrize("gpus", [1, 4, 8])
@pytest.mark.parametrize("name", ["clip-mistral", "clip-mistral-4bit", "clip-mistral-full"])
def test_a_plan_is_within_a_tenth_of_what_torch_counts(name: str, gpus: int) -> None:
    """Of a LoRA, a QLoRA and of all weights, alone and, but in four bits, shared out: the share,
    what is put together while it computes, gradients, moments and activations. Loading comes
    before a step."""
    recipe = load_recipe(name)
    shared = {"shard": not recipe.four_bit}
    stages = tuple(stage.model_copy(update=shared) for stage in recipe.stage)
    recipe = recipe.model_copy(update={"stage": stages})

    planned = plan(recipe, gpus=gpus)[-1]

    tracked = peak(recipe, recipe.stage[-1], gpus)
    assert planned.computing == pytest.approx(tracked, rel=0.1)


def test_four_bits_are_planned_as_bitsandbytes_lays_them_out() -> None:
    """With the constants of its blocks, which are in eight bits and have constants of their own."""
    layer = Linear4bit(1024, 4096, bias=False)
    constants = quantised(layer)

    taken = sum(each.nbytes for each in (layer.weight, *constants))

    assert layer.weight.nbytes == 1024 * 4096 // 2
    assert 8 * taken / (1024 * 4096) == pytest.approx(NF4_BITS, abs=0.01)


def test_what_is_shared_out_is_planned_for_each_gpu(tiny_recipe: RecipeMaker) -> None:
    recipe = tiny_recipe(shard=True, language="full", lora=None)

    (one,), (four,) = (plan(recipe, gpus=gpus) for gpus in (1, 4))

    assert (one.gathered, one.loading) == (0, 0)
    assert four.weights == one.weights // 4 and four.loading == one.weights
    assert four.gradients_and_optimiser == one.gradients_and_optimiser // 4
    assert four.gathered > 0


@pytest.mark.usefixtures("four_layers")
def test_a_stage_that_does_not_fit_says_what_to_set_and_what_is_left_then() -> None:
    recipe = load_recipe("clip-mistral-full")
    stage = {"shard": False, "accumulate": 1}
    changed = tuple(each.model_copy(update=stage) for each in recipe.stage)
    recipe = recipe.model_copy(update={"stage": changed})

    large, small, tiny = (list(told(recipe, None, [size] * 8))[-1] for size in (80, 20, 2))

    assert large == "  fits 8 x 80 GB, of which 72.0 GB may be used"
    assert small.startswith("  does not fit 8 x 20 GB, of which 18.0 GB may be used. Set shard = t")
    assert small.endswith(
        f"weights): {plan(load_recipe('clip-mistral-full'), gpus=8)[1].memory / 1e9:.1f} GB"
    )
    assert tiny.endswith("then questions_per_row = 8")


@pytest.mark.parametrize("tower", ["frozen", "full"])
def test_a_plan_says_that_a_tower_that_moves_is_left_out(
    tiny_recipe: RecipeMaker, tower: str
) -> None:
    """Of what a step keeps for the backward pass."""
    takes, fits = "\n".join(told(tiny_recipe(tower=tower), None, [24])).splitlines()[1:]

    left_out = "without the tower's activations"
    assert (left_out in takes, fits.endswith(left_out)) == (tower == "full",) * 2


def test_gpus_are_planned_for_and_nothing_else(tiny_recipe: RecipeMaker, tmp_path: Path) -> None:
    file = str(write_toml(tiny_recipe().model_dump(), tmp_path / "tiny.toml"))

    planned = CliRunner().invoke(workers.app, ["train", file, "--dry-run", "--gpus", "4x24"])
    trained = CliRunner().invoke(workers.app, ["train", file, "--gpus", "4x24"])
    misspelt = CliRunner().invoke(workers.app, ["train", file, "--dry-run", "--gpus", "four"])

    assert "fits 4 x 24 GB" in planned.output
    assert trained.exit_code == 2 and "goes with --dry-run" in trained.output
    assert misspelt.exit_code == 1 and "such as 1x80" in misspelt.output


def test_gradients_are_shared_out_part_by_part() -> None:
    """Else each GPU would keep those of all weights until a step's last part."""
    layer = nn.Linear(4, 4)
    with talking_to_nobody(2) as mesh:
        run: Any = SimpleNamespace(shared=fully_shard(layer, mesh=mesh))

        with StageRun.without_sync(run):
            layer(torch.ones(1, 4)).sum().backward()

    assert layer.weight.grad is not None


def test_no_weight_is_kept_in_a_second_precision() -> None:
    """What trains whole would be there half again while it computes."""
    features = torch.zeros(1)

    with cast(SimpleNamespace(tokenizer=None), features):  # type: ignore[arg-type]
        assert not torch.is_autocast_cache_enabled()
