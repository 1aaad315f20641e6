"""Group-relative policy optimisation, held to cases worked by hand, and as a stage of a recipe."""

import json
import math
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from models.data.example import DataError, Example
from models.recipe import Recipe, load_recipe
from models.recipe.stage import Grpo
from models.study import confidence
from models.study.confidence import runs_of
from models.training.inputs.examples import refuse_free_text
from models.training.learning import tuning
from models.training.learning.grpo import (
    BREVITY,
    Policy,
    RewardTally,
    advantages,
    divergence,
    reward,
    surrogate,
)
from models.training.loop import TrainingError
from models.training.parts import PartsRun
from models.training.planning.dry_run import plan
from models.training.planning.fits import lighter, smaller, told
from models.training.record.checkpoints import CheckpointError, claim
from models.training.stages import train

RecipeMaker = Callable[..., Recipe]
BY_REWARD = {
    "name": "reward",
    "parent": "vqa",
    "method": "grpo",
    "grpo": {"group": 4, "max_tokens": 3},
    "lora": {"rank": 2, "dropout": 0.1},
    "reconstruction": 0.0,
    "epochs": 1,
}
LEFT_LUNG = Example("1", (Path("a"),), "Where?", "Left Lung", "en", False, alternatives=("Left",))


@pytest.mark.parametrize(
    ("answer", "ended", "worth"),
    [
        ("left lung.", True, 1 + BREVITY),
        ("Left", True, 1 + BREVITY),
        ("Left Lung", False, 1),
        ("Right Lung", True, BREVITY),
        ("It is the left lung", True, 0),
        ("", True, BREVITY),
    ],
)
def test_an_answer_is_worth_being_right_and_a_little_more_for_being_brief(
    answer: str, ended: bool, worth: float
) -> None:
    assert reward(answer, ended, LEFT_LUNG) == worth


def test_a_chinese_answer_is_as_long_as_its_characters() -> None:
    lung = replace(LEFT_LUNG, answer="左肺", language="zh", alternatives=())

    assert reward("左肺。", True, lung) == 1 + BREVITY
    assert reward("左肺有一个结节", True, lung) == 0


def test_an_advantage_is_counted_in_its_groups_deviations() -> None:
    """Of 1, 0, 0, 0 the mean is 1/4 and the deviation √3/4; a group of equals says nothing."""
    found = advantages(torch.tensor([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]]))

    expected = [math.sqrt(3), *[-1 / math.sqrt(3)] * 3]
    assert found[0].tolist() == pytest.approx(expected, rel=1e-3)
    assert found[1].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("ratio", "advantage", "gain", "slope"),
    [
        (1.0, 2.0, 2.0, 2.0),
        (1.5, 2.0, 2.4, 0.0),  # likelier by more than the clip: nothing more to gain
        (0.5, 2.0, 1.0, 1.0),
        (0.5, -2.0, -1.6, 0.0),
        (1.5, -2.0, -3.0, -3.0),  # a bad answer that became likelier is still pushed back
    ],
)
def test_beyond_the_clip_nothing_is_gained(
    ratio: float, advantage: float, gain: float, slope: float
) -> None:
    now = torch.tensor([math.log(ratio) - 1.0], requires_grad=True)

    found = surrogate(now, torch.tensor([-1.0]), torch.tensor([advantage]), clip=0.2)
    found.sum().backward()

    assert found.item() == pytest.approx(gain)
    assert now.grad is not None and now.grad.item() == pytest.approx(slope)


def test_the_divergence_is_never_below_zero_and_right_on_average() -> None:
    """k3 of 0.5 where it was 0.25: 0.5 - ln 0.5 - 1; and its mean over what is sampled is the
    Kullback-Leibler divergence itself."""
    assert divergence(torch.tensor(0.5).log(), torch.tensor(0.25).log()).item() == pytest.approx(
        0.5 - math.log(0.5) - 1
    )
    now, before = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.2, 0.3, 0.5])

    found = divergence(now.log(), before.log())

    assert (found >= 0).all()
    assert (now * found).sum().item() == pytest.approx((now * (now / before).log()).sum().item())


@pytest.fixture
def recipe(tiny_recipe: RecipeMaker) -> Recipe:
    return tiny_recipe(more=[BY_REWARD], epochs=1)


@pytest.fixture
def stage_run(recipe: Recipe, drawn_slake: Path, tmp_path: Path) -> PartsRun:
    return PartsRun(recipe, recipe.stage[1], claim(tmp_path / "run", recipe), drawn_slake, None)


def policy_of(run: PartsRun) -> Policy:
    assert run.policy
    run.objective.eval()
    return run.policy


def test_what_is_drawn_is_as_likely_as_in_a_row_of_its_own(stage_run: PartsRun) -> None:
    """A group shares its image; each answer's tokens weigh as much as another's, whatever its
    length, and an end that was not said weighs nothing."""
    policy, rows = policy_of(stage_run), stage_run.rows[:2]
    seen = stage_run.seen(rows, training=True)

    drawn = policy.draw(rows, seen, RewardTally())

    questions = sum(len(row.questions) for row in rows)
    assert drawn.weights.sum().item() == pytest.approx(questions)
    assert torch.equal(drawn.sampled, drawn.reference)  # nothing has been learned yet
    first = drawn.batch.rows[0].questions[0]
    alone = policy._packed([replace(rows[0], questions=(first,))], [[first]])
    expected = policy._log_probabilities(alone, seen[:1])
    assert torch.allclose(drawn.sampled[: len(expected)], expected, atol=0.05)


def test_what_is_better_than_its_group_becomes_likelier(
    stage_run: PartsRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, rows = policy_of(stage_run), stage_run.rows[:2]
    worth = iter([1.0, 0.0, 0.0, 0.0] * 99)
    monkeypatch.setattr("models.training.learning.grpo.reward", lambda *_: next(worth))
    for group in stage_run.optimiser.param_groups:
        group["lr"] = 1e-3
    drawn = policy.draw(rows, stage_run.seen(rows, training=True), RewardTally())

    policy.loss(drawn, RewardTally()).backward()
    stage_run.update()

    with torch.no_grad():
        risen = policy._log_probabilities(drawn.batch, drawn.features) - drawn.sampled
    assert (drawn.weights * drawn.advantages * risen).sum() > 0


def test_the_loss_is_what_is_gained_less_what_it_is_apart(stage_run: PartsRun) -> None:
    """Equation 3 of DeepSeekMath, summed by hand: where nothing has been learned yet the ratio is
    1, so each token gains its answer's advantage; apart it is by k3 of what the reference said."""
    policy, rows = policy_of(stage_run), stage_run.rows[:2]
    drawn = policy.draw(rows, stage_run.seen(rows, training=True), RewardTally())
    given = torch.linspace(-2, 2, len(drawn.sampled))
    drawn = replace(drawn, advantages=given, reference=drawn.sampled + 0.5)
    apart = math.exp(0.5) - 1.5

    with torch.no_grad():
        found = policy.loss(drawn, RewardTally())

    expected = -(drawn.weights * (given - policy.settings.kl * apart)).sum()
    assert policy.settings.kl > 0
    assert found.item() == pytest.approx(expected.item(), rel=1e-3)


def test_a_stage_by_reward_resumes_like_an_unbroken_one(
    recipe: Recipe, drawn_slake: Path, tmp_path: Path
) -> None:
    """It is held near to the model that the stage began with, not to that of its last epoch; and
    its average is of every update, of which a step makes two."""
    few = recipe.stage[0].data[0].model_copy(update={"few": 2})
    changes = {"data": (few,), "epochs": 2, "average": 0.999}
    first, by_reward = (stage.model_copy(update=changes) for stage in recipe.stage)
    stages = [first, by_reward.model_copy(update={"grpo": Grpo(group=4, max_tokens=3, updates=2)})]
    recipe = recipe.model_copy(update={"stage": tuple(stages)})
    unbroken = train(recipe, drawn_slake, tmp_path)
    expected = load_file(unbroken / "connector.safetensors")
    (unbroken / "state.json").unlink()  # as if it had been cut off while saving

    found = load_file(train(recipe, drawn_slake, tmp_path) / "connector.safetensors")

    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_answers_are_drawn_by_the_models_own_odds(
    tiny_recipe: RecipeMaker, tiny_language: Path, drawn_slake: Path, tmp_path: Path
) -> None:
    """A hub's generation_config may forbid tokens, or make rarer what was said before; what is
    weighed knows of neither."""
    published = shutil.copytree(tiny_language, tmp_path / "published")
    known = json.loads((published / "config.json").read_text())["vocab_size"]
    told = {"suppress_tokens": list(range(1, known))}
    (published / "generation_config.json").write_text(json.dumps(told))
    recipe = tiny_recipe(more=[BY_REWARD], language_part={"model": str(published)})
    folder = claim(tmp_path / "run", recipe)
    stage_run = PartsRun(recipe, recipe.stage[1], folder, drawn_slake, None)
    policy, rows = policy_of(stage_run), stage_run.rows[:1]

    drawn = policy.draw(rows, stage_run.seen(rows, training=True), RewardTally())

    assert drawn.batch.labels.unique().numel() > 3  # more than that one, the end and no label


def test_a_divergence_is_a_steps_however_often_that_moves_the_weights(stage_run: PartsRun) -> None:
    policy, tally, rows = policy_of(stage_run), RewardTally(), stage_run.rows[:1]
    drawn = policy.draw(rows, stage_run.seen(rows, training=True), tally)
    drawn = replace(drawn, reference=drawn.sampled + 1)
    policy.settings = policy.settings.model_copy(update={"updates": 2})

    with torch.no_grad():
        policy.loss(drawn, tally), policy.loss(drawn, tally)

    assert tally.divergence / tally.groups == pytest.approx(math.e - 2, rel=1e-3)


def test_behind_a_soft_prompt_no_answer_is_sampled(
    tiny_recipe: RecipeMaker, drawn_slake: Path, tmp_path: Path
) -> None:
    more = [BY_REWARD | {"language": "frozen", "lora": None}]
    recipe = tiny_recipe(more=more, language="prompt", lora=None)
    run, (first, second) = claim(tmp_path / "run", recipe), recipe.stage
    parent = PartsRun(recipe, first, run, drawn_slake, None)
    tuning.save_trained(parent.model, parent.model.state_dict(), tmp_path)

    with pytest.raises(TrainingError, match=r"stage reward: .* behind a soft prompt"):
        PartsRun(recipe, second, run, drawn_slake, tmp_path)


def test_a_reward_on_free_text_is_refused_for_each_set() -> None:
    """Short answers of another set make long ones no likelier to be met."""
    short = replace(LEFT_LUNG, id="short/1")
    long = replace(short, answer="The left lung shows a consolidation in its lower lobe")

    refuse_free_text([short, short, long])
    with pytest.raises(DataError, match="the 1 references of long are free text"):
        refuse_free_text([short, short, replace(long, id="long/1")])


def test_a_reward_on_free_text_is_refused_before_anything_is_trained(
    recipe: Recipe, drawn_slake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.training.inputs.examples.FREE_TEXT", 0)

    with pytest.raises(DataError, match="references of slake are free text"):
        train(recipe, drawn_slake, tmp_path)

    assert not (tmp_path / recipe.name / "vqa").exists()


@pytest.mark.parametrize(("group", "mend"), [(5, "grpo.group = 2"), (2, "questions_per_row = 8")])
def test_smaller_groups_take_less_memory(recipe: Recipe, group: int, mend: str) -> None:
    changes = {"grpo": Grpo(group=group), "rows_per_step": 1}

    assert smaller(recipe, recipe.stage[1].model_copy(update=changes)).says == mend


def test_a_plan_knows_that_a_group_stands_in_a_row(tiny_recipe: RecipeMaker) -> None:
    """Eight answers, each behind its question: eight times the text, in a row that is computed at
    once. So a smaller group is one of the changes after which it fits."""
    by_labels = BY_REWARD | {"method": "supervised", "grpo": None}
    rows = {"rows_per_step": 1, "questions_per_row": 16}
    recipes = [
        tiny_recipe(more=[stage | rows])
        for stage in (by_labels, BY_REWARD | {"grpo": {"group": 8}})
    ]
    plain, planned = (plan(each)[1] for each in recipes)

    *_, last = told(recipes[1], None, [planned.activations / 2e9])

    assert planned.activations > 8 * plain.activations
    assert "Set grpo.group = 4: " in last


@pytest.mark.parametrize(
    "connector", [{"name": "moe"}, {"name": "dual", "processed": {"name": "moe"}}]
)
def test_experts_that_train_are_not_balanced_by_reward(
    connector: dict[str, Any], tiny_recipe: RecipeMaker
) -> None:
    content = tiny_recipe(more=[BY_REWARD]).model_dump() | {"connector": connector}

    with pytest.raises(ValidationError, match=r"stage reward: .* balances no experts: take connec"):
        Recipe.model_validate(content)
    content["stage"][1]["connector"] = "frozen"
    Recipe.model_validate(content)


def test_a_plan_of_a_stage_by_reward_is_for_one_gpu(tiny_recipe: RecipeMaker) -> None:
    *_, last = told(tiny_recipe(more=[BY_REWARD]), None, [8.0] * 4)

    assert last.strip().startswith("fits 1 x 8 GB")


def test_what_is_made_takes_no_adapter_and_no_four_bits() -> None:
    recipe = load_recipe("chooser")

    assert lighter(recipe, recipe.stage[0]).says == "a smaller language.made"


def test_a_dry_run_counts_what_reward_holds_a_worker_near_to(tiny_recipe: RecipeMaker) -> None:
    """And the average of the weights: each lies beside them in float32."""
    by_labels = BY_REWARD | {"method": "supervised", "grpo": None}
    _, plain = plan(tiny_recipe(more=[by_labels]))
    _, planned = plan(tiny_recipe(more=[BY_REWARD | {"average": 0.9}]))

    assert planned.weights - plain.weights == 2 * 4 * sum(plain.trains.values())


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"parent": None}, "reward teaches only who is right at times"),
        ({"method": "supervised"}, r"a \[stage.grpo\] table, .* goes with method"),
        ({"grpo": None}, r"a \[stage.grpo\] table, .* goes with method"),
        ({"augment": True}, "samples from cached features"),
        ({"reconstruction": 0.1}, "has no labels"),
        ({"grpo": {"group": 1}}, "greater than or equal to 2"),
        ({"checkpoint_activations": True}, "computes no layer twice; leave it out"),
    ],
    ids=["no parent", "no method", "no table", "augmented", "a label", "a group of one", "twice"],
)
def test_a_stage_that_cannot_learn_by_reward_is_refused(
    changes: dict[str, Any], complaint: str, tiny_recipe: RecipeMaker
) -> None:
    with pytest.raises(ValidationError, match=complaint):
        tiny_recipe(more=[BY_REWARD | changes])


def test_what_is_not_trained_yet_is_not_scored(recipe: Recipe, tmp_path: Path) -> None:
    run = claim(tmp_path / "run", recipe)

    with pytest.raises(CheckpointError, match="has nothing of stage reward: train it"):
        next(runs_of([run], tmp_path))


def test_runs_of_one_name_are_told_apart(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each with the one beside it, in the order given."""
    said = {"began": 0.5, "one/reward": 1.0, "two/reward": 0.0}

    def spoken(worth: float) -> confidence.Spoken:
        asked = [("1", "Where?"), ("2", "Where?")]
        return confidence.Spoken([worth == 1] * 2, [worth] * 2, [1] * 2, [("a",), ("b",)], asked)

    monkeypatch.setattr(confidence, "runs_of", lambda *_: said.items())
    monkeypatch.setattr(confidence, "spoken", spoken)
    monkeypatch.setattr(
        sys, "argv", ["", "one/reward", "--beside", "two/reward", "--data", "unused"]
    )

    confidence.main()

    *_, last = capsys.readouterr().out.splitlines()
    assert last.startswith("one/reward less two/reward: ") and "right +1.000" in last
