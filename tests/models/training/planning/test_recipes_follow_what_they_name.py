"""The recipes after published systems: each is planned, and trains what its system trains."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from models.parts.vision import Tower, TowerConfig
from models.parts.vlm import build_model
from models.recipe import RECIPES, Recipe, load_recipe
from models.recipe.programme import RecipeError
from models.serving.export import export, load_served, served_folder
from models.training.learning import tuning
from models.training.planning.dry_run import NF4_BITS, plan
from models.training.planning.published import MODELS
from models.training.record.progress import read_log
from models.training.stages import train
from tests.tiny import draw_abdomens, save_llama, write_toml

# isort: split
from transformers import AutoModelForCausalLM

RecipeMaker = Callable[..., Recipe]
C, L, T = {"connector"}, {"language"}, {"tower"}
FOLLOWS = {
    "cxr-llava": [C, C | L],
    "plami": [C, C | L],
    "ophglm": [C],
    "skingpt4": [C | L | T],
    "iqagpt": [C, C | L],
    "clinicalblip": [C, C | L | T, C | L | T],
    "musk": [C | L | T],
    "flamingo": [C, C],
    "llava3d": [C | L, C, C | L],
    "mamba": [C | L | T],
    "codes": [C | L],
    "clip-mistral": [C, C | L],
    "clip-mistral-4bit": [C, C | L],
    "clip-mistral-full": [C, C | L],
    "clip-qwen": [C, C | L],
    "clip-qwen-4bit": [C, C | L],
    "siglip-mistral": [C, C | L],
    "siglip-mistral-4bit": [C, C | L],
    "siglip-qwen": [C, C | L],
    "siglip-qwen-4bit": [C, C | L],
    "deepseek-v2-lite": [C, C | L],
    "clip-gpt2-xl": [C | L],
    "clip-biogpt": [C | L],
}
# Packages of the index hold their base weights; the others' come from a hub.
AT_HAND = [name for name in FOLLOWS if load_recipe(name).tower.weights.startswith("base:")]
HOUSE = {
    "mobilenet",
    "efficientnet",
    "polyglot",
    "chooser",
    "chooser-efficientnet",
    "reward",
    "screening",
    "specialist-slake",
    "specialist-rad",
    "specialist-med",
    "monolith",
}


@pytest.mark.parametrize(
    "name", sorted(path.stem for path in RECIPES.glob("*.toml") if "memory" not in path.stem)
)
def test_every_recipe_is_planned_and_trains_what_it_follows(name: str) -> None:
    plans = plan(load_recipe(name))

    if name.removeprefix("rad-").removesuffix("-frozen") not in HOUSE:
        assert [set(stage.trains) - {"reconstructor"} for stage in plans] == FOLLOWS[name]


@pytest.mark.parametrize("name", FOLLOWS)
def test_a_recipe_says_whom_it_follows_and_where_it_departs(name: str) -> None:
    head = (RECIPES / f"{name}.toml").read_text().split("\nname =")[0]

    assert "# Departs" in head and " et al. 20" in head and f"consilium train {name}" in head


@pytest.mark.parametrize("name", AT_HAND)
def test_every_stage_takes_a_step_on_the_weights_that_it_names(
    name: str, first_layers: Callable[[Recipe], Recipe], tmp_path: Path
) -> None:
    """The tower's own, and of the language model its tokenizer, embeddings and first layers."""
    recipe = load_recipe(name)
    if name != "musk":  # of one, all layers
        recipe = first_layers(recipe)
    stages = [stage.model_copy(update={"steps": 1, "epochs": 1}) for stage in recipe.stage]

    checkpoint = train(
        recipe.model_copy(update={"stage": tuple(stages)}),
        draw_abdomens(tmp_path / "data"),
        tmp_path / "runs",
    )

    for stage in stages:
        figures = read_log(tmp_path / "runs" / name / stage.name / "log.jsonl")[-1]
        assert figures["part"] == "validation" and math.isfinite(figures["answer_loss"])
    assert checkpoint.parent.name == stages[-1].name


@pytest.mark.parametrize("reference", MODELS)
def test_what_is_known_of_a_published_model_makes_all_its_parameters(reference: str) -> None:
    known = MODELS[reference]

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(known.config)

    assert sum(p.numel() for p in model.parameters()) == known.parameters


def test_four_bits_are_planned_for_all_frozen_linear_layers_but_the_last() -> None:
    mistral = MODELS["mistralai/Mistral-7B-Instruct-v0.2"].config
    width, wide = mistral.hidden_size, mistral.intermediate_size
    layer = 2 * width * width + 2 * width * width // 4 + 3 * width * wide
    linear = layer * mistral.num_hidden_layers

    whole, four_bit = (plan(load_recipe(f"clip-mistral{kind}"))[1] for kind in ("", "-4bit"))

    assert whole.trains == four_bit.trains and whole.frozen == four_bit.frozen
    assert whole.weights - four_bit.weights == pytest.approx(linear * (2 - NF4_BITS / 8), abs=1)


def test_a_transformers_patches_are_its_grid_without_its_class_token() -> None:
    """At a size that it was not made for; what changes in one corner changes its patch most."""
    torch.manual_seed(0)
    tower = Tower(TowerConfig("vit_tiny_patch16_224", "timm", 64), load_weights=False)
    black, marked = Image.new("RGB", (64, 64)), Image.new("RGB", (64, 64))
    marked.paste((255, 255, 255), (48, 0, 64, 16))

    with torch.no_grad():
        before, after = (tower(tower.preprocess(each)[None])[0] for each in (black, marked))

    assert (tower.side, tower.dim, before.shape) == (4, 192, (16, 192))
    assert (after - before).norm(dim=-1).argmax() == 3  # the first row's last
    assert {"blocks.0.attn.qkv", "blocks.11.mlp.fc2"} <= set(tower.pointwise())


@pytest.mark.parametrize(
    "part", sorted({str(load_recipe(name).tower.name) for name in [*FOLLOWS, *HOUSE]})
)
def test_every_weight_of_a_tower_takes_part(part: str) -> None:
    """Else a tower that trains whole would hold weights that cannot move: heads, pools."""
    sizes = {recipe.tower.name: recipe.tower.image_size for recipe in map(load_recipe, FOLLOWS)}
    size = sizes[part]
    with torch.device("meta"):
        tower = Tower(TowerConfig(part, "timm", size), load_weights=False)
        tower(torch.zeros(1, 3, size, size)).sum().backward()

    assert [name for name, weight in tower.named_parameters() if weight.grad is None] == []


def quantised(recipe: Recipe) -> Recipe:
    language = recipe.language.model_copy(update={"four_bit": True})
    return recipe.model_copy(update={"language": language})


def test_a_four_bit_model_learns_by_its_adapter_and_is_served_whole(
    tiny_recipe: RecipeMaker, drawn_slake: Path, tmp_path: Path
) -> None:
    """The loop proves that the four-bit weights kept still; the adapter goes into the base's."""
    wide = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16}  # NF4's blocks are of 64
    language = {"model": str(save_llama(tmp_path / "language", **wide))}
    recipe = quantised(tiny_recipe(language_part=language, epochs=1))
    layer = "model.layers.0.mlp.up_proj"

    checkpoint = train(recipe, drawn_slake, tmp_path / "runs")
    toml = write_toml(recipe.model_dump(), tmp_path / "recipe.toml")
    served = load_served(served_folder(export(toml, checkpoint, tmp_path / "zoo")))

    assert build_model(recipe).language.get_submodule(layer).weight.dtype == torch.uint8
    merged = build_model(recipe, torch.float32)
    base = merged.language.get_submodule(layer).weight.clone()
    tuning.load_trained(merged, checkpoint, merge=True)
    expected = merged.language.get_submodule(layer).weight
    assert not torch.equal(expected, base)
    torch.testing.assert_close(
        served.language.get_submodule(layer).weight.float(), expected, rtol=1e-2, atol=1e-3
    )


def test_four_bit_weights_are_not_trained_whole(tiny_recipe: RecipeMaker, tmp_path: Path) -> None:
    recipe = quantised(tiny_recipe(language="full", lora=None))
    toml = write_toml(recipe.model_dump(), tmp_path / "wrong.toml")

    with pytest.raises(RecipeError, match="stage vqa: four_bit weights do not train"):
        load_recipe(toml)
