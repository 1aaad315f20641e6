"""What a recipe would take: parameters, what trains, memory per stage.

Everything is built on torch's meta device, which knows shapes and holds no numbers. Of the language
model only its settings and tokenizer are read, once it is there: a packaged one is fetched whole,
and of one in `models.training.planning.published` nothing. One that is made has the training data's
vocabulary.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

import models.cpu_torch  # noqa: F401  before transformers, which imports torchvision

# isort: split
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
)
from transformers.pytorch_utils import Conv1D

from models import assets
from models.parts.vlm import Vlm, assemble
from models.parts.whole import Whole
from models.parts.words import make_language
from models.recipe import Recipe, WholeRecipe, started
from models.recipe.stage import PartsStage, Stage, WholeStage
from models.training.inputs.vocabulary import vocabulary_of
from models.training.learning import tuning
from models.training.learning.losses import Objective
from models.training.planning import published
from models.training.whole import adapt

TEXT_TOKENS = 256  # of a row: sixteen questions and answers
NF4_BITS = 4.127  # of a weight, with the constants of its block
ADAM_BYTES = {"adamw": 3 * 4, "adamw_8bit": 4 + 2}  # of a weight: gradient, and two moments
ANSWER_TOKENS = 64  # of them, those with a loss
SIDE = 1024  # pixels of an image that a processor may leave as large as it is


@dataclass(frozen=True)
class StagePlan:
    """`trains` and `frozen` count parameters by part; the rest is in bytes."""

    name: str
    trains: dict[str, int]
    frozen: dict[str, int]
    weights: int
    gradients_and_optimiser: int
    activations: int  # at least: see `_activations`

    @property
    def memory(self) -> int:
        return self.weights + self.gradients_and_optimiser + self.activations

    def __str__(self) -> str:
        parts = [f"{count:,} of the {name}" for name, count in self.trains.items()]
        sizes = (self.weights, self.gradients_and_optimiser, self.activations, self.memory)
        weights, gradients, activations, all_ = (f"{n / 1e9:.1f} GB" for n in sizes)
        return (
            f"{self.name}: {sum(self.trains.values()):,} parameters train "
            f"({', '.join(parts)}), {sum(self.frozen.values()):,} do not\n"
            f"  at least {all_}: weights {weights}, gradients and optimiser {gradients}, "
            f"activations {activations}"
        )


def plan(recipe: Recipe | WholeRecipe, data: Path | None = None) -> list[StagePlan]:
    """One plan per stage, each with the adapters that its parents hand on. Without `data` a made
    language model's vocabulary is empty.

    Raises:
        RecipeError: a part that does not exist or does not fit.
        TuningError: a parent's adapter that does not fit.
        AssetError: a base model whose settings cannot be had.
    """
    if isinstance(recipe, WholeRecipe):
        return [_plan_whole(recipe, stage) for stage in recipe.stage]
    build, tokenizer = language_of(recipe, data)
    with torch.device("meta"):
        fresh = assemble(recipe, build(), tokenizer, load_weights=False)
    plans = []
    for stage in recipe.stage:
        model = deepcopy(fresh, {id(tokenizer): tokenizer})  # a copy is made sooner than a model
        language = model.language.config
        with torch.device("meta"):
            for each in lineage(recipe, stage):
                tuning.prepare(model, each)
            plans.append(_plan(model, stage, language, recipe))
    return plans


def language_of(recipe: Recipe, data: Path | None) -> tuple[Callable[[], Any], Any]:
    """What builds the language model without its weights, and its tokenizer."""
    if made := recipe.language.made:
        tokenizer = vocabulary_of(recipe, data)
        return lambda: make_language(made, len(tokenizer), torch.bfloat16), tokenizer
    model = str(recipe.language.model)
    if known := published.MODELS.get(model):
        settings, tokenizer = known.config, known.tokenizer
    else:
        folder = assets.resolve(model, report=print)
        settings = AutoConfig.from_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
    return lambda: AutoModelForCausalLM.from_config(settings, dtype=torch.bfloat16), tokenizer


def lineage(recipe: Recipe, stage: PartsStage) -> list[PartsStage]:
    """The stages whose adapters `stage` trains on, the worker's that the recipe starts from first,
    and itself."""
    if stage.parent:
        (parent,) = (each for each in recipe.stage if each.name == stage.parent)
        return [*lineage(recipe, parent), stage]
    before = started(recipe)
    return [*(lineage(before, before.stage[-1]) if before else []), stage]


def _plan(model: Vlm, stage: PartsStage, language: Any, recipe: Recipe) -> StagePlan:
    objective = Objective(model, stage)
    parts: dict[str, nn.Module] = {
        name: model.get_submodule(name) for name in ("tower", "connector", "language")
    }
    parts["reconstructor"] = objective.reconstructor
    trains = {name: _count(part, trained=True) for name, part in parts.items()}
    # In float32 beside what trains: its average, and what reward holds it near to.
    copies = 4 * sum(trains.values()) * (bool(stage.average) + bool(stage.grpo))
    return StagePlan(
        name=stage.name,
        trains={name: count for name, count in trains.items() if count},
        frozen={name: _count(part, trained=False) for name, part in parts.items()},
        weights=sum(p.numel() * p.element_size() for p in objective.parameters())
        + copies
        - (_saved_by_four_bits(model.language) if recipe.language.four_bit else 0),
        gradients_and_optimiser=sum(trains.values()) * ADAM_BYTES[stage.optimiser],
        activations=_activations(
            stage, language, model.image_tokens(recipe.max_images) + TEXT_TOKENS
        ),
    )


def _plan_whole(recipe: WholeRecipe, stage: WholeStage) -> StagePlan:
    folder = assets.resolve(recipe.worker.model, report=print)
    processor = AutoProcessor.from_pretrained(folder, **recipe.worker.processor)
    settings = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        net = AutoModelForImageTextToText.from_config(settings, dtype=torch.bfloat16)
        model = Whole(net, processor)
        adapt(model, stage, None)
    shown = [Image.new("RGB", (SIDE, SIDE))] * recipe.max_images
    tokens = model.laid_out([recipe.prompt], [shown])["input_ids"].shape[1] + ANSWER_TOKENS
    trains = _count(model, trained=True)
    saved = _saved_by_four_bits(model.inner) if recipe.worker.four_bit else 0
    return StagePlan(
        name=stage.name,
        trains={"LoRA": trains},
        frozen={"model": _count(model, trained=False)},
        weights=sum(p.numel() * p.element_size() for p in model.parameters())
        + 4 * trains * bool(stage.average)
        - saved,
        gradients_and_optimiser=trains * ADAM_BYTES[stage.optimiser],
        activations=_activations(stage, net.config.get_text_config(), tokens),
    )


def _count(part: nn.Module, trained: bool) -> int:
    return sum(p.numel() for p in part.parameters() if p.requires_grad == trained)


def _saved_by_four_bits(model: Any) -> int:
    """Bytes: NF4 keeps a frozen linear layer in 4.127 bits a weight (Dettmers et al. 2023, section
    3), but for the one that gives the logits.
    """
    logits = model.get_output_embeddings()
    linear = [
        module.weight
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not logits and "lora_" not in name
    ]
    return int(sum(w.numel() * (w.element_size() - NF4_BITS / 8) for w in linear))


def _activations(stage: Stage, language: Any, tokens: int) -> int:
    """What one part of a step keeps at least for the backward pass, in bytes: the language model's
    layers (34 bytes per token and width, 5 per head and pair of tokens: Korthikanti et al. 2022,
    section 4.1) and its logits. With checkpoint_activations a layer keeps its input alone, and one
    layer at a time is whole.
    """
    rows = -(-stage.rows_per_step // stage.accumulate)
    width, heads = language.hidden_size, language.num_attention_heads
    layer = rows * tokens * (34 * width + 5 * heads * tokens)
    if stage.checkpoint_activations:
        layers = layer + language.num_hidden_layers * rows * tokens * width * 2
    else:
        layers = layer * language.num_hidden_layers
    return int(layers + rows * ANSWER_TOKENS * language.vocab_size * 2 * 2)  # and their gradient
