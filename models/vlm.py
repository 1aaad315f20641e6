"""Tower + connector + language model, as the trainer and the parity check run them.

A prompt is laid out as `[bos] images' tokens, text`; the vLLM plugin lays it out the same way. The
language model is any causal model of transformers. Its embedding layer turns text into embeddings
(Gemma's scales them); image embeddings are put among those as they are.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

from models import connectors
from models.data.example import Example
from models.language import load_language
from models.packing import Row, pack
from models.positions import grid_positions, stack_positions
from models.stages import Recipe, RecipeError
from models.vision import Tower, TowerConfig, require_one_size


class Embedded(NamedTuple):
    """What the connector made of images that it took at once: all of a batch, or one stack."""

    features: Tensor  # [b, patches, vision_dim]; of a stack all its images' patches
    positions: Tensor  # [patches, 2], of a stack [patches, 3]
    tokens: Tensor  # [b, tokens, text_dim]


class Vlm(nn.Module):
    """`language` is a causal model of transformers, `tokenizer` its tokenizer, `bos` says whether
    a prompt starts with the tokenizer's bos token. `whole` names what has trained whole: "tower",
    "language" (see models.tuning).
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
        self.stacks: bool = getattr(connector, "stacks", False)
        self.whole: set[str] = set()
        self.bos: list[int] = [tokenizer.bos_token_id] if bos else []

    def image_tokens(self, images: int) -> int:
        """How many tokens so many images of one case take."""
        return self.connector.num_tokens(self.tower.patches, images)  # type: ignore[operator]

    def image_embeddings(self, features: Tensor, counts: Sequence[int]) -> list[Embedded]:
        """Features [images, patches, vision_dim], of which `counts` belong to a case each; the
        tokens come in the order of the images.
        """
        if not self.stacks:
            return [Embedded(features, self.positions, self.connector(features, self.positions))]
        found = []
        for stack in features.split(list(counts)):
            positions = stack_positions(self.positions, len(stack))
            tokens = self.connector(stack[None], positions)
            found.append(Embedded(stack.flatten(0, 1)[None], positions.flatten(0, 1), tokens))
        return found

    def text_embeddings(self, ids: Tensor) -> Tensor:
        """Token ids [b, n] → embeddings [b, n, text_dim]"""
        return self.language.get_input_embeddings()(ids)

    def text_ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def packed(
        self, examples: Sequence[Example], prompt: str, max_questions: int = 16
    ) -> list[Row]:
        """The examples in rows, asked with `prompt`: see `models.packing.pack`.

        Raises:
            DataError: no examples, or a stack of images that are not of one size.
        """
        end = self.tokenizer.eos_token_id
        rows = pack(
            examples, self.text_ids, prompt, end, self.bos, self.image_tokens, max_questions
        )
        if self.stacks:
            for row in rows:
                require_one_size(row.images)
        return rows

    @torch.no_grad()
    def answer(self, images: Sequence[Image.Image], prompt: str, max_tokens: int = 32) -> list[int]:
        """The greedy answer's token ids, the end-of-text token included if it came to that.

        Raises:
            DataError: a stack of images that are not of one size.
        """
        self.eval()
        if self.stacks:
            require_one_size(images)
        dtype = self.language.dtype
        pixels = torch.stack([self.tower.preprocess(image) for image in images])
        features = self.tower(pixels).to(dtype)
        parts = [
            flat(self.image_embeddings(features, [len(images)])).to(dtype)[None],
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


def flat(embedded: Sequence[Embedded]) -> Tensor:
    """All tokens in the order of the images, [n, text_dim]."""
    return torch.cat([each.tokens.flatten(0, 1) for each in embedded])


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
