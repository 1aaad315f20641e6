"""Cross-validation: every fold of a recipe is trained on all others and scored on itself."""

import json
import os
from pathlib import Path

from models.data.example import Example
from models.metrics.score import Score, mean
from models.recipe.programme import Programme, RecipeError
from models.training.inputs.examples import ASKED, NEAR_DUPLICATES, checksum, examples_of
from models.training.record.checkpoints import START, CheckpointError
from models.training.stages import train


def crossval(recipe: Programme, data: Path, runs: Path) -> dict[str, Score]:
    """Exact match over all questions, each answered by the run that has not seen its image:
    `all`, `closed`, `open`, and `unlike`: those on images that look like no training image, be it
    one of the worker that the recipe starts from. Intervals draw whole images. Folds that are done
    are not trained again.

    Raises:
        RecipeError: the validation data is in no folds, or in several numbers of them.
        CheckpointError: folds of workers that started from different weights, or of other data.
        Whatever else `models.training.stages.train` raises.
    """
    last = recipe.stage[-1]
    counts = {source.folds for source in last.validation or recipe.validation}
    (count,) = counts if len(counts) == 1 else (None,)
    if count is None:
        raise RecipeError(
            f"recipe {recipe.name}: its validation data must all be in one number of folds."
        )
    right: dict[str, bool] = {}
    asked: list[Example] = []
    alike: set[str] = set()
    started: set[str] = set()
    for fold in range(count):
        one = recipe.of_fold(fold)
        checkpoint = train(one, data, runs)
        started |= {(runs / one.name / START).read_text()} if recipe.start else set()
        listed = json.loads((runs / one.name / NEAR_DUPLICATES).read_text())
        alike |= {os.path.normpath(data / pair["held_out"]) for pair in listed}
        scored = json.loads((checkpoint / "validation.json").read_text())
        held_out = examples_of(last.validation or one.validation, data, fold, held_out=True)
        kept = checkpoint / ASKED
        others = kept.exists() and kept.read_text() != checksum(held_out)
        if others or scored.keys() != {example.id for example in held_out}:
            raise CheckpointError(
                f"{runs / one.name} was scored on other questions than the data holds, or by an "
                "earlier version: give back what it was trained on, or delete the folders of "
                f"{recipe.name} and train anew."
            )
        right |= scored
        asked += held_out
    if len(started) > 1:
        raise CheckpointError(
            f"{runs}: the folds of {recipe.name} were started from different weights, since "
            f"{recipe.start} was exported anew. Delete the older ones' folders."
        )
    groups = {
        "all": asked,
        "closed": [example for example in asked if example.closed],
        "open": [example for example in asked if not example.closed],
        "unlike": [e for e in asked if alike.isdisjoint(map(os.path.normpath, e.images))],
    }
    return {
        name: mean([right[e.id] for e in group], [e.images for e in group])
        for name, group in groups.items()
        if group
    }
