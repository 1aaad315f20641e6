"""What is published of language models on a hub: enough to plan with where none is reached."""

from dataclasses import dataclass
from typing import Any

import models.cpu_torch  # noqa: F401  before transformers, which imports torchvision

# isort: split
from tokenizers import Tokenizer
from tokenizers import models as tokenizer_models
from transformers import (
    BioGptConfig,
    DeepseekV2Config,
    GPT2Config,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)


@dataclass(frozen=True)
class Published:
    """Its `config.json`, how many parameters (a check on that), its tokenizer's special tokens."""

    config: Any
    parameters: int
    bos: str | None
    special: tuple[str, ...]

    @property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """It knows the special tokens alone: a plan reads no text."""
        return PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer(tokenizer_models.BPE()),
            bos_token=self.bos,
            additional_special_tokens=list(self.special),
        )


MODELS = {
    "mistralai/Mistral-7B-Instruct-v0.2": Published(
        MistralConfig(rope_theta=1e6, sliding_window=None),  # the rest is the default
        7_241_732_096,
        bos="<s>",
        special=("<unk>", "</s>"),
    ),
    "Qwen/Qwen2.5-7B-Instruct": Published(
        Qwen2Config(
            vocab_size=152064,
            hidden_size=3584,
            intermediate_size=18944,
            num_hidden_layers=28,
            num_attention_heads=28,
            num_key_value_heads=4,
            rope_theta=1e6,
        ),
        7_615_616_512,
        bos=None,
        special=("<|endoftext|>", "<|im_end|>", "<|image_pad|>"),
    ),
    "deepseek-ai/DeepSeek-V2-Lite-Chat": Published(
        DeepseekV2Config(
            hidden_size=2048,
            intermediate_size=10944,
            moe_intermediate_size=1408,
            num_hidden_layers=27,
            num_attention_heads=16,
            q_lora_rank=None,
            first_k_dense_replace=1,
            num_experts_per_tok=6,
            n_group=1,
            topk_group=1,
        ),
        15_706_484_224,
        bos="<｜begin▁of▁sentence｜>",
        special=("<｜end▁of▁sentence｜>", "<｜fim▁hole｜>"),
    ),
    "openai-community/gpt2-xl": Published(
        GPT2Config(n_embd=1600, n_layer=48, n_head=25),
        1_557_611_200,
        bos="<|endoftext|>",
        special=(),
    ),
    "microsoft/biogpt": Published(
        BioGptConfig(), 346_763_264, bos="<s>", special=("<pad>", "</s>", "<unk>")
    ),
}
