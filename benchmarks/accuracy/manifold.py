"""Manifold against monolith: a panel of specialists, or one worker that was taught everything?

    python -m benchmarks.accuracy.manifold prepare
    for recipe in runs/manifold/recipes/*.toml; do
        consilium train "$recipe" --runs runs/manifold/trained
    done
    python -m benchmarks.accuracy.manifold answer
    python -m benchmarks.accuracy.manifold tell

Three workers that choose are each taught one set; the fourth, of as many trained parameters as the
three together and for as many operations, all three sets (`models/recipes/specialist-*.toml`,
`models/recipes/monolith.toml`). `prepare` writes the sets as files and the recipes for each seed,
`answer` stores what every worker says to the questions of validation and test as `consilium
evaluate` would (in one process, by the forward that training validates with), and `tell` prints
what panel and monolith, both calibrated on validation and never told which set a question is of,
make of the test. The panel comes twice: as it is, and beside something that tells, as a seated
memory does, whose manner a question is in. `cost` counts parameters, operations of the training and
a processor's time for an answer.
"""

import argparse
import functools
import json
import os
import random
import re
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from gateway.asking.model_server import MIN_PROBABILITY
from gateway.asking.panel import TOP_LOGPROBS
from gateway.contract import Alternative, Answer, Likeness, Summary, Verdict
from gateway.settings import Settings, SettingsError, load_settings
from gateway.verdict.competence import Cell
from gateway.verdict.text.questions import kind_of
from gateway.verdict.weigh import Judge, Opinion
from models.data.datasets import load
from models.data.example import DataError, Example
from models.data.own_file import read
from models.data.pixels import open_rgb
from models.data.splits import folds, near_duplicates_between
from models.files import write_whole
from models.metrics import calibration_error
from models.metrics.score import Score
from models.parts.packing import collate
from models.parts.vlm import Vlm, build_model
from models.recipe import Recipe, load_recipe, recipe_file
from models.serving.memory import Wordings
from models.study.confidence import chances
from models.study.seeds import over_seeds
from models.training.inputs.examples import examples_of
from models.training.inputs.features import cached_features
from models.training.learning import tuning
from models.training.learning.losses import Objective
from models.training.record import checkpoints
from models.training.record.checkpoints import CheckpointError
from services.evaluation.heard import Heard, hear
from services.evaluation.learning import fit
from services.evaluation.score import is_right
from services.evaluation.stored_run import EvaluationError, Run, hash_of, write_run

SPECIALISTS = {
    "specialist-slake": "slake",
    "specialist-rad": "vqa_rad",
    "specialist-med": "vqa_med_2019",
}
MANNERED = "manifold-with-manners"
PANELS = {"manifold": (*SPECIALISTS,), MANNERED: (*SPECIALISTS,), "monolith": ("monolith",)}
WORKERS = (*SPECIALISTS, "monolith")
PARTS = ("train", "validate", "test")
ROWS = 16  # at a time
COUNTED = 48  # rows whose operations are counted, of each set
TIMED = 50  # questions

Parts = dict[str, dict[str, list[Example]]]  # by part, then by set


def parts_of(data: Path) -> Parts:
    """SLAKE in its official splits. Of VQA-RAD, whose own share their images, the first of five
    folds by image is the test and the second is for validation; of VQA-Med its validation is the
    test, and a tenth of its training images is for validation.
    """
    rad = folds(load("vqa_rad", data, "all", "en"), 5, seed=0)
    med = folds(load("vqa_med_2019", data, "train", "en"), 10, seed=0)
    found: Parts = {part: {"slake": load("slake", data, part, "en")} for part in PARTS}
    found["train"] |= {"vqa_rad": [*chain(*rad[2:])], "vqa_med_2019": [*chain(*med[1:])]}
    found["validate"] |= {"vqa_rad": rad[1], "vqa_med_2019": med[0]}
    held_out = load("vqa_med_2019", data, "validate", "en")
    found["test"] |= {"vqa_rad": rad[0], "vqa_med_2019": held_out}
    return apart(found)


def apart(parts: Parts) -> Parts:
    """The same without what shows an image that looks like one of another set's later part: some
    images are in two of the sets. What lies in one set is as its makers parted it.
    """
    found: Parts = {}
    for number, part in enumerate(PARTS):
        found[part] = {}
        for name, examples in parts[part].items():
            others = [
                example
                for later in PARTS[number + 1 :]
                for other, of in parts[later].items()
                for example in of
                if other != name
            ]
            alike = {image for image, _, _ in near_duplicates_between(examples, others)}
            found[part][name] = [e for e in examples if alike.isdisjoint(e.images)]
    return found


def prepare(data: Path, folder: Path, seeds: int) -> None:
    """The sets as files, and all that is made of the recipes."""
    for part, by_set in parts_of(data).items():
        for name, examples in by_set.items():
            write_set(folder / f"{name}-{part}.jsonl", {name: examples})
            images = len({example.images for example in examples})
            print(f"{part} {name}: {len(examples)} questions on {images} images")
        write_set(folder / f"{part}.jsonl", by_set)
    seat(folder, seeds)


def seat(folder: Path, seeds: int) -> None:
    """For each seed a recipe of each worker, and the panel files."""
    (folder / "recipes").mkdir(parents=True, exist_ok=True)
    for name in WORKERS:
        text = recipe_file(name).read_text("utf-8")
        for seed in range(seeds):
            own = re.sub(r"^seed = 0$", f"seed = {seed}", text, flags=re.MULTILINE)
            own = own.replace(f'name = "{name}"', f'name = "{name}-{seed}"')
            write_whole(folder / "recipes" / f"{name}-{seed}.toml", own)
    for seed in range(seeds):
        for panel, names in PANELS.items():
            seats = (_seat(name, folder / "exported" / f"{name}-{seed}") for name in names)
            head = f"[panel]\nquorum = {min(2, len(names))}\n\n"
            write_whole(folder / f"{panel}-{seed}.toml", head + "\n".join(seats))


def write_set(path: Path, by_set: Mapping[str, Sequence[Example]]) -> None:
    """A file as `consilium evaluate --dataset` takes it; a question's kind is its set: a report
    tells them apart by it, and no verdict knows it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = (
        {
            "id": f"{name}/{example.id}",
            "images": [str(image.absolute()) for image in example.images],
            "question": example.question,
            "answer": example.answer,
            "language": "en",
            "closed": example.closed,
            "alternatives": list(example.alternatives),
            "kind": name,
        }
        for name, examples in by_set.items()
        for example in examples
    )
    write_whole(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _seat(name: str, model: Path) -> str:
    recipe = load_recipe(name)
    return f"""[[worker]]
name = "{name}"
family = "{recipe.language.family}"
model = "{model}"
languages = ["en"]
each_image = true
one_token = true
prompt = "{recipe.prompt}"
engine = {{ max-model-len = 1024, max-logprobs = 100 }}
"""


def answer(data: Path, folder: Path, seeds: int) -> None:
    """Stored runs, `folder`/answers/PANEL-PART-SEED."""
    for seed in range(seeds):
        for part in PARTS[1:]:
            file = folder / f"{part}.jsonl"
            examples = load(str(file), data, "all", "en")
            said = {name: answers(folder, name, seed, examples) for name in WORKERS}
            store(folder, part, seed, examples, said)
            print(f"seed {seed}, {part}: {len(examples)} questions answered", flush=True)


def store(
    folder: Path,
    part: str,
    seed: int,
    examples: Sequence[Example],
    said: Mapping[str, Sequence[Answer]],
) -> None:
    """A run of each panel; `said` has by worker its answers to the examples, in their order."""
    manners = manners_of(folder, examples)
    for panel, names in PANELS.items():
        settings = load_settings(folder / f"{panel}-{seed}.toml")
        of_first, *of_others = (said[name] for name in names)
        if panel == MANNERED:
            of_first = [_telling(*each) for each in zip(of_first, manners, strict=True)]
        given = zip(of_first, *of_others, strict=True)
        run = Run(
            dataset=str(folder / f"{part}.jsonl"),
            split="all",
            language="en",
            shuffle_images=None,
            blank_images=False,
            workers=None,
            summarise="never",
            panel=settings.panel_hash,
            models={},
            questions=hash_of(examples),
        )
        verdicts = {
            example.id: _verdict(example, each, settings)
            for example, each in zip(examples, given, strict=True)
        }
        write_run(folder / "answers" / f"{panel}-{part}-{seed}", run, verdicts)


def manners_of(folder: Path, examples: Sequence[Example]) -> list[str]:
    """The set which asks most as each of them is asked: by wording, as a seated memory of the
    training questions tells it."""
    asking: dict[str, Counter[str]] = defaultdict(Counter)
    for name in SPECIALISTS.values():
        for example in read(folder / f"{name}-train.jsonl"):
            asking[example.question][name] += 1
    questions = list(asking)
    wordings = Wordings(questions)

    @functools.cache
    def manner(question: str) -> str:
        nearest = questions[int(wordings.likeness(question).argmax())]
        return asking[nearest].most_common(1)[0][0]

    return [manner(example.question) for example in examples]


def _telling(answer: Answer, manner: str) -> Answer:
    """The same, and the manner. How like the images are nobody tells: as like as can be."""
    return answer.model_copy(update={"likeness": Likeness(image=1, question=1, manner=manner)})


def _verdict(example: Example, answers: Sequence[Answer], settings: Settings) -> Verdict:
    """By vote: what is learned of them weighs them later."""
    cell = Cell("en", kind_of(example.question, "en"), None)
    opinion = Judge(settings.families, cell, None, example.question).weigh(answers)
    return Verdict(
        id=example.id,
        answer=opinion.winner.text,
        language="en",
        agreement=opinion.agreement,
        answers=opinion.answers,
        workers=opinion.winner.workers,
        dissent=opinion.dissent,
        summary=Summary(by="vote", faithful=None, seconds=0),
        panel=settings.panel_hash,
        seconds=0,
    )


def answers(folder: Path, name: str, seed: int, examples: Sequence[Example]) -> list[Answer]:
    """What a trained worker says to them, in their order, with what it nearly said: as the gateway
    takes it from vLLM's first token."""
    recipe, model = trained(folder, name, seed)
    rows = model.packed(examples, recipe.prompt)
    features = cached_features(model.tower, {image for row in rows for image in row.images})
    found: dict[str, Answer] = {}
    for start in range(0, len(rows), ROWS):
        some = rows[start : start + ROWS]
        seen = torch.stack([features[image] for row in some for image in row.images])
        likeliest = chances(model, some, seen).topk(TOP_LOGPROBS)
        asked = (example for row in some for example in row.questions)
        for example, chance, token in zip(
            asked, likeliest.values.tolist(), likeliest.indices.tolist(), strict=True
        ):
            texts = [model.tokenizer.decode([each]).strip() for each in token]
            found[example.id] = Answer(
                worker=name,
                text=texts[0],
                confidence=min(chance[0], 1.0),
                alternatives=tuple(
                    Alternative(begins=text, whole=True, probability=probability)
                    for text, probability in zip(texts[1:], chance[1:], strict=True)
                    if text and probability >= MIN_PROBABILITY
                ),
                seconds=0,
            )
    return [found[example.id] for example in examples]


def trained(folder: Path, name: str, seed: int) -> tuple[Recipe, Vlm]:
    """Raises CheckpointError where it is not trained to its end."""
    recipe = load_recipe(str(folder / "recipes" / f"{name}-{seed}.toml"))
    run = folder / "trained" / recipe.name
    last = checkpoints.newest(run / recipe.stage[-1].name)
    if not (last and last.finished):
        raise CheckpointError(f"{run} has not come to its end: consilium train {recipe.name}.")
    model = build_model(recipe, home=run)
    tuning.load_trained(model, last.folder)
    return recipe, model.eval()


@dataclass(frozen=True)
class Voice:
    """What somebody said to each case of the test, by seed."""

    right: NDArray[np.float64]  # [seeds, cases]
    sure: NDArray[np.float64] | None = None  # likewise: the calibrated confidence


def tell(data: Path, folder: Path, seeds: int) -> None:
    heard: dict[str, list[list[Heard]]] = {}
    opinions: dict[str, list[list[Opinion]]] = {"vote": [], **{panel: [] for panel in PANELS}}
    for panel in PANELS:
        heard[panel] = []
        for seed in range(seeds):
            learned, asked = (folder / "answers" / f"{panel}-{p}-{seed}" for p in PARTS[1:])
            settings = load_settings(folder / f"{panel}-{seed}.toml")
            known = fit.calibrate([learned], settings, data)
            cases, _ = hear([asked], data)
            heard[panel].append(cases)
            opinions[panel].append([fit.opinion_of(case, settings, known) for case in cases])
            if panel == "manifold":
                opinions["vote"].append([fit.opinion_of(case, settings, None) for case in cases])
    examples = [case.example for case in heard["manifold"][0]]
    voices = {name: _of_opinions(each, examples) for name, each in opinions.items()}
    members = [[_members(case) for case in cases] for cases in heard["manifold"]]
    for name in SPECIALISTS:
        voices[name] = Voice(np.array([[m[name] for m in of] for of in members], float))
    knows = [[m[_specialist(e)] for m, e in zip(of, examples, strict=True)] for of in members]
    voices["specialist of the set"] = Voice(np.array(knows, float))
    voices["any specialist"] = Voice(
        np.array([[any(m.values()) for m in of] for of in members], float)
    )
    _show(voices, examples)


def _of_opinions(opinions: Sequence[Sequence[Opinion]], examples: Sequence[Example]) -> Voice:
    right = [
        [is_right(o.winner.text, e) for o, e in zip(of, examples, strict=True)] for of in opinions
    ]
    sure = [[np.nan if o.confidence is None else o.confidence for o in of] for of in opinions]
    return Voice(np.array(right, float), np.array(sure, float))


def _members(case: Heard) -> dict[str, bool]:
    return {a.worker: is_right(a.text, case.example) for a in case.answers}


def _set(example: Example) -> str:
    return example.id.partition("/")[0]


def _specialist(example: Example) -> str:
    return next(name for name, its in SPECIALISTS.items() if its == _set(example))


def _show(voices: Mapping[str, Voice], examples: Sequence[Example]) -> None:
    """Lines of a table. `sets alike` is the union in which each set weighs the same."""
    of_set = np.array([_set(example) for example in examples])
    names = list(SPECIALISTS.values())
    counts = {name: int((of_set == name).sum()) for name in names}
    alike = np.array([len(examples) / len(names) / counts[name] for name in of_set])
    images = [example.images for example in examples]

    def scored(values: NDArray[np.float64]) -> list[Score]:
        groups = [np.flatnonzero(of_set == name) for name in names]
        parts = [over_seeds(values[:, g], [images[i] for i in g]) for g in groups]
        return [*parts, over_seeds(values, images), over_seeds(values * alike, images)]

    print("| right | " + " | ".join([*names, "all questions", "sets alike"]) + " | by seed |")
    for name, voice in voices.items():
        seeds = ", ".join(f"{100 * each:.1f}" for each in (voice.right * alike).mean(axis=1))
        print(f"| {name} | {_cells(scored(voice.right))} | {seeds} |")
    best = max(SPECIALISTS, key=lambda name: (voices[name].right * alike).mean())
    for one, other in (
        ("manifold", "monolith"),
        (MANNERED, "monolith"),
        (MANNERED, "manifold"),
        (MANNERED, best),
        ("specialist of the set", MANNERED),
        ("specialist of the set", "monolith"),
    ):
        less = voices[one].right - voices[other].right
        print(f"| {one} - {other} | {_cells(scored(less))} |")
    for name, voice in voices.items():
        if voice.sure is None:
            continue
        told = []
        for chosen in [*(of_set == each for each in names), np.ones(len(examples), bool)]:
            sure, right = voice.sure[:, chosen], voice.right[:, chosen]
            shown = [image for image, its in zip(images, chosen, strict=True) if its]
            known = ~np.isnan(sure).ravel()
            if not known.any():
                continue
            told.append(
                calibration_error.score(
                    sure.ravel()[known],
                    (right.ravel()[known] > 0).tolist(),
                    [image for image, its in zip(shown * len(sure), known, strict=True) if its],
                )
            )
        if told:
            errors = " | ".join(f"{e.value:.3f} ({e.low:.3f}-{e.high:.3f})" for e in told)
            print(f"| calibration error, {name} | {errors} |")


def _cells(scores: Sequence[Score]) -> str:
    return " | ".join(
        f"{100 * s.value:.1f} ({100 * s.low:.1f} to {100 * s.high:.1f})" for s in scores
    )


def cost(data: Path, folder: Path, seeds: int) -> None:
    """Of each worker: trained parameters, those of its tower, operations of its training (counted
    over rows of each set, attention included), and a processor's seconds for one answer, tower
    and all, on one thread; medians."""
    torch.set_num_threads(1)
    asked = load(str(folder / "test.jsonl"), data, "all", "en")
    for name in WORKERS:
        recipe, model = trained(folder, name, 0)
        learns, towers = (
            sum(p.numel() for p in part)
            for part in (
                [*model.connector.parameters(), *model.language.parameters()],
                model.tower.parameters(),
            )
        )
        took = []
        for example in random.Random(0).sample(asked, TIMED):
            shown = [open_rgb(image) for image in example.images]
            began = time.process_time()
            model.answer(shown, recipe.prompt.format(question=example.question))
            took.append(time.process_time() - began)
        print(
            f"| {name} | {learns / 1e6:.2f} M | {towers / 1e6:.2f} M | "
            f"{operations(recipe, model, data) / 1e12:.2f}e12 | {float(np.median(took)):.3f} s |",
            flush=True,
        )


def operations(recipe: Recipe, model: Vlm, data: Path) -> float:
    """Of its training, forward and backward, without the tower, which is frozen and runs once."""
    stage = recipe.stage[-1]
    tuning.prepare(model, stage)
    objective = Objective(model, stage).train()
    rows = model.packed(examples_of(stage.data, data), recipe.prompt, stage.questions_per_row)
    steps = -(-len(rows) // stage.rows_per_step) * stage.epochs
    drawn = random.Random(0).sample(rows, COUNTED)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counted:
        for start in range(0, COUNTED, stage.rows_per_step):
            batch = collate(drawn[start : start + stage.rows_per_step], 0)
            seen = torch.randn(len(batch.rows), model.tower.patches, model.tower.dim)
            objective(batch, seen).answer.backward()
    shown = min(stage.steps or steps, steps) / steps * len(rows) * stage.epochs
    return float(counted.get_total_flops()) / COUNTED * shown


def main() -> None:
    told = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    doing = {"prepare": prepare, "answer": answer, "tell": tell, "cost": cost}
    told.add_argument("what", choices=list(doing))
    told.add_argument("--data", type=Path, default=os.environ.get("CONSILIUM_DATA"))
    told.add_argument("--out", type=Path, default=Path("runs/manifold"))
    told.add_argument("--seeds", type=int, default=3)
    asked = told.parse_args()
    if asked.data is None:
        told.error("needs --data, or CONSILIUM_DATA")
    doing[asked.what](asked.data, asked.out, asked.seeds)


if __name__ == "__main__":
    try:
        main()
    except (CheckpointError, DataError, EvaluationError, SettingsError) as error:
        raise SystemExit(str(error)) from None
