"""A small language model from scratch, whose tokens are whole: words of questions, and answers.

A worker on it chooses: one token holds the probability of every answer that it knows. It is a Llama
as transformers and vLLM have it. Its vocabulary, a folder of a run or of the zoo, comes from the
recipe's training data and is all that it needs beside its weights.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

import models.cpu_torch  # noqa: F401  before transformers, which imports torchvision

# isort: split
from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from models.recipe.parts import MADE_IMAGE_TOKEN, MadeLanguage

VOCABULARY = "vocabulary"  # its folder
END, UNKNOWN, IMAGE = "<end>", "<unknown>", MADE_IMAGE_TOKEN
SEEN = 2  # a word that is seen less often is unknown, so that there is something to learn of those


def word_tokenizer(asked: Iterable[str], answers: Iterable[str]) -> PreTrainedTokenizerFast:
    """The words of `asked`, without capitals, Chinese ones by character; and every answer whole.

    A question never becomes an answer's token, unless one of its words is that answer.
    """
    raw = Tokenizer(WordLevel({UNKNOWN: 0}, unk_token=UNKNOWN))
    raw.normalizer = normalizers.BertNormalizer(strip_accents=False, lowercase=True)
    raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    raw.decoder = decoders.Fuse()
    counts = Counter(
        word
        for text in asked
        for word, _ in raw.pre_tokenizer.pre_tokenize_str(raw.normalizer.normalize_str(text))
    )
    words = sorted(word for word, count in counts.items() if count >= SEEN)
    tokens = dict.fromkeys([END, UNKNOWN, IMAGE, *words, *sorted(set(answers))])
    raw.model = WordLevel({token: id for id, token in enumerate(tokens)}, unk_token=UNKNOWN)
    # As it is written: no question's words add up to it.
    raw.add_special_tokens([AddedToken(IMAGE, normalized=False)])
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        eos_token=END,
        unk_token=UNKNOWN,
        pad_token=END,  # nothing sees padding
        additional_special_tokens=[IMAGE],
    )


def answer_ids(tokenizer: Any, answer: str) -> list[int]:
    """An answer as a model is taught to say it; where one is a single token, that, or the
    unknown word's, which no model is taught to say.
    """
    if not says_in_one_token(tokenizer):
        return continued(tokenizer, f" {answer}")
    token = tokenizer.convert_tokens_to_ids(answer)
    return [tokenizer.unk_token_id if token in tokenizer.all_special_ids else token]


def text_ids(tokenizer: Any, text: str) -> list[int]:
    """Text as text: what is written like a control token, such as `<|im_end|>`, is none."""
    return tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids


def continued(tokenizer: Any, text: str) -> list[int]:
    """What goes on behind other text. Some tokenizers, such as Mistral's, put a blank of their own
    before whatever they are given: an answer behind its blank would begin with a token of two, as
    no answer does that a model says, and all that are learned.
    """
    if not text.startswith(" "):
        return text_ids(tokenizer, text)
    return text_ids(tokenizer, f":{text}")[len(text_ids(tokenizer, ":")) :]


def says_in_one_token(tokenizer: Any) -> bool:
    """Whether an answer is one token: one that it does not know cannot be said at all."""
    backend = getattr(tokenizer, "backend_tokenizer", None)  # BioGPT's is all of Python
    return backend is not None and isinstance(backend.model, WordLevel)


def make_language(made: MadeLanguage, vocabulary: int, dtype: torch.dtype) -> Any:
    """A fresh Llama over so many tokens, by torch's random numbers."""
    config = LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=vocabulary,
        hidden_size=made.width,
        intermediate_size=made.hidden,
        num_hidden_layers=made.layers,
        num_attention_heads=made.heads,
        max_position_embeddings=8192,
        initializer_range=0.05,
        attn_implementation="sdpa",
        attention_bias=True,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=0,
        tie_word_embeddings=False,
    )
    language = LlamaForCausalLM(config).to(dtype)
    for layer in language.model.layers:
        _share_heads(layer.self_attn.q_proj, layer.self_attn.k_proj, made.heads)

    def dropped(module: nn.Module, _: Any, out: Tensor) -> Tensor:
        return nn.functional.dropout(out, made.dropout, module.training)

    # Llama itself drops nothing of what a layer adds.
    for layer in language.model.layers:
        layer.self_attn.o_proj.register_forward_hook(dropped)
        layer.mlp.down_proj.register_forward_hook(dropped)
    return language


@torch.no_grad()
def _share_heads(query: nn.Linear, key: nn.Linear, heads: int) -> None:
    """At first half of the heads look at text and half at the image, whose tokens are so many that
    the question would else be lost among them.

    Images' tokens are those that have a mean: see `mark` of models.connectors.encoder. Where it is
    as large as their gain, a head of text gives each of them e^5 less weight than a word.
    """
    width = len(query.weight) // heads
    slow = torch.arange(heads) * width + width // 2 - 1  # it hardly turns with the position
    turned = slow + width // 2  # what it would turn into
    query.weight[slow], query.weight[turned], key.weight[turned] = 0, 0, 0
    query.bias[slow] = torch.where(torch.arange(heads) < heads // 2, -4.0, 4.0).to(query.bias)
    key.weight[slow] = 1.76 * width**0.5 / key.in_features
