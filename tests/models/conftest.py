"""A language model of a few thousand weights, a few drawn images, and a recipe for both."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw

import models.cpu_torch  # noqa: F401  before transformers, which imports torchvision

# isort: split
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers import models as tokenizer_models
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from models.assets import cache_dir
from models.stages import Recipe

COLOURS = ("red", "green", "blue", "white")
SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "bos_token_id": 1,
    "eos_token_id": 0,
    "pad_token_id": 0,
    "tie_word_embeddings": True,
    "initializer_range": 0.2,
}


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of the tests' own, so that no drawn image gets into the user's. Base weights are the
    same for everyone, so those are shared."""
    base = cache_dir() / "base"
    base.mkdir(parents=True, exist_ok=True)
    folder = tmp_path_factory.mktemp("cache")
    (folder / "base").symlink_to(base)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONSILIUM_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def tiny_language(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in Hugging Face layout: a two-layer Llama and a tokenizer of single bytes."""
    folder = tmp_path_factory.mktemp("tiny_language")
    vocabulary = save_tokenizer(folder)
    torch.manual_seed(0)
    config = LlamaConfig(**SHAPE, vocab_size=vocabulary)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `tiny_language`, in Gemma's kind: scaled embeddings, sliding and full attention."""
    folder = tmp_path_factory.mktemp("tiny_gemma")
    vocabulary = save_tokenizer(folder)
    torch.manual_seed(0)
    config = Gemma3TextConfig(
        **SHAPE, vocab_size=vocabulary, layer_types=["sliding_attention", "full_attention"]
    )
    Gemma3ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    return folder


def save_tokenizer(folder: Path) -> int:
    """Saves a tokenizer of single bytes; returns how many tokens it knows."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<end>", "<begin>", "<image>"]
    vocabulary = {token: number for number, token in enumerate([*special, *alphabet])}
    raw = Tokenizer(tokenizer_models.BPE(vocab=vocabulary, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        eos_token="<end>",
        bos_token="<begin>",
        pad_token="<end>",
        additional_special_tokens=["<image>"],
    )
    tokenizer.save_pretrained(folder)
    return len(vocabulary)


@pytest.fixture(scope="session")
def drawn_slake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with `slake/` in SLAKE's layout: eight coloured squares, two questions each."""
    data = tmp_path_factory.mktemp("data")
    root = data / "slake"
    for split, first, count in (("train", 0, 8), ("validate", 8, 4)):
        rows = []
        for number in range(first, first + count):
            colour = COLOURS[number % len(COLOURS)]
            image = Image.new("RGB", (64, 64))
            ImageDraw.Draw(image).rectangle((8, 8, 40 + number, 40), fill=colour)
            path = root / "imgs" / f"xmlab{number}" / "source.jpg"
            path.parent.mkdir(parents=True)
            image.save(path)
            for question, answer in (
                ("Which colour?", colour),
                ("Is it red?", str(colour == "red")),
            ):
                rows.append(
                    {
                        "img_name": f"xmlab{number}/source.jpg",
                        "question": question,
                        "answer": answer,
                        "q_lang": "en",
                        "modality": "drawing",
                        "answer_type": "OPEN",
                        "content_type": "Color",
                        "qid": len(rows),
                    }
                )
        (root / f"{split}.json").write_text(json.dumps(rows))
    return data


@pytest.fixture
def tiny_recipe(tiny_language: Path) -> Callable[..., Recipe]:
    """A recipe of one stage; keyword arguments replace keys of that stage, `more` adds stages."""

    def make(
        name: str = "tiny",
        more: Sequence[dict[str, Any]] = (),
        language_part: dict[str, Any] | None = None,
        **stage: Any,
    ) -> Recipe:
        data = {"set": "slake", "split": "train", "languages": ["en"]}
        first = {
            "name": "vqa",
            "connector": "full",
            "language": "lora",
            "lora": {"rank": 2, "dropout": 0.1},
            "data": [data],
            "epochs": 2,
            "rows_per_step": 2,
            "reconstruction": 0.1,
        }
        return Recipe.model_validate(
            {
                "name": name,
                "prompt": "{question} Answer:",
                "validation": [data | {"split": "validate"}],
                "tower": {
                    "name": "mobilenetv2_100",
                    "weights": "base:mobilenetv2-imagenet",
                    "image_size": 64,
                },
                "connector": {"name": "mlp", "hidden": 16},
                "language": {
                    "model": str(tiny_language),
                    "family": "tiny",
                    "image_token": "<image>",
                }
                | (language_part or {}),
                "stage": [first | stage, *(first | each for each in more)],
            }
        )

    return make
