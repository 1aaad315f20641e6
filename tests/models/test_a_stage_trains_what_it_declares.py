"""Every way of tuning tower and language model: what moves, what is kept, what can be served."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from models import tuning
from models.checkpoints import newest
from models.export import ExportError, export, load_served, served_folder
from models.losses import answer_logits
from models.packing import collate, pack
from models.stages import Recipe
from models.training import examples_of, train
from models.tuning import TuningError
from models.vlm import Vlm, build_model
from tests.tiny import write_toml

RecipeMaker = Callable[..., Recipe]
LORA = {"rank": 2, "alpha": 2}
STAGES: dict[str, dict[str, Any]] = {
    "tower lora": {"tower": "lora", "tower_lora": LORA, "language": "frozen", "lora": None},
    "tower full": {"tower": "full"},
    "language full": {"language": "full", "lora": None},
    "prefix": {"language": "prefix", "lora": None, "virtual_tokens": 3},
    "p_tuning": {"language": "p_tuning", "lora": None, "virtual_tokens": 3},
    "prompt": {"language": "prompt", "lora": None, "virtual_tokens": 3},
    "connector frozen": {"connector": "frozen"},
}


@pytest.fixture(params=STAGES)
def stage(request: pytest.FixtureRequest) -> dict[str, Any]:
    return STAGES[request.param]


def kept(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a checkpoint that the export would keep."""
    return {
        f"{path.relative_to(checkpoint)}:{key}": value
        for path in sorted(checkpoint.rglob("*.safetensors"))
        for key, value in load_file(path).items()
    }


def test_a_stopped_stage_ends_with_the_weights_of_an_unbroken_one(
    tiny_recipe: RecipeMaker, drawn_slake: Path, tmp_path: Path, stage: dict[str, Any]
) -> None:
    """Whatever trains: after the first epoch it goes on as if nothing had been."""
    recipe = tiny_recipe(**stage, augment=True)
    unbroken = train(recipe, drawn_slake, tmp_path / "unbroken")
    finished = train(recipe, drawn_slake, tmp_path / "broken")
    (finished / "state.json").unlink()  # as if it had been cut off while saving

    resumed = train(recipe, drawn_slake, tmp_path / "broken")

    expected, found = kept(unbroken), kept(resumed)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_what_is_handed_on_to_a_child_goes_on_training(
    tiny_recipe: RecipeMaker, drawn_slake: Path, tmp_path: Path, stage: dict[str, Any]
) -> None:
    """The second stage starts where the first one stopped, not anew."""
    recipe = tiny_recipe(**stage, epochs=1, more=[{"name": "more", "parent": "vqa"}])

    last = train(recipe, drawn_slake, tmp_path)

    first = newest(tmp_path / "tiny" / "vqa")
    assert first is not None
    before, after = kept(first.folder), kept(last)
    assert before.keys() == after.keys()
    moved = [n for n in before if not torch.equal(before[n], after[n])]
    assert moved
    # A step of the optimiser is small beside what a fresh start would change.
    name = max(moved, key=lambda n: before[n].numel())
    assert (after[name] - before[name]).norm() < before[name].norm()


@pytest.mark.parametrize("mode", ["tower lora", "tower full", "language full"])
def test_what_was_trained_is_what_is_served(
    tiny_recipe: RecipeMaker, drawn_slake: Path, tmp_path: Path, mode: str
) -> None:
    """Kept in bfloat16, merged and loaded: the same features, the same language model."""
    recipe = tiny_recipe(**STAGES[mode], epochs=1, tower_lr=1e-2)
    checkpoint = train(recipe, drawn_slake, tmp_path / "runs")

    zoo = export(
        write_toml(recipe.model_dump(), tmp_path / "recipe.toml"), checkpoint, tmp_path / "zoo"
    )
    served = load_served(served_folder(zoo))

    trained, base = build_model(recipe), build_model(recipe)
    tuning.load_trained(trained, checkpoint, merge=True)
    if mode == "language full":
        for name, weight in trained.language.float().state_dict().items():
            assert torch.equal(served.language.state_dict()[name], weight.to(torch.bfloat16))
        return
    pixels = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        here, there, before = (m.eval().tower(pixels) for m in (served, trained, base))
    assert (here - there).norm() < 0.1 * (there - before).norm()


@pytest.mark.parametrize("mode", ["prefix", "p_tuning", "prompt"])
def test_what_vllm_cannot_serve_is_not_exported(
    tiny_recipe: RecipeMaker, tmp_path: Path, mode: str
) -> None:
    recipe = tiny_recipe(**STAGES[mode])

    with pytest.raises(ExportError, match=f"by '{mode}': vLLM has no place for learned"):
        export(
            write_toml(recipe.model_dump(), tmp_path / "recipe.toml"), tmp_path, tmp_path / "zoo"
        )


def test_a_part_that_a_parent_adapted_does_not_train_whole(
    tiny_recipe: RecipeMaker, drawn_slake: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe(
        epochs=1, more=[{"name": "more", "parent": "vqa", "language": "full", "lora": None}]
    )

    with pytest.raises(TuningError, match="stage more: its parent has adapted the language"):
        train(recipe, drawn_slake, tmp_path)


@pytest.mark.parametrize("gemma", [False, True], ids=["llama", "gemma"])
@pytest.mark.parametrize("mode", ["prefix", "p_tuning", "prompt"])
def test_a_soft_prompt_stands_before_every_question(
    tiny_recipe: RecipeMaker, tiny_gemma: Path, drawn_slake: Path, mode: str, gemma: bool
) -> None:
    """Packed rows give the loss that peft's own forward gives one question at a time."""
    part = {"model": str(tiny_gemma), "bos": True} if gemma else None
    recipe = tiny_recipe(language_part=part, **STAGES[mode])
    model = build_model(recipe).float()
    tuning.prepare(model, recipe.stage[0])
    examples = examples_of(recipe.stage[0].data, drawn_slake)[:6]
    seen = torch.randn(3, model.tower.patches, model.tower.dim)

    packed = 0.0
    plain = 0.0
    for number, row in enumerate(packed_rows(model, recipe, examples)):
        features = seen[number][None]
        logits, labels, image = answer_logits(model, collate([row], 0), features)
        packed += torch.nn.functional.cross_entropy(logits, labels, reduction="sum").item()
        for example in row.questions:
            asked = model.text_ids(recipe.prompt.format(question=example.question))
            answered = [*model.text_ids(" " + example.answer), model.tokenizer.eos_token_id]
            text = model.text_embeddings(torch.tensor([[*model.bos, *asked, *answered]]))
            first = len(model.bos)
            whole = torch.cat([text[:, :first], image, text[:, first:]], dim=1)
            known = torch.tensor([[-100] * (whole.shape[1] - len(answered)) + answered])
            mask = torch.ones(whole.shape[:2], dtype=torch.long)
            loss = model.language(inputs_embeds=whole, labels=known, attention_mask=mask).loss
            plain += loss.item() * len(answered)

    assert packed == pytest.approx(plain, rel=1e-4)


def packed_rows(model: Vlm, recipe: Recipe, examples: list[Any]) -> list[Any]:
    return pack(
        examples,
        model.text_ids,
        recipe.prompt,
        model.tokenizer.eos_token_id,
        model.bos,
        model.image_tokens,
    )
