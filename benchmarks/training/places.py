"""Places against order: python -m benchmarks.training.places --out runs/places

What only the distance between slices tells is asked of synthetic stacks: three pictures of smooth
noise of 64 mm, as DICOM files whose positions are up to 48 mm apart (`--mm`), drawn by lot, and
nothing in the pixels that says so; a third of the answers is right by chance. A small worker
(MobileNetV2, spatial3d, a Llama from scratch) is trained on them with each setting of `places`,
from the same seeds.
"""

import argparse
import json
import random
from pathlib import Path

import numpy as np
from PIL import Image

from models.metrics.score import Score, mean
from models.recipe import Recipe
from models.training.stages import train
from tests.dicoms import AXIAL, dicom_of

SIDE = 64  # pixels, of 1 mm
SLICES = 3
# Of learned and of held-out stacks, each with pictures of its own.
SETS = {"learned": (384, 30), "held_out": (192, 15)}
# Between which twelfths of the widest distance slices lie apart.
NAMED = (("thin", 1, 4), ("middling", 5, 8), ("thick", 9, 12))
ARMS = ("order", "geometry")


def recipe_of(folder: Path, places: str, seed: int) -> Recipe:
    sources = {
        name: [{"set": str(folder / f"{name}.jsonl"), "split": "all", "languages": ["en"]}]
        for name in SETS
    }
    stage = {
        "name": "stacks",
        "connector": "full",
        "language": "full",
        "data": sources["learned"],
        "epochs": 6,
        "rows_per_step": 8,
        "warmup_steps": 20,
        "connector_lr": 1e-3,
        "language_lr": 1e-3,
    }
    return Recipe.model_validate(
        {
            "name": f"{places}-{seed}",
            "seed": seed,
            "prompt": "{question} =",
            "max_images": SLICES,
            "validation": sources["held_out"],
            "tower": {
                "name": "mobilenetv2_100",
                "weights": "base:mobilenetv2-imagenet",
                "image_size": 224,
            },
            "connector": {
                "name": "spatial3d",
                "depth": 1,
                "hidden": 128,
                "gain": 0.5,
                "places": places,
            },
            "language": {
                "made": {"layers": 2, "width": 128, "hidden": 256, "heads": 4},
                "family": "places",
                "image_token": "<image>",
            },
            "stage": [stage],
        }
    )


def draw(folder: Path, widest_mm: float) -> None:
    """Writes both sets, as files and as one of the user's own."""
    dice = random.Random(0)
    for name, (stacks, pictures) in SETS.items():
        shown = [_noise(dice.randrange(2**32)) for _ in range(pictures)]
        rows = []
        for number in range(stacks):
            answer, least, most = NAMED[number % len(NAMED)]
            step = dice.uniform(least, most) * widest_mm / 12
            scan = f"1.2.{len(name)}.{number}"
            files = []
            for at, pixels in enumerate(dice.sample(shown, SLICES)):
                files.append(f"{name}/{number}-{at}.dcm")
                path = folder / files[-1]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(_dicom(pixels, step * at, scan))
            question = "How thick are the slices?"
            rows.append({"id": number, "images": files, "question": question, "answer": answer})
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))


def _noise(seed: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6), dtype=np.uint8)
    smooth = Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return np.asarray(smooth, dtype="<u2")


def _dicom(pixels: np.ndarray, depth: float, scan: str) -> bytes:
    return dicom_of(
        pixels,
        FrameOfReferenceUID=scan,
        ImagePositionPatient=[0, 0, round(depth, 3)],
        ImageOrientationPatient=AXIAL,
        PixelSpacing=[1, 1],
        WindowCenter=128,
        WindowWidth=256,
    )


def _right(out: Path, places: str, seed: int) -> dict[str, bool]:
    checkpoint = train(recipe_of(out / "data", places, seed), out / "data", out / "runs")
    found: dict[str, bool] = json.loads((checkpoint / "validation.json").read_text())
    return found


def _told(score: Score) -> str:
    return f"{100 * score.value:.1f} ({100 * score.low:.1f} to {100 * score.high:.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--mm", type=float, default=48)
    parser.add_argument("--seeds", type=int, default=2)
    asked = parser.parse_args()
    if not (asked.out / "data" / "held_out.jsonl").exists():
        draw(asked.out / "data", asked.mm)
    right = {arm: [_right(asked.out, arm, seed) for seed in range(asked.seeds)] for arm in ARMS}
    ids = sorted(right["order"][0])
    averaged = {
        arm: [sum(run[id] for run in runs) / len(runs) for id in ids] for arm, runs in right.items()
    }
    print("| places | right | by seed |\n| --- | --- | --- |")
    for arm in ARMS:
        by_seed = ", ".join(f"{100 * sum(run.values()) / len(run):.1f}" for run in right[arm])
        print(f"| {arm} | {_told(mean(averaged[arm], ids))} | {by_seed} |")
    over = [a - b for a, b in zip(averaged["geometry"], averaged["order"], strict=True)]
    print(f"\ngeometry over order, paired: {_told(mean(over, ids))}")


if __name__ == "__main__":
    main()
