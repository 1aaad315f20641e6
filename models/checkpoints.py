"""A run's folder: who it belongs to, and where it can go on.

runs/RECIPE/recipe.json     the recipe with every default: a run resumes only under the same
runs/RECIPE/STAGE/step-N/   what was trained (models.tuning), optimiser.pt, validation.json,
                            state.json (last)
"""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from safetensors import SafetensorError

from models.stages import Recipe

KEPT = 2  # checkpoints of a stage, the newest


class CheckpointError(Exception):
    """A run folder that cannot be used or written; one sentence that says why and the mend."""


@dataclass(frozen=True)
class Checkpoint:
    """A saved step of one stage."""

    folder: Path
    step: int
    finished: bool


def newest(stage_folder: Path) -> Checkpoint | None:
    # state.json is written last, so a folder without one was cut off and does not count.
    found = [
        Checkpoint(path.parent, state["step"], state["finished"])
        for path in stage_folder.glob("step-*/state.json")
        for state in [json.loads(path.read_text())]
    ]
    return max(found, key=lambda checkpoint: checkpoint.step, default=None)


def save(stage_folder: Path, step: int, finished: bool, write: Callable[[Path], None]) -> None:
    """`write` fills the folder that it is given; it counts only once it is whole.

    Raises:
        CheckpointError: it cannot be written; what was saved before is untouched.
    """
    folder, scratch = stage_folder / f"step-{step}", stage_folder / f".step-{step}"
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        scratch.mkdir()
        write(scratch)
        (scratch / "state.json").write_text(json.dumps({"step": step, "finished": finished}))
    except (OSError, SafetensorError, RuntimeError) as error:  # torch.save's is a RuntimeError
        shutil.rmtree(scratch, ignore_errors=True)
        raise CheckpointError(
            f"{folder} could not be written ({error}). Make room and run the same command again: "
            "it goes on from the last checkpoint."
        ) from error
    shutil.rmtree(folder, ignore_errors=True)
    os.rename(scratch, folder)
    older = sorted(stage_folder.glob("step-*"), key=lambda path: int(path.name[5:]))
    for path in older[:-KEPT]:
        shutil.rmtree(path)


def claim(run: Path, recipe: Recipe) -> Path:
    """Makes `run` the folder of `recipe`; a recipe may have grown stages at its end since.

    Raises:
        CheckpointError: it holds a run of another recipe.
    """
    run.mkdir(parents=True, exist_ok=True)
    path = run / "recipe.json"
    if path.exists():
        found = recipe_of(run)
        grown = found.model_copy(update={"stage": recipe.stage})
        if grown != recipe or recipe.stage[: len(found.stage)] != found.stage:
            raise CheckpointError(
                f"{run} holds a run of another recipe called {recipe.name!r}. Delete that folder, "
                "or give this recipe another name."
            )
    scratch = path.with_suffix(f".{os.getpid()}")
    scratch.write_text(recipe.model_dump_json(indent=1))
    scratch.rename(path)
    return run


def recipe_of(run: Path) -> Recipe:
    """The recipe that `run` belongs to.

    Raises:
        CheckpointError: it does not say, or says it in a way that is not known any more.
    """
    path = run / "recipe.json"
    try:
        return Recipe.model_validate_json(path.read_text())
    except (FileNotFoundError, ValidationError) as error:
        raise CheckpointError(
            f"{path} is missing or no recipe of this version. Train into another folder."
        ) from error
