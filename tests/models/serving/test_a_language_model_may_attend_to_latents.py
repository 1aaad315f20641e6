"""A worker on DeepSeek-V2's kind of language model: multi-head latent attention, and experts."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM

from models.parts.vlm import build_model
from models.recipe import Recipe, load_recipe
from models.serving.export import export, load_served, served_folder
from models.training.learning.tuning import TuningError, load_trained, prepare
from models.training.stages import train
from tests import tiny

# isort: split
from transformers import DynamicCache


def test_it_is_kept_in_its_publishers_names_and_says_the_same(
    tmp_path: Path, drawn_slake: Path
) -> None:
    """vLLM reads each expert by its own name, where transformers has a layer's experts in one."""
    language = tiny.save_deepseek(tmp_path / "language")
    file = tiny.write_toml(
        tiny.recipe(language, "latent", epochs=1, lora={"rank": 2}),
        tmp_path / "latent.toml",
    )
    recipe = load_recipe(file)
    checkpoint = train(recipe, drawn_slake, tmp_path / "runs")

    worker = export(file, checkpoint, tmp_path / "worker")
    folder = served_folder(worker)

    with safe_open(folder / "model.safetensors", "pt") as weights:
        names = [name for name in weights.keys() if ".experts." in name]  # noqa: SIM118
    first = "language_model.model.layers.1.mlp.experts.0.gate_proj.weight"
    assert first in names and len(names) == 4 * 3
    merged = build_model(recipe, torch.float32)
    load_trained(merged, worker, merge=True)
    kept = load_served(folder).language.state_dict()
    trained = merged.language.to(torch.bfloat16).state_dict()
    assert kept.keys() == trained.keys()
    assert all(torch.equal(kept[name], weight) for name, weight in trained.items())


def test_a_lora_of_experts_that_drops_something_is_told(tmp_path: Path) -> None:
    language = tiny.save_deepseek(tmp_path / "language")
    recipe = Recipe.model_validate(tiny.recipe(language, lora={"rank": 2, "dropout": 0.1}))

    with pytest.raises(TuningError, match=r"stage vqa: .* a lora has dropout = 0"):
        prepare(build_model(recipe), recipe.stage[0])


def test_a_token_takes_the_cache_of_one_latent(tmp_path: Path) -> None:
    """512 numbers and 64 that turn with the place, in each layer, however many heads there are."""
    language = AutoModelForCausalLM.from_pretrained(tiny.save_deepseek(tmp_path))
    config, cache = language.config, DynamicCache()

    with torch.no_grad():
        language(torch.arange(3, 13)[None], past_key_values=cache)

    kept = sum(layer.keys.numel() + layer.values.numel() for layer in cache.layers) / 10
    assert kept == config.num_hidden_layers * (512 + 64)
