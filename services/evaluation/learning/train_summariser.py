"""A panel's stored answers → an adapter of its summariser.

It learns by labels, to say which answer was right, or by reward, to say what won in words that are
taken (`reward_summariser`). What is trained is a LoRA (Hu et al. 2021, arXiv 2106.09685) of the
summariser's base; `[summariser] model` may name its folder.
"""

import math
import random
from collections.abc import Callable, Sequence
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

from gateway.settings import Settings
from models import assets
from models.exported import adapter_base, for_everyone
from models.serving.card import summariser_card
from services.evaluation.learning import reward_summariser
from services.evaluation.learning.lessons import Ids, Lesson, alike, lessons_of, request_ids

RANK, ALPHA, TARGETS = 8, 16, ("q_proj", "v_proj")
LAYERS = 12  # the upper ones: what lies below need not be gone back through
EPOCHS, BATCH, LEARNING_RATE = 2, 16, 1e-3
IGNORED = -100


def train_summariser(
    runs: Sequence[Path],
    settings: Settings,
    data: Path,
    out: Path,
    report: Callable[[str], None] = print,
    by_reward: bool = False,
    seed: int = 0,
) -> None:
    """Write a peft adapter of the seated summariser's base, and its card, to `out`; some minutes on
    two cores. The same runs and seed give the same adapter.

    Raises:
        EvaluationError: as lessons_of
        models.data's DataError; models.assets.AssetError
    """
    lessons, sources = lessons_of(runs, settings, data)
    assert settings.summariser
    base = adapter_base(settings.summariser.model)
    report(f"{len(lessons)} cases in dispute; training {base}")
    torch.manual_seed(seed)
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
    if by_reward:
        how = reward_summariser.train(model, tokenizer, lessons, seed, report)
    else:
        how = _train(model, [_encoded(lesson, tokenizer) for lesson in lessons], seed, report)
    model.peft_config["default"].base_model_name_or_path = base  # not a path of this machine
    model.to(torch.bfloat16).save_pretrained(out)
    (out / "README.md").write_text(
        summariser_card(base, sources, len(lessons), f"rank {RANK}, {how}", seed)
    )
    for_everyone(out)


def _train(
    model: Any, lessons: Sequence[tuple[Ids, Ids]], seed: int, report: Callable[[str], None]
) -> str:
    """Returns a phrase for the card."""
    dice = random.Random(seed)
    steps = EPOCHS * math.ceil(len(lessons) / BATCH)
    optimizer = AdamW([p for p in model.parameters() if p.requires_grad], lr=LEARNING_RATE)
    schedule = LinearLR(optimizer, start_factor=1, end_factor=0, total_iters=steps)
    for epoch in range(1, EPOCHS + 1):
        batches = alike(lessons, lambda each: sum(map(len, each)), BATCH, dice)
        total = 0.0
        for batch in track(batches, f"epoch {epoch} of {EPOCHS}", console=Console(stderr=True)):
            loss = _loss(model, batch)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            total += loss.item() * len(batch)
        report(f"epoch {epoch} of {EPOCHS}: loss {total / len(lessons):.3f}")
    return f"{EPOCHS} epochs"


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
    # Workers' words are text, whatever they look like.
    reply = tokenizer(lesson.reply, add_special_tokens=False, split_special_tokens=True)[
        "input_ids"
    ]
    return request_ids(lesson, tokenizer), [*reply, tokenizer.eos_token_id]
