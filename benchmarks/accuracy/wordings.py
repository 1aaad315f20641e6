"""Is a summariser that was trained a better one? Stored disputes, worded by each.

    python -m benchmarks.accuracy.wordings RUN \
        --arm labels=FOLDER,FOLDER --arm reward=FOLDER,FOLDER --out DIR

An arm is what one way to train made, an adapter for each seed; `prompted` is their base as the
panel file seats it. Each is asked of every dispute that the panel of that file would put to it,
greedily, under transformers in bfloat16, which is not the server's four bits; a reply is judged as
the gateway does, where it is not taken the vote leaves. Printed are which part is taken, which part
of what leaves is right, and the words of a reply; then how far each arm is from the prompted one
and from the arm before it, case by case, with 95 % intervals over images, and seed by seed.
DIR/replies.json grows by an adapter at a time, and whose replies it holds is not asked again;
DIR/wordings.png shows both parts.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import models.cpu_torch  # noqa: F401  before transformers, which imports torchvision

# isort: split
from matplotlib import pyplot as plt
from numpy.typing import NDArray
from peft import PeftModel
from rich.console import Console
from rich.progress import track
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from benchmarks import needs
from benchmarks.accuracy.thinking import disputed
from gateway.asking.summariser import MAX_TOKENS
from gateway.settings import load_settings
from models import assets
from models.exported import adapter_base
from models.files import write_whole
from models.metrics.score import mean
from models.metrics.token_overlap import words_of
from services.evaluation.learning.lessons import Lesson, lesson_of, request_ids
from services.evaluation.learning.reward_summariser import ends_of, padded, reward
from services.evaluation.pictures import STYLE
from services.evaluation.score import is_right

BATCH = 16
PROMPTED = "prompted"


@dataclass(frozen=True)
class Worded:
    """What became of each dispute, by seed: all [seeds, cases]."""

    taken: NDArray[np.float64]
    right: NDArray[np.float64]  # what leaves
    words: NDArray[np.float64]


def judged(replies: Sequence[Sequence[tuple[str, bool]]], lessons: Sequence[Lesson]) -> Worded:
    """Replies by seed, each with whether it came to an end."""
    found: dict[str, list[list[float]]] = {"taken": [], "right": [], "words": []}
    for of_seed in replies:
        pairs = list(zip(of_seed, lessons, strict=True))
        taken = [reward(*reply, lesson) > 0 for reply, lesson in pairs]
        leaves = [
            text.strip() if took else lesson.opinion.winner.text
            for ((text, _), lesson), took in zip(pairs, taken, strict=True)
        ]
        found["taken"].append([float(took) for took in taken])
        found["right"].append(
            [
                float(is_right(text, lesson.case.example))
                for text, lesson in zip(leaves, lessons, strict=True)
            ]
        )
        found["words"].append([float(len(words_of(text))) for text, _ in of_seed])
    return Worded(**{name: np.array(values) for name, values in found.items()})


def difference(one: Worded, other: Worded, images: Sequence[Any]) -> str:
    """`one` less `other`, in points; seeds are paired, and one that is alone with all."""
    told = []
    for name in ("taken", "right"):
        apart = getattr(one, name) - getattr(other, name)
        score = mean(apart.mean(0).tolist(), images)
        by_seed = ", ".join(f"{100 * each:+.1f}" for each in apart.mean(1))
        value, low, high = (f"{100 * each:+.1f}" for each in (score.value, score.low, score.high))
        told.append(f"{name} {value} ({low} to {high}; by seed {by_seed})")
    return "  ".join(told)


def draw(worded: Mapping[str, Worded], images: Sequence[Any], path: Path) -> None:
    """Which part is taken and which is right, by arm, with its interval; each seed's as a cross."""
    with plt.rc_context(STYLE | {"figure.figsize": (7, 0.9 + 0.4 * len(worded))}):
        figure, columns = plt.subplots(1, 2, sharey=True)
        for axes, part in zip(columns, ("taken", "right"), strict=True):
            for place, each in enumerate(worded.values()):
                values = 100 * getattr(each, part)
                score = mean(values.mean(0).tolist(), images)
                axes.plot([score.low, score.high], [place, place], "-", color="tab:blue")
                axes.plot(score.value, place, "o", color="tab:blue")
                axes.plot(values.mean(1), [place] * len(values), "x", color="black")
            axes.set_xlabel(f"{part}, % of {len(images)}")
        columns[0].set_yticks(range(len(worded)), list(worded))
        columns[0].set_ylim(len(worded) - 0.5, -0.5)
        figure.tight_layout()
        figure.savefig(path)
        plt.close(figure)


@torch.no_grad()
def replies_of(model: Any, tokenizer: Any, lessons: Sequence[Lesson]) -> list[tuple[str, bool]]:
    ends = ends_of(tokenizer)
    model.generation_config = GenerationConfig()
    asked = [request_ids(lesson, tokenizer) for lesson in lessons]
    order = sorted(range(len(asked)), key=lambda at: len(asked[at]))
    found: dict[int, tuple[str, bool]] = {}
    batches = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
    for batch in track(batches, "wording", console=Console(stderr=True)):
        ids, there = padded([asked[at] for at in batch], "left")
        bounds = {"max_new_tokens": MAX_TOKENS, "eos_token_id": ends, "pad_token_id": ends[0]}
        said = model.generate(input_ids=ids, attention_mask=there, do_sample=False, **bounds)
        for at, row in zip(batch, said[:, ids.shape[1] :].tolist(), strict=True):
            text = tokenizer.decode(row, skip_special_tokens=True).partition("\n")[0]
            found[at] = text, any(token in ends for token in row)
    return [found[at] for at in range(len(asked))]


def main() -> None:
    arguments = argparse.ArgumentParser(description="Have trained summarisers word disputes.")
    arguments.add_argument("runs", nargs="+", type=Path)
    arguments.add_argument("--arm", action="append", default=[], metavar="NAME=FOLDER,FOLDER")
    arguments.add_argument("--panel", type=Path, default=Path("panel.toml"))
    arguments.add_argument("--out", type=Path, required=True)
    needs.data_folder(arguments)
    given = arguments.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    settings = load_settings(given.panel)
    summariser = settings.summariser
    if summariser is None:
        raise SystemExit(f"{given.panel} seats no summariser.")
    lessons = [
        lesson_of(case, opinion, summariser)
        for case, opinion in disputed(given.runs, given.data, settings)
        if case.cell.language in summariser.languages
    ]
    images = [lesson.case.example.group for lesson in lessons]
    folder = assets.resolve(adapter_base(summariser.model), print)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    arms = {PROMPTED: [PROMPTED]}
    for each in given.arm:
        name, _, folders = each.partition("=")
        arms[name] = folders.split(",")
    file = given.out / "replies.json"
    replies = json.loads(file.read_text("utf-8")) if file.exists() else {}
    for adapter in (each for adapters in arms.values() for each in adapters):
        if adapter not in replies:
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
            if adapter != PROMPTED:
                model = PeftModel.from_pretrained(model, adapter)
            replies[adapter] = replies_of(model, tokenizer, lessons)
            write_whole(file, json.dumps(replies, indent=1))
    worded = {
        name: judged([replies[adapter] for adapter in adapters], lessons)
        for name, adapters in arms.items()
    }
    print(f"{len(lessons)} disputes about {len(set(images))} images")
    for name, each in worded.items():
        taken, right = (
            mean(values.mean(0).tolist(), images) for values in (each.taken, each.right)
        )
        print(
            f"{name:10}  taken {100 * taken.value:.1f} ({100 * taken.low:.1f} to "
            f"{100 * taken.high:.1f})  right {100 * right.value:.1f} ({100 * right.low:.1f} to "
            f"{100 * right.high:.1f})  words {each.words.mean():.2f}"
        )
    names = list(worded)
    for at, name in enumerate(names[1:], start=1):
        for other in dict.fromkeys((PROMPTED, names[at - 1])):
            print(f"{name} less {other}: {difference(worded[name], worded[other], images)}")
    draw(worded, images, given.out / "wordings.png")


if __name__ == "__main__":
    with needs.told():
        main()
