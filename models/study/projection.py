"""What image embeddings tell before and after the connector, stage by stage: `consilium probe`.

Before are the tower's features, after is what the language model is given. Both are taken on images
that the run has not learned from, and read by the same probes (`models.study.probe`) in two ways:
the mean over patches or tokens, which tells what is there, and all of them beside each other in
their order, which also tells where. An order is all that a query-based connector has of places, so
every kind of connector is read alike.
"""

import gc
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models import connectors
from models.data.example import Example
from models.data.slake_facts import facts
from models.data.splits import near_duplicates, refuse_shared_images
from models.metrics.score import mean
from models.parts.vlm import Vlm, build_model
from models.recipe import Recipe
from models.study import probe
from models.study.probe import Floats, Ints, ProbeError, Task
from models.training import checkpoints
from models.training.examples import learned_by
from models.training.features import cached_features
from models.training.tuning import load_trained

SPLITS = ("validate", "test")  # of SLAKE; what learned from them is refused
POOLINGS: dict[str, Callable[[Floats], Floats]] = {
    "mean": lambda tokens: tokens.mean(axis=1),
    "whole": lambda tokens: tokens.reshape(len(tokens), -1),
}
SEEDS = (0, 1, 2)  # of the folds; the first one's for the controls and the decoder
ALL = "all"  # the cases of all tasks together
START = "start"  # the connector before the first stage


@dataclass(frozen=True)
class Probed:
    """The images with what is known of them."""

    images: tuple[Path, ...]
    groups: Ints  # [images]: near-duplicates have one number
    tasks: tuple[Task, ...]


@dataclass
class Reading:
    """What is read of one table of embeddings: of each case, in how many of `SEEDS` it is right."""

    read: dict[str, Floats] = field(default_factory=dict)  # by "task pooling"
    shuffled: dict[str, Floats] = field(default_factory=dict)  # where labels are drawn anew
    cosine: Floats = field(default_factory=lambda: np.zeros(0))  # [images], as the next
    blind: Floats = field(default_factory=lambda: np.zeros(0))
    alike: Floats = field(default_factory=lambda: np.zeros(0))


@dataclass(frozen=True)
class Point:
    """One stage of one run. `tokens` and `width` say what the connector makes of an image."""

    stage: str
    step: int
    tokens: int
    width: int
    before: Reading
    after: Reading


def compare(runs: Sequence[Path], data: Path, out: Path) -> dict[str, Any]:
    """Probes every stage of every run and writes `projection.json` into `out`; returns what it
    holds. `data` holds `slake/`.

    Raises:
        ProbeError: a run that has no stage, no connector or no embeddings of its own of an image,
            or labels that are too rare.
        CheckpointError: a folder that is no run of this version.
        DataError: an image that a run has learned from, or data that cannot be read.
        TuningError, RecipeError, AssetError: as for training.
    """
    recipes = [checkpoints.recipe_of(run) for run in runs]
    for recipe in recipes:
        if connectors.reads_question(name := recipe.connector["name"]):
            raise ProbeError(
                f"connector {name!r} makes an image's embeddings anew for each question: there is "
                "nothing to probe of an image alone."
            )
    stops = [_stops(run, recipe) for run, recipe in zip(runs, recipes, strict=True)]
    known = probed(data)
    shown = [Example(str(i), (i,), "", "", "en", False) for i in known.images]
    for recipe in recipes:
        refuse_shared_images(learned_by(recipe, data), shown)
    seen: dict[str, Reading] = {}
    found: dict[str, list[Point]] = {}
    for run, recipe, folders in zip(runs, recipes, stops, strict=True):
        found[run.name] = [
            _point(run, recipe, stage, folder, known, seen) for stage, folder in folders
        ]
    content = _content(known, recipes, found)
    out.mkdir(parents=True, exist_ok=True)
    (out / "projection.json").write_text(json.dumps(content, indent=1))
    return content


def probed(data: Path) -> Probed:
    """SLAKE's images of `SPLITS`, and what is to be read of them.

    Raises:
        DataError: SLAKE cannot be read.
        ProbeError: a label of too few images.
    """
    known = facts(data / "slake", SPLITS)
    images = sorted({fact.image for each in known.values() for fact in each})
    row = {image: number for number, image in enumerate(images)}
    groups = np.arange(len(images))
    for one, other, _ in near_duplicates(images):
        groups[groups == groups[row[other]]] = groups[row[one]]
    tasks = [
        Task(
            name,
            np.array([row[fact.image] for fact in each], dtype=np.int64),
            np.array([fact.question for fact in each], dtype=str),
            np.array([fact.label for fact in each], dtype=str),
        )
        for name, each in known.items()
    ]
    for task in tasks:
        task.check(groups)
    return Probed(tuple(images), groups, tuple(tasks))


def _stops(run: Path, recipe: Recipe) -> list[tuple[str, Path | None]]:
    """What it started from, then each stage that has a checkpoint and the newest one's folder."""
    found: list[tuple[str, Path | None]] = [(START, recipe.start_folder)]
    for stage in recipe.stage:
        if stop := checkpoints.newest(run / stage.name):
            found.append((stage.name, stop.folder))
    if len(found) == 1:
        raise ProbeError(f"{run} has no whole checkpoint: train its recipe for an epoch first.")
    for _, folder in found:
        if folder and not (folder / "connector.safetensors").is_file():
            raise ProbeError(f"{folder} holds no connector: train its stage again.")
    return found


def _point(
    run: Path,
    recipe: Recipe,
    stage: str,
    folder: Path | None,
    known: Probed,
    seen: dict[str, Reading],
) -> Point:
    model = build_model(recipe, home=run)
    if folder:
        load_trained(model, folder, merge=True)
    features, tokens = _embeddings(model, known.images)
    del model
    gc.collect()
    step = int(folder.name.removeprefix("step-")) if folder and stage != START else 0
    before = _reading(features, features, known, seen)
    after = _reading(tokens, features, known, seen)
    return Point(stage, step, tokens.shape[1], tokens.shape[2], before, after)


@torch.no_grad()
def _embeddings(model: Vlm, images: Sequence[Path]) -> tuple[Floats, Floats]:
    """Features [images, patches, vision_dim], tokens [images, tokens, text_dim]"""
    model.eval()
    kept = cached_features(model.tower, images)
    features = torch.stack([kept[image] for image in images]).float()
    tokens = [
        each.tokens
        for part in features.split(16)
        for each in model.image_embeddings(part, [1] * len(part))
    ]
    return features.numpy(), torch.cat(tokens).float().numpy()


def _reading(
    embeddings: Floats, features: Floats, known: Probed, seen: dict[str, Reading]
) -> Reading:
    """Of embeddings [images, n, width]; `seen` holds what was read before of equal ones."""
    digest = hashlib.sha256(embeddings.tobytes() + features.tobytes()).hexdigest()
    if digest in seen:
        return seen[digest]
    found = seen[digest] = Reading()
    for pooling, pool in POOLINGS.items():
        table = probe.coordinates(pool(embeddings))
        for task in known.tasks:
            name = f"{task.name} {pooling}"
            found.read[name] = probe.right(table, task, known.groups, SEEDS)
            found.shuffled[name] = probe.right(table, task, known.groups, SEEDS[:1], shuffled=True)
        for each in (found.read, found.shuffled):
            each[f"{ALL} {pooling}"] = np.concatenate(
                [each[f"{task.name} {pooling}"] for task in known.tasks]
            )
    found.cosine = probe.rebuilt(table, features, known.groups, SEEDS[0])  # of the whole
    found.blind = probe.blind(features, known.groups, SEEDS[0])
    found.alike = _alike(embeddings)
    return found


def _alike(embeddings: Floats) -> Floats:
    """The mean cosine of two patches or tokens of an image [images]: 1 where all say the same."""
    lengths = np.linalg.norm(embeddings, axis=-1, keepdims=True)
    summed = (embeddings / np.maximum(lengths, 1e-8)).sum(axis=1)
    count = embeddings.shape[1]
    pairs = (summed**2).sum(axis=-1) - count
    return pairs / (count * (count - 1)) if count > 1 else np.ones(len(embeddings))


def _content(
    known: Probed, recipes: Sequence[Recipe], runs: dict[str, list[Point]]
) -> dict[str, Any]:
    """Every score with its interval, which draws whole groups of images."""
    groups = {task.name: known.groups[task.images].tolist() for task in known.tasks}
    groups[ALL] = [group for task in known.tasks for group in groups[task.name]]

    def scored(values: Floats, name: str) -> dict[str, Any]:
        return asdict(mean(values.tolist(), groups[name.split()[0]]))

    def cosine(values: Floats) -> dict[str, Any]:
        return asdict(mean(values.tolist(), known.groups.tolist()))

    def of(reading: Reading) -> dict[str, Any]:
        return {
            "read": {name: scored(values, name) for name, values in reading.read.items()},
            "shuffled": {name: scored(values, name) for name, values in reading.shuffled.items()},
            "cosine": cosine(reading.cosine),
            "blind": cosine(reading.blind),
            "alike": cosine(reading.alike),
        }

    def change(new: Reading, old: Reading) -> dict[str, Any]:
        return {
            "read": {name: scored(new.read[name] - old.read[name], name) for name in new.read},
            "cosine": cosine(new.cosine - old.cosine),
            "alike": cosine(new.alike - old.alike),
        }

    majority = {task.name: probe.majority(task, known.groups, SEEDS) for task in known.tasks}
    return {
        "images": len(known.images),
        "groups": len(set(known.groups.tolist())),
        "seeds": list(SEEDS),
        "tasks": {
            task.name: {
                "cases": len(task.labels),
                "labels": sorted(set(task.labels.tolist())),
                "components": task.components,
                "majority": scored(majority[task.name], task.name),
            }
            for task in known.tasks
        },
        "runs": {
            name: {
                "connector": recipe.connector["name"],
                "stages": [
                    {
                        "stage": point.stage,
                        "step": point.step,
                        "tokens": point.tokens,
                        "width": point.width,
                        "before": of(point.before),
                        "after": of(point.after),
                        "projection": change(point.after, point.before),
                        "training": change(point.after, points[0].after),
                    }
                    for point in points
                ],
            }
            for (name, points), recipe in zip(runs.items(), recipes, strict=True)
        },
    }
