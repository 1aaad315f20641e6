"""One step of each recipe's first stage, on however many processes: python -m tests.models.one_step
DATA RUNS WHOLE RECIPE… What the optimiser would see is saved as RUNS/NAME.safetensors: the gradient
before it is clipped, a mixture's bias after it is balanced, and how many processes there were. The
recipe WHOLE is trained from beginning to end, and then its end again, as if it had been cut off
while that was saved; what it was at first is in RUNS/unbroken. What it says where the processes
have other images under the same names is in RUNS/unequal.txt.
"""

import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from models.recipe import Recipe, WholeRecipe, load_programme, load_recipe
from models.training.learning.sharding import whole
from models.training.loop import StageRun, TrainingError
from models.training.parts import PartsRun
from models.training.record.checkpoints import claim
from models.training.record.progress import Tally
from models.training.stages import train
from models.training.whole import WholeRun


def begun(recipe: Recipe | WholeRecipe, data: Path, runs: Path) -> StageRun:
    kind = WholeRun if isinstance(recipe, WholeRecipe) else PartsRun
    return kind(recipe, recipe.stage[0], claim(runs / recipe.name, recipe), data, None)


def one_step(recipe: Recipe | WholeRecipe, data: Path, runs: Path) -> dict[str, Tensor]:
    run: Any = begun(recipe, data, runs)
    clip, nn.utils.clip_grad_norm_ = nn.utils.clip_grad_norm_, lambda *_: torch.tensor(1.0)
    run.optimiser.step = run.schedule.step = lambda: None
    run.optimiser.zero_grad = lambda **_: None
    try:
        run.step(run.rows_of(0), next(iter(run.shown_from(0))), Tally())
    finally:
        nn.utils.clip_grad_norm_ = clip
    trained = (p.grad for p in run.objective.parameters() if p.grad is not None)
    gradients = [whole(gradient).flatten() for gradient in trained]
    mixtures = run.mixtures() if isinstance(run, PartsRun) else []
    biases = [mixture.bias for mixture in mixtures]
    return {"gradient": torch.cat(gradients), "bias": torch.cat([*biases, torch.zeros(1)])}


def train_twice(recipe: Recipe, data: Path, runs: Path) -> None:
    last = train(recipe, data, runs)
    torch.distributed.barrier()
    if torch.distributed.get_rank() == 0:
        shutil.copytree(last, runs / "unbroken")
        (last / "state.json").unlink()
    torch.distributed.barrier()
    train(recipe, data, runs)


def with_other_images(recipe: Recipe, data: Path, runs: Path) -> str:
    """What a stage says where the second process has another file in an image's place."""
    if torch.distributed.get_rank():
        data = Path(shutil.copytree(data, runs / "other"))
        image = next(data.rglob("*.jpg"))
        image.write_bytes(image.read_bytes() + b"\0")
    try:
        begun(recipe.model_copy(update={"name": "unequal"}), data, runs)
    except TrainingError as error:
        return str(error)
    return "nothing"


def main() -> None:
    data, runs, whole_one, *recipes = map(Path, sys.argv[1:])
    for recipe in map(load_programme, recipes):
        found = one_step(recipe, data, runs)
        found["processes"] = torch.tensor(torch.distributed.get_world_size())
        if torch.distributed.get_rank() == 0:
            save_file(found, runs / f"{recipe.name}.safetensors")
    train_twice(load_recipe(whole_one), data, runs)
    said = with_other_images(load_recipe(whole_one), data, runs)
    if torch.distributed.get_rank() == 0:
        (runs / "unequal.txt").write_text(said)


if __name__ == "__main__":
    main()
