"""Language models: any causal model of transformers."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

import models.cpu_torch  # noqa: F401  before transformers, which imports torchvision

# isort: split
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from models import assets
from models.assets import AssetError


def load_language(
    reference: str, dtype: torch.dtype, device: torch.device, four_bit: bool = False
) -> tuple[Any, Any]:
    """The model on `device` and its tokenizer, by a reference of `models.assets`; with `four_bit`
    its linear layers are in NF4, and computed in `dtype`.

    Raises:
        AssetError: weights that cannot be had, are not what they should be, or of a model that
            transformers does not have.
    """
    folder = assets.resolve(reference, report=print)
    on_cpu = device.type == "cpu"
    with readable(reference):
        model = all_weights(
            AutoModelForCausalLM,
            folder,
            dtype=dtype,
            # Elsewhere the fused kernels that it has; on a CPU they are slower once a mask is
            # given.
            attn_implementation="eager" if on_cpu else None,
            device_map=None if on_cpu else {"": device},
            quantization_config=nf4(dtype) if four_bit else None,
        )
        tokenizer = AutoTokenizer.from_pretrained(folder)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token  # nothing sees padding
    return model, tokenizer


@contextmanager
def readable(reference: str) -> Iterator[None]:
    """What transformers says of a folder that holds none of its causal models becomes an
    AssetError."""
    try:
        yield
    except (ValueError, KeyError, OSError) as error:
        reason = str(error).strip().split("\n")[0].rstrip(".")
        raise AssetError(
            f"{reference} cannot be taken as a language model ({reason}). It must be a causal "
            "model that transformers has, with its tokenizer."
        ) from error


def all_weights(kind: Any, folder: Path, **how: Any) -> Any:
    """`kind.from_pretrained(folder, **how)`; transformers would draw weights that are not there.

    Raises:
        AssetError: files of weights that are missing or broken, or do not hold all of them.
    """
    assets.weight_files(folder)
    try:
        model, loaded = kind.from_pretrained(folder, output_loading_info=True, **how)
    except SafetensorError as error:
        raise AssetError(
            f"{folder}: a file of weights is broken ({error}): copy or fetch that model again."
        ) from error
    if missing := sorted(loaded["missing_keys"]):
        raise AssetError(
            f"{folder} lacks {len(missing)} of its weights, {missing[0]} among them: copy or fetch "
            "that model again, as safetensors."
        )
    return model


def nf4(dtype: torch.dtype) -> BitsAndBytesConfig:
    """QLoRA's way of keeping frozen weights (Dettmers et al. 2023, section 3)."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
