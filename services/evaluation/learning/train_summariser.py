"""A panel's stored answers → an adapter that teaches the summariser which of them was right.

The lessons are the very requests that the gateway makes, of the cases that it would ask about,
those in dispute. The reply to learn is the answer that is right by the reference, where one is,
or else the one that won. What is trained is a LoRA (Hu et al. 2021, arXiv 2106.09685) of the
summariser's base; `[summariser] model` may name its folder.
"""

import math
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import models.cpu_torch  # noqa: F401  before transformers, which imports torchvision

# isort: split
from peft import LoraConfig, get_peft_model
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.optim import AdamW
from torch.optim.lr_scheduler import LinearLR
from transformers import AutoModelForCausalLM, AutoTokenizer

from gateway.asking.summariser import after, request
from gateway.settings import Settings
from gateway.tables import SummariserSettings
from gateway.verdict.weigh import Opinion
from models import assets
from models.exported import adapter_base, for_everyone
from models.serving.card import summariser_card
from services.evaluation import stored_run
from services.evaluation.heard import Heard, hear, refuse_strangers
from services.evaluation.learning import fit
from services.evaluation.learning.fit import FEWEST
from services.evaluation.score import is_right
from services.evaluation.stored_run import EvaluationError

SEED = 0
RANK, ALPHA, TARGETS = 8, 16, ("q_proj", "v_proj")
LAYERS = 12  # the upper ones: what lies below need not be gone back through
EPOCHS, BATCH, LEARNING_RATE = 2, 16, 1e-3
IGNORED = -100


Ids = list[int]


@dataclass(frozen=True)
class Lesson:
    """One request to the summariser, and the reply to learn."""

    messages: list[dict[str, str]]
    goes_on: bool  # from the last message, which is the opening of its own reply
    reply: str


def train_summariser(
    runs: Sequence[Path],
    settings: Settings,
    data: Path,
    out: Path,
    report: Callable[[str], None] = print,
) -> None:
    """Write a peft adapter of the seated summariser's base, and its card, to `out`; some minutes on
    two cores. The same runs give the same adapter.

    Raises:
        EvaluationError: a run that cannot be read, had its images changed or is of other workers,
            too few cases in dispute, or no summariser is seated.
        models.data's DataError; models.assets.AssetError
    """
    if settings.summariser is None:
        raise EvaluationError("The panel file seats no summariser; add [summariser].")
    lessons, sources = _lessons(runs, settings, data)
    if len(lessons) < FEWEST:
        raise EvaluationError(
            f"{len(lessons)} cases in dispute in a language that the summariser speaks; at least "
            f"{FEWEST} are needed."
        )
    base = adapter_base(settings.summariser.model)
    report(f"{len(lessons)} cases in dispute; training {base}")
    torch.manual_seed(SEED)
    folder = assets.resolve(base, report)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    language = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    depth = language.config.num_hidden_layers
    lora = LoraConfig(
        r=RANK,
        lora_alpha=ALPHA,
        target_modules=list(TARGETS),
        layers_to_transform=list(range(max(depth - LAYERS, 0), depth)),
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(language, lora)
    _train(model, [_encoded(lesson, tokenizer) for lesson in lessons], report)
    model.peft_config["default"].base_model_name_or_path = base  # not a path of this machine
    model.to(torch.bfloat16).save_pretrained(out)
    (out / "README.md").write_text(
        summariser_card(base, sources, len(lessons), f"rank {RANK}, {EPOCHS} epochs", SEED)
    )
    for_everyone(out)


def _lessons(
    runs: Sequence[Path], settings: Settings, data: Path
) -> tuple[list[Lesson], list[tuple[str, str, str]]]:
    """The lessons of all runs, and each run's data set, split and language."""
    summariser = settings.summariser
    assert summariser
    by_dataset = defaultdict(list)
    sources = []
    for folder in runs:
        run = stored_run.read_run(folder)
        by_dataset[run.dataset].append(folder)
        sources.append((run.dataset, run.split, run.language))
    lessons = []
    for folders in by_dataset.values():
        cases, _ = hear(folders, data)
        refuse_strangers(cases, settings)
        # What one data set teaches of a worker does not hold in another.
        opinions = fit.cross_fitted(cases, settings)
        lessons += [
            _lesson(case, opinion, summariser)
            for case, opinion in zip(cases, opinions, strict=True)
            if not opinion.unanimous and case.cell.language in summariser.languages
        ]
    random.Random(SEED).shuffle(lessons)
    return lessons, sorted(set(sources))


def _lesson(case: Heard, opinion: Opinion, summariser: SummariserSettings) -> Lesson:
    body = request(case.case, opinion, summariser)
    right = [each.text for each in opinion.clusters if is_right(each.text, case.example)]
    goes_on = body["continue_final_message"]
    opening = body["messages"][-1]["content"] if goes_on else ""
    return Lesson(body["messages"], goes_on, after(opening, (right or [opinion.winner.text])[0]))


def _train(model: Any, lessons: Sequence[tuple[Ids, Ids]], report: Callable[[str], None]) -> None:
    """Lessons of like length share a step."""
    dice = random.Random(SEED)
    steps = EPOCHS * math.ceil(len(lessons) / BATCH)
    optimizer = AdamW([p for p in model.parameters() if p.requires_grad], lr=LEARNING_RATE)
    schedule = LinearLR(optimizer, start_factor=1, end_factor=0, total_iters=steps)
    for epoch in range(1, EPOCHS + 1):
        ordered = sorted(dice.sample(lessons, len(lessons)), key=lambda each: sum(map(len, each)))
        batches = [ordered[start : start + BATCH] for start in range(0, len(ordered), BATCH)]
        dice.shuffle(batches)
        total = 0.0
        for batch in track(batches, f"epoch {epoch} of {EPOCHS}", console=Console(stderr=True)):
            loss = _loss(model, batch)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            total += loss.item() * len(batch)
        report(f"epoch {epoch} of {EPOCHS}: loss {total / len(lessons):.3f}")


def _loss(model: Any, batch: Sequence[tuple[Ids, Ids]]) -> Tensor:
    """The replies' cross-entropy. Padded on the left, they end together: only there are the logits
    of the whole vocabulary needed."""
    longest = max(len(asked) + len(reply) for asked, reply in batch)
    kept = max(len(reply) for _, reply in batch)

    def padded(rows: Sequence[Ids], length: int, filler: int) -> Tensor:
        return torch.tensor([[filler] * (length - len(row)) + row for row in rows])

    ids = padded([asked + reply for asked, reply in batch], longest, 0)
    mask = padded([[1] * (len(asked) + len(reply)) for asked, reply in batch], longest, 0)
    labels = padded([reply for _, reply in batch], kept, IGNORED)
    logits = model(input_ids=ids, attention_mask=mask, logits_to_keep=kept + 1).logits[:, :-1]
    return cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED)


def _encoded(lesson: Lesson, tokenizer: Any) -> tuple[Ids, Ids]:
    """Request and reply as the server's token ids."""
    prompt = tokenizer.apply_chat_template(
        lesson.messages,
        tokenize=False,
        continue_final_message=lesson.goes_on,
        add_generation_prompt=not lesson.goes_on,
    )
    asked = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    # Workers' words are text, whatever they look like.
    reply = tokenizer(lesson.reply, add_special_tokens=False, split_special_tokens=True)[
        "input_ids"
    ]
    return asked, [*reply, tokenizer.eos_token_id]
