"""train-summariser --by-reward: what replies are worth; the better ones become likelier."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch

import models.cpu_torch  # noqa: F401  before transformers, which imports torchvision

# isort: split
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from gateway.settings import Settings
from gateway.verdict.competence import Cell
from gateway.verdict.text.meaning import meaning
from gateway.verdict.weigh import Cluster, Opinion
from models.data.example import Example
from models.training.learning.grpo import RewardTally
from services.evaluation.heard import Heard
from services.evaluation.learning import reward_summariser as by_reward
from services.evaluation.learning import train_summariser as training
from services.evaluation.learning.lessons import Lesson, alike, lessons_of
from services.evaluation.learning.reward_summariser import Said, draw, log_probabilities, loss
from services.evaluation.learning.train_summariser import train_summariser

ASKED = "Which lung is abnormal?"


def lesson_on(winner: str) -> Lesson:
    """A dispute that `winner` won; the left lung is right."""
    clusters = (Cluster(winner, meaning(winner, "en", ASKED), ("w0",), 1, 1),)
    example = Example("1", (Path("a"),), ASKED, "Left Lung", "en", False)
    messages = [{"role": "user", "content": f"{ASKED} {winner}"}]
    case = Heard(example, Cell("en", None, None), ())
    return Lesson(messages, False, winner, case, Opinion((), clusters, None, None))


@pytest.mark.parametrize(
    ("winner", "said", "ended", "worth"),
    [
        ("Left lung", " left lung.", True, 1),
        ("Left lung", "The left lung", True, 0.5),  # taken, and not word for word the reference
        ("Left lung", "Left lung", False, 0),
        ("Left lung", "Left lung, because it is darker", True, 0),
        ("Left lung", "Right lung", True, 0),
        ("Left lung", "", True, 0),
        ("Right lung", "Right lung", True, 0.5),
        ("Right lung", "Left lung", True, 0),  # right, but overruling
    ],
)
def test_a_reply_is_worth_being_taken_and_being_right(
    winner: str, said: str, ended: bool, worth: float
) -> None:
    assert by_reward.reward(said, ended, lesson_on(winner)) == worth


@pytest.fixture(scope="module")
def tokenizer(base: Path) -> Any:
    return AutoTokenizer.from_pretrained(base)


@pytest.fixture
def model(base: Path) -> Any:
    """In float32, with an adapter that has moved from where it began."""
    torch.manual_seed(0)
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = get_peft_model(plain, LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    model.generation_config = GenerationConfig()
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.2)
    return model


REQUESTS, REPLIES = [[5, 6, 7, 8, 9], [11, 12]], [[20, 21, 0], [22, 0], [23, 24, 25, 0], [0]]
WORTH = (0.9, -0.9, -0.4, 0.4)


def said() -> Said:
    """Two requests of unlike length, two replies to each."""
    return Said(*by_reward.padded(REQUESTS, "left"), *by_reward.padded(REPLIES, "right"))


def alone(model: Any) -> list[torch.Tensor]:
    """Each reply's log-probabilities, read behind its request in a row of its own."""
    found = []
    for at, reply in enumerate(REPLIES):
        row = torch.tensor([REQUESTS[at // 2] + reply])
        spread = model(input_ids=row).logits[0, -len(reply) - 1 : -1].log_softmax(-1)
        found.append(spread[range(len(reply)), reply])
    return found


def test_the_whole_gradient_is_that_of_the_formula_written_out(model: Any) -> None:
    """DeepSeekMath's equation 3, reply by reply and token by token, on rows that share nothing;
    when the replies were sampled they were likelier or less, some beyond the clip."""
    earlier = [0.5, -0.5, 0.1, -0.1]
    with torch.no_grad(), model.disable_adapter():
        reference = alone(model)
    expected = torch.zeros(())
    for at, now in enumerate(alone(model)):
        ratio = (now - (now.detach() + earlier[at])).exp()
        clipped = ratio.clamp(1 - by_reward.CLIP, 1 + by_reward.CLIP)
        gain = torch.minimum(ratio * WORTH[at], clipped * WORTH[at])
        apart = (reference[at] - now).exp() - (reference[at] - now) - 1
        expected = expected - (gain - by_reward.KL * apart).mean() / 2 / 2
    expected.backward()
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    wanted = [weight.grad.clone() for weight in trained]
    model.zero_grad()

    now = log_probabilities(model, said())
    with torch.no_grad(), model.disable_adapter():
        before = log_probabilities(model, said())
    drawn = by_reward.Drawn(**vars(said()), advantages=torch.tensor(WORTH), reference=before)
    found = loss(now, now.detach() + torch.tensor(earlier)[:, None], drawn, RewardTally())
    found.backward()

    assert found.item() == pytest.approx(expected.item(), rel=1e-4)
    assert max(weight.abs().max() for weight in wanted) > 1e-3
    for weight, grad in zip(trained, wanted, strict=True):
        assert torch.allclose(weight.grad, grad, rtol=1e-3, atol=1e-6)


def test_replies_are_drawn_by_the_odds_of_a_request_that_stands_alone(model: Any) -> None:
    """A group shares what was read of its request; with the same dice it says what it would say
    had each read it anew. Each ends where the server ends it."""
    asked, there = by_reward.padded(REQUESTS, "left")
    ends = [0, *range(30, 60)]
    rows = {"input_ids": asked.repeat_interleave(by_reward.GROUP, 0)}
    rows["attention_mask"] = there.repeat_interleave(by_reward.GROUP, 0)

    torch.manual_seed(1)
    replies = by_reward._sample(model, asked, there, ends, longest=9)
    torch.manual_seed(1)
    bounds = {"max_new_tokens": 9, "eos_token_id": ends, "pad_token_id": 0}
    anew = model.generate(**rows, do_sample=True, top_k=0, top_p=1.0, **bounds)

    anew = anew[:, asked.shape[1] :].tolist()
    assert len({tuple(reply) for reply in replies}) > by_reward.GROUP
    for reply, whole in zip(replies, anew, strict=True):
        assert reply == whole[: len(reply)]
        assert [token in ends for token in reply[:-1]] == [False] * (len(reply) - 1)
        assert reply[-1] in ends or len(reply) == 9


def test_a_new_line_ends_a_reply(tokenizer: Any) -> None:
    new_line = tokenizer.convert_tokens_to_ids("Ċ")
    assert by_reward.ends_of(tokenizer) == [tokenizer.eos_token_id, new_line]


def test_what_is_worth_more_than_its_group_becomes_likelier(
    model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And as many groups are told as have replies of unlike worth."""
    worth = iter([1.0, *[0.0] * (by_reward.GROUP - 1), *[0.5] * by_reward.GROUP])
    monkeypatch.setattr(by_reward, "reward", lambda *_: next(worth))
    lessons = [(lesson_on("Left lung"), ids) for ids in REQUESTS]
    tally = RewardTally()
    drawn = draw(model, tokenizer, lessons, by_reward.ends_of(tokenizer), tally)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    sampled = log_probabilities(model, drawn).detach()
    for _ in range(2):
        loss(log_probabilities(model, drawn), sampled, drawn, tally).backward()
        optimizer.step()
        optimizer.zero_grad()

    risen = ((log_probabilities(model, drawn).detach() - sampled) * drawn.there).sum(1)
    assert risen[0] > max(0, *risen[1 : by_reward.GROUP])
    assert tally.report()["groups_told"] == 0.5 and tally.right == 1


def test_rows_of_like_length_share_a_batch_and_none_is_left_out() -> None:
    rows = [[0] * length for length in (5, 1, 4, 2, 3)]

    batches = alike(rows, len, 2, random.Random(0))

    assert sorted(sorted(map(len, batch)) for batch in batches) == [[1, 2], [3, 4], [5]]


@pytest.fixture
def seated(stored, data, base, with_summariser, monkeypatch) -> Settings:
    """A panel with the small model, and forty of its disputes, learned from once."""
    settings = with_summariser("http://127.0.0.1:1", str(base))
    lessons, sources = lessons_of([stored], settings, data)
    monkeypatch.setattr(training, "lessons_of", lambda *_: (lessons[:40], sources))
    return settings


def test_it_learns_from_the_disputed_and_says_so(seated, data, tmp_path, monkeypatch):
    """By an alphabet, since a model of so few weights never says what won. The same seed gives the
    same adapter."""
    monkeypatch.setattr(by_reward, "reward", lambda said, *_: sum(map(str.isupper, said)) / 4)
    told: list[str] = []
    adapters = []
    for seed in (0, 0, 1):
        out = tmp_path / str(len(adapters))
        train_summariser([], seated, data, out, told.append, by_reward=True, seed=seed)
        adapters.append((out / "adapter_model.safetensors").read_bytes())
    assert adapters[0] == adapters[1] != adapters[2]
    weights = load_file(out / "adapter_model.safetensors")
    assert all(weights[name].any() for name in weights if "lora_B" in name)
    assert float(told[-1].split("groups_told ")[1].split()[0]) > 0.5
    assert float(told[-1].split("divergence ")[1].split()[0]) > 0
    card = (out / "README.md").read_text()
    assert "by reward (GRPO), epochs: 1, replies to each case: 8" in card and "| seed | 1 |" in card


def test_groups_that_never_differ_teach_nothing_and_are_a_figure(seated, data, tmp_path):
    """Nothing that a tiny model says would be taken."""
    told: list[str] = []
    train_summariser([], seated, data, tmp_path / "out", told.append, by_reward=True)

    assert "reward 0.0 " in told[-1] and "groups_told 0.0 " in told[-1]
    assert "divergence 0.0 " in told[-1]
