"""How sure a run is of what it says, and how often it is right: accuracy, calibration, length.

Of a worker that chooses: its first token is its answer, and the likelihood of that the whole one's.

    python -m models.study.confidence RUN… --beside RUN… --data DATA

A run beside another, in the order given, is scored question by question: what one of them is more.
"""

import argparse
import tempfile
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.assets import AssetError
from models.data.example import DataError
from models.metrics import calibration_error
from models.metrics.exact_match import matches
from models.metrics.score import Score, mean
from models.metrics.token_overlap import words_of
from models.parts.packing import Row, collate
from models.parts.vlm import Vlm
from models.parts.words import says_in_one_token
from models.recipe import of_parts
from models.recipe.programme import RecipeError
from models.training.inputs.vocabulary import keep_vocabulary
from models.training.learning.losses import answer_logits, cast
from models.training.learning.tuning import TuningError
from models.training.loop import TrainingError
from models.training.parts import PartsRun
from models.training.record import checkpoints
from models.training.record.checkpoints import CheckpointError


class ConfidenceError(Exception):
    """Runs that this cannot score; one sentence that says why."""


@dataclass(frozen=True)
class Spoken:
    """Of each validation question in order, [questions]: whether the answer is right, how sure it
    was said, in how many words, of which image, and to what."""

    right: Sequence[bool]
    sure: Sequence[float]
    words: Sequence[int]
    images: Sequence[Hashable]
    asked: Sequence[tuple[str, str]]  # its id and its words

    @property
    def means(self) -> dict[str, np.ndarray]:
        """What is scored question by question. Over all of them, how much surer it is than right
        is its confidence less its accuracy."""
        right, sure = np.array(self.right, float), np.array(self.sure)
        surer = sure - right
        return {
            "right": right,
            "sure": sure,
            "surer than right": surer,
            "words": np.array(self.words),
        }


def scores(said: Spoken) -> dict[str, Score]:
    """With intervals that draw whole images."""
    found = {name: mean(values.tolist(), said.images) for name, values in said.means.items()}
    error = calibration_error.score(said.sure, said.right, said.images)
    return found | {"calibration error": error}


def differences(pairs: Sequence[tuple[Spoken, Spoken]]) -> dict[str, Score]:
    """By how much the first of a pair is more than the second, over all pairs: the mean of each
    question first, so the intervals are those of the questions and not of the seeds.

    Raises ConfidenceError where they were not asked the same questions.
    """
    images = pairs[0][0].images
    cases = [list(zip(said.images, said.asked, strict=True)) for pair in pairs for said in pair]
    if any(each != cases[0] for each in cases):
        raise ConfidenceError(
            "Runs beside each other are asked the same questions about the same images: give runs "
            "whose last stages are validated on the same."
        )
    found = {}
    for name in pairs[0][0].means:
        apart = np.mean([one.means[name] - other.means[name] for one, other in pairs], axis=0)
        found[name] = mean(apart.tolist(), images)
    judged = [((one.sure, one.right), (other.sure, other.right)) for one, other in pairs]
    return found | {"calibration error": calibration_error.difference(judged, images)}


@torch.no_grad()
def spoken(run: PartsRun) -> Spoken:
    """Raises ConfidenceError where the worker's answers are not whole tokens."""
    model, device = run.model.eval(), run.accelerator.device
    if not says_in_one_token(model.tokenizer):
        raise ConfidenceError("only a worker that chooses says its answer in one token")
    run.objective.eval()
    sure, right, words, images, asked = [], [], [], [], []
    with run.average.in_place():  # what its checkpoint keeps, and was validated
        for start in range(0, len(run.validation), 8):
            rows = run.validation[start : start + 8]
            likeliest = chances(model, rows, run.seen(rows, training=False).to(device)).max(-1)
            questions = [question for row in rows for question in row.questions]
            said = [model.tokenizer.decode([token]) for token in likeliest.indices.tolist()]
            sure += likeliest.values.tolist()
            right += [matches(one, each.answer) for one, each in zip(said, questions, strict=True)]
            words += [len(words_of(each)) for each in said]
            images += [question.images for question in questions]
            asked += [(question.id, question.question) for question in questions]
    return Spoken(right, sure, words, images, asked)


@torch.no_grad()
def chances(model: Vlm, rows: Sequence[Row], features: Tensor) -> Tensor:
    """[questions, vocabulary]: how likely each answer is to a worker that chooses, to the rows'
    questions in order. `features` is [images, patches, vision_dim].
    """
    seen = features.float()
    with cast(model, seen):
        logits, _, _ = answer_logits(model, collate(rows, 0).to(seen.device), seen)
    return logits[0::2].float().softmax(-1)  # every other token is an end


def runs_of(folders: list[Path], data: Path) -> Iterator[tuple[str, PartsRun]]:
    """The worker that they began with, and then each of them as it ended.

    Raises:
        CheckpointError: a folder holds no run, or one whose last stage has kept nothing.
    """
    recipes = [of_parts(checkpoints.recipe_of(folder)) for folder in folders]
    for folder, recipe in zip(folders, recipes, strict=True):
        if not checkpoints.newest(folder / recipe.stage[-1].name):
            raise CheckpointError(
                f"{folder} has nothing of stage {recipe.stage[-1].name}: train it to its end."
            )
    recipe = recipes[0]
    with tempfile.TemporaryDirectory() as scratch:
        fresh = checkpoints.claim(Path(scratch) / recipe.name, recipe)
        keep_vocabulary(recipe, data, fresh)
        yield "began", PartsRun(recipe, recipe.stage[-1], fresh, data, recipe.start_folder)
    for folder, recipe in zip(folders, recipes, strict=True):
        yield str(folder), PartsRun(recipe, recipe.stage[-1], folder, data, None)


def main() -> None:
    ask = argparse.ArgumentParser(description="Score what runs say, and how sure they are of it.")
    ask.add_argument("runs", type=Path, nargs="+", help="Run folders of one recipe's kind.")
    ask.add_argument("--beside", type=Path, nargs="+", default=[], help="One for each of them.")
    ask.add_argument("--data", type=Path, required=True)
    told = ask.parse_args()
    if told.beside and len(told.beside) != len(told.runs):
        ask.error(f"{len(told.runs)} runs have {len(told.beside)} beside them: name one for each")
    said = []
    for name, run in runs_of([*told.runs, *told.beside], told.data):
        said.append(spoken(run))
        _show(name, scores(said[-1]))
    own = said[1:]  # the first is of the worker that they began with
    pairs = list(zip(own, own[len(told.runs) :], strict=False))
    for run, other, pair in zip(told.runs, told.beside, pairs, strict=bool(told.beside)):
        _show(f"{run} less {other}", differences([pair]), "+")
    if len(pairs) > 1:
        _show("all of these", differences(pairs), "+")


def _show(name: str, found: dict[str, Score], sign: str = "") -> None:
    told = (
        f"{each} {score.value:{sign}.3f} ({score.low:{sign}.3f} to {score.high:{sign}.3f})"
        for each, score in found.items()
    )
    print(f"{name}: {'  '.join(told)}", flush=True)


if __name__ == "__main__":
    try:
        main()
    except (
        AssetError,
        CheckpointError,
        DataError,
        RecipeError,
        TrainingError,
        TuningError,
        ConfidenceError,
    ) as error:
        raise SystemExit(str(error)) from None
