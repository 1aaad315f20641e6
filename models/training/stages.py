"""A recipe from beginning to end: `consilium train RECIPE` runs its stages, one after the other."""

import gc
from datetime import timedelta
from pathlib import Path

import torch

import models.cpu_torch  # noqa: F401  before accelerate, which imports torchvision

# isort: split
from accelerate import PartialState

from models.recipe import Recipe, WholeRecipe
from models.recipe.programme import Programme
from models.training.inputs.examples import NEAR_DUPLICATES, check_data
from models.training.inputs.vocabulary import keep_vocabulary
from models.training.loop import StageRun, TrainingError
from models.training.parts import PartsRun
from models.training.planning.fits import lighter, smaller
from models.training.record import checkpoints
from models.training.record.tracker import Name, Tracker, tracking
from models.training.whole import WholeRun


def train(recipe: Programme, data: Path, runs: Path, tracker: Name | None = None) -> Path:
    """Runs every stage of `recipe` that is not finished; returns the last stage's checkpoint.

    `data` holds the datasets' folders (`slake/`, …), `runs` the run folders; `tracker` is told what
    the stages' logs are.

    Raises:
        TrackerError: the tracker is not there.
        TrainingError: a loss is not finite, or the accelerator's memory is full.
        CheckpointError: a run of another recipe is in the way, or a checkpoint cannot be written.
        TuningError: a parent's adapter does not fit, or the wrong parts moved.
        DataError, AssetError, RecipeError: what the recipe names cannot be read or built.
    """
    # The first process may look at images for long, and the others wait for it.
    processes = PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(days=1))
    run = checkpoints.claim(runs / recipe.name, recipe)
    stops = [checkpoints.newest(run / stage.name) for stage in recipe.stage]
    unfinished = not all(stop and stop.finished for stop in stops)
    if processes.is_main_process and (unfinished or not (run / NEAR_DUPLICATES).exists()):
        alike = check_data(recipe, data, run)
        print(f"{alike} held-out images look like a training image: {run / NEAR_DUPLICATES}")
        if isinstance(recipe, Recipe) and recipe.language.made:
            keep_vocabulary(recipe, data, run)
    processes.wait_for_everyone()
    with tracking(tracker if unfinished else None, recipe, run) as told:
        return _stages(recipe, data, run, told)


def _stages(recipe: Programme, data: Path, run: Path, tracker: Tracker | None) -> Path:
    kind: type[StageRun] = WholeRun if isinstance(recipe, WholeRecipe) else PartsRun
    done: dict[str, Path] = {}
    for stage in recipe.stage:
        state = checkpoints.newest(run / stage.name)
        if state is None or not state.finished:
            parent = done[stage.parent] if stage.parent else recipe.start_folder
            there = None
            try:
                there = kind(recipe, stage, run, data, parent)
                state = there.run(tracker)
            except RuntimeError as error:
                if not _is_full(error):
                    raise
                gpus = PartialState().num_processes
                change = smaller(recipe, stage, gpus) if there else lighter(recipe, stage)
                raise TrainingError(
                    f"stage {stage.name} does not fit into the accelerator's memory "
                    f"({str(error).partition('. GPU')[0]}). Set {change.says}, delete "
                    f"{run / stage.name} and train again; --dry-run says what each choice takes."
                ) from error
            del there
            gc.collect()  # its model lies in reference cycles, and the next one wants the memory
        done[stage.name] = state.folder
    return done[recipe.stage[-1].name]


def _is_full(error: RuntimeError) -> bool:
    """Also where not torch itself ran out, but cuBLAS, or a library of four-bit weights."""
    said = str(error).lower()
    told = any(words in said for words in ("alloc_failed", "out of memory"))
    return told or isinstance(error, torch.OutOfMemoryError)
