"""`consilium …`: exit status 0 is good, 1 a failure (one line says which), 2 wrong usage.

Each command imports what it needs when it runs, so that the gateway's own machine needs no torch.
"""

import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

try:
    import typer
    from rich.console import Console
except ModuleNotFoundError as error:
    raise SystemExit(f"consilium: {error.name} is missing; pip install 'consilium[cli]'") from None

from gateway.contract import Language, Summarise
from gateway.settings import Settings, SettingsError, load_settings

app = typer.Typer(
    help="Several medical VQA models consult. Research software, not a medical device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

# Lines as they are: what models and callers say is no markup of ours.
console = Console(markup=False, highlight=False, soft_wrap=True)

Panel = Annotated[
    Path, typer.Option("--panel", envvar="CONSILIUM_PANEL", help="Who sits on the panel.")
]
Port = Annotated[int, typer.Option("--port", min=1, max=65535, help="The gateway's port.")]
Host = Annotated[
    str, typer.Option("--host", help="Where to listen. A vLLM port has no key: keep it private.")
]
GpuShare = Annotated[
    float | None,
    typer.Option("--gpu-share", min=0.01, max=1, help="Of a GPU, if not what panel.toml gives."),
]
Gateway = Annotated[str, typer.Option("--gateway", help="The running gateway's URL.")]
DATA = typer.Option("--data", envvar="CONSILIUM_DATA", help="The folder of the data sets.")
Data = Annotated[Path, DATA]
OptionalData = Annotated[Path | None, DATA]
PANEL_FILE = Path("panel.toml")
GATEWAY_URL = "http://127.0.0.1:8000"


@app.command()
def demo(panel: Panel = PANEL_FILE, port: Port = 8000) -> None:
    """Start everything here, ask about a real DICOM image, show the verdict, stop everything."""
    from services.running import demo as program

    with _failures():
        program.run(_settings(panel), panel, port, console)


@app.command()
def serve(panel: Panel = PANEL_FILE, port: Port = 8000) -> None:
    """Start everything here and keep it up until Ctrl-C; a service that dies is restarted."""
    from models.assets import cache_dir
    from services.running.stack import POLL_S, running, whole_panel

    with _failures():
        logs = cache_dir() / "logs"
        launches = whole_panel(_settings(panel), panel, port, logs, console.print)
        with running(launches, logs, console.print) as stack:
            console.print(f"ready at {launches[-1].url}/docs; Ctrl-C stops everything")
            while True:
                stack.tend()
                time.sleep(POLL_S)


key = typer.Typer(help="API keys of the gateway.", no_args_is_help=True)
app.add_typer(key, name="key")
KeysFile = Annotated[
    Path, typer.Option("--keys", envvar="CONSILIUM_KEYS", help="The file that holds their hashes.")
]


@key.command("add")
def key_add(
    keys: KeysFile,
    tenant: Annotated[str, typer.Option(help="Whose: tenants never share an answer.")],
    per_minute: Annotated[int | None, typer.Option(min=1, help="Cases in a minute.")] = None,
    admin: Annotated[bool, typer.Option("--admin", help="It may change the panel.")] = False,
) -> None:
    """Make a key and print it, this once."""
    from gateway.door import keys as file

    with _failures():
        print(file.add(keys, tenant, per_minute, admin))


@key.command("list")
def key_list(keys: KeysFile) -> None:
    """Who has a key, and which were revoked."""
    from rich.table import Table

    from gateway.door import keys as file

    with _failures():
        table = Table("id", "tenant", "per minute", "admin", "created", "revoked", box=None)
        for each in file.read(keys):
            often = str(each.per_minute or "")
            revoked = f"{each.revoked:%Y-%m-%d %H:%M}" if each.revoked else ""
            made = f"{each.created:%Y-%m-%d %H:%M}"
            table.add_row(each.id, each.tenant, often, "yes" * each.admin, made, revoked)
        console.print(table)


@key.command("revoke")
def key_revoke(keys: KeysFile, identity: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """Refuse a key from now on; running gateways notice at once."""
    from gateway.door import keys as file

    with _failures():
        file.revoke(keys, identity)


@app.command()
def ask(
    images: Annotated[list[Path], typer.Argument(exists=True, dir_okay=False, readable=True)],
    question: Annotated[str, typer.Option("--question", "-q")],
    language: Annotated[str, typer.Option(help="en, es or zh.")] = "en",
    context: Annotated[str | None, typer.Option(help="Clinical context.")] = None,
    gateway: Gateway = GATEWAY_URL,
) -> None:
    """Ask a running gateway a question about one or more images."""
    from typing import get_args

    from gateway.client import ask as put
    from gateway.contract import Language
    from services.running.demo import show

    if language not in get_args(Language):
        raise typer.BadParameter(f"one of {', '.join(get_args(Language))}", param_hint="--language")
    with _failures():
        verdict = put(images, question, language=language, context=context, url=gateway)  # type: ignore[arg-type]
        show(verdict, console.print)


@app.command()
def worker(
    name: str,
    panel: Panel = PANEL_FILE,
    host: Host = "127.0.0.1",
    gpu_share: GpuShare = None,
) -> None:
    """Become the vLLM server of one worker."""
    _become_engine(name, panel, host, gpu_share)


@app.command()
def summariser(
    panel: Panel = PANEL_FILE, host: Host = "127.0.0.1", gpu_share: GpuShare = None
) -> None:
    """Become the vLLM server of the summariser."""
    _become_engine("summariser", panel, host, gpu_share)


@app.command()
def check(
    panel: Annotated[Path, typer.Argument(help="Who sits on the panel.")] = PANEL_FILE,
) -> None:
    """Say whether a panel file can be served, seat by seat; nothing is fetched or started."""
    from services.running.check import check as program

    with _failures():
        if not program(_settings(panel), console.print):
            raise SystemExit(1)


@app.command()
def plan(
    gpus: Annotated[str, typer.Option(help="How many and their GB: 1x80, or 2x80,1x24.")],
    panel: Panel = PANEL_FILE,
) -> None:
    """Say which seat fits on which GPU, before anything is started."""
    from services.running.plan import PlanError, read_gpus
    from services.running.plan import plan as program

    with _failures(PlanError):
        for line in program(_settings(panel, {}, with_competence=False), read_gpus(gpus)):
            console.print(line)


@app.command()
def fetch(
    to: Annotated[Path, typer.Option(help="The folder to fill.")], panel: Panel = PANEL_FILE
) -> None:
    """Gather what the panel needs from a network, for a machine without one."""
    from services.running.fetch import fetch as program

    with _failures():
        size = program(_settings(panel, {}, with_competence=False), to, console.print)
        console.print(f"{to}: {size / 1e6:,.0f} MB; there, set CONSILIUM_WEIGHTS to this folder")


@app.command()
def compose(
    panel: Panel = PANEL_FILE,
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("docker-compose.yml"),
    gpus: Annotated[
        str | None, typer.Option(help="For profile gpu: place seats on these, such as 2x80.")
    ] = None,
) -> None:
    """Write docker-compose.yml from the panel file: with GPUs, with one, or without."""
    from services.running.compose import write
    from services.running.plan import PlanError, needs, place, read_gpus

    with _failures(PlanError):
        # The file alone decides: where servers are reached from this machine is no matter here.
        settings = _settings(panel, {})
        places = place(needs(settings), read_gpus(gpus)) if gpus else None
        write(settings, panel, out, places)
        console.print(f"written: {out}")


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="A recipe's name in models/recipes, or its file.")],
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
) -> None:
    """Run a recipe's stages that are not done yet."""
    from models.recipe import load_recipe
    from models.training.dry_run import plan
    from models.training.loop import train as run

    with _training_failures():
        read = load_recipe(recipe)
        if fold is not None:
            read = read.of_fold(fold)
        if dry_run:
            for stage in plan(read, data):
                console.print(str(stage))
            return
        if data is None:
            raise typer.BadParameter("needs --data, or CONSILIUM_DATA", param_hint="train")
        console.print(f"trained: {run(read, data, runs)}")


@app.command()
def crossval(
    recipe: Annotated[str, typer.Argument(help="A recipe whose data is in folds.")],
    data: Data,
    runs: Annotated[Path, typer.Option(help="Where checkpoints go; a stopped run resumes.")] = Path(
        "runs"
    ),
) -> None:
    """Train a recipe once for each fold; score each question by the run that did not see it."""
    from models.recipe import load_recipe
    from models.training.crossval import crossval as run

    with _training_failures():
        for group, found in run(load_recipe(recipe), data, runs).items():
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

    with _training_failures(ProbeError):
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
    from models.training.report import report

    with _training_failures():
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
    from models.recipe import load_recipe
    from models.study.ablation import Screening
    from models.study.variants import AblationError
    from services.evaluation import ablate as program

    with _training_failures(AblationError):
        screening = Screening(load_recipe(recipe), steps, seeds, out)
        if plan:
            return program.list_plan(screening, analyses or (), console.print)
        if data is None:
            raise typer.BadParameter("needs --data, or CONSILIUM_DATA", param_hint="ablate")
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

    with _training_failures(ExportError, ParityError):
        console.print(f"exported: {run(recipe, checkpoint, out)}")
        if data and verify and not _verified(out, data):
            raise SystemExit(1)


@app.command()
def evaluate(
    dataset: Annotated[str, typer.Option(help="Its folder's name, such as slake or vqa_rad.")],
    split: Annotated[str, typer.Option(help="train, validate or test.")],
    language: Annotated[Language, typer.Option(help="en, es or zh.")],
    out: Annotated[Path, typer.Option(help="Where verdicts are kept; a stopped run resumes.")],
    data: Data,
    gateway: Gateway = GATEWAY_URL,
    concurrency: Annotated[int, typer.Option(min=1, help="Questions asked at a time.")] = 4,
    limit: Annotated[int | None, typer.Option(min=1, help="Ask a sample of so many.")] = None,
    shuffle_images: Annotated[
        int | None, typer.Option(help="Seed: give every question another image.")
    ] = None,
    blank_images: Annotated[
        bool, typer.Option("--blank-images", help="Give every question a grey image.")
    ] = False,
    workers: Annotated[str | None, typer.Option(help="Ask only these, such as a,b.")] = None,
    summarise: Annotated[
        Summarise, typer.Option(help="Other than never scores what the summariser makes of it.")
    ] = "never",
    rounds: Annotated[
        int, typer.Option(min=1, max=2, help="2: workers that differ read each other's answers.")
    ] = 1,
    fold: Annotated[
        str | None, typer.Option(help="Ask one fold by image, counted from 0: 0/3.")
    ] = None,
    exports: Annotated[
        Path | None,
        typer.Option(help="Workers of your own: refuse images that they were trained on."),
    ] = None,
) -> None:
    """Ask a running gateway every question of a data set, and print the accuracies."""
    from models.data.example import DataError
    from services.evaluation.evaluate import evaluate as run
    from services.evaluation.stored_run import EvaluationError

    with _failures(DataError, EvaluationError):
        run(
            dataset=dataset,
            split=split,
            language=language,
            out=out,
            data=data,
            gateway_url=gateway,
            concurrency=concurrency,
            limit=limit,
            shuffle_images=shuffle_images,
            blank_images=blank_images,
            workers=workers.split(",") if workers else None,
            summarise=summarise,
            rounds=2 if rounds == 2 else 1,
            fold=_fold(fold) if fold else None,
            exports=exports,
        )


@app.command()
def calibrate(
    runs: Annotated[list[Path], typer.Argument(help="Stored runs of consilium evaluate.")],
    out: Annotated[Path, typer.Option(help="Where panel.toml's competence key points to.")],
    data: Data,
    panel: Panel = PANEL_FILE,
) -> None:
    """Learn how far each worker is to be believed, from questions it was not trained on."""
    from gateway.verdict.competence import save_competence
    from models.data.example import DataError
    from services.evaluation.fit import calibrate as run
    from services.evaluation.stored_run import EvaluationError

    with _failures(DataError, EvaluationError):
        competence = run(runs, _settings(panel, with_competence=False), data)
        save_competence(competence, out)
        console.print(f"learned from {competence.learned_from}: {out}")


@app.command()
def train_summariser(
    runs: Annotated[list[Path], typer.Argument(help="Stored runs of consilium evaluate.")],
    out: Annotated[Path, typer.Option(help="Where [summariser] model may point to.")],
    data: Data,
    panel: Panel = PANEL_FILE,
) -> None:
    """Teach the summariser which answer was right, from questions no worker was trained on."""
    from models.data.example import DataError
    from services.evaluation.stored_run import EvaluationError
    from services.evaluation.train_summariser import train_summariser as run

    with _failures(DataError, EvaluationError):
        run(runs, _settings(panel, with_competence=False), data, out, console.print)
        console.print(f"trained: {out}")


@app.command()
def replay(
    runs: Annotated[list[Path], typer.Argument(help="A stored run; or one for each fold.")],
    data: Data,
    out: Annotated[Path | None, typer.Option(help="A folder for the pictures.")] = None,
    cross_fit: Annotated[
        bool, typer.Option("--cross-fit", help="Learn competence from these answers too.")
    ] = False,
    summariser: Annotated[
        bool, typer.Option("--summariser", help="Have the running one word the disputed cases.")
    ] = False,
    panel: Panel = PANEL_FILE,
) -> None:
    """Weigh a stored run's answers again under every policy, and compare."""
    from models.data.example import DataError
    from services.evaluation.replay import replay as program
    from services.evaluation.stored_run import EvaluationError

    with _failures(DataError, EvaluationError):
        program(runs, _settings(panel), data, out, cross_fit, summariser)


def main() -> None:
    app()


def _settings(
    panel: Path, environ: Mapping[str, str] = os.environ, with_competence: bool = True
) -> Settings:
    try:
        return load_settings(panel, environ, with_competence)
    except SettingsError as error:
        _fail(error)


def _fold(text: str) -> tuple[int, int]:
    number, _, count = text.partition("/")
    if number.isdecimal() and count.isdecimal() and int(number) < int(count) >= 2:
        return int(number), int(count)
    raise typer.BadParameter(f"--fold {text}: give a number and how many there are, such as 0/3")


def _become_engine(name: str, panel: Path, host: str, gpu_share: float | None) -> None:
    from services.running.engine import launch, model_folder

    with _failures():
        settings = _settings(panel, with_competence=False)
        server = launch(settings, name, model_folder(settings, name), host, gpu_share)
        # Replaced, not started: whoever stops this process stops the server.
        os.execve(server.command[0], server.command, server.environment)


def _verified(zoo: Path, data: Path) -> bool:
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
    return parity.holds


@contextmanager
def _failures(*more: type[Exception]) -> Iterator[None]:
    """Every failure that is ours to explain becomes one line and exit status 1.

    SIGTERM and SIGHUP end a command the way Ctrl-C does: `with` blocks are left, and stop what
    they started.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    from gateway.client import GatewayError
    from gateway.door.keys import KeysError
    from models.assets import AssetError
    from services.running.engine import EngineError
    from services.running.stack import StackError

    ours: tuple[type[Exception], ...] = (
        GatewayError,
        KeysError,
        AssetError,
        EngineError,
        StackError,
        OSError,
    )
    try:
        yield
    except (*ours, *more) as error:
        _fail(error)
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGINT) from None


@contextmanager
def _training_failures(*more: type[Exception]) -> Iterator[None]:
    from models.data.example import DataError
    from models.recipe import RecipeError
    from models.training.checkpoints import CheckpointError
    from models.training.loop import TrainingError
    from models.training.tuning import TuningError

    with _failures(CheckpointError, DataError, RecipeError, TrainingError, TuningError, *more):
        yield


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _fail(error: Exception) -> NoReturn:
    print(f"consilium: {error}", file=sys.stderr)
    raise SystemExit(1)


if __name__ == "__main__":
    main()
