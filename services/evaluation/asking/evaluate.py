"""Ask a running gateway a whole dataset over REST; `services.evaluation.score` says what came.

Every verdict is appended to OUT/verdicts.jsonl as it arrives, so a run that was stopped goes on
where it was; OUT/run.json says what the run is, and OUT/summary.json what came of it.
"""

import json
import random
import shlex
from collections import Counter
from collections.abc import Collection
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from consilium import wire
from consilium.client import GATEWAY_URL
from gateway.asking.grey import GREY
from gateway.contract import Language, PanelReport, Summarise
from gateway.settings import SUMMARISER
from models import exported
from models.data import datasets, own_file
from models.data.example import DataError, Example, another_for_each
from models.data.splits import refuse_shared_images
from models.files import write_whole
from models.recipe import load_any_recipe
from models.recipe.stage import Source
from models.training.inputs.examples import examples_of, learned_by
from services.evaluation.asking.over_rest import Asking, ask_all, has_failed, panel_at
from services.evaluation.score import BOOTSTRAP_SEED, score, show
from services.evaluation.stored_run import (
    VERDICTS,
    EvaluationError,
    Run,
    Verdicts,
    alone_in,
    claim,
    hash_of,
    hash_of_images,
)

PATIENCE_S = 300.0
CONCURRENCY = 4
SHOWN = 3  # of what has no verdict


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
    rotate_images: bool = False,
    workers: list[str] | None = None,
    summarise: Summarise = "never",
    rounds: Literal[1, 2] = 1,
    fold: tuple[int, int] | None = None,
    exports: Path | None = None,
    ray: str | None = None,
) -> dict[str, Any]:
    """Ask what has not been answered yet, print every accuracy, return them as a JSON object.

    `dataset` is a name, and `data` the folder that holds its own; or the path of a file, whose one
    split is "all" (models.data.own_file). `limit` takes a fixed sample.
    `shuffle_images` is the seed by which every question gets another image than its own;
    `blank_images` gives all of them the same grey one; `rotate_images` asks only about cases of
    several images, and shows the first one last.
    `fold` (0, 3) asks the first of three folds only, as a recipe divides the split. `exports` is
    the folder of workers of one's own, where it is looked up what they were trained on.
    `summarise` other than never scores the panel by what the summariser made of its vote, `rounds`
    by what came of a discussion. At most `concurrency` questions are under way; a gateway that is
    away, or busy, or tells its caller to slow down, is asked fewer at a time and waited for, until
    nothing has got through for `patience_s`. `ray` is the address of a cluster each of whose nodes
    asks so many at a time; the images and `out` lie where they all see them.

    Raises EvaluationError, GatewayError where the gateway refuses the caller, and models.data's
    DataError for a dataset that is not as it should be.
    """
    if own := datasets.is_own(dataset):
        dataset = str(Path(dataset).resolve())  # it will be read again, perhaps from elsewhere
        _tell_of_other_languages(Path(dataset), language)
    whole = datasets.load(dataset, data, split, language)
    examples = _in_sample_order(whole)
    if fold:
        source = Source(set=dataset, split=split, languages=(language,), folds=fold[1])
        held_out = {e.id for e in examples_of([source], data, fold[0], held_out=True)}
        examples = [
            each for each in examples if f"{datasets.called(dataset)}/{each.id}" in held_out
        ]
    if rotate_images:
        examples = [each for each in examples if len(each.images) > 1]
    if not examples:
        raise EvaluationError(
            f"There is no question with an answer{' about several images' if rotate_images else ''}"
            f" in {dataset} {split} {language}."
        )
    # Before the limit: a limited run and its completion show a question the same other image.
    shown = examples if shuffle_images is None else _with_other_images(examples, shuffle_images)
    if rotate_images:
        shown = [_rotated(each) for each in shown]
    examples, shown = examples[:limit], shown[:limit]
    report = panel_at(gateway_url)
    models = _models(report, language, workers)
    _refuse_what_was_learned(models, examples, data, exports)
    words = report.summariser if summarise != "never" else None
    if words and language in words.languages:
        models[SUMMARISER] = words.model
    run = Run(
        dataset=dataset,
        split=split,
        language=language,
        shuffle_images=shuffle_images,
        blank_images=blank_images,
        rotate_images=rotate_images,
        workers=workers and sorted(set(workers)),  # in whichever order they are named
        summarise=summarise,
        rounds=rounds,
        fold=fold and list(fold),
        panel=report.panel,
        models=models,
        questions=hash_of(whole) if own else None,
        images=hash_of_images(whole, Path(dataset).parent) if own else None,
        begun=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    with alone_in(out):
        run = claim(out, run)
        if blank_images:
            shown = _with_blank_images(shown, out / "blank.png")
        with Verdicts(out) as outcomes:
            asking = Asking(run, gateway_url, concurrency, patience_s)
            if ray is None:
                ask_all(shown, asking, outcomes)
            else:
                from services.evaluation.asking.on_ray import ask_all_from

                ask_all_from(ray, shown, asking, outcomes, out)
            asked = {example.id for example in examples}
            in_file_order = [example for example in whole if example.id in asked]
            scored = score(in_file_order, outcomes, language)
            summary = asdict(run) | {"seed": BOOTSTRAP_SEED} | scored
            failed = [each.id for each in in_file_order if has_failed(outcomes.get(each.id))]
            summary["failed"] = len(failed)
            for id in failed[:SHOWN]:
                why = outcomes[id].refusal if id in outcomes else "It was not asked."
                print(f"one of {len(failed)} without a verdict, {id}: {why}")
        if not summary["scores"]:
            raise EvaluationError(
                f"0 of {len(examples)} cases scored; {out / VERDICTS} holds the gateway's reasons."
            )
        write_whole(out / "summary.json", json.dumps(summary, indent=1))
    print(f"{run.name}, exact match{run.images_changed}, panel {report.panel[:12]}")
    show(summary)
    again = _command(
        run,
        limit=limit,
        exports=exports,
        gateway=wire.shown(gateway_url) if gateway_url != GATEWAY_URL else None,
        concurrency=concurrency if concurrency != CONCURRENCY else None,
        patience=f"{patience_s:g}" if patience_s != PATIENCE_S else None,
        ray=ray,
        data=data,
        out=out,
    )
    print("again:", again)
    print(f"all of it: {out / 'summary.json'}")
    return summary


def _tell_of_other_languages(file: Path, language: Language) -> None:
    counts = Counter(example.language for example in own_file.read(file))
    for other in sorted(counts.keys() - {language}):
        print(
            f"{counts[other]} questions of {file.name} are in {other}: ask them with --language "
            f"{other}, in a run of their own"
        )


def _command(run: Run, **others: Any) -> str:
    """What asks the same again, as a shell takes it; `others` are the options that may change
    within one run, None where one is as it is without."""
    options = {
        "dataset": run.dataset,
        "split": run.split,
        "language": run.language,
        "shuffle_images": run.shuffle_images,
        "blank_images": run.blank_images or None,
        "rotate_images": run.rotate_images or None,
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
    return [replace(example, images=other[example.images], views=()) for example in examples]


def _rotated(example: Example) -> Example:
    """With its first image last, and what is said of it."""
    images, views = example.images, example.views
    return replace(example, images=images[1:] + images[:1], views=views[1:] + views[:1])


def _with_blank_images(examples: list[Example], blank: Path) -> list[Example]:
    """Each image replaced by that by which a verdict's grounding is known, written to `blank`."""
    write_whole(blank, GREY.data)
    return [replace(e, images=(blank,) * len(e.images)) for e in examples]


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
    if workers is not None and not workers:
        raise EvaluationError("--workers names nobody: give names with commas between them.")
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
