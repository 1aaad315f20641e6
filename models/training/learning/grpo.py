"""Group-relative policy optimisation: a worker learns from what its own answers were worth.

To each question a group of answers is sampled; one is as good as its reward lies above the others'
(Shao et al. 2024, DeepSeekMath, section 4.1; DeepSeek-AI 2025, R1). Nothing else judges them: no
value network, no learned reward. An answer counts where it is the reference, so references must be
short enough to be met word for word.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from models.data.example import Example
from models.metrics.exact_match import matches
from models.metrics.token_overlap import words_of
from models.parts.packing import IMAGE, Batch, Row, collate
from models.parts.vlm import Vlm
from models.parts.words import says_in_one_token
from models.recipe.stage import Grpo
from models.training.learning.losses import answer_logits, cast
from models.training.learning.tuning import soft_prompt

BREVITY = 0.1  # reward beside 1 for being right: enough to choose among answers that are
EVEN = 1e-4  # added to a group's deviation, as others do


def reward(answer: str, ended: bool, example: Example) -> float:
    """1 for the reference or one that is as right, and a little more for an answer that came to its
    end and is in no more words than those. By the exact match that validation scores by, not by the
    gateway's `meaning`: that reads an answer out of a sentence, which a worker should not learn."""
    right = (example.answer, *example.alternatives)
    longest = max(len(words_of(each)) for each in right)
    brief = ended and len(words_of(answer)) <= longest
    return float(any(matches(answer, each) for each in right)) + BREVITY * brief


def advantages(rewards: Tensor) -> Tensor:
    """Rewards [questions, group] → how far each lies above its group's, in its group's deviations
    (DeepSeekMath, section 4.1.2). All 0 where a group's are equal."""
    spread = rewards.std(-1, keepdim=True, correction=0)
    return (rewards - rewards.mean(-1, keepdim=True)) / (spread + EVEN)


def divergence(now: Tensor, before: Tensor) -> Tensor:
    """What a token adds to the divergence of `now` from `before`, both log-probabilities: unbiased,
    and never below 0 (Schulman's k3; DeepSeekMath, equation 4)."""
    log_ratio = before - now
    return log_ratio.exp() - log_ratio - 1


def surrogate(now: Tensor, sampled: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """What is to grow (equation 3 without its divergence), for each token: all [tokens], log-
    probabilities now and when it was sampled. Beyond the clip it gains nothing more."""
    ratio = (now - sampled).exp()
    return torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)


@dataclass(frozen=True)
class Sampled(Example):
    """A question with an answer that a model gave, in that model's tokens, the end left out."""

    ids: tuple[int, ...] = ()
    ended: bool = True  # or cut off


def as_sampled(question: Example, ids: tuple[int, ...], ended: bool) -> Sampled:
    own = {each.name: getattr(question, each.name) for each in fields(question)}
    return Sampled(**own, ids=ids, ended=ended)


@dataclass(frozen=True)
class Drawn:
    """Answers sampled to the questions of some rows, packed as if they were to be learned."""

    batch: Batch
    features: Tensor  # [images, patches, vision_dim]
    advantages: Tensor  # [tokens], each its answer's
    weights: Tensor  # [tokens]: they add up to 1 for each question
    sampled: Tensor  # [tokens]: log-probabilities when they were sampled
    reference: Tensor  # [tokens]: and those of the model that the stage began with


@dataclass
class RewardTally:
    """Sums over some steps, for the next report."""

    rewards: list[float] = field(default_factory=list)
    words: int = 0
    right: int = 0
    groups: int = 0
    told: int = 0  # groups that tell better answers from worse
    divergence: float = 0.0  # summed over groups
    since: float = field(default_factory=time.monotonic)

    @property
    def has_gradient(self) -> bool:
        return self.told > 0

    def report(self) -> dict[str, float]:
        answers = len(self.rewards)
        return {
            "reward": round(sum(self.rewards) / answers, 4),
            "exact_match": round(self.right / answers, 4),
            "words": round(self.words / answers, 2),
            "groups_told": round(self.told / self.groups, 4),
            "divergence": round(self.divergence / self.groups, 5),
            "questions_per_s": round(self.groups / (time.monotonic() - self.since), 1),
        }


class Policy:
    """A model whose `trained` weights learn by reward. Nothing is dropped out, or an answer would
    be less likely the moment after it was given.

    Raises:
        ValueError: answers cannot be sampled from such a model.
    """

    def __init__(self, model: Vlm, settings: Grpo, prompt: str, trained: list[Tensor]):
        if model.before_layers or model.fuses or soft_prompt(model.language):
            raise ValueError(
                "no answers can be sampled behind a soft prompt, or from a connector that reaches "
                "into the language model or reads the question: take another"
            )
        self.model, self.settings, self.prompt = model, settings, prompt
        self.trained = trained
        self.began = [weight.detach().clone() for weight in trained]

    def draw(self, rows: Sequence[Row], seen: Tensor, tally: RewardTally) -> Drawn:
        """A group of answers to each question, what each is worth, and how likely it was. `seen` is
        as in Objective."""
        made = says_in_one_token(self.model.tokenizer)
        features = seen.float() if made else seen
        questions = [question for row in rows for question in row.questions]
        answers = self._sample(rows, features)
        group = self.settings.group
        groups = [answers[i : i + group] for i in range(0, len(answers), group)]
        said = [
            [as_sampled(question, ids, ended) for ids, ended in each]
            for question, each in zip(questions, groups, strict=True)
        ]
        worth = self._judge(said, tally)
        batch = self._packed(rows, said).to(features.device)
        each = [answer for of_question in said for answer in of_question]
        lengths = torch.tensor([len(answer.ids) + 1 for answer in each])
        # Where it was cut off, the end that packing adds was not said.
        spoken = torch.tensor([len(answer.ids) + answer.ended for answer in each])
        weights = (1 / (group * spoken)).repeat_interleave(lengths)
        ends = lengths.cumsum(0) - 1
        weights[ends[lengths > spoken]] = 0
        with torch.no_grad():
            sampled = self._log_probabilities(batch, features)
            with self._as_it_began():
                reference = self._log_probabilities(batch, features)
        on = features.device
        per_token = worth.flatten().repeat_interleave(lengths)
        return Drawn(batch, features, per_token.to(on), weights.to(on), sampled, reference)

    def loss(self, drawn: Drawn, tally: RewardTally) -> Tensor:
        """Summed over questions (equation 3, to be made small)."""
        now = self._log_probabilities(drawn.batch, drawn.features)
        gain = surrogate(now, drawn.sampled, drawn.advantages, self.settings.clip)
        apart = divergence(now, drawn.reference)
        tally.divergence += (drawn.weights * apart).sum().item() / self.settings.updates
        return -(drawn.weights * (gain - self.settings.kl * apart)).sum()

    @torch.no_grad()
    def _sample(self, rows: Sequence[Row], features: Tensor) -> list[tuple[tuple[int, ...], bool]]:
        """A group of answers to each question of the rows, one group behind the other: their ids
        without the end, and whether they came to it."""
        model, end = self.model, self.model.end
        with cast(model, features):
            counts = [len(row.images) for row in rows]
            embedded = model.image_embeddings(features, counts, [row.places for row in rows])
            image = model.placed(embedded, counts, [])
        sizes = [int((row.ids == IMAGE).sum()) for row in rows]
        images = [
            of_row
            for row, of_row in zip(rows, image.split(sizes), strict=True)
            for _ in row.questions
        ]
        prompts = [torch.cat([row.prefix, asked]) for row in rows for asked in row.asked]
        there = pad_sequence([torch.ones_like(each) for each in prompts], True, 0, "left")
        ids = pad_sequence(prompts, True, end, "left").to(features.device)
        embeddings = model.text_embeddings(ids.clamp(min=0))
        shown = (ids == IMAGE)[..., None]
        embeddings = embeddings.masked_scatter(shown, torch.cat(images).to(embeddings.dtype))
        with cast(model, features):
            found = model.language.generate(
                inputs_embeds=embeddings,
                attention_mask=there.to(features.device),
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                num_return_sequences=self.settings.group,
                max_new_tokens=self.settings.max_tokens,
                eos_token_id=end,
                pad_token_id=end,
            )
        answers = []
        for ids_said in found.tolist():
            ended = end in ids_said
            length = ids_said.index(end) if ended else len(ids_said)
            answers.append((tuple(ids_said[:length]), ended))
        return answers

    def _judge(self, said: Sequence[Sequence[Sampled]], tally: RewardTally) -> Tensor:
        """[questions, group]: the answers' advantages."""
        decode: Callable[..., str] = self.model.tokenizer.decode
        texts = [[decode(list(each.ids), skip_special_tokens=True) for each in g] for g in said]
        rewards = torch.tensor(
            [
                [reward(text, answer.ended, answer) for text, answer in zip(*pair, strict=True)]
                for pair in zip(texts, said, strict=True)
            ]
        )
        tally.rewards += rewards.flatten().tolist()
        tally.words += sum(len(words_of(text)) for group in texts for text in group)
        tally.right += int((rewards >= 1).sum())
        tally.groups += len(rewards)
        tally.told += int((rewards != rewards[:, :1]).any(-1).sum())
        return advantages(rewards)

    def _packed(self, rows: Sequence[Row], said: Sequence[Sequence[Sampled]]) -> Batch:
        """Each row again, with the group of every question in place of its reference."""
        left = iter(said)
        packed = []
        for row in rows:
            answers = [answer for _ in row.questions for answer in next(left)]
            packed += self.model.packed(
                answers,
                self.prompt,
                max_questions=len(answers),
                answer_ids=lambda each: list(each.ids),  # type: ignore[attr-defined]
            )
        return collate(packed, self.model.tokenizer.pad_token_id)

    def _log_probabilities(self, batch: Batch, features: Tensor) -> Tensor:
        """[tokens], of each answer's tokens and its end."""
        with cast(self.model, features):
            logits, labels, _ = answer_logits(self.model, batch, features)
        return -nn.functional.cross_entropy(logits.float(), labels, reduction="none")

    @contextmanager
    def _as_it_began(self) -> Iterator[None]:
        own = [weight.detach().clone() for weight in self.trained]
        try:
            self._set(self.began)
            yield
        finally:
            self._set(own)

    @torch.no_grad()
    def _set(self, values: Sequence[Tensor]) -> None:
        for weight, value in zip(self.trained, values, strict=True):
            weight.copy_(value)
