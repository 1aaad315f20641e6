"""A worker on DeepSeek-V2's kind of language model: multi-head latent attention, and experts."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from models.parts.vlm import build_model
from models.recipe import Recipe, load_recipe
from models.serving.export import export, load_served, served_folder
from models.training.learning.tuning import TuningError, load_trained, prepare
from models.training.stages import train
from tests import tiny

# isort: split
from transformers import (
    DeepseekV2Config,
    DeepseekV2ForCausalLM,
    DynamicCache,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)


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


@pytest.mark.parametrize(
    ("width", "heads", "ordinary"), [(64, 2, 256), (2_048, 16, 8_192)], ids=["tiny", "V2-Lite"]
)
def test_a_token_takes_the_cache_of_one_latent(width: int, heads: int, ordinary: int) -> None:
    """512 numbers and 64 that turn with the place, in each layer, however many heads there are. A
    Llama's two of each head are less of two heads of 32, and seven times as much of 16 of 128."""
    shape = {
        "hidden_size": width,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "num_hidden_layers": 2,
        "intermediate_size": 128,
        "vocab_size": 16,
    }
    latent = DeepseekV2Config(
        **shape, q_lora_rank=None, first_k_dense_replace=2, n_routed_experts=4
    )

    assert _cached(DeepseekV2ForCausalLM(latent)) == 2 * (512 + 64) == 1_152
    assert _cached(LlamaForCausalLM(LlamaConfig(**shape))) == 2 * 2 * width == ordinary


def _cached(language: PreTrainedModel) -> float:
    """What transformers' cache holds of ten tokens, in bytes a token and layer, in bfloat16."""
    cache = DynamicCache()
    with torch.no_grad():
        language.to(torch.bfloat16)(torch.arange(3, 13)[None], past_key_values=cache)
    kept = [part for layer in cache.layers for part in (layer.keys, layer.values)]
    return sum(part.nbytes for part in kept) / 10 / len(cache.layers)
