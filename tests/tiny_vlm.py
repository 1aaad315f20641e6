"""Published vision-language models in small: of random weights, each in its own kind, with its own
processor, a chat template in its family's manner, and files as its publisher writes them; and a
recipe that takes one whole.
"""

import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

import models.cpu_torch  # noqa: F401  before transformers, which imports torchvision

# isort: split
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers import models as tokenizer_models
from transformers import (
    CLIPImageProcessor,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessor,
    Gemma3Processor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    Qwen3_5Config,
    Qwen3_5ForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from tests import tiny

SIDE = 56
QWEN = (
    "{% for turn in messages %}<|im_start|>{{ turn['role'] }}\n{% for part in turn['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}"
    "{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
GEMMA = (
    "<bos>{% for turn in messages %}<start_of_turn>"
    "{{ 'model' if turn['role'] == 'assistant' else turn['role'] }}\n"
    "{% for part in turn['content'] %}{% if part['type'] == 'image' %}<start_of_image>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
LLAVA = (
    "{% for turn in messages %}{% if turn['role'] == 'user' %}USER: "
    "{% for part in turn['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% else %} ASSISTANT: {{ turn['content'][0]['text'] }}</s>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %} ASSISTANT:{% endif %}"
)
TEXT = {key: value for key, value in tiny.SHAPE.items() if not key.endswith("_id")} | {
    "hidden_size": 64,
    "head_dim": 32,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}

QWEN_TOKENS = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"),
    *("<|image_pad|>", "<|video_pad|>"),
)
QWEN_IDS = {  # of these
    "vision_start_token_id": 3,
    "vision_end_token_id": 4,
    "image_token_id": 5,
    "video_token_id": 6,
}
QWEN_VISION = {"depth": 2, "hidden_size": 64, "intermediate_size": 128, "num_heads": 2}


def save_qwen(folder: Path) -> Path:
    """Qwen2.5-VL: an image takes as many tokens as it is large, and a turn's end ends an answer."""
    tokenizer = _qwen_tokenizer()
    rope = {"rope_type": "default", "mrope_section": [4, 6, 6], "rope_theta": 1e6}
    config = Qwen2_5_VLConfig(
        text_config=TEXT
        | {"vocab_size": len(tokenizer), "rope_parameters": rope, "bos_token_id": None}
        | {"eos_token_id": 2, "pad_token_id": 0},
        vision_config=QWEN_VISION
        | {"out_hidden_size": 64, "fullatt_block_indexes": [1], "window_size": SIDE},
        **QWEN_IDS,
        tie_word_embeddings=True,
    )
    processor = Qwen2_5_VLProcessor(
        Qwen2VLImageProcessor(), tokenizer, Qwen2VLVideoProcessor(), chat_template=QWEN
    )
    return _save(Qwen2_5_VLForConditionalGeneration, config, processor, folder, shards="150KB")


def save_llava(folder: Path) -> Path:
    """LLaVA-1.5: every image takes as many tokens, and its text's end ends an answer."""
    tokenizer = _tokenizer("<unk>", "<s>", "</s>", "<image>", end="</s>")
    vision = {"model_type": "clip_vision_model", "image_size": SIDE, "patch_size": 14}
    vision |= {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    config = LlavaConfig(
        text_config=TEXT | {"model_type": "llama", "vocab_size": len(tokenizer)},
        vision_config=vision | {"num_attention_heads": 2},
        image_token_index=3,
        image_seq_length=(SIDE // 14) ** 2,
        tie_word_embeddings=True,
    )
    size = {"height": SIDE, "width": SIDE}
    processor = LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=size),
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=LLAVA,
    )
    _save(LlavaForConditionalGeneration, config, processor, folder)
    weights = load_file(folder / "model.safetensors")
    named = {_as_published(name): weight for name, weight in weights.items()}
    save_file(named, folder / "model.safetensors", {"format": "pt"})
    return folder


def save_qwen35(folder: Path) -> Path:
    """Qwen3.5: three layers in four are a gated delta rule, with no attention that a mask could
    tell who sees whom."""
    tokenizer = _qwen_tokenizer()
    rope = {"rope_type": "default", "mrope_section": [4, 6, 6], "mrope_interleaved": True}
    delta = {f"linear_{each}_head_dim": 16 for each in ("key", "value")}
    delta |= {f"linear_num_{each}_heads": 2 for each in ("key", "value")}
    config = Qwen3_5Config(
        text_config=TEXT
        | delta
        | {"layer_types": ["linear_attention", "full_attention"]}
        | {"rope_parameters": rope | {"rope_theta": 1e6, "partial_rotary_factor": 1.0}}
        | {"vocab_size": len(tokenizer), "bos_token_id": None, "eos_token_id": 2}
        | {"pad_token_id": 0, "tie_word_embeddings": True},
        vision_config=QWEN_VISION
        | {"patch_size": 14, "out_hidden_size": 64, "num_position_embeddings": 16},
        **QWEN_IDS,
        tie_word_embeddings=True,
    )
    processor = Qwen3VLProcessor(
        Qwen2VLImageProcessor(patch_size=14, merge_size=2),
        tokenizer,
        Qwen3VLVideoProcessor(),
        chat_template=QWEN,
    )
    return _save(Qwen3_5ForConditionalGeneration, config, processor, folder)


def save_gemma(folder: Path) -> Path:
    """Gemma 3: an image's tokens see each other, and layers of a window see no further back."""
    tokenizer = _tokenizer(
        *("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"),
        *("<start_of_image>", "<image_soft_token>", "<end_of_image>"),
        end="<end_of_turn>",
        boi_token="<start_of_image>",
        image_token="<image_soft_token>",
        eoi_token="<end_of_image>",
    )
    config = Gemma3Config(
        text_config=TEXT
        | {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 64}
        | {"vocab_size": len(tokenizer), "bos_token_id": 2, "eos_token_id": 4, "pad_token_id": 0},
        vision_config={"image_size": SIDE, "patch_size": 14, "hidden_size": 64}
        | {"intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
        | {"vision_use_head": False},
        mm_tokens_per_image=4,
        boi_token_index=5,
        image_token_index=6,
        eoi_token_index=7,
        tie_word_embeddings=True,
    )
    processor = Gemma3Processor(
        Gemma3ImageProcessor(size={"height": SIDE, "width": SIDE}),
        tokenizer,
        chat_template=GEMMA,
        image_seq_length=4,
    )
    return _save(Gemma3ForConditionalGeneration, config, processor, folder)


def _as_published(name: str) -> str:
    """As LLaVA-1.5's own files have it: transformers writes it otherwise by now."""
    name = name.removeprefix("model.")
    name = re.sub(r"^vision_tower\.(?!vision_model)", "vision_tower.vision_model.", name)
    name = re.sub(r"^language_model\.(?!model)", "language_model.model.", name)
    return name.replace("lm_head", "language_model.lm_head")


def recipe(model: Path, **stage: Any) -> dict[str, Any]:
    """A recipe of one stage, as `WholeRecipe` reads it."""
    return {
        "name": "published",
        "prompt": "{question} In one word.",
        "worker": {"model": str(model), "family": "tiny"},
        "validation": [tiny.DATA | {"split": "validate"}],
        "stage": [
            {
                "name": "vqa",
                "lora": {"rank": 4},
                "data": [tiny.DATA],
                "epochs": 1,
                "language_lr": 0.02,
            }
            | stage
        ],
    }


def _qwen_tokenizer() -> PreTrainedTokenizerFast:
    pads = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"}
    return _tokenizer(*QWEN_TOKENS, end="<|im_end|>", **pads)


def _tokenizer(*special: str, end: str, **named: str) -> PreTrainedTokenizerFast:
    vocabulary = {
        token: number
        for number, token in enumerate([*special, *sorted(pre_tokenizers.ByteLevel.alphabet())])
    }
    raw = Tokenizer(tokenizer_models.BPE(vocab=vocabulary, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        eos_token=end,
        pad_token=special[0],
        additional_special_tokens=list(special),
        **named,
    )


def _save(kind: Any, config: Any, processor: Any, folder: Path, shards: str = "1GB") -> Path:
    torch.manual_seed(0)
    model = kind(config)
    for weight in model.parameters():
        if (
            weight.ndim > 1 and not weight.any()
        ):  # Gemma's projection starts so; no published one is
            torch.nn.init.normal_(weight, std=0.02)
    model.to(torch.bfloat16).save_pretrained(folder, max_shard_size=shards)
    processor.save_pretrained(folder)
    return folder
