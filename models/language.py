"""Language models: any causal model of transformers."""

from typing import Any

import torch

import models.cpu_torch  # noqa: F401  before transformers, which imports torchvision

# isort: split
from transformers import AutoModelForCausalLM, AutoTokenizer

from models import assets


def load_language(reference: str, dtype: torch.dtype) -> tuple[Any, Any]:
    """The model and its tokenizer, by a reference of `models.assets`.

    Raises:
        AssetError: weights that cannot be had, or are not what they should be.
    """
    folder = assets.resolve(reference, report=print)
    # Training runs on the CPU, where the fused kernels are the slower ones once a mask is given.
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager")
    return model, AutoTokenizer.from_pretrained(folder)
