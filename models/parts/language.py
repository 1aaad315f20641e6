"""Language models: any causal model of transformers."""

from typing import Any

import torch

import models.cpu_torch  # noqa: F401  before transformers, which imports torchvision

# isort: split
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from models import assets


def load_language(
    reference: str, dtype: torch.dtype, device: torch.device, four_bit: bool = False
) -> tuple[Any, Any]:
    """The model on `device` and its tokenizer, by a reference of `models.assets`; with `four_bit`
    its linear layers are in NF4, and computed in `dtype`.

    Raises:
        AssetError: weights that cannot be had, or are not what they should be.
    """
    folder = assets.resolve(reference, report=print)
    assets.weight_files(folder)
    on_cpu = device.type == "cpu"
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=dtype,
        # Elsewhere the fused kernels that it has; on a CPU they are slower once a mask is given.
        attn_implementation="eager" if on_cpu else None,
        device_map=None if on_cpu else {"": device},
        quantization_config=nf4(dtype) if four_bit else None,
    )
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token  # nothing sees padding
    return model, tokenizer


def nf4(dtype: torch.dtype) -> BitsAndBytesConfig:
    """QLoRA's way of keeping frozen weights (Dettmers et al. 2023, section 3)."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
