"""Ask a running gateway a whole dataset over REST; `services.evaluation.score` says what came.

Every verdict is appended to OUT/verdicts.jsonl as it arrives, so a run that was stopped goes on
where it was; OUT/run.json says what the run is, and OUT/summary.json what came of it.
"""

import asyncio
import json
import random
import shlex
import time
from collections.abc import Collection
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import httpx
from httpx_aiohttp import AiohttpTransport
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gateway.client import (
    GATEWAY_URL,
    JSON,
    GatewayError,
    GatewayRefused,
    GatewayUnreachable,
    Patience,
    bearer,
    case_json,
    no_verdict,
    read_reply,
)
from gateway.contract import Language, PanelReport, Problem, Summarise, Verdict
from gateway.grey import GREY
from models import exported
from models.data import datasets
from models.data.example import DataError, Example, another_for_each
from models.data.splits import refuse_shared_images
from models.files import write_whole
from models.recipe import Source, load_any_recipe
from models.training.examples import examples_of, learned_by
from services.evaluation.score import BOOTSTRAP_SEED, is_settled, score, show
from services.evaluation.stored_run import (
    EvaluationError,
    Outcome,
    Run,
    alone_in,
    claim,
    keep,
    note,
    read_outcomes,
)

# A busy machine may be slow; what is measured here is what is said, not how fast.
DEADLINE_S = 300.0
PATIENCE_S = 300.0
CONCURRENCY = 4


def evaluate(
    *,
    dataset: str,
    split: str,
    language: Language,
    out: Path,
    data: Path,
    gateway_url: str = GATEWAY_URL,
    concurrency: int = CONCURRENCY,
    patience_s: float = PATIENCE_S,
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
    by what came of a discussion. A gateway that is away, or busy, or tells its caller to slow down,
    is waited for, until nothing has got through for `patience_s`.

    Raises EvaluationError, GatewayError where the gateway refuses the caller, and models.data's
    DataError for a dataset that is not as it should be.
    """
    examples = _in_sample_order(datasets.load(dataset, data, split, language))
    if fold:
        source = Source(set=dataset, split=split, languages=(language,), folds=fold[1])
        held_out = {e.id for e in examples_of([source], data, fold[0], held_out=True)}
        examples = [each for each in examples if f"{dataset}/{each.id}" in held_out]
    if not examples:
        raise EvaluationError(
            f"There is no question with an answer in {dataset} {split} {language}."
        )
    # Before the limit: a limited run and its completion show a question the same other image.
    shown = examples if shuffle_images is None else _with_other_images(examples, shuffle_images)
    examples, shown = examples[:limit], shown[:limit]
    report = _panel(gateway_url)
    models = _models(report, language, workers)
    _refuse_what_was_learned(models, examples, data, exports)
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
    with alone_in(out):
        claim(out, run)
        if blank_images:
            shown = _with_blank_images(shown, out / "blank.png")
        outcomes = read_outcomes(out, mend=True)
        open_cases = [e for e in shown if e.id not in outcomes or not is_settled(outcomes[e.id])]
        asyncio.run(_ask_all(open_cases, run, out, gateway_url, concurrency, patience_s, outcomes))
        summary = asdict(run) | {"seed": BOOTSTRAP_SEED} | score(examples, outcomes, language)
        summary["failed"] = sum(_failed(outcomes.get(each.id)) for each in examples)
        if not summary["scores"]:
            raise EvaluationError(
                f"0 of {len(examples)} cases scored; verdicts.jsonl holds the gateway's reasons."
            )
        write_whole(out / "summary.json", json.dumps(summary, indent=1))
    changed = "" if shuffle_images is None else f", images shuffled by seed {shuffle_images}"
    changed += ", images blank" if blank_images else ""
    print(f"{dataset} {split} {language}, exact match{changed}, panel {report.panel[:12]}")
    show(summary)
    again = _command(
        run,
        limit=limit,
        exports=exports,
        gateway=gateway_url if gateway_url != GATEWAY_URL else None,
        concurrency=concurrency if concurrency != CONCURRENCY else None,
        patience=f"{patience_s:g}" if patience_s != PATIENCE_S else None,
        data=data,
        out=out,
    )
    print("again:", again)
    print(f"all of it: {out / 'summary.json'}")
    return summary


def _command(run: Run, **others: Any) -> str:
    """What asks the same again, as a shell takes it; `others` are the options that may change
    within one run, None where one is as it is without."""
    options = {
        "dataset": run.dataset,
        "split": run.split,
        "language": run.language,
        "shuffle_images": run.shuffle_images,
        "blank_images": run.blank_images or None,
        "workers": run.workers and ",".join(run.workers),
        "summarise": run.summarise,
        "rounds": run.rounds if run.rounds > 1 else None,
        "fold": run.fold and f"{run.fold[0]}/{run.fold[1]}",
        **others,
    }
    words = ["consilium", "evaluate"]
    for key, value in options.items():
        if value is not None:
            words += [f"--{key.replace('_', '-')}", *([] if value is True else [str(value)])]
    return shlex.join(words)


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
    """Each image replaced by that by which a verdict's grounding is known, written to `blank`."""
    blank.write_bytes(GREY.data)
    return [replace(e, images=(blank,) * len(e.images)) for e in examples]


def _panel(url: str) -> PanelReport:
    headers = bearer()
    try:
        response = httpx.get(
            f"{url.rstrip('/')}/panel", timeout=30, trust_env=False, headers=headers
        )
        return read_reply(response, PanelReport)
    except (httpx.HTTPError, httpx.InvalidURL, GatewayUnreachable) as error:
        raise EvaluationError(f"No gateway answers at {url}; start one: make serve.") from error


def _models(
    report: PanelReport, language: str, workers: Collection[str] | None
) -> dict[str, str | None]:
    """The weights behind each worker that is asked, since panel.toml names them by seat only.

    Raises:
        EvaluationError: one of `workers` is not seated, nobody speaks the language, or somebody
            who is to be asked is down.
    """
    seats = [seat.name for seat in report.workers]
    if strangers := [name for name in workers or () if name not in seats]:
        raise EvaluationError(
            f"--workers: nobody called {', '.join(strangers)} is seated; {', '.join(seats)} are."
        )
    asked = [
        seat
        for seat in report.workers
        if language in seat.languages and (workers is None or seat.name in workers)
    ]
    if not asked:
        raise EvaluationError(f"None of {', '.join(workers or seats)} answers in {language}.")
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
            learned = learned_by(load_any_recipe(folder / "recipe.toml"), data)
        except DataError as error:
            print(f"whether {worker} was trained on these images is not known: {error}")
            continue
        refuse_shared_images(learned, examples)


async def _ask_all(
    examples: list[Example],
    run: Run,
    out: Path,
    url: str,
    concurrency: int,
    patience_s: float,
    outcomes: dict[str, Outcome],
) -> None:
    """Ask with `concurrency` cases under way, write each outcome down at once."""
    queue = iter(examples)
    transport = AiohttpTransport(trust_env=False)
    timeout_s = 2 * DEADLINE_S
    headers = JSON | bearer()
    columns = (TextColumn("asking"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=Console(stderr=True, markup=False, highlight=False))
    asking = progress.add_task("asking", total=len(examples))
    patience = Patience(patience_s, progress.console.print)

    async def ask_in_turn(http: httpx.AsyncClient) -> None:
        for example in queue:
            said = await _ask(http, example, run, patience)
            note(outcomes, example.id, keep(out, example.id, said))
            progress.advance(asking)

    async with httpx.AsyncClient(
        transport=transport, base_url=url, timeout=timeout_s, trust_env=False, headers=headers
    ) as http:
        with progress:
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(concurrency):
                        group.create_task(ask_in_turn(http))
            except ExceptionGroup as errors:
                first = errors.exceptions[0]
                if not isinstance(first, GatewayError):
                    raise first from None
                left = sum(_failed(outcomes.get(each.id)) for each in examples)
                raise EvaluationError(
                    f"{first} {left} questions have no verdict yet; run the same command again to "
                    "go on from here."
                ) from first


def _failed(outcome: Outcome | None) -> bool:
    """Whether there is no verdict, and may be one another time."""
    return outcome is None or (outcome.verdict is None and not is_settled(outcome))


async def _ask(
    http: httpx.AsyncClient, example: Example, run: Run, patience: Patience
) -> Verdict | Problem:
    """What came of a case, after what may pass has passed.

    Raises:
        GatewayError: it has not, or the gateway does not know this caller: the next case would
            fare no better.
    """
    options = {
        "deadline_s": DEADLINE_S,
        "workers": run.workers,
        "summarise": run.summarise,
        "rounds": run.rounds,
    }
    body = await asyncio.to_thread(
        case_json, example.images, example.question, language=example.language, options=options
    )
    while True:
        await asyncio.sleep(patience.wait_s)
        asked_at = time.monotonic()
        try:
            said: Verdict | Problem = await _post(http, body)
        except GatewayError as error:
            if patience.goes_on(error, asked_at):
                continue
            if not isinstance(error, GatewayRefused) or error.problem.status in (401, 403):
                raise
            if not error.may_pass:
                said = error.problem
            elif error.problem.answers:  # what the others said counts
                return error.problem
            else:
                raise
        patience.got_through()
        return said


async def _post(http: httpx.AsyncClient, body: bytes) -> Verdict:
    try:
        return read_reply(await http.post("/vqa", content=body), Verdict)
    except httpx.HTTPError as error:
        raise no_verdict(str(http.base_url), error) from error
