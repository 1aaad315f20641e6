"""How sure a run is of what it says, and how often it is right: accuracy, calibration, length.

Of a worker that chooses: the likelihood of its first token is that of its whole answer.

    python -m models.study.confidence RUN… --data DATA
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from models.data.example import DataError
from models.metrics import calibration_error
from models.metrics.exact_match import matches
from models.metrics.score import Score, mean
from models.metrics.token_overlap import words_of
from models.parts.packing import Row, collate
from models.parts.vlm import Vlm
from models.parts.words import says_in_one_token
from models.recipe import of_parts
from models.training.inputs.vocabulary import keep_vocabulary
from models.training.learning.losses import answer_logits, cast
from models.training.parts import PartsRun
from models.training.record import checkpoints
from models.training.record.checkpoints import CheckpointError


@dataclass(frozen=True)
class Spoken:
    """Of validation questions; intervals draw whole images."""

    right: Score
    sure: Score  # mean confidence
    calibration_error: Score
    words: Score

    def __str__(self) -> str:
        named = {
            "right": self.right,
            "sure": self.sure,
            "calibration error": self.calibration_error,
            "words": self.words,
        }
        return "  ".join(
            f"{k} {v.value:.3f} ({v.low:.3f} to {v.high:.3f})" for k, v in named.items()
        )


@torch.no_grad()
def spoken(run: PartsRun) -> Spoken:
    """Raises ValueError where the worker's answers are not whole tokens."""
    model, device = run.model.eval(), run.accelerator.device
    if not says_in_one_token(model.tokenizer):
        raise ValueError("only a worker that chooses says its answer in one token")
    run.objective.eval()
    sure, right, words, images = [], [], [], []
    for start in range(0, len(run.validation), 8):
        rows = run.validation[start : start + 8]
        likeliest = chances(model, rows, run.seen(rows, training=False).to(device)).max(-1)
        questions = [question for row in rows for question in row.questions]
        said = [model.tokenizer.decode([token]) for token in likeliest.indices.tolist()]
        sure += likeliest.values.tolist()
        right += [matches(*pair) for pair in zip(said, (q.answer for q in questions), strict=True)]
        words += [len(words_of(each)) for each in said]
        images += [question.images for question in questions]
    return Spoken(
        mean(right, images), mean(sure, images),
        calibration_error.score(sure, right, images), mean(words, images),
    )  # fmt: skip


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
        yield folder.name, PartsRun(recipe, recipe.stage[-1], folder, data, None)


def main() -> None:
    ask = argparse.ArgumentParser(description="Score what runs say, and how sure they are of it.")
    ask.add_argument("runs", type=Path, nargs="+", help="Run folders of one recipe's kind.")
    ask.add_argument("--data", type=Path, required=True)
    told = ask.parse_args()
    for name, run in runs_of(told.runs, told.data):
        print(f"{name}: {spoken(run)}", flush=True)


if __name__ == "__main__":
    try:
        main()
    except (CheckpointError, DataError) as error:
        raise SystemExit(str(error)) from None
