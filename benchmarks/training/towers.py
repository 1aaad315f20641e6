"""A vision Mamba beside a vision transformer of its size:
python -m benchmarks.training.towers --out DIR

Of each tower, on whatever machine this is: images per second and memory from 224 to 1,024 px, with
random weights. Then, for each seed: it is trained from scratch by hidden pixels on the training
images of SLAKE and VQA-Med 2019 (DIR/TOWER-SEED), and whole in a worker, models/recipes/mamba.toml
with that tower, scored on SLAKE-en's validation. DIR/speed.jsonl and DIR/workers.jsonl grow line by
line; what they hold already is not done again. Prints tables; differences are paired by question,
seeds averaged first, and their intervals draw whole images.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from benchmarks import needs
from models.metrics.score import Score, mean
from models.parts.vision import Tower, TowerConfig
from models.recipe import Recipe, load_recipe
from models.recipe.stage import Source
from models.training.inputs.examples import examples_of
from models.training.masked import keep, pretrain
from models.training.stages import train

TOWERS = ("mamba_tiny_patch16", "vit_tiny_patch16_224")
SIZES = (224, 384, 512, 768, 1024)
SEEN = (
    Source(set="slake", split="train", languages=("en",)),
    Source(set="vqa_med_2019", split="train", languages=("en",)),
)
PATCHES_AT_ONCE = 64 * 196  # of all images of a batch together
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# Of a processor that others use too, the time that was this process's own.
CLOCK = time.process_time if DEVICE.type == "cpu" else time.perf_counter


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--out", type=Path, required=True)
    needs.data_folder(arguments)
    arguments.add_argument("--sizes", type=int, nargs="*", default=SIZES)
    arguments.add_argument("--seeds", type=int, default=2)
    arguments.add_argument("--steps", type=int, default=600, help="of hidden pixels")
    arguments.add_argument("--batch", type=int, default=64)
    arguments.add_argument("--epochs", type=int, default=12, help="of the worker")
    arguments.add_argument("--worker-size", type=int, default=224, help="px of its images")
    arguments.add_argument("--few", type=int, help="images of each set: does it run?")
    options = arguments.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    speeds = Table(options.out / "speed.jsonl")
    for size, name in ((size, name) for size in options.sizes for name in TOWERS):
        if not speeds.has(tower=name, size=size):
            speeds.add(tower=name, size=size, **speed(name, size))
    print_speeds(speeds)

    workers = Table(options.out / "workers.jsonl")
    for seed, name in ((seed, name) for seed in range(options.seeds) for name in TOWERS):
        if not workers.has(tower=name, seed=seed):
            workers.add(tower=name, seed=seed, **worker(name, seed, options))
    if workers.rows:
        print_workers(workers, options)


class Table:
    """Lines of JSON, each on disk as soon as it is there."""

    def __init__(self, path: Path):
        self.path = path
        self.rows: list[dict[str, Any]] = (
            [json.loads(line) for line in path.read_text("utf-8").splitlines()]
            if path.exists()
            else []
        )

    def has(self, **key: object) -> bool:
        return any(True for _ in self.of(**key))

    def of(self, **key: object) -> Iterator[dict[str, Any]]:
        return (row for row in self.rows if key.items() <= row.items())

    def add(self, **row: Any) -> None:
        self.rows.append(row)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def speed(name: str, size: int) -> dict[str, float]:
    """Images a second, forward alone in the type that training computes in; and with the way back;
    and the most gigabytes that either took, on an accelerator."""
    tower = Tower(TowerConfig(name, "none", size), load_weights=False).to(DEVICE)
    batch = max(1, PATCHES_AT_ONCE // tower.patches) if DEVICE.type == "cuda" else 1
    pixels = torch.randn(batch, 3, size, size, device=DEVICE)
    found = {}
    for what in ("forward", "training"):
        if DEVICE.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        _pass(tower, pixels, what)
        began, passes = CLOCK(), 0
        while passes < 3 or CLOCK() - began < 2:
            _pass(tower, pixels, what)
            passes += 1
        found[what] = round(batch * passes / (CLOCK() - began), 3)
        if DEVICE.type == "cuda":
            found[f"{what}_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
    return found


def _pass(tower: Tower, pixels: torch.Tensor, what: str) -> None:
    with (
        torch.set_grad_enabled(what == "training"),
        torch.autocast(DEVICE.type, torch.bfloat16, enabled=DEVICE.type == "cuda"),
    ):
        features = tower(pixels)
    if what == "training":
        features.float().square().mean().backward()
        tower.zero_grad()
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def worker(name: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Trained from scratch, and which questions of the validation it is right on."""
    began = time.perf_counter()
    recipe = recipe_of(name, seed, options)
    torch.manual_seed(seed)
    tower = Tower(TowerConfig(**recipe.tower.model_dump()), load_weights=False).to(DEVICE)
    seen = [source.model_copy(update={"few": options.few}) for source in SEEN]
    images = sorted({image for each in examples_of(seen, options.data) for image in each.images})
    print(f"{recipe.name}: {len(images)} images")
    pretrain(tower, images, options.steps, options.batch, print)
    keep(tower, Path(recipe.tower.weights))
    pretrained = time.perf_counter()
    checkpoint = train(recipe, options.data, options.out / "runs")
    right = json.loads((checkpoint / "validation.json").read_text("utf-8"))
    return {
        "exact_match": round(fmean(right.values()), 4),
        "seconds": [round(pretrained - began), round(time.perf_counter() - pretrained)],
        "right": right,
    }


def recipe_of(name: str, seed: int, options: argparse.Namespace) -> Recipe:
    content = load_recipe("mamba").model_dump()
    content |= {"name": f"{name}-{seed}".replace("_", "-"), "seed": seed}
    weights, side = str(options.out / f"{name}-{seed}"), options.worker_size
    content["tower"] |= {"name": name, "weights": weights, "image_size": side}
    (stage,) = content["stage"]
    stage["epochs"] = options.epochs
    for source in (*content["validation"], *stage["data"]):
        source["few"] = options.few
    return Recipe.model_validate(content)


def print_speeds(speeds: Table) -> None:
    print(f"\n| px | {' | '.join(f'{name}: forward, training, GB' for name in TOWERS)} |")
    print(f"|---|{'---|' * len(TOWERS)}")
    for size in dict.fromkeys(row["size"] for row in speeds.rows):
        rows = [row for name in TOWERS for row in speeds.of(tower=name, size=size)]
        told = (
            f"{row['forward']}, {row['training']}, {row.get('training_gb', '—')}" for row in rows
        )
        print(f"| {size} | {' | '.join(told)} |")


def print_workers(workers: Table, options: argparse.Namespace) -> None:
    recipe = recipe_of(TOWERS[0], 0, options)
    held_out = examples_of(recipe.validation, options.data, held_out=True)
    images = [example.images for example in held_out]
    rates = {}
    for name in TOWERS:
        rows = list(workers.of(tower=name))
        rates[name] = [fmean(row["right"][each.id] for row in rows) for each in held_out]
        by_seed = ", ".join(f"{100 * row['exact_match']:.1f}" for row in rows)
        print(f"{name}: {_percent(mean(rates[name], images))}, by seed {by_seed}")
    first, second = rates.values()
    over = [a - b for a, b in zip(first, second, strict=True)]
    print(f"{TOWERS[0]} over {TOWERS[1]}: {_percent(mean(over, images))}")


def _percent(score: Score) -> str:
    return f"{100 * score.value:.1f} ({100 * score.low:.1f} to {100 * score.high:.1f})"


if __name__ == "__main__":
    with needs.told():
        main()
