"""What a panel is worth, and what is learned from its answers: evaluate, report, calibrate, …"""

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from gateway.contract import Language, Summarise
from gateway.settings import SettingsError, load_settings
from services.cli.shared import (
    GATEWAY_URL,
    PANEL_FILE,
    Data,
    Gateway,
    Panel,
    console,
    fail,
    failures,
    names_in,
    settings_of,
)

app = typer.Typer()
HERE = Path()  # where no data set is asked for by its name, none needs a place


@app.command()
def evaluate(
    dataset: Annotated[
        str,
        typer.Option(help="Its folder's name, such as slake; or a file: .csv, .jsonl, .parquet."),
    ],
    out: Annotated[Path, typer.Option(help="Where verdicts are kept; a stopped run resumes.")],
    split: Annotated[str, typer.Option(help="train, validate or test; of a file all.")] = "all",
    language: Annotated[Language, typer.Option(help="en, es or zh.")] = "en",
    data: Data = HERE,
    gateway: Gateway = GATEWAY_URL,
    concurrency: Annotated[
        int,
        typer.Option(min=1, help="Questions asked at a time, at most; with --ray by each node."),
    ] = 4,
    patience: Annotated[
        float,
        typer.Option(
            min=0, help="Seconds to go on where nothing gets through: the gateway is away or busy."
        ),
    ] = 300,
    limit: Annotated[int | None, typer.Option(min=1, help="Ask a sample of so many.")] = None,
    shuffle_images: Annotated[
        int | None, typer.Option(help="Seed: give every question another image.")
    ] = None,
    blank_images: Annotated[
        bool, typer.Option("--blank-images", help="Give every question a grey image.")
    ] = False,
    rotate_images: Annotated[
        bool, typer.Option("--rotate-images", help="Ask of several images, the first one last.")
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
    ray: Annotated[
        str | None,
        typer.Option(help="Ask from every node of the Ray cluster there: auto, or HOST:PORT."),
    ] = None,
) -> None:
    """Ask a running gateway every question of a data set, and print the accuracies."""
    from models.data.example import DataError
    from services.evaluation.asking.evaluate import evaluate as run
    from services.evaluation.stored_run import EvaluationError

    with failures(DataError, EvaluationError):
        summary = run(
            dataset=dataset,
            split=split,
            language=language,
            out=out,
            data=data,
            gateway_url=gateway,
            concurrency=concurrency,
            patience_s=patience,
            limit=limit,
            shuffle_images=shuffle_images,
            blank_images=blank_images,
            rotate_images=rotate_images,
            workers=names_in(workers) if workers is not None else None,
            summarise=summarise,
            rounds=2 if rounds == 2 else 1,
            fold=_fold(fold) if fold else None,
            exports=exports,
            ray=ray,
        )
        if failed := summary["failed"]:
            fail(
                EvaluationError(
                    f"{failed} of {summary['cases']} questions have no verdict; {out} holds the "
                    "gateway's reasons, and the same command asks them again"
                )
            )


@app.command()
def calibrate(
    runs: Annotated[list[Path], typer.Argument(help="Stored runs of consilium evaluate.")],
    out: Annotated[Path, typer.Option(help="Where panel.toml's competence key points to.")],
    data: Data = HERE,
    grey: Annotated[
        list[Path] | None,
        typer.Option(help="Runs with --blank-images: their answers are written beside --out."),
    ] = None,
    onto: Annotated[
        Path | None,
        typer.Option(help="A competence file that ten cases and more of your own are to move."),
    ] = None,
    panel: Panel = PANEL_FILE,
) -> None:
    """Learn how far each worker is to be believed, from questions it was not trained on."""
    from gateway.verdict.competence import CompetenceError, load_competence, save_competence
    from gateway.verdict.grey_answers import beside, save_grey_answers
    from models.data.example import DataError
    from models.files import written_whole
    from services.evaluation.learning.fit import calibrate as run
    from services.evaluation.learning.grey import grey_answers
    from services.evaluation.learning.own_cases import calibrate_onto
    from services.evaluation.stored_run import EvaluationError

    with failures(DataError, EvaluationError, CompetenceError):
        settings = settings_of(panel, with_competence=False)
        if onto is not None:
            competence, shifts = calibrate_onto(load_competence(onto), runs, settings, data)
            for shift in shifts:
                console.print(shift.told())
        else:
            competence = run(runs, settings, data)
        without_image = grey_answers(grey, settings, data) if grey else None
        with written_whole(out) as scratch:  # a gateway may be reading what it replaces
            save_competence(competence, scratch)
        console.print(f"learned from {competence.learned_from}: {out}")
        if without_image:
            with written_whole(beside(out)) as scratch:
                save_grey_answers(without_image, scratch)
            console.print(f"what is said without the image: {beside(out)}")


@app.command()
def train_summariser(
    runs: Annotated[list[Path], typer.Argument(help="Stored runs of consilium evaluate.")],
    out: Annotated[Path, typer.Option(help="Where [summariser] model may point to.")],
    data: Data = HERE,
    by_reward: Annotated[
        bool,
        typer.Option("--by-reward", help="It tries replies, and learns which would be taken."),
    ] = False,
    seed: Annotated[int, typer.Option(help="Another gives another adapter.")] = 0,
    panel: Panel = PANEL_FILE,
) -> None:
    """Teach the summariser which answer was right, from questions no worker was trained on."""
    from models.data.example import DataError
    from services.evaluation.learning.train_summariser import train_summariser as run
    from services.evaluation.stored_run import EvaluationError

    with failures(DataError, EvaluationError):
        settings = settings_of(panel, with_competence=False)
        run(runs, settings, data, out, console.print, by_reward, seed)
        console.print(f"trained: {out}")


@app.command()
def replay(
    runs: Annotated[list[Path], typer.Argument(help="A stored run; or one for each fold.")],
    data: Data = HERE,
    out: Annotated[Path | None, typer.Option(help="A folder for pictures and verdicts.")] = None,
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

    with failures(DataError, EvaluationError):
        program(runs, settings_of(panel), data, out, cross_fit, summariser)


@app.command()
def join(
    runs: Annotated[list[Path], typer.Argument(help="Stored runs over the same questions.")],
    out: Annotated[Path, typer.Option(help="A folder for the run that is made of them.")],
    data: Data = HERE,
    panel: Panel = PANEL_FILE,
) -> None:
    """Make one stored run of several that asked different workers the same."""
    from models.data.example import DataError
    from services.evaluation.joined import join as program
    from services.evaluation.stored_run import EvaluationError

    with failures(DataError, EvaluationError):
        cases = program(runs, settings_of(panel), data, out)
        console.print(f"{out}: {cases} cases")


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Stored runs of consilium evaluate.")],
    out: Annotated[Path, typer.Option(help="A folder for the page and the files beside it.")],
    data: Data = HERE,
    beside: Annotated[
        list[Path] | None,
        typer.Option(help="Runs that asked a candidate, who is not on the panel, the same."),
    ] = None,
    gateway: Annotated[
        str | None,
        typer.Option(help="A running gateway: what readers say of its seats and candidates."),
    ] = None,
    panel: Panel = PANEL_FILE,
) -> None:
    """Write what stored runs say of a panel: one page, and its figures as files."""
    from models.data.example import DataError
    from services.evaluation.report.write import report as program
    from services.evaluation.stored_run import EvaluationError

    with failures(DataError, EvaluationError):
        in_use = None
        if gateway is not None:
            from services.evaluation.asking.over_rest import panel_at

            in_use = panel_at(gateway)
        try:
            settings = load_settings(panel, os.environ)
        except SettingsError as error:  # a report needs no panel, nor one whose competence is there
            settings = None
            if panel.exists():
                typer.echo(f"Not looked at, what the panel was calibrated on: {error}", err=True)
        program(runs, data, out, settings, beside or (), in_use)
        console.print(
            f"{out / 'report.html'}, and the same as .md, .json and .csv; every case: cases.jsonl"
        )


@app.command()
def compare(
    before: Annotated[Path, typer.Argument(help="A stored run of consilium evaluate.")],
    after: Annotated[Path, typer.Argument(help="Another, over the same questions.")],
    data: Data = HERE,
    out: Annotated[
        Path | None,
        typer.Option(help="A folder for a page of it, with the images of what flipped."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print it as JSON, with every question that flipped.")
    ] = False,
) -> None:
    """Say what changed from one stored run to another, and whether that can be told."""
    from models.data.example import DataError
    from services.evaluation.compare import compare as program
    from services.evaluation.compare import show
    from services.evaluation.stored_run import EvaluationError

    with failures(DataError, EvaluationError):
        found = program(before, after, data, out)
        if as_json:
            print(json.dumps(found, ensure_ascii=False))
        else:
            show(found)
            if out is not None:
                console.print(f"{out / 'compare.html'}, and the same as .json")


@app.command()
def submission(
    runs: Annotated[list[Path], typer.Argument(help="Stored runs, one for each language.")],
    out: Annotated[Path, typer.Option(help="The file to write, prediction.json for the task.")],
    data: Data = HERE,
) -> None:
    """Write the panel's answers to MEDIQA-M3G as the task takes them."""
    from models.data.example import DataError
    from services.evaluation.stored_run import EvaluationError
    from services.evaluation.submission import write

    with failures(DataError, EvaluationError):
        write(runs, data, out)
        console.print(f"written: {out}")


def _fold(text: str) -> tuple[int, int]:
    number, _, count = text.partition("/")
    if number.isdecimal() and count.isdecimal() and int(number) < int(count) >= 2:
        return int(number), int(count)
    raise typer.BadParameter(f"--fold {text}: give a number and how many there are, such as 0/3")
