"""A summariser learns by what its own replies are worth.

To each dispute a group of replies is sampled; one becomes likelier as far as it is worth more than
the rest of its group, and less likely as far as it is worth less (group-relative policy
optimisation: Shao et al. 2024, DeepSeekMath, section 4.1; the estimator is that of
models.training.learning.grpo). Nobody shows it a reply: it learns from what the gateway would take.
"""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

import models.cpu_torch  # noqa: F401  before transformers, which imports torchvision

# isort: split
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from torch.optim import AdamW
from torch.optim.lr_scheduler import LinearLR
from transformers import GenerationConfig

from gateway.asking.model_server import Completion, answer_in
from gateway.asking.summariser import is_faithful
from models.metrics.token_overlap import words_of
from models.training.learning.grpo import RewardTally, advantages, divergence, surrogate
from services.evaluation.learning.lessons import Ids, Lesson, alike, request_ids
from services.evaluation.score import is_right

GROUP = 8  # replies to a dispute
SPARE = 4  # tokens that one may have more than what won: what goes on is hardly ever taken
EPOCHS, BATCH, LEARNING_RATE = 1, 4, 5e-4
UPDATES = 2  # of the weights, from the same replies: to sample them takes longest
CLIP, KL = 0.2, 0.04  # as in a recipe


def reward(said: str, ended: bool, lesson: Lesson) -> float:
    """1 for a reply that the gateway would take and that is right word for word, 1/2 for one that
    it would take, 0 for any other: there the vote answers. So a reply that is right where another
    answer won is worth nothing: it may word, and may not overrule. Nor is one that was cut off."""
    text = answer_in(said.strip()) if ended else None
    case, opinion = lesson.case, lesson.opinion
    if text is None or not is_faithful(
        Completion(text, None), opinion, case.cell.language, case.example.question
    ):
        return 0.0
    return 1.0 if is_right(text, case.example) else 0.5


def train(
    model: Any,
    tokenizer: Any,
    lessons: Sequence[Lesson],
    seed: int,
    report: Callable[[str], None],
) -> str:
    """Move the adapter of `model`, a peft model; without it, that is what replies are held near to.
    Returns a phrase for the card. An epoch's report has the mean `reward`, the part of replies that
    are worth 1 (`exact_match`), their `words`, in which part of the groups replies differ in worth
    (`groups_told`: the others teach nothing), and the `divergence` from the prompted model."""
    # Its publisher's, such as a penalty for what was said before, would draw from other odds than
    # those that are weighed.
    model.generation_config = GenerationConfig()
    dice = random.Random(seed)
    ends = ends_of(tokenizer)
    asked = [(lesson, request_ids(lesson, tokenizer)) for lesson in lessons]
    steps = EPOCHS * math.ceil(len(lessons) / BATCH)
    optimizer = AdamW([p for p in model.parameters() if p.requires_grad], lr=LEARNING_RATE)
    schedule = LinearLR(optimizer, start_factor=1, end_factor=0, total_iters=steps)
    for epoch in range(1, EPOCHS + 1):
        batches = alike(asked, lambda each: len(each[1]), BATCH, dice)
        tally = RewardTally()
        for batch in track(batches, f"epoch {epoch} of {EPOCHS}", console=Console(stderr=True)):
            drawn = draw(model, tokenizer, batch, ends, tally)
            sampled = None
            for _ in range(UPDATES):
                now = log_probabilities(model, drawn)
                sampled = now.detach() if sampled is None else sampled
                loss(now, sampled, drawn, tally).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                optimizer.zero_grad()
            schedule.step()
        told = "  ".join(f"{name} {value}" for name, value in tally.report().items())
        report(f"epoch {epoch} of {EPOCHS}: {told}")
    return f"by reward (GRPO), epochs: {EPOCHS}, replies to each case: {GROUP}"


@dataclass(frozen=True)
class Said:
    """Groups of replies to some requests, one group behind the other, in tokens; and 0 where they
    are padding."""

    asked: Tensor  # [requests, tokens], padded on the left
    asked_there: Tensor
    ids: Tensor  # [replies, tokens], padded on the right
    there: Tensor


@dataclass(frozen=True)
class Drawn(Said):
    """What was sampled to some disputes, and what it is worth."""

    advantages: Tensor  # [replies]
    reference: Tensor  # [replies, tokens]: log-probabilities without the adapter


@torch.no_grad()
def draw(
    model: Any,
    tokenizer: Any,
    lessons: Sequence[tuple[Lesson, Ids]],
    ends: Sequence[int],
    tally: RewardTally,
) -> Drawn:
    """A group of replies to each lesson's request, and what each is worth."""
    asked, asked_there = padded([ids for _, ids in lessons], "left")
    won = tokenizer([lesson.opinion.winner.text for lesson, _ in lessons], add_special_tokens=False)
    longest = max(map(len, won["input_ids"])) + SPARE
    replies = _sample(model, asked, asked_there, ends, longest)
    texts = [tokenizer.decode(ids, skip_special_tokens=True).partition("\n")[0] for ids in replies]
    of = [lesson for lesson, _ in lessons for _ in range(GROUP)]
    worth = [
        reward(text, ids[-1] in ends, lesson)
        for text, ids, lesson in zip(texts, replies, of, strict=True)
    ]
    rewards = torch.tensor(worth).view(len(lessons), GROUP)
    tally.rewards += worth
    tally.words += sum(len(words_of(text)) for text in texts)
    tally.right += worth.count(1.0)
    tally.groups += len(lessons)
    tally.told += int((rewards != rewards[:, :1]).any(-1).sum())
    said = Said(asked, asked_there, *padded(replies, "right"))
    with model.disable_adapter():
        reference = log_probabilities(model, said)
    return Drawn(**vars(said), advantages=advantages(rewards).flatten(), reference=reference)


def loss(now: Tensor, sampled: Tensor, drawn: Drawn, tally: RewardTally) -> Tensor:
    """DeepSeekMath's equation 3, to be made small, as the mean over disputes. Log-probabilities
    [replies, tokens], now and when they were sampled. A reply counts as much as another of its
    group, however long it is."""
    group = len(drawn.ids) // len(drawn.asked)
    weights = drawn.there / drawn.there.sum(1, keepdim=True) / group
    gain = surrogate(now, sampled, drawn.advantages[:, None], CLIP)
    apart = divergence(now, drawn.reference)
    tally.divergence += (weights * apart).sum().item() / UPDATES
    return -(weights * (gain - KL * apart)).sum() / len(drawn.asked)


def log_probabilities(model: Any, said: Said) -> Tensor:
    """[replies, tokens] of what was said, any number where that is padding. A request is read once
    for all replies to it."""
    read = model(
        input_ids=said.asked,
        attention_mask=said.asked_there,
        position_ids=_positions(said.asked_there),
        use_cache=True,
        logits_to_keep=1,
    )
    group = len(said.ids) // len(said.asked)
    cache = read.past_key_values
    cache.batch_repeat_interleave(group)
    there = torch.cat([said.asked_there.repeat_interleave(group, 0), said.there], 1)
    later = model(
        input_ids=said.ids,
        attention_mask=there,
        position_ids=_positions(there)[:, said.asked.shape[1] :],
        past_key_values=cache,
    )
    first = read.logits.repeat_interleave(group, 0)
    logits = torch.cat([first, later.logits[:, :-1]], 1).float()
    return -cross_entropy(logits.transpose(1, 2), said.ids, reduction="none")


def _sample(
    model: Any, asked: Tensor, there: Tensor, ends: Sequence[int], longest: int
) -> list[Ids]:
    """A group of replies to each request, one behind the other, each up to what ended it."""
    cache = model(
        input_ids=asked[:, :-1],
        attention_mask=there[:, :-1],
        position_ids=_positions(there)[:, :-1],
        use_cache=True,
        logits_to_keep=1,
    ).past_key_values
    cache.batch_repeat_interleave(GROUP)
    found = model.generate(
        input_ids=asked.repeat_interleave(GROUP, 0),
        attention_mask=there.repeat_interleave(GROUP, 0),
        past_key_values=cache,
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=longest,
        eos_token_id=list(ends),
        pad_token_id=ends[0],
    )
    replies = []
    for ids in found[:, asked.shape[1] :].tolist():
        end = next((at for at, token in enumerate(ids) if token in ends), len(ids))
        replies.append(ids[: end + 1])
    return replies


def ends_of(tokenizer: Any) -> list[int]:
    """The tokens at which the server ends a reply: the model's own, and all with a new line."""
    texts = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
    return [tokenizer.eos_token_id, *(at for at, text in enumerate(texts) if "\n" in text)]


def padded(rows: Sequence[Ids], side: str) -> tuple[Tensor, Tensor]:
    """[rows, longest], and 0 where that is padding."""
    ids = [torch.tensor(row) for row in rows]
    there = [torch.ones_like(row) for row in ids]
    return pad_sequence(ids, True, 0, side), pad_sequence(there, True, 0, side)


def _positions(there: Tensor) -> Tensor:
    return (there.cumsum(-1) - 1).clamp(min=0)
