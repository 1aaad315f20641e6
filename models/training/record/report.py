"""What became of a run, as pictures and one page: `consilium report-training`.

curves.png    both losses and exact match, by step, as log.jsonl tells them
kinds.png     exact match by kind of question, at every checkpoint that is kept
samples/      images of some validation questions
index.md      all of it, with the question, the reference and what the last checkpoint answers
"""

import json
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

from models.data.example import Example
from models.data.pixels import open_rgb
from models.files import write_whole
from models.parts.places import places_of
from models.parts.vlm import build_model
from models.recipe import Recipe, of_parts
from models.recipe.stage import Stage
from models.training.inputs.examples import examples_of
from models.training.learning.tuning import load_trained
from models.training.record import checkpoints
from models.training.record.checkpoints import CheckpointError
from models.training.record.progress import read_log

matplotlib.use("Agg")
from matplotlib import pyplot as plt

CURVES = ("answer_loss", "reconstruction_loss", "exact_match")
SAMPLES = 8
SIDE = 224  # pixels that a sample's image is shown with at most


@dataclass(frozen=True)
class Told:
    """What one stage has left behind: its log, and its whole checkpoints from old to new."""

    stage: Stage
    log: list[dict[str, Any]]
    kept: list[Path]


def report(run: Path, data: Path, out: Path) -> Path:
    """Writes the report of `run` into `out`; returns its index.md.

    Raises:
        CheckpointError: no run of this version, or one without a log or a whole checkpoint.
        DataError, RecipeError, AssetError, TuningError: as for training.
    """
    recipe = of_parts(checkpoints.recipe_of(run))
    told = [_told(run, stage) for stage in recipe.stage if (run / stage.name).is_dir()]
    if not told or not told[-1].kept:
        raise CheckpointError(
            f"{run} has no whole checkpoint: train its recipe for an epoch first."
        )
    out.mkdir(parents=True, exist_ok=True)
    _draw_curves(told, out / "curves.png")
    page = [f"# {recipe.name}", "", "![losses and exact match by step](curves.png)", ""]
    page.append(_row(["stage", "step", *(curve.replace("_", " ") for curve in CURVES)]))
    page.append("|---|---|---|---|---|")
    for each in told:
        for line in each.log:
            if line["part"] == "validation":
                cells = [each.stage.name, line["step"], *(line[key] for key in CURVES)]
                page.append(_row(cells))
    page += ["", *_kinds(recipe, told, data, out), *_samples(recipe, told[-1], data, out)]
    index = out / "index.md"
    write_whole(index, "\n".join(page) + "\n")
    return index


def _told(run: Path, stage: Stage) -> Told:
    log = run / stage.name / "log.jsonl"
    if not log.is_file():
        raise CheckpointError(f"{log} is missing: there is nothing to report of that stage.")
    folders = (path.parent for path in (run / stage.name).glob("step-*/state.json"))
    kept = sorted(folders, key=lambda folder: int(folder.name.removeprefix("step-")))
    return Told(stage, read_log(log), kept)


def _held_out(recipe: Recipe, stage: Stage, data: Path) -> list[Example]:
    return examples_of(stage.validation or recipe.validation, data, recipe.fold, held_out=True)


def _kinds(recipe: Recipe, told: Sequence[Told], data: Path, out: Path) -> list[str]:
    """The picture and a line that shows it; and which checkpoints it leaves out."""
    shares: list[tuple[str, dict[str, float]]] = []
    unknown: list[str] = []
    for each in told:
        asked = {example.id: example for example in _held_out(recipe, each.stage, data)}
        for folder in each.kept:
            outcome = folder / "validation.json"
            right = json.loads(outcome.read_text()) if outcome.is_file() else {}
            if right.keys() != asked.keys():
                unknown.append(f"`{each.stage.name}/{folder.name}`")
                continue
            hits: dict[str, list[bool]] = defaultdict(list)
            for id, hit in right.items():
                hits[asked[id].kind or "of no kind"].append(hit)
            mean = {f"{kind} ({len(h)})": sum(h) / len(h) for kind, h in hits.items()}
            shares.append((f"{each.stage.name}\n{folder.name.removeprefix('step-')}", mean))
    page = ["By kind of question, at the checkpoints that are kept:", ""]
    if shares:
        _draw_kinds(shares, out / "kinds.png")
        page += ["![exact match by kind of question](kinds.png)", ""]
    if unknown:
        page += [
            f"Not of {', '.join(unknown)}: a validation.json that names what the recipe holds out "
            "is not there.",
            "",
        ]
    return page


def _draw_kinds(shares: Sequence[tuple[str, dict[str, float]]], path: Path) -> None:
    figure, axes = plt.subplots(figsize=(7, 4), dpi=120)
    for kind in sorted({kind for _, found in shares for kind in found}):
        there = [(place, found[kind]) for place, (_, found) in enumerate(shares) if kind in found]
        axes.plot(*zip(*there, strict=True), marker="o", label=kind)
    axes.set_xticks(range(len(shares)), [name for name, _ in shares])
    axes.set_ylabel("validation, exact match")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    _save(figure, path)


def _samples(recipe: Recipe, last: Told, data: Path, out: Path) -> list[str]:
    """A table of questions that were drawn by lot, answered by the last checkpoint."""
    if recipe.language.image_attention != "causal":
        return ["No sample: what sees images in both directions trains and validates only.", ""]
    asked = _held_out(recipe, last.stage, data)
    drawn = random.Random(recipe.seed).sample(asked, min(SAMPLES, len(asked)))
    model = build_model(recipe, home=last.kept[-1].parents[1])
    load_trained(model, last.kept[-1])
    (out / "samples").mkdir(exist_ok=True)
    named = f"{last.stage.name}/{last.kept[-1].name}"
    page = [f"Questions held out, drawn by lot, answered by `{named}`:", ""]
    page += ["| image | question | reference | answer |", "|---|---|---|---|"]
    for number, example in enumerate(drawn):
        images = [open_rgb(path) for path in example.images]
        places = None
        if model.by_geometry:
            places = places_of(example.images, example.cameras, model.tower.side)
        asked_with = recipe.prompt.format(question=example.question)
        ids = model.answer(images, asked_with, places=places)
        answer = model.tokenizer.decode(ids, skip_special_tokens=True).strip()
        shown = []
        for place, image in enumerate(images):
            image.thumbnail((SIDE, SIDE))
            name = f"samples/{number}-{place}.png"
            image.save(out / name)
            shown.append(f"![{example.id}]({name})")
        page.append(_row([" ".join(shown), example.question, example.answer, answer]))
    return page


def _draw_curves(told: Sequence[Told], path: Path) -> None:
    """One stage behind the other, each counted from where the one before it ended."""
    figure, panels = plt.subplots(len(CURVES), 1, figsize=(7, 7), dpi=120, sharex=True)
    for axes, curve in zip(panels, CURVES, strict=True):
        first = 0
        for each in told:
            axes.axvline(first, color="grey", linestyle=":", linewidth=1)
            for part, colour, marker in (("train", "C0", ""), ("validation", "C1", "o")):
                lines = [line for line in each.log if line["part"] == part and curve in line]
                axes.plot(
                    [first + line["step"] for line in lines],
                    [line[curve] for line in lines],
                    color=colour,
                    marker=marker,
                    label=part if each is told[0] else None,
                )
            if curve == CURVES[0]:
                at = {"xy": (first, 0.9), "xycoords": ("data", "axes fraction")}
                axes.annotate(f" {each.stage.name}", **at)
            first += max((line["step"] for line in each.log), default=0)
        axes.set_ylabel(curve.replace("_", " "))
        axes.grid(alpha=0.3)
    panels[0].set_yscale("log")
    panels[0].legend()
    panels[-1].set_xlabel("step")
    _save(figure, path)


def _row(cells: Sequence[object]) -> str:
    told = (str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells)
    return f"| {' | '.join(told)} |"


def _save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, bbox_inches="tight")
    plt.close(figure)
