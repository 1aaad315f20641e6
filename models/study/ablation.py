"""Ablations: design choices, changed one at a time, trained for the same few steps and compared on
the same validation questions.

    DIR/plan.json       whose folder it is: version, steps, recipe
    DIR/runs/           a run for each variant and seed (models.training.record.checkpoints)
    DIR/table.jsonl     a row for each cell that is done, with its commit
    DIR/outcomes/       which question was right, in a file for each row

A row is appended once everything else of its cell is kept: what has a row is never done again. The
same command started twice, on a machine with the cores for it, shares the work.
"""

import hashlib
import json
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any, NamedTuple

import torch
from filelock import FileLock, Timeout
from PIL import Image
from pydantic import ValidationError

from models.data.example import Example, another_for_each
from models.files import append_line, read_lines, set_aside, write_whole
from models.metrics.score import Score, mean
from models.recipe import Recipe
from models.recipe.programme import RecipeError
from models.study.seeds import pooled
from models.study.variants import (
    BASELINE,
    FULL,
    AblationError,
    Choice,
    Shown,
    analyses_of,
    full_analysis,
    refuse_unfit,
    variants_of,
)
from models.training.inputs.examples import examples_of
from models.training.inputs.features import DTYPE
from models.training.parts import PartsRun
from models.training.record import checkpoints
from models.training.record.progress import read_log
from models.training.stages import train

VERSION = 1  # raise it when a row means something else
# On one core of ours, of the recipe `screening`: until a folder has figures of its own.
SECONDS_A_STEP, SECONDS_A_LOOK = 3.0, 50.0
UNBUDGETED_STEPS = 708  # of its baseline


class Cell(NamedTuple):
    """A variant, trained with one seed, validated on the images that it is shown: a question's
    own, a grey one, or another question's."""

    variant: str
    seed: int
    shown: Shown = "own"

    @property
    def name(self) -> str:
        return f"{self.variant}-seed{self.seed}" + (f"-{self.shown}" if self.shown != "own" else "")


@dataclass(frozen=True)
class Row:
    """What came of a cell. `recipe` is a hash of everything that it was trained by."""

    variant: str
    seed: int
    shown: Shown
    recipe: str
    steps: int
    commit: str
    exact_match: float
    questions: int
    answer_loss: float  # nats for each token of the references
    seconds: float

    @property
    def cell(self) -> Cell:
        return Cell(self.variant, self.seed, self.shown)


@dataclass(frozen=True)
class Compared:
    """A choice so far, over the seeds that it and what it is held against have both run."""

    choice: Choice
    rows: tuple[Row, ...]
    exact_match: Score | None  # None where nothing of it is done
    over: Score | None  # the difference, paired by question; None for what others are held against
    by_seed: tuple[float, ...] = ()  # the same, of each row: what another seed may say


class Screening:
    """`recipe`, with one thing changed at a time, in folder `out`: `steps` steps each, or None for
    as many as the recipe says. `only` names the variants that are run, beside the baseline; empty
    for all.

    Raises:
        AblationError: the folder is another screening's, the recipe is none for screening, or there
            is no such variant.
        RecipeError: a variant of it would be no recipe.
    """

    def __init__(
        self,
        recipe: Recipe,
        steps: int | None,
        seeds: int,
        out: Path,
        only: Sequence[str] = (),
    ):
        refuse_unfit(recipe)
        self.recipe, self.steps, self.seeds, self.out = recipe, steps, range(seeds), out
        self.screened = variants_of(recipe, steps)
        full = variants_of(recipe, None)
        self.variants = self.screened | {f"{FULL}-{name}": full[name] for name in full}
        self._refuse_another_plan()
        if unknown := set(only) - self.screened.keys():
            raise AblationError(
                f"No variant {', '.join(sorted(unknown))}. There are: {', '.join(self.screened)}."
            )
        wanted = {BASELINE, *only} if only else self.screened.keys()
        self.screened = {name: each for name, each in self.screened.items() if name in wanted}
        self.rows = self._read()

    def recipe_of(self, cell: Cell) -> Recipe:
        trained = Cell(cell.variant, cell.seed)
        changed = {"name": trained.name, "seed": cell.seed}
        return self.variants[cell.variant].model_copy(update=changed)

    @property
    def analyses(self) -> dict[str, list[Choice]]:
        """By name; `full` is there once there is something to choose it by."""
        there = analyses_of(self.recipe, self.variants)
        found = {
            name: [choice for choice in choices if choice.variant in self.screened]
            for name, choices in there.items()
        }
        trained = {Cell(variant, seed) for variant in self.screened for seed in self.seeds}
        return found | {FULL: full_analysis(self.best())} if trained <= self.rows.keys() else found

    def cells(self, analyses: Sequence[str] = ()) -> list[Cell]:
        """What `analyses` (all but `full`, if none is named) take, in the order in which it is run:
        all of it with one seed before any with two, and the baseline first, whose looks say whether
        so few steps are enough to see anything. What is run in full is run with the first seed.

        Raises:
            AblationError: an analysis that there is not, or not yet.
        """
        there = self.analyses
        if FULL in analyses and FULL not in there:
            raise AblationError(
                "The best are not known yet: run it without `full` until every variant is trained "
                f"with {len(self.seeds)} seed(s)."
            )
        if unknown := set(analyses) - set(there):
            raise AblationError(
                f"No analysis {', '.join(sorted(unknown))}. There are: {', '.join(there)}."
            )
        wanted = analyses or [name for name in there if name != FULL]
        found: dict[Cell, None] = {}
        for seed in self.seeds:
            names = [name for name in wanted if name != FULL or seed == self.seeds[0]]
            asked = [choice for name in names for choice in there[name]]
            for choice in sorted(asked, key=lambda choice: choice.variant != BASELINE):
                for cell in (
                    choice.against,
                    (choice.variant, "own"),
                    (choice.variant, choice.shown),
                ):
                    found[Cell(cell[0], seed, cell[1])] = None
        return list(found)

    def open(self, analyses: Sequence[str] = ()) -> list[Cell]:
        return [cell for cell in self.cells(analyses) if cell not in self.rows]

    def seconds_left(self, analyses: Sequence[str] = ()) -> float:
        """By what such cells have taken here, or else by what they took us; without what is run
        in full."""
        screened = [cell for cell in self.open(analyses) if cell.variant in self.screened]
        return sum(self._seconds(cell) for cell in screened)

    def run(self, data: Path, analyses: Sequence[str], report: Callable[[str], None]) -> None:
        """Does everything that is open, one cell after the other; leaves to another process in the
        same folder what that is at, and waits for it at the end.

        Raises:
            Whatever `models.training.stages.train` raises.
        """
        self._claim(report)
        commit = _commit()  # now: what runs is what was there when it was started
        for timeout_s in (0, -1):
            for cell in self.open(analyses):
                try:
                    with self._lock(self.recipe_of(cell).name, timeout_s):
                        self.rows = self._read()
                        if cell in self.rows:
                            continue
                        minutes = self.seconds_left(analyses) / 60
                        left = f", {minutes:.0f} min left" if minutes else ""
                        report(f"{cell.name}: one of {len(self.open(analyses))} open{left}")
                        self._append(*self._do(cell, data, commit))
                except Timeout:
                    report(f"{cell.name}: another process is at it")

    def compared(self, analysis: str, data: Path) -> list[Compared]:
        """Its choices, with 95 % intervals that draw whole images; seeds are averaged for each
        question first, so the intervals are those of the questions and not of the seeds.

        Raises:
            DataError: the questions cannot be read.
            AblationError: they are others than those that were asked.
        """
        baseline = self.variants[BASELINE]
        sources = baseline.stage[-1].validation or baseline.validation
        held_out = examples_of(sources, data, baseline.fold, held_out=True)
        return [self._compared(choice, held_out) for choice in self.analyses[analysis]]

    def moved_by_seeds(self) -> tuple[float, int]:
        """By how much a seed moves what a variant has right: the standard deviation, pooled over
        all that were run with several, and its degrees of freedom.
        """
        found: dict[str, list[float]] = {}
        for row in self.rows.values():
            if row.shown == "own":
                found.setdefault(row.variant, []).append(row.exact_match)
        return pooled(found.values())

    def best(self, count: int = 3) -> list[str]:
        """Those screened that were right most often, each over the seeds that it has run."""
        found: dict[str, list[float]] = {}
        for row in self.rows.values():
            if row.shown == "own" and row.variant in self.screened:
                found.setdefault(row.variant, []).append(row.exact_match)
        return sorted(found, key=lambda variant: -fmean(found[variant]))[:count]

    def _compared(self, choice: Choice, held_out: Sequence[Example]) -> Compared:
        of_choice = {seed: Cell(choice.variant, seed, choice.shown) for seed in self.seeds}
        against = {seed: Cell(choice.against[0], seed, choice.against[1]) for seed in self.seeds}
        seeds = [s for s in self.seeds if {of_choice[s], against[s]} <= self.rows.keys()]
        if not seeds:
            return Compared(choice, (), None, None)
        right = self._averaged([of_choice[seed] for seed in seeds], held_out)
        other = self._averaged([against[seed] for seed in seeds], held_out)
        images = [example.images for example in held_out]
        differences = [a - b for a, b in zip(right, other, strict=True)]
        rows = tuple(self.rows[of_choice[seed]] for seed in seeds)
        if of_choice == against:
            return Compared(choice, rows, mean(right, images), None)
        by_seed = [row.exact_match - self.rows[against[row.seed]].exact_match for row in rows]
        return Compared(
            choice, rows, mean(right, images), mean(differences, images), tuple(by_seed)
        )

    def _averaged(self, cells: Sequence[Cell], held_out: Sequence[Example]) -> list[float]:
        """How often each question was right, over these cells."""
        outcomes = [json.loads(self._outcome(cell).read_text()) for cell in cells]
        if any(outcome.keys() != {e.id for e in held_out} for outcome in outcomes):
            raise AblationError(
                f"{self.out} was scored on other questions than the data holds: name that folder "
                "of data sets which it was run with, or give another --out."
            )
        return [fmean(outcome[e.id] for outcome in outcomes) for e in held_out]

    def _do(self, cell: Cell, data: Path, commit: str) -> tuple[Row, dict[str, bool]]:
        recipe, began = self.recipe_of(cell), time.monotonic()
        checkpoint = train(recipe, data, self.out / "runs")
        if cell.shown == "own":
            right = json.loads((checkpoint / "validation.json").read_text())
            log = read_log(checkpoint.parent / "log.jsonl")
            figures = [line for line in log if line["part"] == "validation"][-1]
        else:
            right, figures = _look(recipe, self.out / "runs", data, cell.shown)
        row = Row(
            *cell,
            recipe=_hash(recipe),
            steps=sum(_steps(self.out / "runs" / recipe.name, recipe)),
            commit=commit,
            exact_match=figures["exact_match"],
            questions=len(right),
            answer_loss=figures["answer_loss"],
            seconds=round(time.monotonic() - began, 1),
        )
        return row, right

    def _append(self, row: Row, right: dict[str, bool]) -> None:
        path = self._outcome(row.cell)
        path.parent.mkdir(exist_ok=True)
        write_whole(path, json.dumps(right))
        with self._lock("table"):
            append_line(self._table, asdict(row))
        self.rows[row.cell] = row

    def _lock(self, name: str, timeout_s: float = -1) -> FileLock:
        """Among processes; one that dies lets go of it."""
        folder = self.out / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / name, timeout=timeout_s)

    @property
    def _table(self) -> Path:
        return self.out / "table.jsonl"

    def _outcome(self, cell: Cell) -> Path:
        return self.out / "outcomes" / f"{cell.name}.json"

    def _seconds(self, cell: Cell) -> float:
        looks = cell.shown != "own"
        rows = [row for row in self.rows.values() if row.variant in self.screened]
        here = [row.seconds for row in rows if (row.shown != "own") == looks]
        if here:
            return median(here)
        steps = self.steps or UNBUDGETED_STEPS
        return SECONDS_A_LOOK + (0 if looks else SECONDS_A_STEP * steps)

    def _claim(self, report: Callable[[str], None]) -> None:
        plan = {"version": VERSION, "steps": self.steps, "recipe": self.recipe.model_dump()}
        self.out.mkdir(parents=True, exist_ok=True)
        write_whole(self.out / "plan.json", json.dumps(plan, indent=1))
        with self._lock("table"):
            self.rows = self._read()
            if self._table.exists() and (lines := read_lines(self._table, _row)).broken:
                report(set_aside(self._table, lines))

    def _refuse_another_plan(self) -> None:
        path = self.out / "plan.json"
        if not path.exists():
            if self.out.exists() and any(self.out.iterdir()):
                raise AblationError(
                    f"{self.out} holds something else than an ablation: give another --out."
                )
            return
        try:
            found = json.loads(path.read_text())
        except ValueError:
            found = {}
        if found.get("version") != VERSION:
            raise AblationError(
                f"{path} is of version {found.get('version')}, not {VERSION}: give another --out."
            )
        try:
            theirs = Recipe.model_validate(found["recipe"])
            variants = variants_of(theirs, found["steps"])
        except (RecipeError, ValidationError) as error:
            raise AblationError(
                f"{path} holds a recipe that is none any more: give another --out."
            ) from error
        if variants != self.screened:
            raise AblationError(
                f"{self.out} holds another plan: recipe {theirs.name!r} as it was then, in "
                f"{found['steps']} steps. Give these, or another --out."
            )

    def _read(self) -> dict[Cell, Row]:
        path = self._table
        if not path.exists():
            return {}
        rows = read_lines(path, _row).records
        for row in rows:
            if row.variant in self.variants and row.recipe != _hash(self.recipe_of(row.cell)):
                raise AblationError(
                    f"{path}: {row.cell.name} was run by another recipe than it has now (commit "
                    f"{row.commit}): take that commit, or give another --out."
                )
        return {row.cell: row for row in rows}


def _row(line: dict[str, Any]) -> Row:
    return Row(**line)


def _look(
    recipe: Recipe, runs: Path, data: Path, shown: Shown
) -> tuple[dict[str, bool], dict[str, float]]:
    """Which question a finished run has right, and its figures, where it sees what is `shown`."""
    run = PartsRun(recipe, recipe.stage[-1], runs / recipe.name, data, None)
    run.log.shown = False  # the run's own log tells of its own images
    images = {image for row in run.validation for image in row.images}
    if shown == "blank":
        tower = run.model.tower
        pixels = tower.preprocess(Image.new("RGB", (384, 384), (128, 128, 128)))
        with torch.no_grad():
            features = tower(pixels[None].to(run.accelerator.device))[0].to(DTYPE).cpu()
        run.features = dict.fromkeys(images, features)
    elif shown == "other":
        other = another_for_each(images, seed=0)
        run.features = {image: run.features[its] for image, its in other.items()}
    with run.average.in_place():  # what its checkpoint keeps, and was validated
        tally = run.validate(run.steps)
    return {question.id: right for question, right in tally.right.items()}, tally.report()


def _steps(run: Path, recipe: Recipe) -> Iterator[int]:
    for stage in recipe.stage:
        if stop := checkpoints.newest(run / stage.name):
            yield stop.step


def _hash(recipe: Recipe) -> str:
    """Of what it says beyond the defaults: a key that recipes are given later changes none."""
    content = json.dumps(recipe.model_dump(exclude_defaults=True), sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:12]


def _commit() -> str:
    """Of the code that runs; "unknown" where it was installed without its repository."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()
