"""What image-once packing saves: python -m benchmarks.training.packing [--recipe NAME] [--steps N]

Steps of the recipe's first epoch, as the training loop composes them, go through forward and
backward twice, in turns: packed, all questions about an image in one row; and plainly, one row per
question. Beside them stands the floor: the packed rows forward alone. Prints questions per second
and their ratio, and how far the two gradients of the first step are apart: in bfloat16, as it is
trained, and in float32, where only the order of summing is left. Then the loop's own steps of each
stage: seconds a step, and for what share of them it waits for images or their features, which the
step reads itself, as on a CPU, or processes ahead of it. Exit status 1 where packing is less than
three times as fast, the gradients in float32 are not the same, or a step that reads for itself
waits longer than it computes.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader

from benchmarks import needs
from models.data.example import Example
from models.parts.packing import Row, collate, in_steps
from models.parts.vlm import Vlm, build_model
from models.recipe import Recipe, load_recipe
from models.recipe.stage import PartsStage
from models.training.inputs.examples import examples_of
from models.training.inputs.features import cached_features
from models.training.learning import tuning
from models.training.learning.losses import answer_logits
from models.training.loop import Shown
from models.training.parts import PartsRun

BAR = 3.0
APART = 1e-4  # of the gradient's norm, in float32
PLAIN_ROWS = 16  # in memory at a time
WAITING = 0.5  # of a step: above it the loader is the bound
LOADERS = 2  # processes ahead of a step, where there are any


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--recipe", default="mobilenet")
    arguments.add_argument("--steps", type=int, default=8)
    needs.data_folder(arguments)
    options = arguments.parse_args()
    recipe = load_recipe(options.recipe)
    # A tower that moves would want more than the cached features.
    stage = next(each for each in recipe.stage if each.tower == "frozen" and each.lora)
    examples = examples_of(stage.data, options.data)
    trained = Trained(recipe, stage, examples, torch.bfloat16)
    rows = trained.model.packed(examples, recipe.prompt)
    first, *steps = in_steps(rows, stage.rows_per_step, recipe.seed)[: options.steps + 1]

    # The first one warms everything up, and is not timed.
    apart = {"bfloat16": trained.apart(first), "float32": 0.0}
    seconds = {"packed": 0.0, "plain": 0.0, "forward only": 0.0}
    questions = 0
    for packed in steps:
        plain = trained.plain(packed)
        seconds["packed"] += timed(trained.gradient, packed, len(packed))
        seconds["plain"] += timed(trained.gradient, plain, PLAIN_ROWS)
        seconds["forward only"] += timed(torch.no_grad()(trained.loss), packed)
        questions += len(plain)
    apart["float32"] = Trained(recipe, stage, examples, torch.float32).apart(first)

    speed = {name: questions / total for name, total in seconds.items()}
    ratio = speed["packed"] / speed["plain"]
    for name, found in speed.items():
        print(f"{name:14} {found:6.1f} questions/s")
    print(f"packed is {ratio:.2f} times as fast as plain (at least {BAR:g})")
    print(
        f"their gradients are apart by {apart['float32']:.1e} of their norm in float32 (at most "
        f"{APART:.0e}), by {apart['bfloat16']:.1e} in bfloat16"
    )
    waiting = {}
    for each in recipe.stage:
        for loaders in (0, LOADERS):
            seconds_a_step, waits = waited(recipe, each, options.data, options.steps, loaders)
            waiting[f"{each.name}, {loaders} loaders"] = waits
            print(
                f"{each.name}, {loaders} processes ahead: {seconds_a_step:.2f} s a step, of which "
                f"{waits:.1%} are waited"
            )
    print(json.dumps(speed | {"ratio": ratio, "apart": apart, "waiting": waiting}))
    bound = any(waiting[f"{each.name}, 0 loaders"] > WAITING for each in recipe.stage)
    raise SystemExit(ratio < BAR or apart["float32"] > APART or bound)


class Trained:
    """A recipe's model as it starts a stage, without dropout: the gradients must be the same."""

    def __init__(
        self, recipe: Recipe, stage: PartsStage, examples: Sequence[Example], dtype: torch.dtype
    ):
        torch.manual_seed(recipe.seed)
        self.prompt, self.dtype = recipe.prompt, dtype
        self.model: Vlm = build_model(recipe, dtype)
        tuning.prepare(self.model, stage)
        self.model.eval()
        self.features = cached_features(self.model.tower, (i for e in examples for i in e.images))

    def plain(self, packed: Sequence[Row]) -> list[Row]:
        asked = [question for row in packed for question in row.questions]
        return self.model.packed(asked, self.prompt, max_questions=1)

    def apart(self, packed: Sequence[Row]) -> float:
        """How far the packed gradient is from the plain one, of the latter's norm."""
        plain = self.gradient(self.plain(packed), PLAIN_ROWS)
        return float((self.gradient(packed, len(packed)) - plain).norm() / plain.norm())

    def gradient(self, rows: Sequence[Row], at_once: int) -> Tensor:
        self.model.zero_grad()
        for start in range(0, len(rows), at_once):
            self.loss(rows[start : start + at_once]).backward()  # type: ignore[no-untyped-call]
        return torch.cat([p.grad.flatten() for p in self.model.parameters() if p.grad is not None])

    def loss(self, rows: Sequence[Row]) -> Tensor:
        images = [image for row in rows for image in row.images]
        seen = torch.stack([self.features[image] for image in images]).to(self.dtype)
        batch = collate(rows, self.model.tokenizer.pad_token_id)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            logits, labels, _ = answer_logits(self.model, batch, seen)
        return functional.cross_entropy(logits.float(), labels, reduction="sum")


def waited(
    recipe: Recipe, stage: PartsStage, data: Path, steps: int, loaders: int
) -> tuple[float, float]:
    """Seconds that one of the loop's own steps takes, and the share of them until it has what it is
    shown; the first one, which warms everything up, left out."""
    stage = stage.model_copy(update={"steps": steps + 1})
    with TemporaryDirectory() as folder:
        run = PartsRun(recipe, stage, Path(folder), data, None)
        ahead = DataLoader(
            Shown(run, range(steps + 1)),
            batch_size=None,
            num_workers=loaders,
            multiprocessing_context="fork" if loaders else None,  # as the loop has them
            generator=torch.Generator(),
        )
        shown, waits, works = iter(ahead), [], []
        for step in range(steps + 1):
            began = time.perf_counter()
            seen = next(shown)
            waits.append(time.perf_counter() - began)
            works.append(timed(run.step, run.rows_of(step), seen, run.tally()))
    waiting, working = sum(waits[1:]), sum(works[1:])
    return (waiting + working) / steps, waiting / (waiting + working)


def timed(work: Callable[..., Any], *arguments: Any) -> float:
    began = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - began


if __name__ == "__main__":
    with needs.told():
        main()
