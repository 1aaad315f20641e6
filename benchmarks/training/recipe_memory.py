"""What `--dry-run` says of a step's memory, beside torch's own count of it:
python -m benchmarks.training.recipe_memory RECIPE… [--stage NAME] [--shard] [--gpus 1 4 8]

The training loop's own objective and optimiser take their second step, when moments are there, on
fake tensors, which have shapes and no numbers, so a recipe of 7 B needs no GPU and hardly any
memory; torch's trackers follow what is alive on one of so many GPUs that talk to nobody. Prints a
row for each stage and kind of machine, and whether it fits GPUs of those sizes. Exit status 1 where
plan and count are more than a tenth apart. For recipes on the packaged models, or those of
`models.training.planning.published`, in bfloat16 or four bits, whose tower keeps still; minutes for
7 B.
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.functional import quantize_4bit
from bitsandbytes.nn.modules import Linear4bit
from torch import Tensor, distributed, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.fsdp2_mem_tracker import FSDPMemTracker, _FSDPModMemStats
from torch.distributed._tools.mem_tracker import MemTracker
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore

import models.cpu_torch  # noqa: F401  before transformers, which imports torchvision

# isort: split
from transformers.quantizers import AutoHfQuantizer

from models.parts.language import nf4
from models.parts.packing import IGNORED, IMAGE, Batch, Row, collate
from models.parts.vlm import Vlm, assemble
from models.recipe import Recipe, load_recipe
from models.recipe.stage import PartsStage
from models.training.learning import sharding, tuning
from models.training.learning.losses import Objective
from models.training.planning.dry_run import (
    ANSWER_TOKENS,
    TEXT_TOKENS,
    language_of,
    lineage,
    plan,
    rows_at_once,
)
from models.training.planning.fits import USABLE

BAR = 0.1  # of torch's count
SIZES = (24, 80)  # of a GPU, in GB
NF4 = nf4(torch.bfloat16)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("recipe", nargs="+")
    arguments.add_argument("--stage")
    arguments.add_argument("--shard", action="store_true", help="As if each stage said so.")
    arguments.add_argument("--gpus", type=int, nargs="+", default=[1], help="How many.")
    options = arguments.parse_args()
    worst = 0.0
    for recipe in map(load_recipe, options.recipe):
        if options.shard:
            stages = tuple(stage.model_copy(update={"shard": True}) for stage in recipe.stage)
            recipe = recipe.model_copy(update={"stage": stages})
        for gpus in options.gpus:
            for row in rows_of(recipe, options.stage, gpus):
                worst = max(worst, abs(row["apart"]))
                row["apart"] = f"{row['apart']:+.1%}"
                print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    raise SystemExit(worst > BAR)


def rows_of(recipe: Recipe, name: str | None, gpus: int) -> Iterator[dict[str, Any]]:
    for stage, planned in zip(recipe.stage, plan(recipe, gpus=gpus), strict=True):
        if name in (None, stage.name):
            tracked = peak(recipe, stage, gpus)
            yield {
                "recipe": recipe.name,
                "stage": stage.name,
                "gpus": gpus,
                "planned_gb": round(planned.computing / 1e9, 2),
                "tracked_gb": round(tracked / 1e9, 2),
                "apart": planned.computing / tracked - 1,
                "loading_gb": round(planned.loading / 1e9, 2),
            } | {
                f"fits_{size}_gb": "yes" if planned.memory <= USABLE * size * 1e9 else "no"
                for size in SIZES
            }


def peak(recipe: Recipe, stage: PartsStage, gpus: int) -> int:
    """The most bytes that are alive at once on the first of `gpus` in two parts of a step and the
    optimiser's update."""
    build, tokenizer = language_of(recipe, None)
    with torch.device("meta"):
        language = build()
        if recipe.language.four_bit:
            _in_four_bits(language)
        model = assemble(recipe, language, tokenizer, load_weights=False)
        for each in lineage(recipe, stage):
            tuning.prepare(model, each)
        objective = Objective(model, stage).train()
    batch = batch_of(model, recipe, stage, gpus)
    with talking_to_nobody(gpus) as mesh, FakeTensorMode(allow_non_fake_inputs=True) as fake:
        with _anew():
            objective.to_empty(device="cpu")
        constants = quantised(objective)
        tensors = {name: value for name, value in vars(batch).items() if name != "rows"}
        faked: dict[str, Any] = {name: fake.from_tensor(value) for name, value in tensors.items()}
        placed = replace(batch, **faked)
        images = len(batch.rows) * recipe.max_images
        seen = torch.empty(images, model.tower.patches, model.tower.dim, dtype=torch.bfloat16)
        trains = [([weight for weight in objective.parameters() if weight.requires_grad], 1.0)]
        parted = stage.shard and gpus > 1
        if parted:
            trains = sharding.shard(objective, trains, mesh)
        ((weights, _),) = trains
        optimiser = tuning.optimiser([{"params": weights}], stage)

        def learn() -> None:
            losses = objective(placed, seen)
            (losses.answer + losses.reconstruction + losses.imbalance).backward()

        def update() -> None:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

        learn()
        update()
        if stage.rows_per_step > gpus * len(batch.rows):  # what comes before is kept
            learn()
        tracker = FSDPMemTracker(objective, optimiser) if parted else MemTracker()
        tracker.track_external(objective, optimiser, seen, *constants)
        if parted:
            _leave_tower_alone(tracker, model.tower)
        else:
            _leave_frozen_alone(tracker, objective)
        with tracker:
            learn()
            update()
        (snapshot,) = tracker.get_tracker_snapshot("peak").values()
    return int(snapshot["Total"])


@contextmanager
def talking_to_nobody(gpus: int) -> Iterator[DeviceMesh]:
    """A process that is the first of `gpus`, of which the others are not there."""
    distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=gpus)
    try:
        yield init_device_mesh("cpu", (gpus,))
    finally:
        distributed.destroy_process_group()


@contextmanager
def _anew() -> Iterator[None]:
    """Within it a module that is moved gets new weights: those of no numbers take no fake ones."""
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        yield
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(before)


def _in_four_bits(language: Any) -> None:
    """Its layers become bitsandbytes' as they do when transformers loads it; no weights yet."""
    quantizer: Any = AutoHfQuantizer.from_config(NF4)
    quantizer.preprocess_model(language, device_map=None)
    language.is_loaded_in_4bit = True  # peft asks
    with torch.device("cpu"):
        quantize_4bit(torch.zeros(64), compress_statistics=True)  # it keeps a table: no fake one


def quantised(objective: nn.Module) -> list[Tensor]:
    """Gives each four-bit layer such weights as bitsandbytes makes; returns the constants of their
    blocks, which are no parameters."""
    constants = []
    for layer in objective.modules():
        if isinstance(layer, Linear4bit):
            packed, state = quantize_4bit(
                torch.empty(layer.out_features, layer.in_features, dtype=torch.bfloat16),
                compress_statistics=NF4.bnb_4bit_use_double_quant,
                quant_type=NF4.bnb_4bit_quant_type,
            )
            weight: Any = nn.Parameter(packed, requires_grad=False)
            layer.weight, weight.quant_state = weight, state
            parts = [*vars(state).values(), *vars(state.state2).values()]
            constants += [each for each in parts if isinstance(each, Tensor)]
    return constants


def batch_of(model: Vlm, recipe: Recipe, stage: PartsStage, gpus: int) -> Batch:
    """One part of a step, as `--dry-run` takes it to be."""
    images, answers = model.image_tokens(recipe.max_images), stage.grpo.group if stage.grpo else 1
    places = torch.arange(images + answers * TEXT_TOKENS)
    row = Row(
        images=(Path(),) * recipe.max_images,
        ids=torch.where(places < images, IMAGE, 0),
        positions=places,
        segments=(places >= images).long(),
        labels=torch.where(places < len(places) - answers * ANSWER_TOKENS, IGNORED, 0),
        questions=(),
    )
    return collate([row] * rows_at_once(stage, gpus), 0)


def _leave_frozen_alone(tracker: MemTracker, module: nn.Module) -> None:
    """It asks every weight for its gradient, and what is frozen refuses."""

    class Nothing:
        def remove(self) -> None: ...

    for weight in module.parameters():
        if not weight.requires_grad:
            tracker._param_to_grad_hook_handles[weight] = (Nothing(), Nothing())


def _leave_tower_alone(tracker: MemTracker, tower: Any) -> None:
    """It asks after each unit once a step is over, and the tower's features are there already."""
    tower.unshard()
    tower.reshard()
    tracker.memory_tracking[tower] = _FSDPModMemStats("tower")


if __name__ == "__main__":
    main()
