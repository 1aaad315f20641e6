"""What explanations of a worker's answers are worth: regions blurred, and regions imagined healthy,
by deletion, insertion and SLAKE's boxes (models.study.regions).

    OUT/explained.jsonl    a line for each question and way to hide
    python -m models.study.explained --data DATA --tokens DIR --out OUT
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from models.assets import AssetError
from models.data import slake
from models.data.datasets import one_spelling
from models.data.example import DataError, Example
from models.data.pixels import open_rgb
from models.data.slake.captions import boxes, original_side
from models.exported import ZOO
from models.files import append_line, read_lines
from models.metrics.score import mean
from models.parts.packing import collate
from models.parts.vlm import Vlm, build_model
from models.recipe import load_recipe
from models.recipe.programme import RecipeError
from models.study import masked_decoding, tokens
from models.study.regions import (
    Ask,
    Hidden,
    Hide,
    blurred,
    deletion,
    insertion,
    pasted,
    points_into,
    without_each,
)
from models.study.tokens import TokensError, picture
from models.study.tokens import shown as squeezed
from models.training.learning.losses import answer_logits, cast
from models.training.learning.tuning import TuningError, load_trained

SIDE = 8  # cells of an image's side
BATCH = 32


def worker(folder: Path, device: torch.device) -> tuple[Vlm, str]:
    """A worker of the zoo, and its prompt.

    Raises:
        RecipeError, AssetError, TuningError: it cannot be read.
    """
    recipe = load_recipe(folder / "recipe.toml")
    model = build_model(recipe, torch.float32, home=folder, device=device)
    load_trained(model, folder, merge=True)
    return model.to(device).eval(), recipe.prompt


def belief(model: Vlm, prompt: str, example: Example) -> Ask:
    """How likely `example`'s answer is to each of some images."""
    (row,) = model.packed([example], prompt)

    @torch.no_grad()
    def ask(images: Sequence[Image.Image]) -> list[float]:
        found: list[float] = []
        for start in range(0, len(images), BATCH):
            part = images[start : start + BATCH]
            pixels = torch.stack([model.tower.preprocess(each) for each in part])
            features = model.tower(pixels.to(model.positions.device))
            batch = collate([row] * len(part), model.tokenizer.pad_token_id).to(features.device)
            with cast(model, features):
                logits, labels, _ = answer_logits(model, batch, features)
            each = logits.float().log_softmax(-1).gather(-1, labels[:, None])
            found += each.view(len(part), -1).sum(1).exp().tolist()
        return found

    return ask


def imagining(folder: Path, device: torch.device) -> Hide:
    """Hides cells by imagining them anew, without a finding, by what
    models.study.masked_decoding trained.

    Raises:
        TokensError: it is not in `folder`.
    """
    autoencoder = tokens.load(folder).to(device)
    model = masked_decoding.load(folder, autoencoder).to(device)

    def hide(image: Image.Image, hidden: Sequence[Hidden]) -> list[Image.Image]:
        torch.manual_seed(0)
        cell = autoencoder.sizes.grid // len(hidden[0])
        cells = torch.from_numpy(np.stack(hidden)).to(device)
        fine = cells.repeat_interleave(cell, 1).repeat_interleave(cell, 2)
        pixels = squeezed(image, autoencoder.sizes.side).to(device).expand(len(hidden), -1, -1, -1)
        anew = masked_decoding.imagined(autoencoder, model, pixels, fine)
        # Only what is hidden comes from the tokens; the rest keeps its sharpness.
        wide = [picture(each).resize(image.size, Image.Resampling.BICUBIC) for each in anew]
        return [pasted(*each) for each in zip(wide, [image] * len(wide), hidden, strict=True)]

    return hide


def asked_about(data: Path, split: str) -> list[tuple[Example, list[list[float]]]]:
    """SLAKE's questions whose answer is something that has boxes in the image, or is Yes to a
    question that names it; with those boxes. One of an image."""
    found: dict[Path, tuple[Example, list[list[float]]]] = {}
    for example in one_spelling(slake.load(data / "slake", split, "en")):
        image = example.images[0]
        text = example.question if example.answer == "Yes" else example.answer
        named = [
            box
            for each in boxes(image)
            for name, box in each.items()
            if name.lower() in text.lower()
        ]
        if named:
            found.setdefault(image, (example, named))
    return list(found.values())


def scored(
    model: Vlm, prompt: str, data: Path, ways: dict[str, Hide], few: int, out: Path
) -> dict[str, list[dict[str, float]]]:
    """Lines for each way, of the first questions whose reference the worker gives: those in
    `out`/explained.jsonl, too, whence a run that was stopped goes on.

    Raises:
        DataError: the questions cannot be read, or the worker gives none of their references.
    """
    found: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    lines = out / "explained.jsonl"
    kept = read_lines(lines, dict).records if lines.exists() else []
    known = {(each.pop("id"), each.pop("by")): each for each in kept}
    for example, named in asked_about(data, "validate"):
        image, ask = open_rgb(example.images[0]), belief(model, prompt, example)
        (sure,) = ask([image])
        if sure < 0.5:  # what it does not say needs no explanation
            continue
        drawn = [box for each in boxes(example.images[0]) for box in each.values()]
        side = original_side(max(image.size), drawn)
        for name, hide in ways.items():
            if line := known.get((example.id, name)):
                found[name].append(line)
                continue
            grid = sure - without_each(ask, hide, image, SIDE)
            line = {
                # What is hidden here is blurred for both: each would else be its own judge.
                "deletion": deletion(ask, blurred, image, grid),
                "insertion": insertion(ask, blurred, image, grid),
                "points": float(points_into(grid, named, side)),
                "by chance": sum(wide * high for _, _, wide, high in named) / side**2,
            }
            found[name].append(line)
            append_line(lines, {"id": example.id, "by": name, **line})
        if len(found[name]) == few:
            break
    if not any(found.values()):
        raise DataError("The worker is sure of none of the questions' references: take another.")
    return found


def tell(found: dict[str, list[dict[str, float]]]) -> None:
    """Means with 95 % intervals over images, of which each has one question; and what imagining
    has over blurring, paired."""
    apart = [
        {key: other[key] - one[key] for key in one}
        for one, other in zip(found["blurred"], found["imagined"], strict=True)
    ]
    for name, scores in (found | {"imagined less blurred": apart}).items():
        print(f"{name}, {len(scores)} questions")
        for key in scores[0]:
            score = mean([each[key] for each in scores], range(len(scores)))
            print(f"  {key:10} {score.value:+.3f} ({score.low:+.3f} to {score.high:+.3f})")


def main() -> None:
    ask = argparse.ArgumentParser(description="Score explanations of a worker's answers.")
    ask.add_argument("--data", type=Path, required=True)
    ask.add_argument(
        "--tokens", type=Path, required=True, help="What models.study.masked_decoding wrote."
    )
    ask.add_argument("--out", type=Path, required=True)
    ask.add_argument("--worker", default="chooser", help="In models/zoo.")
    ask.add_argument("--few", type=int, default=60, help="At most so many questions.")
    told = ask.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model, prompt = worker(ZOO / told.worker, device)
    ways: dict[str, Hide] = {"blurred": blurred, "imagined": imagining(told.tokens, device)}
    told.out.mkdir(parents=True, exist_ok=True)
    tell(scored(model, prompt, told.data, ways, told.few, told.out))


if __name__ == "__main__":
    try:
        main()
    except (AssetError, DataError, RecipeError, TokensError, TuningError) as error:
        raise SystemExit(str(error)) from None
