"""Connectors that read the question or stand between layers: trained and asked, never served."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from models import connectors
from models.data.pixels import open_rgb
from models.parts.packing import collate
from models.parts.vlm import Vlm, build_model
from models.recipe import Recipe
from models.recipe.programme import RecipeError
from models.serving.export import ExportError, export
from models.training.inputs.examples import examples_of
from models.training.learning import tuning
from models.training.learning.losses import answer_logits
from models.training.parts import PartsRun
from models.training.planning.dry_run import plan
from models.training.record.checkpoints import claim
from models.training.stages import train
from tests.tiny import write_toml

RecipeMaker = Callable[..., Recipe]
SMALL = {"width": 32, "heads": 2}
SETTINGS: dict[str, dict[str, Any]] = {
    "cross_attention": {"name": "cross_attention"} | SMALL,
    "gated_cross_attention": {
        "name": "gated_cross_attention",
        "tokens": {"name": "linear"},
        "blocks": 2,
    }
    | SMALL,
    "fusion": {"name": "fusion", "depth": 2} | SMALL,
}
PROMPT = "Which colour? Answer:"


def recipe_with(tiny_recipe: RecipeMaker, name: str, **stage: Any) -> Recipe:
    return tiny_recipe(**stage).model_copy(update={"connector": SETTINGS[name]})


def image(data: Path, number: int) -> Any:
    return open_rgb(data / "slake" / "imgs" / f"xmlab{number}" / "source.jpg")


def test_the_three_of_them_are_all_there_are() -> None:
    assert {name for name in connectors.names() if connectors.why_not_served(name)} == set(SETTINGS)


def test_a_closed_gate_leaves_the_language_model_as_it_was(
    tiny_recipe: RecipeMaker, drawn_slake: Path
) -> None:
    """Bit for bit: at first it says what it would say of the text alone."""
    recipe = recipe_with(tiny_recipe, "gated_cross_attention")
    model = build_model(recipe)
    rows = model.packed(examples_of(recipe.stage[0].data, drawn_slake)[:4], recipe.prompt)
    features = torch.randn(2, model.tower.patches, model.tower.dim)

    with torch.no_grad():
        seen, _, _ = answer_logits(model, collate(rows, 0), features)
        looked_at, model.looked_at = model.looked_at, None
        model.placed = lambda *_: torch.zeros(0, 32)  # type: ignore[method-assign]
        unseen, _, _ = answer_logits(model, collate(rows, 0), features)

    assert looked_at is not None and looked_at[0].shape[:2] == (2, 4)
    assert torch.equal(seen, unseen)


def test_gates_open_at_a_rate_of_their_own(
    tiny_recipe: RecipeMaker, drawn_slake: Path, tmp_path: Path
) -> None:
    """Each block has two; everything else keeps the connector's rate, and is in one group alone."""
    recipe = recipe_with(tiny_recipe, "gated_cross_attention", gate_lr=0.5)

    run = PartsRun(recipe, recipe.stage[0], claim(tmp_path / "run", recipe), drawn_slake, None)

    groups = run.optimiser.param_groups
    gates = [weight for group in groups if group["initial_lr"] == 0.5 for weight in group["params"]]
    assert [gate.numel() for gate in gates] == [1] * 4
    trained = sum(weight.requires_grad for weight in run.objective.parameters())
    assert sum(len(group["params"]) for group in groups) == trained


@pytest.mark.parametrize("name", SETTINGS)
def test_only_the_connector_moves_where_only_it_trains(
    tiny_recipe: RecipeMaker, drawn_slake: Path, tmp_path: Path, name: str
) -> None:
    """All of it, even behind a gate, once that has opened. The loop proves the rest frozen."""
    frozen = {"language": "frozen", "lora": None, "reconstruction": 0.0}
    recipe = recipe_with(tiny_recipe, name, epochs=1, **frozen)
    before = dict(build_model(recipe).connector.state_dict())

    checkpoint = train(recipe, drawn_slake, tmp_path)

    after = load_file(checkpoint / "connector.safetensors")
    assert [key for key in before if torch.equal(before[key], after[key])] == []
    assert not (checkpoint / "adapter").exists()


@pytest.mark.parametrize("name", SETTINGS)
def test_what_it_learned_it_says_again_when_loaded(
    tiny_recipe: RecipeMaker, drawn_slake: Path, tmp_path: Path, name: str
) -> None:
    """It answers by the image; loaded it says the same, token by token; and so it does where each
    token is computed anew from all before it."""
    rates = {"language_lr": 3e-3, "connector_lr": 3e-3, "warmup_steps": 1, "rows_per_step": 4}
    whole = {"language": "full", "lora": None, "epochs": 60, "reconstruction": 0.0}
    recipe = recipe_with(tiny_recipe, name, **rates, **whole)
    checkpoint = train(recipe, drawn_slake, tmp_path)

    model, again = (loaded(recipe, checkpoint) for _ in range(2))
    answers = [model.answer([image(drawn_slake, number)], PROMPT) for number in range(4)]

    assert [model.tokenizer.decode(ids) for ids in answers] == [
        " red<end>",
        " green<end>",
        " blue<end>",
        " white<end>",
    ]
    assert answers == [again.answer([image(drawn_slake, number)], PROMPT) for number in range(4)]
    assert answers[1] == without_a_cache(model, image(drawn_slake, 1), len(answers[1]))


def loaded(recipe: Recipe, checkpoint: Path) -> Vlm:
    model = build_model(recipe)
    tuning.load_trained(model, checkpoint, merge=True)
    return model


@torch.no_grad()
def without_a_cache(model: Vlm, picture: Any, length: int) -> list[int]:
    asked = torch.tensor(model.text_ids(PROMPT))
    features = model.tower(model.tower.preprocess(picture)[None])
    placed = model.placed(model.image_embeddings(features, [1]), [1], [asked])
    said: list[int] = []
    for _ in range(length):
        text = model.text_embeddings(torch.tensor([*asked, *said])[None])
        whole = torch.cat([placed[None].to(text.dtype), text], dim=1)
        said.append(
            int(model.language(inputs_embeds=whole, use_cache=False).logits[0, -1].argmax())
        )
    return said


@pytest.mark.parametrize("name", SETTINGS)
def test_it_is_not_exported(tiny_recipe: RecipeMaker, tmp_path: Path, name: str) -> None:
    recipe = recipe_with(tiny_recipe, name)
    toml = write_toml(recipe.model_dump(), tmp_path / "recipe.toml")

    with pytest.raises(ExportError, match=f"connector '{name}': its .*vLLM has no place"):
        export(toml, tmp_path, tmp_path / "zoo")


def test_more_blocks_than_layers_are_refused(tiny_recipe: RecipeMaker) -> None:
    recipe = recipe_with(tiny_recipe, "gated_cross_attention")
    recipe = recipe.model_copy(update={"connector": recipe.connector | {"blocks": 3}})

    with pytest.raises(RecipeError, match=r"connector: 3 blocks are more than the .* 2 layers"):
        plan(recipe)


@pytest.mark.parametrize("name", SETTINGS)
def test_layers_computed_twice_look_twice(
    tiny_recipe: RecipeMaker, drawn_slake: Path, tmp_path: Path, name: str
) -> None:
    """checkpoint_activations computes a layer again on the way back, with what stands before it."""
    ends = [
        load_file(
            train(
                recipe_with(tiny_recipe, name, epochs=1, checkpoint_activations=twice),
                drawn_slake,
                tmp_path / str(twice),
            )
            / "connector.safetensors"
        )
        for twice in (False, True)
    ]

    assert all(torch.equal(value, ends[1][key]) for key, value in ends[0].items())
