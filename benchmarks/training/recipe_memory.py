"""What `--dry-run` says of a step's memory, beside torch's own count of it:
python -m benchmarks.training.recipe_memory RECIPE [--stage NAME]

The training loop's own objective and optimiser take one step on fake tensors, which have shapes and
no numbers, so a recipe of 7 B needs no GPU and hardly any memory; torch's MemTracker follows what
is alive. Prints a row for each stage. For recipes on the packaged models, or those of
`models.training.planning.published`, whose tower keeps still; minutes for 7 B.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker

from models.parts.packing import IGNORED, IMAGE, Batch, Row, collate
from models.parts.vlm import Vlm, assemble
from models.recipe import Recipe, load_recipe
from models.recipe.stage import PartsStage
from models.training.learning import tuning
from models.training.learning.losses import Objective
from models.training.planning.dry_run import ANSWER_TOKENS, TEXT_TOKENS, language_of, lineage, plan


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("recipe")
    arguments.add_argument("--stage")
    options = arguments.parse_args()
    for row in rows_of(load_recipe(options.recipe), options.stage):
        print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)


def rows_of(recipe: Recipe, name: str | None) -> Iterator[dict[str, Any]]:
    for stage, planned in zip(recipe.stage, plan(recipe), strict=True):
        if name in (None, stage.name):
            tracked = peak(recipe, stage)
            yield {
                "recipe": recipe.name,
                "stage": stage.name,
                "planned_gb": round(planned.memory / 1e9, 2),
                "tracked_gb": round(tracked / 1e9, 2),
                "apart": f"{planned.memory / tracked - 1:+.1%}",
            }


def peak(recipe: Recipe, stage: PartsStage) -> int:
    """The most bytes that are alive at once in one part of a step and the optimiser's update."""
    build, tokenizer = language_of(recipe, None)
    with torch.device("meta"):
        model = assemble(recipe, build(), tokenizer, load_weights=False)
        for each in lineage(recipe, stage):
            tuning.prepare(model, each)
        objective = Objective(model, stage).train()
    batch = batch_of(model, recipe, stage)
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    with FakeTensorMode(allow_non_fake_inputs=True) as fake:
        objective.to_empty(device="cpu")
        tensors = {name: value for name, value in vars(batch).items() if name != "rows"}
        faked: dict[str, Any] = {name: fake.from_tensor(value) for name, value in tensors.items()}
        placed = replace(batch, **faked)
        images = len(batch.rows) * recipe.max_images
        seen = torch.empty(images, model.tower.patches, model.tower.dim, dtype=torch.bfloat16)
        trains = [weight for weight in objective.parameters() if weight.requires_grad]
        optimiser = tuning.optimiser([{"params": trains}], stage)
        tracker = MemTracker()
        tracker.track_external(objective, optimiser, seen)
        _leave_frozen_alone(tracker, objective)
        with tracker:
            losses = objective(placed, seen)
            (losses.answer + losses.reconstruction + losses.imbalance).backward()
            optimiser.step()
        (snapshot,) = tracker.get_tracker_snapshot("peak").values()
    return int(snapshot["Total"])


def batch_of(model: Vlm, recipe: Recipe, stage: PartsStage) -> Batch:
    """One part of a step, as `--dry-run` takes it to be."""
    images = model.image_tokens(recipe.max_images)
    places = torch.arange(images + TEXT_TOKENS)
    row = Row(
        images=(Path(),) * recipe.max_images,
        ids=torch.where(places < images, IMAGE, 0),
        positions=places,
        segments=(places >= images).long(),
        labels=torch.where(places < len(places) - ANSWER_TOKENS, IGNORED, 0),
        questions=(),
    )
    return collate([row] * -(-stage.rows_per_step // stage.accumulate), 0)


def _leave_frozen_alone(tracker: MemTracker, module: nn.Module) -> None:
    """It asks every weight for its gradient, and what is frozen refuses."""

    class Nothing:
        def remove(self) -> None: ...

    for weight in module.parameters():
        if not weight.requires_grad:
            tracker._param_to_grad_hook_handles[weight] = (Nothing(), Nothing())


if __name__ == "__main__":
    main()
