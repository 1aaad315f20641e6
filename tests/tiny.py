"""A language model of a few thousand weights, a few drawn images, and a recipe for both."""

import json
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw

import models.cpu_torch  # noqa: F401  before transformers, which imports torchvision

# isort: split
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers import models as tokenizer_models
from transformers import (
    DeepseekV2Config,
    DeepseekV2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

COLOURS = ("red", "green", "blue", "white")
LOOKS = (("CT", "Liver"), ("MRI", "Spleen"), ("CT", "Colon"), ("MRI", "Liver"))
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
DATA: dict[str, Any] = {"set": "slake", "split": "train", "languages": ["en"]}
STAGE: dict[str, Any] = {
    "name": "vqa",
    "connector": "full",
    "language": "lora",
    "lora": {"rank": 2, "dropout": 0.1},
    "data": [DATA],
    "epochs": 2,
    "rows_per_step": 2,
    "reconstruction": 0.1,
}


def save_llama(folder: Path, shards: str = "1GB", **shape: int) -> Path:
    """A folder in Hugging Face layout: a two-layer Llama and a tokenizer of single bytes."""
    vocabulary = save_tokenizer(folder)
    torch.manual_seed(0)
    config = LlamaConfig(**SHAPE | shape, vocab_size=vocabulary)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder, max_shard_size=shards)
    return folder


def save_deepseek(folder: Path) -> Path:
    """The same in DeepSeek-V2's kind: latent attention, a layer of one network and one of experts.
    The latents are as wide as its own, the one width that vLLM has a kernel for on a CPU."""
    config = DeepseekV2Config(
        vocab_size=save_tokenizer(folder),
        hidden_size=64,
        intermediate_size=128,
        moe_intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        q_lora_rank=None,
        first_k_dense_replace=1,
        n_routed_experts=4,
        num_experts_per_tok=2,
        n_group=1,
        topk_group=1,
        bos_token_id=1,
        eos_token_id=0,
        pad_token_id=0,
        initializer_range=0.1,
    )
    torch.manual_seed(0)
    DeepseekV2ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
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


def draw_slake(data: Path) -> Path:
    """Puts `slake/` in SLAKE's layout into `data`: coloured squares, two questions each."""
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


def draw_abdomens(data: Path) -> Path:
    """As `draw_slake`, with what captions and stacks are made of: four abdomens, a smaller one, and
    a head; twice, in two splits."""
    images = [("Abdomen", 64, look) for look in LOOKS]
    images += [("Abdomen", 32, LOOKS[0]), ("Brain_Tissue", 64, ("MRI", "Brain"))]
    for split, first in (("train", 0), ("validate", 10)):
        rows = []
        for number, (part, side, (modality, organ)) in enumerate(images, start=first):
            folder = data / "slake" / "imgs" / f"xmlab{number}"
            folder.mkdir(parents=True)
            Image.new("RGB", (side, side), (9 * number, 0, 0)).save(folder / "source.jpg")
            (folder / "detection.json").write_text(json.dumps([{organ: [1, 1, 9, 9]}]))
            row = {"img_name": f"xmlab{number}/source.jpg", "question": "?", "answer": "!"}
            row |= {"q_lang": "en", "modality": modality, "answer_type": "OPEN", "location": part}
            rows.append(row)
        (data / "slake" / f"{split}.json").write_text(json.dumps(rows))
    return data


def recipe(model: Path, name: str = "tiny", **stage: Any) -> dict[str, Any]:
    """A recipe of one stage on the language model in folder `model`, as `Recipe` reads it; keyword
    arguments replace keys of that stage.
    """
    return {
        "name": name,
        "prompt": "{question} Answer:",
        "validation": [DATA | {"split": "validate"}],
        "tower": {
            "name": "mobilenetv2_100",
            "weights": "base:mobilenetv2-imagenet",
            "image_size": 64,
        },
        "connector": {"name": "mlp", "hidden": 16},
        "language": {"model": str(model), "family": "tiny", "image_token": "<image>"},
        "stage": [STAGE | stage],
    }


def memory(name: str = "tiny") -> dict[str, Any]:
    """A recipe of a worker that remembers the drawn cases that `recipe` trains on."""
    return {"name": name, "remembers": [DATA], "tower": recipe(Path())["tower"]}


def write_toml(content: dict[str, Any], path: Path) -> Path:
    """An inline table of TOML is an object of JSON with other signs; it knows no null."""
    lines = (f"{key} = {_toml(value)}" for key, value in content.items() if value is not None)
    path.write_text("\n".join(lines))
    return path


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        pairs = (f"{key} = {_toml(each)}" for key, each in value.items() if each is not None)
        return f"{{ {', '.join(pairs)} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value)
