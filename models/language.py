"""Language models: any causal model of transformers, whole or only its first layers."""

from typing import Any

import torch

import models.cpu_torch  # noqa: F401  before transformers, which imports torchvision

# isort: split
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from models import assets
from models.stages import LanguagePart


def load_language(part: LanguagePart, dtype: torch.dtype) -> tuple[Any, Any]:
    """The model and its tokenizer.

    With `part.layers` only that many of the first layers are kept: for short answers the deeper
    ones matter least (Gromov et al. 2024, "The Unreasonable Ineffectiveness of the Deeper
    Layers"), and training and answering get faster in proportion. Fine-tuning heals the cut.

    Raises:
        AssetError: weights that cannot be had, or fewer layers than asked for.
    """
    folder = assets.resolve(part.model, report=print)
    config = AutoConfig.from_pretrained(folder)
    if part.layers:
        if part.layers > config.num_hidden_layers:
            raise assets.AssetError(
                f"{part.model} has {config.num_hidden_layers} layers; the recipe asks for "
                f"{part.layers}. Lower layers in [language]."
            )
        config.num_hidden_layers = part.layers
        if getattr(config, "layer_types", None):
            config.layer_types = config.layer_types[: part.layers]
    # On CPUs the fused kernels are the slower ones once a mask is given.
    attention = "sdpa" if torch.cuda.is_available() else "eager"
    model = AutoModelForCausalLM.from_pretrained(
        folder, config=config, dtype=dtype, attn_implementation=attention
    )
    return model, AutoTokenizer.from_pretrained(folder)
