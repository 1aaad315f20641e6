"""What image-once packing saves: python benchmarks/training.py [--recipe NAME] [--images N]

The same questions about the same images go through forward and backward twice, in turns: packed,
all questions about an image in one row; and plainly, one row per question. Beside them stands the
floor: the packed rows through the language model's layers forward alone. Prints questions per
second, their ratio, and how far the two gradients are apart. Exit status 1 where packing is less
than three times as fast, or the gradients are not the same but for bfloat16's last digits.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from models import tuning
from models.examples import examples_of
from models.features import cached_features
from models.losses import Losses, Objective
from models.packing import IGNORED, Row, collate
from models.stages import load_recipe
from models.vlm import build_model

BAR = 3.0
APART = 0.02  # of the gradient's norm: bfloat16 adds up in another order
ROUNDS = 4  # the first one warms everything up
PLAIN_ROWS = 16  # in memory at a time


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--recipe", default="mobilenet")
    arguments.add_argument("--images", type=int, default=4, help="in each step")
    arguments.add_argument("--data", type=Path, default=os.environ.get("CONSILIUM_DATA"))
    options = arguments.parse_args()
    recipe = load_recipe(options.recipe)
    # A tower that moves would want more than the cached features.
    stage = next(each for each in recipe.stage if each.tower == "frozen" and each.lora)
    torch.manual_seed(recipe.seed)
    model = build_model(recipe)
    tuning.prepare(model, stage)
    objective = Objective(model).eval()  # no dropout: the gradients must be the same
    examples = examples_of(stage.data, options.data)
    cases = list(islice(dict.fromkeys(e.images for e in examples), options.images * ROUNDS))
    features = cached_features(model.tower, (image for case in cases for image in case))

    def losses(rows: Sequence[Row]) -> Losses:
        seen = torch.stack([features[image] for row in rows for image in row.images])
        found: Losses = objective(collate(rows, model.tokenizer.pad_token_id), seen)
        return found

    def gradient(rows: Sequence[Row], at_once: int) -> Tensor:
        objective.zero_grad()
        tokens = sum(int((row.labels != IGNORED).sum()) for row in rows)
        for start in range(0, len(rows), at_once):
            (losses(rows[start : start + at_once]).answer / tokens).backward()  # type: ignore[no-untyped-call]
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    speed: dict[str, list[float]] = {"packed": [], "plain": [], "forward only": []}
    apart = []
    for number in range(ROUNDS):
        step = cases[number * options.images : (number + 1) * options.images]
        asked = [example for example in examples if example.images in step]
        packed = model.packed(asked, recipe.prompt, max_questions=len(asked))
        plain = model.packed(asked, recipe.prompt, max_questions=1)
        seconds, ours = timed(gradient, packed, len(packed))
        speed["packed"].append(len(asked) / seconds)
        seconds, theirs = timed(gradient, plain, PLAIN_ROWS)
        speed["plain"].append(len(asked) / seconds)
        with torch.no_grad():
            seconds, _ = timed(losses, packed)
        speed["forward only"].append(len(asked) / seconds)
        apart.append(float((ours - theirs).norm() / theirs.norm()))
    typical = {name: median(found[1:]) for name, found in speed.items()}
    ratio = median(a / b for a, b in zip(speed["packed"][1:], speed["plain"][1:], strict=True))
    for name, found in typical.items():
        print(f"{name:14} {found:6.1f} questions/s")
    print(
        f"packed is {ratio:.1f} times as fast as plain (at least {BAR:g}); the gradients of "
        f"{sum(p.numel() for p in model.parameters() if p.requires_grad):,} parameters differ by "
        f"{max(apart):.1e} of their norm, in bfloat16"
    )
    print(json.dumps(typical | {"ratio": ratio, "apart": max(apart)}))
    raise SystemExit(ratio < BAR or max(apart) > APART)


def timed(work: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    began = time.perf_counter()
    found = work(*arguments)
    return time.perf_counter() - began, found


if __name__ == "__main__":
    main()
