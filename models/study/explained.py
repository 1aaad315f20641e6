"""What explanations of a worker's answers are worth: regions blurred, and regions imagined healthy,
beside a map by lot, by deletion, insertion and SLAKE's boxes (models.study.regions).

    OUT/explained.jsonl    a line for each question and map; of which worker is in of.json
    python -m models.study.explained --data DATA --tokens DIR --out OUT
"""

import argparse
import itertools
import json
import zlib
from collections.abc import Callable, Sequence
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
from models.exported import ZOO, served_name
from models.files import append_line, read_lines, write_whole
from models.metrics.score import mean
from models.parts.packing import collate
from models.parts.vlm import Vlm, build_model
from models.recipe import load_recipe
from models.recipe.programme import RecipeError
from models.study.masked_decoding import imagining
from models.study.regions import (
    Ask,
    Grid,
    Hide,
    blurred,
    deletion,
    insertion,
    points_into,
    without_each,
)
from models.study.tokens import TokensError
from models.training.learning.losses import answer_logits, cast
from models.training.learning.tuning import TuningError, load_trained

Map = Callable[[Ask, Image.Image], Grid]  # the more, the more an answer hangs on a cell

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


def hiding(hide: Hide) -> Map:
    """By how little is believed without each cell."""
    return lambda ask, image: -without_each(ask, hide, image, SIDE)


def by_lot(ask: Ask, image: Image.Image) -> Grid:
    """Knows nothing, and so has the scores that a map must better; of an image always the same."""
    lot = np.random.default_rng(zlib.crc32(image.tobytes()))
    return lot.random((SIDE, SIDE))


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
    model: Vlm, prompt: str, data: Path, maps: dict[str, Map], few: int, out: Path
) -> dict[str, list[dict[str, float]]]:
    """Lines for each map, of the first questions whose reference the worker gives: those in
    `out`/explained.jsonl, too, whence a run that was stopped goes on.

    Raises:
        DataError: the questions cannot be read, or the worker gives none of their references.
    """
    found: dict[str, list[dict[str, float]]] = {name: [] for name in maps}
    lines = out / "explained.jsonl"
    kept = read_lines(lines, dict).records if lines.exists() else []
    known = {(each.pop("id"), each.pop("by")): each for each in kept}
    for example, named in asked_about(data, "validate"):
        image, ask = open_rgb(example.images[0]), belief(model, prompt, example)
        (sure,) = ask([image])
        if sure < 0.5:  # what it does not say needs no explanation
            continue
        every = [box for each in boxes(example.images[0]) for box in each.values()]
        side = original_side(max(image.size), every)
        for name, drawn in maps.items():
            if line := known.get((example.id, name)):
                found[name].append(line)
                continue
            grid = drawn(ask, image)
            line = {
                # What is hidden here is blurred for all: each would else be its own judge.
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


def claim(out: Path, worker: Path, tokens: Path) -> None:
    """Makes `out` the folder of what is scored of this worker by these tokens.

    Raises:
        DataError: it holds what was scored of others.
    """
    weights = [
        (tokens / name).read_bytes() for name in ("tokens.safetensors", "masked.safetensors")
    ]
    of = {"worker": served_name(worker), "tokens": zlib.crc32(b"".join(weights))}
    out.mkdir(parents=True, exist_ok=True)
    kept = out / "of.json"
    begun = kept.exists() or (out / "explained.jsonl").exists()
    if begun and (not kept.exists() or json.loads(kept.read_text()) != of):
        raise DataError(f"{out} holds scores of another worker or other tokens: name another --out")
    write_whole(kept, json.dumps(of))


def tell(found: dict[str, list[dict[str, float]]]) -> None:
    """Means with 95 % intervals over images, of which each has one question; and what each map has
    over those after it, paired."""
    apart = {
        f"{one} less {other}": [
            {key: mine[key] - its[key] for key in mine}
            for mine, its in zip(found[one], found[other], strict=True)
        ]
        for one, other in itertools.combinations(found, 2)
    }
    for name, scores in (found | apart).items():
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
    imagined = hiding(imagining(told.tokens, SIDE, device))
    model, prompt = worker(ZOO / told.worker, device)
    maps: dict[str, Map] = {"imagined": imagined, "blurred": hiding(blurred), "by lot": by_lot}
    claim(told.out, ZOO / told.worker, told.tokens)
    tell(scored(model, prompt, told.data, maps, told.few, told.out))


if __name__ == "__main__":
    try:
        main()
    except (AssetError, DataError, RecipeError, TokensError, TuningError) as error:
        raise SystemExit(str(error)) from None
