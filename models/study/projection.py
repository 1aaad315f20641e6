"""What image embeddings tell before and after the connector, stage by stage: `consilium probe`.

Before are the tower's features, after is what the language model is given. Both are taken on images
that the run has not learned from, and read by the same probes (`models.study.probe`) in two ways:
the mean over patches or tokens, which tells what is there, and all of them beside each other in
their order, which also tells where. An order is all that a query-based connector has of places, so
every kind of connector is read alike. What is rebuilt is at every stage what the tower said before
the first one: a tower that moves would else move the target.

Runs of one recipe that differ in their seed alone are told together too, with what a seed may
change in every interval; and beside the first such recipe's, seed by seed where both have them.
"""

import gc
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.utils.parallel import Parallel, delayed

from models import connectors
from models.data.example import Example
from models.data.slake.facts import facts
from models.data.splits import near_duplicates, refuse_shared_images
from models.metrics.score import mean
from models.parts.vlm import Vlm, build_model
from models.recipe import Recipe, of_parts
from models.study import probe
from models.study.probe import KINDS, Floats, Ints, ProbeError, Task
from models.study.seeds import over_seeds
from models.training.inputs.examples import learned_by
from models.training.inputs.features import cached_features
from models.training.learning.tuning import load_trained
from models.training.record import checkpoints

SPLITS = ("validate", "test")  # of SLAKE; what learned from them is refused
POOLINGS: dict[str, Callable[[Floats], Floats]] = {
    "mean": lambda tokens: tokens.mean(axis=1),
    "whole": lambda tokens: tokens.reshape(len(tokens), -1),
}
SEEDS = (0, 1, 2)  # of the folds; the first one's for the controls and the decoder
ALL = "all"  # the cases of all tasks together
START = "start"  # the connector before the first stage
MLP = "whole mlp"
NOT_READ = ("cosine", "cosine mlp", "blind", "alike")
ACCELERATOR = torch.device("cuda" if torch.cuda.is_available() else "cpu")


Change = Callable[[Sequence["Point"]], dict[str, Floats]]


@dataclass(frozen=True)
class Probed:
    """The images with what is known of them."""

    images: tuple[Path, ...]
    groups: Ints  # [images]: near-duplicates have one number
    tasks: tuple[Task, ...]


@dataclass
class Reading:
    """What is read of one table of embeddings: of each case, in how many of `SEEDS` it is right.
    An MLP reads with the first of them, and what is pooled whole.
    """

    read: dict[str, Floats] = field(default_factory=dict)  # by "task pooling", "task whole mlp"
    shuffled: dict[str, Floats] = field(default_factory=dict)  # where labels are drawn anew
    cosine: Floats = field(default_factory=lambda: np.zeros(0))  # [images], as the next
    cosine_mlp: Floats = field(default_factory=lambda: np.zeros(0))
    blind: Floats = field(default_factory=lambda: np.zeros(0))
    alike: Floats = field(default_factory=lambda: np.zeros(0))

    def values(self) -> dict[str, Floats]:
        """All that a change is told of, by its name."""
        return self.read | {
            "cosine": self.cosine,
            "cosine mlp": self.cosine_mlp,
            "alike": self.alike,
        }


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
        ProbeError: two runs of one name, a run that has no stage, no connector or no embeddings of
            its own of an image, or labels that are too rare.
        CheckpointError: a folder that is no run of this version.
        DataError: an image that a run has learned from, or data that cannot be read.
        TuningError, RecipeError, AssetError: as for training.
    """
    if twice := [name for name, n in Counter(run.name for run in runs).items() if n > 1]:
        raise ProbeError(f"two runs are called {twice[0]}: give one of the folders another name.")
    recipes = [of_parts(checkpoints.recipe_of(run)) for run in runs]
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
    tables: dict[str, tuple[Floats, Floats]] = {}  # embeddings and target, by their hash
    embedded: dict[str, list[_Embedded]] = {}
    for run, recipe, folders in zip(runs, recipes, stops, strict=True):
        target = None
        embedded[run.name] = []
        for stage, folder in folders:
            features, tokens = _embeddings_of(run, recipe, folder, known)
            target = features if target is None else target
            keys = [_kept(each, target, tables) for each in (features, tokens)]
            step = int(folder.name.removeprefix("step-")) if folder and stage != START else 0
            embedded[run.name].append(_Embedded(stage, step, *tokens.shape[1:], *keys))
    jobs = (delayed(_reading)(*table, known) for table in tables.values())
    readings = dict(zip(tables, Parallel(n_jobs=-1)(jobs), strict=True))
    found = {
        name: [
            Point(*each[:4], before=readings[each.before], after=readings[each.after])
            for each in stages
        ]
        for name, stages in embedded.items()
    }
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


class _Embedded(NamedTuple):
    """A `Point` to be, with the keys of what is to be read in place of what is."""

    stage: str
    step: int
    tokens: int
    width: int
    before: str
    after: str


def _embeddings_of(
    run: Path, recipe: Recipe, folder: Path | None, known: Probed
) -> tuple[Floats, Floats]:
    model = build_model(recipe, home=run, device=ACCELERATOR)
    if folder:
        load_trained(model, folder, merge=True)
    found = _embeddings(model, known.images)
    del model
    gc.collect()
    return found


def _kept(table: Floats, target: Floats, tables: dict[str, tuple[Floats, Floats]]) -> str:
    """Equal ones are read once."""
    digest = hashlib.sha256(table.tobytes() + target.tobytes()).hexdigest()
    tables.setdefault(digest, (table, target))
    return digest


@torch.no_grad()
def _embeddings(model: Vlm, images: Sequence[Path]) -> tuple[Floats, Floats]:
    """Features [images, patches, vision_dim], tokens [images, tokens, text_dim]"""
    model.eval()
    kept = cached_features(model.tower, images)
    features = torch.stack([kept[image] for image in images]).float()
    tokens = [
        each.tokens
        for part in features.to(model.positions.device).split(16)
        for each in model.image_embeddings(part, [1] * len(part))
    ]
    return features.numpy(), torch.cat(tokens).float().cpu().numpy()


def _reading(embeddings: Floats, target: Floats, known: Probed) -> Reading:
    """Of embeddings [images, n, width]; `target` [images, patches, vision_dim] is rebuilt."""
    found, groups, first = Reading(), known.groups, SEEDS[:1]
    for pooling, pool in POOLINGS.items():
        table = probe.coordinates(pool(embeddings))
        for task in known.tasks:
            name = f"{task.name} {pooling}"
            found.read[name] = probe.right(table, task, groups, SEEDS)
            found.shuffled[name] = probe.right(table, task, groups, first, shuffled=True)
    for task in known.tasks:
        found.read[f"{task.name} {MLP}"] = probe.right(table, task, groups, first, kind="mlp")
    for each in (found.read, found.shuffled):
        for way in {name.split(maxsplit=1)[1]: None for name in each}:
            each[f"{ALL} {way}"] = np.concatenate(
                [each[f"{task.name} {way}"] for task in known.tasks]
            )
    found.cosine, found.cosine_mlp = (  # of the whole
        probe.rebuilt(table, target, groups, SEEDS[0], kind) for kind in KINDS
    )
    found.blind = probe.blind(target, groups, SEEDS[0])
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

    def groups_of(name: str) -> list[int]:
        return groups.get(name.split()[0], known.groups.tolist())

    def told(values: dict[str, Floats]) -> dict[str, Any]:
        return _nested({k: asdict(mean(v.tolist(), groups_of(k))) for k, v in values.items()})

    def of(reading: Reading) -> dict[str, Any]:
        own = {"blind": reading.blind}
        return told(reading.values() | own) | {"shuffled": told(reading.shuffled)["read"]}

    def by_seed(names: Sequence[str], change: Change, beside: Sequence[str]) -> dict[str, Any]:
        """Of runs that differ in their seed alone; less the same of those that they are beside."""
        changes = [change(runs[name]) for name in names]
        others = [change(runs[name]) for name in beside]
        differences = [
            {name: values - (others[seed][name] if others else 0) for name, values in each.items()}
            for seed, each in enumerate(changes)
        ]
        return _nested(
            {
                name: asdict(over_seeds(np.stack([d[name] for d in differences]), groups_of(name)))
                for name in changes[0]
            }
        )

    def of_seeds(seeded: dict[int, str], first: dict[int, str], named: str) -> dict[str, Any]:
        names, beside = list(seeded.values()), list(first.values())
        found = {
            "runs": names,
            "projection": by_seed(names, projection, ()),
            "training": by_seed(names, training, ()),
        }
        if seeded is first or seeded.keys() != first.keys():
            return found
        compared = {
            "projection": by_seed(names, projection, beside),
            "training": by_seed(names, training, beside),
        }
        return found | {"beside": {named: compared}}

    alike = _of_one_recipe(runs, recipes)
    first = next(iter(alike), "")
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
                "majority": told({task.name: majority[task.name]})["read"][task.name],
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
                        "projection": told(projection(points[: place + 1])),
                        "training": told(training(points[: place + 1])),
                    }
                    for place, point in enumerate(points)
                ],
            }
            for (name, points), recipe in zip(runs.items(), recipes, strict=True)
        },
        "over seeds of training": {
            name: of_seeds(seeded, alike[first], first) for name, seeded in alike.items()
        },
    }


def projection(points: Sequence[Point]) -> dict[str, Floats]:
    """What the connector changes, in the last of these stages."""
    return _difference(points[-1].after, points[-1].before)


def training(points: Sequence[Point]) -> dict[str, Floats]:
    """What all these stages have changed of what comes after the connector."""
    return _difference(points[-1].after, points[0].after)


def _difference(new: Reading, old: Reading) -> dict[str, Floats]:
    before = old.values()
    return {name: values - before[name] for name, values in new.values().items()}


def _nested(told: dict[str, Any]) -> dict[str, Any]:
    """What is read in a dictionary of its own."""
    apart = {name: told[name] for name in told if name in NOT_READ}
    return {"read": {name: told[name] for name in told if name not in NOT_READ}} | apart


def _of_one_recipe(
    runs: dict[str, list[Point]], recipes: Sequence[Recipe]
) -> dict[str, dict[int, str]]:
    """Runs that differ in their seed alone, by it, where there are several; under the first one's
    name without its seed, as an ablation names them.
    """
    alike: dict[str, dict[int, str]] = defaultdict(dict)
    for name, recipe in zip(runs, recipes, strict=True):
        key = recipe.model_copy(update={"name": "", "seed": 0}).model_dump_json()
        alike[key][recipe.seed] = name
    several = [sorted(each.items()) for each in alike.values() if len(each) > 1]
    return {
        name.removesuffix(f"-seed{seed}"): dict(each) for each in several for seed, name in each[:1]
    }
