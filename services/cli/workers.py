"""How workers come to be: train, crossval, probe, report-training, ablate, export, remember."""

import os
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from services.cli.shared import Data, OptionalData, console, training_failures

if TYPE_CHECKING:
    from models.serving.parity import Parity

app = typer.Typer()


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="A recipe's file, or its name in models/recipes.")],
    data: OptionalData = None,
    runs: Annotated[Path, typer.Option(help="Where checkpoints go; a stopped run resumes.")] = Path(
        "runs"
    ),
    fold: Annotated[
        int | None, typer.Option(min=0, help="Which fold is held out, where data is in folds.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would train and take, and stop.")
    ] = False,
    gpus: Annotated[
        str | None,
        typer.Option(help="With --dry-run: does it fit so many GPUs of so many GB, such as 8x80?"),
    ] = None,
    smoke: Annotated[
        bool,
        typer.Option("--smoke", help="All stages on twenty images, export and vLLM: does it run?"),
    ] = False,
    tracker: Annotated[
        Literal["tensorboard", "wandb", "mlflow", "none"] | None,
        typer.Option(help="What is told the figures too; TensorBoard, where that is installed."),
    ] = None,
) -> None:
    """Run a recipe's stages that are not done yet."""
    from models.recipe import Recipe, WholeRecipe, load_programme, recipe_file
    from models.recipe.programme import RecipeError
    from models.serving.export import ExportError, export, refuse_unserved
    from models.serving.parity import ParityError
    from models.serving.served_models import require_served, require_served_language
    from models.training.planning.fits import told
    from models.training.record.tracker import usual
    from models.training.stages import train as run
    from services.running.beforehand.plan import PlanError, read_gpus

    if gpus and not dry_run:
        raise typer.BadParameter("goes with --dry-run, and plans for GPUs", param_hint="--gpus")
    if smoke and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise typer.BadParameter("is one process: without accelerate launch", param_hint="--smoke")
    with training_failures(PlanError, ParityError):
        read = load_programme(recipe)
        if fold is not None:
            read = read.of_fold(fold)
        if smoke:
            read = read.in_a_minute()
        if isinstance(read, WholeRecipe):
            require_served(read)
        if dry_run:
            for line in told(read, data, read_gpus(gpus) if gpus else ()):
                console.print(line)
            return
        if data is None:
            raise typer.BadParameter("needs --data, or CONSILIUM_DATA", param_hint="train")
        if isinstance(read, Recipe):
            try:
                refuse_unserved(read)
                require_served_language(read)
            except (ExportError, RecipeError) as error:
                console.print(f"Note: it trains, and will have no seat. {error}")
        if smoke:
            _make_way(runs / read.name)
        named = usual() if tracker is None else tracker
        checkpoint = run(read, data, runs, None if named == "none" else named)
        console.print(f"trained: {checkpoint}")
        if smoke:
            out = runs / read.name / "exported"
            try:
                console.print(f"exported: {export(recipe_file(recipe), checkpoint, out, read)}")
            except ExportError as error:
                console.print(f"not exported: {error}")
            else:
                _serve_and_ask(out, data)


@app.command()
def crossval(
    recipe: Annotated[str, typer.Argument(help="A recipe whose data is in folds.")],
    data: Data,
    runs: Annotated[Path, typer.Option(help="Where checkpoints go; a stopped run resumes.")] = Path(
        "runs"
    ),
) -> None:
    """Train a recipe once for each fold; score each question by the run that did not see it."""
    from models.recipe import load_programme
    from models.training.crossval import crossval as run

    with training_failures():
        for group, found in run(load_programme(recipe), data, runs).items():
            interval = f"{found.low:.1%} to {found.high:.1%}"
            console.print(f"{group:6} {found.value:6.1%}  ({interval})  {found.cases} questions")


@app.command()
def probe(
    runs: Annotated[list[Path], typer.Argument(help="Run folders of consilium train.")],
    out: Annotated[Path, typer.Option(help="A folder for projection.json and projection.png.")],
    data: Data,
) -> None:
    """How much is read of an image before and after the connector, before and after each stage."""
    from models.study.probe import ProbeError
    from models.study.projection import compare
    from models.study.projection_chart import draw, lines

    with training_failures(ProbeError):
        found = compare(runs, data, out)
        for line in lines(found):
            console.print(line)
        draw(found, out / "projection.png")


@app.command()
def report_training(
    run: Annotated[Path, typer.Argument(help="A run folder of consilium train.")],
    out: Annotated[Path, typer.Option(help="A folder for index.md and its pictures.")],
    data: Data,
) -> None:
    """Show a run: its losses, what it answers right by kind of question, and some answers."""
    from models.training.record.report import report

    with training_failures():
        console.print(f"written: {report(run, data, out)}")


@app.command()
def ablate(
    out: Annotated[Path, typer.Option(help="Where runs and table go; a stopped one goes on.")],
    analyses: Annotated[
        list[str] | None, typer.Argument(help="Only these, such as: connectors stages.")
    ] = None,
    recipe: Annotated[str, typer.Option(help="What one thing is changed of at a time.")] = (
        "screening"
    ),
    steps: Annotated[int, typer.Option(min=4, help="The budget of each variant.")] = 60,
    whole: Annotated[
        bool, typer.Option("--whole", help="No budget: as many epochs as the recipe says.")
    ] = False,
    only: Annotated[
        list[str] | None, typer.Option(help="Only these variants, such as: connector-dual.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each variant.")] = 2,
    plan: Annotated[
        bool, typer.Option("--plan", help="List what is done and what is open, and stop.")
    ] = False,
    show: Annotated[
        bool, typer.Option("--show", help="Print and draw what is done, and stop.")
    ] = False,
    data: OptionalData = None,
) -> None:
    """Train design choices for the same few steps each, and compare them on validation."""
    if data is None and not plan:
        raise typer.BadParameter("needs --data, or CONSILIUM_DATA", param_hint="ablate")
    from models.recipe import load_recipe
    from models.study.ablation import Screening
    from models.study.variants import AblationError
    from services.evaluation import ablate as program

    with training_failures(AblationError):
        budget = None if whole else steps
        screening = Screening(load_recipe(recipe), budget, seeds, out, only or ())
        if plan or data is None:
            return program.list_plan(screening, analyses or (), console.print)
        if not show:
            screening.run(data, analyses or (), console.print)
        program.show(screening, analyses or (), data, console.print)


@app.command()
def export(
    recipe: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The recipe's file.")],
    checkpoint: Annotated[
        Path, typer.Argument(exists=True, file_okay=False, help="runs/RECIPE/STAGE/step-N")
    ],
    out: Annotated[Path, typer.Option(help="The folder to write, such as models/zoo/NAME.")],
    verify: Annotated[
        bool, typer.Option("--verify", help="Start vLLM on it: does it say what was trained?")
    ] = False,
    data: OptionalData = None,
) -> None:
    """Keep what was trained, as a folder of the zoo."""
    if verify and data is None:
        raise typer.BadParameter("needs --data, or CONSILIUM_DATA", param_hint="--verify")
    from models.serving.export import ExportError
    from models.serving.export import export as run
    from models.serving.parity import ParityError

    with training_failures(ExportError, ParityError):
        console.print(f"exported: {run(recipe, checkpoint, out)}")
        if data and verify and not _verified(out, data).holds:
            raise SystemExit(1)


@app.command()
def remember(
    recipe: Annotated[str, typer.Argument(help="A recipe's file, or its name in models/recipes.")],
    data: Data,
    out: Annotated[Path, typer.Option(help="The folder to write, such as models/zoo/NAME.")],
) -> None:
    """Make a worker that remembers: keep a recipe's cases, as a folder of the zoo."""
    from models.serving.export import ExportError
    from models.serving.export import remember as run

    with training_failures(ExportError):
        console.print(f"remembered: {run(recipe, data, out)}")


def _make_way(run: Path) -> None:
    """A smoke run is all of it, each time; another recipe's run of that name stays."""
    from models.training.record.checkpoints import CheckpointError, recipe_of

    if not run.exists():
        return
    kept = recipe_of(run)
    if not all(source.few for stage in kept.stage for source in stage.data):
        raise CheckpointError(
            f"{run} holds the run of a recipe called {kept.name!r}, which is no smoke run: move "
            "it, or give --runs another folder."
        )
    shutil.rmtree(run)


def _serve_and_ask(zoo: Path, data: Path) -> None:
    if find_spec("vllm") is None:
        console.print("not served: vLLM is not installed here.")
        return
    parity = _verified(zoo, data)
    asked = parity.comparisons[0]
    console.print(f"asked: {asked.example.question} – {asked.vllm.strip()}")
    if parity.holds:
        return
    if not parity.is_rounding:
        raise SystemExit(1)
    console.print(
        "That is rounding: what has learned nothing finds many words as likely. consilium export "
        "--verify holds the trained one to it."
    )


def _verified(zoo: Path, data: Path) -> "Parity":
    from services.running import verify as program

    parity = program.verify(zoo, data)
    for each in parity.differing:
        console.print(
            f"differs: {each.example.id}: transformers {each.transformers!r}, vLLM {each.vllm!r}, "
            f"{each.gap:.3f} between the two best log-probabilities"
        )
    console.print(
        f"parity {'holds' if parity.holds else 'does not hold'}: "
        f"{len(parity.differing)} of {len(parity.comparisons)} answers differ"
    )
    return parity
