"""Tower + connector + language model, as the trainer and the parity check run them.

A prompt is laid out as `[bos] images' tokens, text`; the vLLM plugin lays it out the same way. The
language model is any causal model of transformers. Its embedding layer turns text into embeddings
(Gemma's scales them); image embeddings are put among those as they are.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

import models.cpu_torch  # noqa: F401  before transformers, which imports torchvision

# isort: split
from transformers import AutoTokenizer, GenerationConfig

from models import connectors
from models.data.example import Example
from models.parts import words
from models.parts.language import load_language
from models.parts.packing import Row, pack
from models.parts.places import places_of
from models.parts.vision import Tower, TowerConfig, require_one_size
from models.positions import grid_positions, stack_positions
from models.recipe import Recipe
from models.recipe.parts import ImageAttention
from models.recipe.programme import RecipeError

CPU = torch.device("cpu")
QUESTION_TOKENS = 64  # a long one, with its answer


class Embedded(NamedTuple):
    """What the connector made of images that it took at once: all of a batch, or one stack."""

    features: Tensor  # [b, patches, vision_dim]; of a stack all its images' patches
    positions: Tensor  # [patches, 2], of a stack [patches, 3]
    tokens: Tensor  # [b, tokens, text_dim]


class Vlm(nn.Module):
    """`language` is a causal model of transformers, `tokenizer` its tokenizer, `bos` says whether
    a prompt starts with the tokenizer's bos token. `full` names what has trained in full: "tower",
    "language" (see models.training.learning.tuning).
    """

    positions: Tensor
    language: Any

    def __init__(
        self,
        tower: Tower,
        connector: nn.Module,
        language: Any,
        tokenizer: Any,
        bos: bool,
        image_attention: ImageAttention = "causal",
    ):
        super().__init__()
        self.image_attention = image_attention
        self.tower, self.connector, self.language = tower, connector, language
        self.tokenizer, self.end = tokenizer, tokenizer.eos_token_id
        # Its publisher's, such as a penalty for what was said before, would make another answer
        # than the likeliest, and than vLLM's; and draw from other odds than those that are weighed.
        language.generation_config = GenerationConfig()
        self.register_buffer("positions", grid_positions(tower.side), persistent=False)
        self.stacks: bool = getattr(connector, "stacks", False)
        self.by_geometry: bool = getattr(connector, "by_geometry", False)
        self.fuses = hasattr(connector, "fuse")
        self.full: set[str] = set()
        self.bos: list[int] = [tokenizer.bos_token_id] if bos else []
        # In a list, so that they are parameters of the connector alone.
        self.before_layers: list[nn.Module] = list(getattr(connector, "before_layers", ()))
        self.looked_at: tuple[Tensor, Tensor] | None = None  # tokens, and which of them are there
        layers = _layers_below(language, len(self.before_layers))
        for layer, block in zip(layers, self.before_layers, strict=True):
            layer.register_forward_pre_hook(self._look_through(block), with_kwargs=True)

    def image_tokens(self, images: int) -> int:
        """How many places in the prompt so many images of one case take."""
        if self.before_layers:
            return 0
        return self.connector.num_tokens(self.tower.patches, images)  # type: ignore[operator]

    def image_embeddings(
        self,
        features: Tensor,
        counts: Sequence[int],
        places: Sequence[Tensor | None] | None = None,
    ) -> list[Embedded]:
        """Features [images, patches, vision_dim], of which `counts` belong to a case each; the
        tokens come in the order of the images. `places` are each case's [images, patches, 3], those
        of its images' order where there are none: for a connector that takes stacks.
        """
        if not self.stacks:
            return [Embedded(features, self.positions, self.connector(features, self.positions))]
        found = []
        places = places or [None] * len(counts)
        for stack, own in zip(features.split(list(counts)), places, strict=True):
            if own is None:
                positions = stack_positions(self.positions, len(stack))
            else:
                positions = own.to(self.positions)
            tokens = self.connector(stack[None], positions)
            found.append(Embedded(stack.flatten(0, 1)[None], positions.flatten(0, 1), tokens))
        return found

    def placed(
        self, embedded: Sequence[Embedded], counts: Sequence[int], asked: Sequence[Tensor]
    ) -> Tensor:
        """What stands in the prompts where images go, [n, text_dim], case after case.

        `counts` says how many of the images belong to each case, `asked` [length] what its question
        is, for a connector that reads it. What text looks at from within the language model, it
        looks at from here on.
        """
        tokens = torch.cat([each.tokens.flatten(0, 1) for each in embedded])
        if not self.before_layers and not self.fuses:
            return tokens
        patches = self.tower.patches
        sizes = [self.connector.num_tokens(patches, n) for n in counts]  # type: ignore[operator]
        cases = tokens.split(sizes)
        if self.before_layers:
            there = [torch.ones(size, dtype=torch.bool, device=tokens.device) for size in sizes]
            self.looked_at = pad_sequence(cases, True), pad_sequence(there, True)
            return tokens[:0]
        questions = (self.text_embeddings(ids[None]).to(tokens.dtype) for ids in asked)
        fused = (
            self.connector.fuse(case[None], question)[0]  # type: ignore[operator]
            for case, question in zip(cases, questions, strict=True)
        )
        return torch.cat(list(fused))

    def _look_through(self, block: nn.Module) -> Callable[..., Any]:
        """Before its layer is called, the text looks through `block` at what there is to see."""

        def look(layer: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
            if self.looked_at is None:
                return None
            tokens, there = self.looked_at
            hidden, *rest = args
            own = next(block.parameters()).dtype  # where nothing is cast by itself
            looked = block(hidden.to(own), tokens.to(own), there).to(hidden.dtype)
            return (looked, *rest), named

        return look

    def text_embeddings(self, ids: Tensor) -> Tensor:
        """Token ids [b, n] → embeddings [b, n, text_dim]"""
        return self.language.get_input_embeddings()(ids)

    def text_ids(self, text: str) -> list[int]:
        """Text as text: see `models.parts.words`."""
        return words.text_ids(self.tokenizer, text)

    def packed(
        self,
        examples: Sequence[Example],
        prompt: str,
        max_questions: int = 16,
        answer_ids: Callable[[Example], list[int]] | None = None,
    ) -> list[Row]:
        """The examples in rows, asked with `prompt`: see `models.parts.packing.pack`. Where the
        image's tokens depend on the question, each has a row of its own. `answer_ids` says what an
        example's answer is, where that is not its text.

        Raises:
            DataError: no examples, a stack of images that are not of one size, or, for a connector
                that takes their geometry, one whose geometry is broken.
        """
        if self.fuses:
            max_questions = 1
        rows = pack(
            examples,
            self.text_ids,
            answer_ids or (lambda example: words.answer_ids(self.tokenizer, example.answer)),
            prompt,
            self.end,
            self.bos,
            self.image_tokens,
            max_questions,
        )
        if self.stacks:
            for row in rows:
                require_one_size(row.images)
        if self.by_geometry:
            side = self.tower.side
            rows = [
                replace(row, places=places_of(row.images, row.questions[0].cameras, side))
                for row in rows
            ]
        return rows

    @torch.no_grad()
    def answer(
        self,
        images: Sequence[Image.Image],
        prompt: str,
        max_tokens: int = 32,
        places: Tensor | None = None,
    ) -> list[int]:
        """The greedy answer's token ids, the end-of-text token included if it came to that.
        `places` are as in `image_embeddings`.

        Raises:
            DataError: a stack of images that are not of one size.
            ValueError: images are seen in both directions, for which `generate` has no mask.
        """
        if self.image_attention != "causal":
            raise ValueError(
                'a model with image_attention = "bidirectional" trains and validates only'
            )
        self.eval()
        if self.stacks:
            require_one_size(images)
        dtype, device = self.language.dtype, self.positions.device
        pixels = torch.stack([self.tower.preprocess(image) for image in images]).to(device)
        features = self.tower(pixels).to(next(self.connector.parameters()).dtype)
        asked, counts = torch.tensor(self.text_ids(prompt), device=device), [len(images)]
        embedded = self.image_embeddings(features, counts, [places])
        parts = [
            self.placed(embedded, counts, [asked]).to(dtype)[None],
            self.text_embeddings(asked[None]),
        ]
        if self.bos:
            parts.insert(0, self.text_embeddings(torch.tensor([self.bos], device=device)))
        embeddings = torch.cat(parts, dim=1)
        ids = self.language.generate(
            inputs_embeds=embeddings,
            attention_mask=embeddings.new_ones(embeddings.shape[:2], dtype=torch.long),
            max_new_tokens=max_tokens,
            do_sample=False,
            eos_token_id=self.end,
            pad_token_id=self.end,
        )
        return ids[0].tolist()


def build_model(
    recipe: Recipe,
    dtype: torch.dtype = torch.bfloat16,
    home: Path | None = None,
    device: torch.device = CPU,
) -> Vlm:
    """The recipe's base model on `device`, its language model in `dtype`, its connector freshly
    initialised from the recipe's seed. In float32, to which adapters are merged, nothing is in four
    bits.

    `home`, a run's folder or an exported worker's, holds the vocabulary where the language model is
    made.

    Raises:
        RecipeError: a tower, a connector, a setting of it, or a token that does not exist.
        AssetError: base weights that cannot be had.
    """
    torch.manual_seed(recipe.seed)
    if (part := recipe.language).model:
        four_bit = part.four_bit and dtype != torch.float32
        language, tokenizer = load_language(part.model, dtype, device, four_bit)
    else:
        assert part.made and home  # every caller has one
        tokenizer = AutoTokenizer.from_pretrained(home / words.VOCABULARY)
        language = words.make_language(part.made, len(tokenizer), dtype)
    return assemble(recipe, language, tokenizer).to(device)


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
        part_of = recipe.language
        model = Vlm(tower, connector, language, tokenizer, part_of.bos, part_of.image_attention)
        image_tokens = model.image_tokens(recipe.max_images)  # not every grid is a connector's
    except ValueError as error:
        raise RecipeError(f"recipe {recipe.name}: {part}: {error}.") from error
    _check_layers(recipe, language.config, image_tokens)
    return model


def _layers_below(language: Any, blocks: int) -> list[nn.Module]:
    """The layers of the language model that so many blocks stand before, evenly spread."""
    if not blocks:
        return []
    depth = language.config.num_hidden_layers
    if blocks > depth:
        raise ValueError(f"{blocks} blocks are more than the language model's {depth} layers")
    children = language.get_decoder().children()
    layers = next(c for c in children if isinstance(c, nn.ModuleList) and len(c) == depth)
    return [layers[number * depth // blocks] for number in range(blocks)]


def _check_layers(recipe: Recipe, config: Any, image_tokens: int) -> None:
    """A packed row says by its mask who sees whom, which only attention heeds; and a question is
    trained on all of its images, which a window may not reach back to when it is served.
    """
    kinds = set(getattr(config, "layer_types", None) or ["sliding_attention"])
    if unheeding := kinds - {"full_attention", "sliding_attention"}:
        raise RecipeError(
            f"recipe {recipe.name}: language.model: it has layers of "
            f"{', '.join(sorted(unheeding))}, in which questions that share an image would read "
            "each other. Take a model of attention alone."
        )
    window = getattr(config, "sliding_window", None)
    if window and "sliding_attention" in kinds and image_tokens + QUESTION_TOKENS > window:
        raise RecipeError(
            f"recipe {recipe.name}: language.model: its layers look {window} tokens back, and a "
            f"case's images take {image_tokens}. Take a smaller image_size, a connector of fewer "
            "tokens, or another model."
        )


def _check_tokens(recipe: Recipe, tokenizer: Any) -> None:
    """Now, not at the export hours later."""
    token, model = recipe.language.image_token, recipe.language.model or "a made language model"
    if token not in tokenizer.all_special_tokens and token not in tokenizer.get_added_vocab():
        raise RecipeError(
            f"recipe {recipe.name}: language.image_token: {token!r} is no special token of "
            f"{model}. Take one that no text uses."
        )
    for written in tokenizer.all_special_tokens:
        if written in recipe.prompt:
            raise RecipeError(
                f"recipe {recipe.name}: prompt: {written!r} is a control token of "
                f"{model}, and a prompt is taken as text. Say it in words."
            )
    if recipe.language.bos and tokenizer.bos_token_id is None:
        raise RecipeError(
            f"recipe {recipe.name}: language.bos: the tokenizer of {model} has "
            "no bos token. Leave it out."
        )
