"""Ask a running gateway a whole dataset over REST; `services.evaluation.score` says what came.

Every verdict is appended to OUT/verdicts.jsonl as it arrives, so a run that was stopped goes on
where it was; OUT/run.json says what the run is, and OUT/summary.json what came of it.
"""

import asyncio
import contextlib
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, TextIO

import httpx
from httpx_aiohttp import AiohttpTransport
from PIL import Image
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gateway.client import GatewayRefused, GatewayUnreachable, bearer, encode, read_verdict
from gateway.contract import Language, PanelReport, Summarise, Verdict
from models import exported
from models.data import datasets
from models.data.example import DataError, Example, another_for_each
from models.data.splits import refuse_shared_images
from models.recipe import Source, load_recipe
from models.training.examples import examples_of, learned_by
from services.evaluation.score import BOOTSTRAP_SEED, is_settled, score, show
from services.evaluation.stored_run import EvaluationError, Outcome, Run, claim, note, read_outcomes

# A busy machine may be slow; what is measured here is what is said, not how fast.
DEADLINE_S = 300.0


def evaluate(
    *,
    dataset: str,
    split: str,
    language: Language,
    out: Path,
    data: Path,
    gateway_url: str = "http://127.0.0.1:8000",
    concurrency: int = 4,
    limit: int | None = None,
    shuffle_images: int | None = None,
    blank_images: bool = False,
    workers: list[str] | None = None,
    summarise: Summarise = "never",
    rounds: Literal[1, 2] = 1,
    fold: tuple[int, int] | None = None,
    exports: Path | None = None,
) -> dict[str, Any]:
    """Ask what has not been answered yet, print every accuracy, return them as a JSON object.

    `data` is the folder that holds the dataset's own folder. `limit` takes a fixed sample.
    `shuffle_images` is the seed by which every question gets another image than its own;
    `blank_images` gives all of them the same grey one.
    `fold` (0, 3) asks the first of three folds only, as a recipe divides the split. `exports` is
    the folder of workers of one's own, where it is looked up what they were trained on.
    `summarise` other than never scores the panel by what the summariser made of its vote, `rounds`
    by what came of a discussion.

    Raises EvaluationError, and models.data's DataError for a dataset that is not as it should be.
    """
    examples = _in_sample_order(datasets.load(dataset, data, split, language))
    if fold:
        source = Source(set=dataset, split=split, languages=(language,), folds=fold[1])
        held_out = {e.id for e in examples_of([source], data, fold[0], held_out=True)}
        examples = [each for each in examples if f"{dataset}/{each.id}" in held_out]
    # Before the limit: a limited run and its completion show a question the same other image.
    shown = examples if shuffle_images is None else _with_other_images(examples, shuffle_images)
    examples, shown = examples[:limit], shown[:limit]
    report = _panel(gateway_url)
    models = _models(report, language, workers)
    _refuse_what_was_learned(models, examples, data, exports)
    if blank_images:
        out.mkdir(parents=True, exist_ok=True)
        shown = _with_blank_images(shown, out / "blank.png")
    run = Run(
        dataset=dataset,
        split=split,
        language=language,
        shuffle_images=shuffle_images,
        blank_images=blank_images,
        workers=workers,
        summarise=summarise,
        rounds=rounds,
        fold=fold and list(fold),
        panel=report.panel,
        models=models,
    )
    claim(out, run)
    outcomes = read_outcomes(out)
    open_cases = [e for e in shown if e.id not in outcomes or not is_settled(outcomes[e.id])]
    with (out / "verdicts.jsonl").open("a", encoding="utf-8") as lines:
        asyncio.run(_ask_all(open_cases, run, gateway_url, concurrency, lines, outcomes))
    summary = asdict(run) | {"seed": BOOTSTRAP_SEED} | score(examples, outcomes, language)
    if not summary["scores"]:
        raise EvaluationError(
            f"0 of {len(examples)} cases scored; verdicts.jsonl holds the gateway's reasons."
        )
    (out / "summary.json").write_text(json.dumps(summary, indent=1), encoding="utf-8")
    changed = "" if shuffle_images is None else f", images shuffled by seed {shuffle_images}"
    changed += ", images blank" if blank_images else ""
    print(f"{dataset} {split} {language}, exact match{changed}, panel {report.panel[:12]}")
    show(summary)
    print("again:", _command(run, exports))
    print(json.dumps(summary))
    return summary


def _command(run: Run, exports: Path | None) -> str:
    """What asks the same again."""
    options = [
        f"--{key.replace('_', '-')} {','.join(value) if isinstance(value, list) else value}"
        for key in ("dataset", "split", "language", "shuffle_images", "workers", "summarise")
        if (value := getattr(run, key)) is not None
    ]
    options += ["--blank-images"] * run.blank_images
    options += [f"--rounds {run.rounds}"] * (run.rounds > 1)
    options += [f"--fold {run.fold[0]}/{run.fold[1]}"] if run.fold else []
    options += [f"--exports {exports}"] if exports else []
    return " ".join(["consilium evaluate", *options, "--out DIR"])


def _in_sample_order(examples: list[Example]) -> list[Example]:
    """Always the same order, not by image: any first N of it are a sample of the whole."""
    return random.Random(0).sample(examples, len(examples))


def _with_other_images(examples: list[Example], seed: int) -> list[Example]:
    """Each image replaced by another one: a worker that does not look will not notice."""
    other = another_for_each((example.images for example in examples), seed)
    if len(other) < 2:
        raise EvaluationError("Shuffling needs at least two images.")
    return [replace(example, images=other[example.images]) for example in examples]


def _with_blank_images(examples: list[Example], blank: Path) -> list[Example]:
    """Each image replaced by one that shows nothing, `blank`, which is written."""
    Image.new("L", (384, 384), 128).save(blank)
    return [replace(e, images=(blank,) * len(e.images)) for e in examples]


def _panel(url: str) -> PanelReport:
    try:
        response = httpx.get(
            f"{url.rstrip('/')}/panel", timeout=30, trust_env=False, headers=bearer()
        )
        return PanelReport.model_validate_json(response.content)
    except (httpx.HTTPError, ValidationError) as error:
        raise EvaluationError(f"No gateway answers at {url}; start one: make serve.") from error


def _models(report: PanelReport, language: str, workers: list[str] | None) -> dict[str, str | None]:
    """The weights behind each worker that is asked, since panel.toml names them by seat only."""
    asked = [
        seat
        for seat in report.workers
        if language in seat.languages and (workers is None or seat.name in workers)
    ]
    for seat in asked:
        if not seat.reachable:
            others = ",".join(other.name for other in asked if other.reachable)
            remedy = f", or leave it out: --workers {others}" if others else ""
            raise EvaluationError(f"{seat.name} is down. Wait until it is up{remedy}.")
    return {seat.name: seat.model for seat in asked}


def _refuse_what_was_learned(
    models: dict[str, str | None], examples: list[Example], data: Path, exports: Path | None
) -> None:
    """Raises DataError where a worker of the zoo, or of `exports`, was trained on an image that it
    is scored on."""
    for worker, name in models.items():
        folder = name and (exported.find(name) or (exports and exported.find(name, exports)))
        if not folder:
            continue  # somebody else's model: what it has seen is not known
        try:
            learned = learned_by(load_recipe(folder / "recipe.toml"), data)
        except DataError as error:
            print(f"whether {worker} was trained on these images is not known: {error}")
            continue
        refuse_shared_images(learned, examples)


async def _ask_all(
    examples: list[Example],
    run: Run,
    url: str,
    concurrency: int,
    lines: TextIO,
    outcomes: dict[str, Outcome],
) -> None:
    """Ask with `concurrency` cases under way, write each outcome down at once."""
    queue = iter(examples)

    async def ask_in_turn(http: httpx.AsyncClient, done: Callable[[], None]) -> None:
        for example in queue:
            record: dict[str, Any] = {"id": example.id}
            try:
                verdict = await _ask(http, example, run)
                outcome = Outcome(verdict, verdict.answers)
                record["verdict"] = verdict.model_dump()
            except GatewayRefused as error:
                outcome = Outcome(None, error.problem.answers or ())
                record["problem"] = error.problem.model_dump()
            note(outcomes, example.id, outcome)
            lines.write(json.dumps(record, ensure_ascii=False) + "\n")
            lines.flush()
            done()

    transport = AiohttpTransport(trust_env=False)
    async with httpx.AsyncClient(
        transport=transport,
        base_url=url,
        timeout=2 * DEADLINE_S,
        trust_env=False,
        headers=bearer(),
    ) as http:
        with _progress(len(examples)) as done:
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(concurrency):
                        group.create_task(ask_in_turn(http, done))
            except* GatewayUnreachable as errors:
                raise EvaluationError(
                    f"{errors.exceptions[0]} Run the same command again to go on from here."
                ) from errors


async def _ask(http: httpx.AsyncClient, example: Example, run: Run) -> Verdict:
    options = {
        "deadline_s": DEADLINE_S,
        "workers": run.workers,
        "summarise": run.summarise,
        "rounds": run.rounds,
    }
    case = {
        "question": example.question,
        "images": [await asyncio.to_thread(encode, image) for image in example.images],
        "language": example.language,
        "options": options,
    }
    try:
        return read_verdict(await http.post("/vqa", json=case))
    except httpx.HTTPError as error:
        raise GatewayUnreachable(f"The gateway is gone ({type(error).__name__}).") from error


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Callable[[], None]]:
    columns = (TextColumn("asking"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("asking", total=total)
        yield lambda: progress.advance(task)
