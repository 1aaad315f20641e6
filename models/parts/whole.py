"""A vision-language model of transformers, taken whole: with its own processor and chat template.

A case is one turn of a user, images before text, as the gateway asks every vLLM server. The model's
own template writes it and its processor lays it out; no token is added that the template does not
write, since vLLM's chat adds none.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

import models.cpu_torch  # noqa: F401  before transformers, which imports torchvision

# isort: split
from peft import PeftModel
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    BatchFeature,
    GenerationConfig,
)

from models import assets
from models.data.example import DataError, Example
from models.parts import words
from models.parts.language import all_weights, nf4
from models.parts.packing import Row, pack
from models.recipe import WholeRecipe
from models.recipe.programme import RecipeError

CPU = torch.device("cpu")
ANSWER = "answer"  # one that is written to see what stands around it


class Whole(nn.Module):
    """`net` is a model of transformers for images and text, which a LoRA may be put into."""

    net: Any

    def __init__(self, net: Any, processor: Any):
        super().__init__()
        self.net, self.processor, self.tokenizer = net, processor, processor.tokenizer
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token  # nothing sees padding
        told = net.generation_config.eos_token_id
        self._told_ends = told if isinstance(told, list) else [] if told is None else [told]
        # Of all else that its publisher says there, such as a penalty for what was said before,
        # vLLM is told to take nothing.
        net.generation_config = GenerationConfig()
        self.before, self.end = self._around_an_answer()

    @property
    def inner(self) -> Any:
        """The model of transformers itself; a LoRA's layers are within it."""
        return self.net.get_base_model() if isinstance(self.net, PeftModel) else self.net

    @property
    def ends(self) -> list[int]:
        """The tokens that its publisher or its template ends an answer with."""
        return sorted({self.end, *self._told_ends})

    def written(self, text: str, images: int, *answers: str) -> str:
        """So many images and the text as its template writes them: up to where the answer begins,
        or with the answer behind it."""
        parts = [*({"type": "image"} for _ in range(images)), {"type": "text", "text": text}]
        turns = [{"role": "user", "content": parts}]
        for answer in answers:
            turns.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
        return self.processor.apply_chat_template(
            turns, add_generation_prompt=not answers, tokenize=False
        )

    def _around_an_answer(self) -> tuple[str, int]:
        """What its template writes before an answer, and the token that ends one."""
        asked, told = self.written("?", 1), self.written("?", 1, ANSWER)
        before, found, after = told.removeprefix(asked).partition(ANSWER)
        if not (told.startswith(asked) and found):
            raise ValueError("its chat template does not go on from a prompt to an answer")
        own = self.tokenizer.eos_token_id
        written = self.tokenizer(after, add_special_tokens=False).input_ids
        ends = [token for token in written if token in (own, *self._told_ends)]
        return before, ends[0] if ends else own

    def packed(self, examples: Sequence[Example], prompt: str, max_questions: int = 1) -> list[Row]:
        """A row for each example, with a place for each of its images: how many tokens one takes
        knows only its processor.

        Raises:
            DataError: no examples, or one whose question holds a control token.
        """
        for example in examples:
            asked = prompt.format(question=example.question)
            if written := [each for each in self.tokenizer.all_special_tokens if each in asked]:
                raise DataError(
                    f"{example.id}: its question or the prompt holds {written[0]!r}, which is a "
                    "control token of the model: leave it out."
                )
        return pack(
            examples,
            lambda text: words.text_ids(self.tokenizer, text),
            lambda example: words.continued(self.tokenizer, self.before + example.answer),
            prompt,
            self.end,
            bos=[],
            image_tokens=lambda images: images,
            max_questions=max_questions,
        )

    def laid_out(
        self,
        asked: Sequence[str],
        images: Sequence[Sequence[Image.Image]],
        answers: Sequence[Tensor] = (),
    ) -> Any:
        """The cases as the model takes them, each with its answer's ids behind it, if there are
        any: a `BatchFeature`, padded on the right."""
        made = self.processor(
            text=[self.written(*each) for each in zip(asked, map(len, images), strict=True)],
            images=[list(each) for each in images],
            padding=True,
            padding_side="right",
            add_special_tokens=False,
            return_tensors="pt",
        )
        return _answered(made, answers) if answers else made

    def answer_logits(self, seen: Mapping[str, Tensor], lengths: Tensor) -> Tensor:
        """Logits [n, vocabulary] at the last `lengths` [b] tokens of each case in `seen`: only at
        these, since most words are said nowhere."""
        hidden = self.inner.base_model(**seen, use_cache=False).last_hidden_state
        ends = seen["attention_mask"].sum(1, keepdim=True)
        places = torch.arange(hidden.shape[1], device=hidden.device)
        told = (places < ends) & (places >= ends - lengths[:, None])
        return self.inner.get_output_embeddings()(hidden[told])

    @torch.no_grad()
    def answer(self, images: Sequence[Image.Image], prompt: str, max_tokens: int = 32) -> list[int]:
        """The greedy answer's token ids, the token that ends it included if it came to that."""
        self.eval()
        inner = self.inner
        seen = self.laid_out([prompt], [images]).to(inner.device, dtype=inner.dtype)
        said = self.net.generate(
            **seen,
            max_new_tokens=max_tokens,
            do_sample=False,
            eos_token_id=self.ends,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        return said[0, seen["input_ids"].shape[1] :].tolist()


def build_whole(
    recipe: WholeRecipe, dtype: torch.dtype = torch.bfloat16, device: torch.device = CPU
) -> Whole:
    """The recipe's model as it is published, on `device`. In float32, to which adapters are merged,
    nothing is in four bits.

    Raises:
        RecipeError: transformers has no such model, or it has no template or processor that we can
            ask it by.
        AssetError: weights that cannot be had.
    """
    part = recipe.worker
    folder = assets.resolve(part.model, report=print)
    four_bit = part.four_bit and dtype != torch.float32
    with takeable(recipe):
        return load_whole(folder, dtype, device, four_bit, part.processor)


@contextmanager
def takeable(recipe: WholeRecipe) -> Iterator[None]:
    """What transformers says of a model that is none for images and text becomes a RecipeError."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        reason = str(error).strip().split("\n")[0].rstrip(".")
        raise RecipeError(
            f"recipe {recipe.name}: worker.model: {recipe.worker.model} cannot be taken whole "
            f"({reason}). It must be a model that transformers has for images and text, with a "
            "processor and a chat template."
        ) from error


def load_whole(
    folder: Path,
    dtype: torch.dtype = torch.bfloat16,
    device: torch.device = CPU,
    four_bit: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> Whole:
    """The model in `folder` and its processor, with `settings` in place of its own.

    Raises:
        AssetError: files of weights that are missing or broken, or do not hold all of them.
    """
    net = all_weights(
        AutoModelForImageTextToText,
        folder,
        dtype=dtype,
        device_map=None if device.type == "cpu" else {"": device},
        quantization_config=nf4(dtype) if four_bit else None,
    )
    return Whole(net, AutoProcessor.from_pretrained(folder, **(settings or {})))


def _answered(made: BatchFeature, answers: Sequence[Tensor]) -> BatchFeature:
    """All that runs along the text is as much longer: `input_ids` by the answer, and what tells
    images from text by zeros."""
    text = made["input_ids"].shape
    ends = made["attention_mask"].sum(1).tolist()
    width = max(end + len(answer) for end, answer in zip(ends, answers, strict=True))
    for key, value in made.items():
        if value.shape == text:
            made[key] = torch.nn.functional.pad(value, (0, width - text[1]))
    for row, (end, answer) in enumerate(zip(ends, answers, strict=True)):
        made["input_ids"][row, end : end + len(answer)] = answer
        made["attention_mask"][row, end : end + len(answer)] = 1
    return made
