"""A run's folder: who it belongs to, and where it can go on.

    runs/RECIPE/recipe.json     the recipe with every default: a run resumes only under the same
    runs/RECIPE/STAGE/step-N/   what was trained (models.training.learning.tuning),
                                reconstructor.safetensors, optimiser.pt, validation.json,
                                state.json (last)
    runs/RECIPE/STAGE/data.crc32  of the questions and images that the stage began on

A folder without a state.json was cut off, and does not count.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError

from models.files import write_whole
from models.recipe import Recipe, WholeRecipe, read_programme
from models.recipe.programme import Programme

START = "start.sha256"  # of the worker that a run started from, where it was one
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
    found = []
    for path in stage_folder.glob("step-*/state.json"):
        with suppress(ValueError):  # half a line is no better than none
            state = json.loads(path.read_text())
            found.append(Checkpoint(path.parent, state["step"], state["finished"]))
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
    except (OSError, SafetensorError, RuntimeError) as error:
        shutil.rmtree(scratch, ignore_errors=True)
        if isinstance(error, RuntimeError) and "inline_container" not in str(error):
            raise  # torch.save's own is the only one of these that means the disk
        raise CheckpointError(
            f"{folder} could not be written ({error}). Make room and run the same command again: "
            "it goes on from the last checkpoint."
        ) from error
    shutil.rmtree(folder, ignore_errors=True)
    os.rename(scratch, folder)
    older = sorted(stage_folder.glob("step-*"), key=lambda path: int(path.name[5:]))
    for path in older[:-KEPT]:
        shutil.rmtree(path)


def claim(run: Path, recipe: Programme) -> Path:
    """Makes `run` the folder of `recipe`. Stages after the last one that has a folder there
    may have changed.

    Raises:
        CheckpointError: it holds a run of another recipe, or one that started from another worker.
    """
    run.mkdir(parents=True, exist_ok=True)
    path = run / "recipe.json"
    if path.exists():
        found = recipe_of(run)
        begun = [n for n, stage in enumerate(found.stage, 1) if (run / stage.name).exists()]
        fixed = max(begun, default=0)
        same = found.model_copy(update={"stage": recipe.stage}) == recipe
        if not same or recipe.stage[:fixed] != found.stage[:fixed]:
            raise CheckpointError(
                f"{run} holds a run of another recipe called {recipe.name!r}. Delete that folder, "
                "or give this recipe another name."
            )
    if start := recipe.start_folder:
        _claim_start(run / START, start)
    write_whole(path, recipe.model_dump_json(indent=1))
    return run


def _claim_start(path: Path, start: Path) -> None:
    """An exported worker may be exported anew; half a run on each would be a run of neither."""
    digest = hashlib.sha256()
    # Its weights; and where its language model was made, which word each of them is of.
    for part in sorted([*start.rglob("*.safetensors"), *start.rglob("tokenizer.json")]):
        digest.update(part.read_bytes())
    if path.exists() and path.read_text() != digest.hexdigest():
        raise CheckpointError(
            f"{path.parent} was started from another worker than {start} holds now. Delete that "
            "folder, and it is trained from this one."
        )
    write_whole(path, digest.hexdigest())


def recipe_of(run: Path) -> Recipe | WholeRecipe:
    """The recipe that `run` belongs to.

    Raises:
        CheckpointError: it does not say, or says it in a way that is not known any more.
    """
    path = run / "recipe.json"
    try:
        return read_programme(path.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} is missing or no recipe of this version: give a run folder of consilium "
            "train, or train into another."
        ) from error
