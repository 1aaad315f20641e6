"""Tower + connector + language model, as the trainer and the parity check run them.

A prompt is laid out as `[bos] images' tokens, text`; the vLLM plugin lays it out the same way. The
language model is any causal model of transformers. Its embedding layer turns text into embeddings
(Gemma's scales them); image embeddings are put among those as they are.
"""

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from models import connectors
from models.data.example import Example
from models.language import load_language
from models.packing import Row, pack
from models.positions import grid_positions
from models.stages import Recipe, RecipeError
from models.vision import Tower, TowerConfig


class Vlm(nn.Module):
    """`language` is a causal model of transformers, `tokenizer` its tokenizer, `bos` says whether
    a prompt starts with the tokenizer's bos token. `image_tokens` counts one image's tokens,
    `whole` names what has trained whole: "tower", "language" (see models.tuning).
    """

    positions: Tensor
    language: Any

    def __init__(
        self, tower: Tower, connector: nn.Module, language: Any, tokenizer: Any, bos: bool
    ):
        super().__init__()
        self.tower, self.connector, self.language = tower, connector, language
        self.tokenizer = tokenizer
        self.register_buffer("positions", grid_positions(tower.side), persistent=False)
        self.image_tokens: int = connector.num_tokens(tower.patches)  # type: ignore[operator]
        self.whole: set[str] = set()
        self.bos: list[int] = [tokenizer.bos_token_id] if bos else []

    def image_embeddings(self, features: Tensor) -> Tensor:
        """Features [b, patches, vision_dim] → token embeddings [b, image_tokens, text_dim]"""
        return self.connector(features, self.positions)

    def text_embeddings(self, ids: Tensor) -> Tensor:
        """Token ids [b, n] → embeddings [b, n, text_dim]"""
        return self.language.get_input_embeddings()(ids)

    def text_ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def packed(
        self, examples: Sequence[Example], prompt: str, max_questions: int = 16
    ) -> list[Row]:
        """The examples in rows, asked with `prompt`: see `models.packing.pack`."""
        end = self.tokenizer.eos_token_id
        return pack(
            examples, self.text_ids, prompt, end, self.bos, self.image_tokens, max_questions
        )

    @torch.no_grad()
    def answer(self, images: Sequence[Image.Image], prompt: str, max_tokens: int = 32) -> list[int]:
        """The greedy answer's token ids, the end-of-text token included if it came to that."""
        self.eval()
        dtype = self.language.dtype
        pixels = torch.stack([self.tower.preprocess(image) for image in images])
        features = self.tower(pixels).to(dtype)
        parts = [
            self.image_embeddings(features).to(dtype).flatten(0, 1)[None],
            self.text_embeddings(torch.tensor([self.text_ids(prompt)])),
        ]
        if self.bos:
            parts.insert(0, self.text_embeddings(torch.tensor([self.bos])))
        embeddings = torch.cat(parts, dim=1)
        ids = self.language.generate(
            inputs_embeds=embeddings,
            attention_mask=torch.ones(embeddings.shape[:2], dtype=torch.long),
            max_new_tokens=max_tokens,
            do_sample=False,
        )
        return ids[0].tolist()


def build_model(recipe: Recipe, dtype: torch.dtype = torch.bfloat16) -> Vlm:
    """The recipe's base model, its language model in `dtype`, its connector freshly initialised
    from the recipe's seed.

    Raises:
        RecipeError: a tower, a connector, a setting of it, or a token that does not exist.
        AssetError: base weights that cannot be had.
    """
    torch.manual_seed(recipe.seed)
    language, tokenizer = load_language(recipe.language.model, dtype)
    return assemble(recipe, language, tokenizer)


def assemble(recipe: Recipe, language: Any, tokenizer: Any, load_weights: bool = True) -> Vlm:
    """The recipe's tower and connector, joined to a language model that is there already.

    Raises:
        RecipeError: a tower, a connector, a setting of it, or a token that does not exist.
        AssetError: the tower's weights cannot be had.
    """
    _check_tokens(recipe, tokenizer)
    part = "tower"
    try:
        tower = Tower(TowerConfig(**recipe.tower.model_dump()), load_weights)
        part = "connector"
        text_dim = language.get_input_embeddings().weight.shape[1]
        connector = connectors.build(recipe.connector, tower.dim, text_dim)
    except ValueError as error:
        raise RecipeError(f"recipe {recipe.name}: {part}: {error}.") from error
    return Vlm(tower, connector, language, tokenizer, recipe.language.bos)


def _check_tokens(recipe: Recipe, tokenizer: Any) -> None:
    """Now, not at the export hours later."""
    token = recipe.language.image_token
    if token not in tokenizer.all_special_tokens and token not in tokenizer.get_added_vocab():
        raise RecipeError(
            f"recipe {recipe.name}: language.image_token: {token!r} is no special token of "
            f"{recipe.language.model}. Take one that no text uses."
        )
    if recipe.language.bos and tokenizer.bos_token_id is None:
        raise RecipeError(
            f"recipe {recipe.name}: language.bos: the tokenizer of {recipe.language.model} has "
            "no bos token. Leave it out."
        )
