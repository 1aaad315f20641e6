"""What a recipe would take: parameters, what trains, memory per stage, on each of so many GPUs.

Everything is built on torch's meta device, which knows shapes and holds no numbers. Of the language
model only its settings and tokenizer are read, and of a hub's nothing else is fetched; a packaged
one is fetched whole, and of one in `models.training.planning.published` nothing. One that is made
has the training data's vocabulary.
"""

from collections.abc import Callable, Iterable, Sequence
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
from models.parts.language import readable
from models.parts.vlm import Vlm, assemble
from models.parts.whole import Whole, takeable
from models.parts.words import make_language
from models.recipe import Recipe, WholeRecipe, started
from models.recipe.stage import PartsStage, Stage, WholeStage
from models.training.inputs.vocabulary import vocabulary_of
from models.training.learning import sharding, tuning
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
    """`trains` and `frozen` count parameters by part; the rest is in bytes, on each GPU."""

    name: str
    trains: dict[str, int]
    frozen: dict[str, int]
    weights: int
    gradients_and_optimiser: int
    activations: int  # at least: see `_activations`
    gathered: int  # of weights that are shared out, what is whole while it computes
    loading: int  # those weights before they are shared out
    tower_moves: bool

    @property
    def memory(self) -> int:
        """The most of a step, or of loading before it."""
        return max(self.computing, self.loading)

    @property
    def computing(self) -> int:
        return self.weights + self.gradients_and_optimiser + self.activations + self.gathered

    @property
    def left_out(self) -> str:
        """How a line ends that says what a step takes, or that this fits."""
        return ", without the tower's activations" if self.tower_moves else ""

    def __str__(self) -> str:
        parts = [f"{count:,} of the {name}" for name, count in self.trains.items()]
        sizes = {
            "weights": self.weights,
            "gradients and optimiser": self.gradients_and_optimiser,
            "activations": self.activations,
            "layers put together": self.gathered,
            "before it is shared out": self.loading,
        }
        told = (f"{name} {gb(size)}" for name, size in sizes.items() if size)
        return (
            f"{self.name}: {sum(self.trains.values()):,} parameters train "
            f"({', '.join(parts)}), {sum(self.frozen.values()):,} do not\n"
            f"  at least {gb(self.memory)}{self.left_out}: {', '.join(told)}"
        )


def gb(size: float) -> str:
    return f"{size / 1e9:.1f} GB"


def plan(recipe: Recipe | WholeRecipe, data: Path | None = None, gpus: int = 1) -> list[StagePlan]:
    """One plan per stage, each with the adapters that its parents hand on, of each of so many
    `gpus`. Without `data` a made language model's vocabulary is empty.

    Raises:
        RecipeError: a part that does not exist or does not fit.
        TuningError: a parent's adapter that does not fit.
        AssetError: a base model whose settings cannot be had.
    """
    if isinstance(recipe, WholeRecipe):
        return [_plan_whole(recipe, stage, gpus) for stage in recipe.stage]
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
            plans.append(_plan(model, stage, language, recipe, gpus))
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
        folder = assets.without_weights(model, report=print)
        with readable(model):
            settings = AutoConfig.from_pretrained(folder)
            tokenizer = AutoTokenizer.from_pretrained(folder)

    def build() -> Any:
        with readable(model):
            return AutoModelForCausalLM.from_config(settings, dtype=torch.bfloat16)

    return build, tokenizer


def lineage(recipe: Recipe, stage: PartsStage) -> list[PartsStage]:
    """The stages whose adapters `stage` trains on, the worker's that the recipe starts from first,
    and itself."""
    if stage.parent:
        (parent,) = (each for each in recipe.stage if each.name == stage.parent)
        return [*lineage(recipe, parent), stage]
    before = started(recipe)
    return [*(lineage(before, before.stage[-1]) if before else []), stage]


def _plan(model: Vlm, stage: PartsStage, language: Any, recipe: Recipe, gpus: int) -> StagePlan:
    objective = Objective(model, stage)
    parts: dict[str, nn.Module] = {
        name: model.get_submodule(name) for name in ("tower", "connector", "language")
    }
    parts["reconstructor"] = objective.reconstructor
    trains = {name: _count(part, trained=True) for name, part in parts.items()}
    # In float32 beside what trains: its average, and what reward holds it near to.
    copies = 4 * sum(trains.values()) * (bool(stage.average) + bool(stage.grpo))
    answers = stage.grpo.group if stage.grpo else 1  # each behind its question once more
    computes = sharding.units(objective)
    if stage.tower == "frozen" and stage.cache_features:
        computes.remove(model.tower)
    return _on_each(
        objective,
        model.language,
        stage,
        gpus,
        computes,
        trains={name: count for name, count in trains.items() if count},
        frozen={name: _count(part, trained=False) for name, part in parts.items()},
        beside=copies - (_saved_by_four_bits(model.language) if recipe.language.four_bit else 0),
        activations=_activations(
            stage,
            language,
            model.image_tokens(recipe.max_images) + answers * TEXT_TOKENS,
            gpus,
            answers * ANSWER_TOKENS,
        )
        + _rounded(model.language, stage),
    )


def _plan_whole(recipe: WholeRecipe, stage: WholeStage, gpus: int) -> StagePlan:
    folder = assets.without_weights(recipe.worker.model, report=print)
    with takeable(recipe):
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
    return _on_each(
        model,
        model.inner,
        stage,
        gpus,
        sharding.units(model),
        trains={"LoRA": trains},
        frozen={"model": _count(model, trained=False)},
        beside=4 * trains * bool(stage.average) - saved,
        activations=_activations(stage, net.config.get_text_config(), tokens, gpus),
    )


def _on_each(
    objective: nn.Module,
    language: Any,
    stage: PartsStage | WholeStage,
    gpus: int,
    computes: Sequence[nn.Module],
    trains: dict[str, int],
    frozen: dict[str, int],
    beside: int,
    activations: int,
) -> StagePlan:
    """Of each of `gpus`; `computes` are those units that a step puts together, `beside` is what is
    there beside the weights, or less."""
    parted = stage.shard and gpus > 1
    share = gpus if parted else 1
    weights = _bytes(objective.parameters())
    return StagePlan(
        name=stage.name,
        trains=trains,
        frozen=frozen,
        weights=(weights + beside) // share,
        gradients_and_optimiser=sum(trains.values()) * ADAM_BYTES[stage.optimiser] // share,
        activations=activations,
        gathered=_gathered(objective, language, computes, activations) if parted else 0,
        loading=weights if parted else 0,
        tower_moves=stage.tower != "frozen",
    )


def _gathered(
    objective: nn.Module, language: Any, computes: Sequence[nn.Module], activations: int
) -> int:
    """Bytes beside the activations: what is in no unit is whole from first to last, and of the
    units two, one that computes and one that comes, or whose gradient goes (torch's
    `fully_shard`). The most is at the first layer, when the buffer that filled what is in no unit
    is still there and activations are not; at a layer's backward pass, when the logits' layer has
    its gradient; or at the end, when all that is in no unit has, and in a buffer once more.
    """
    apart = {weight for unit in sharding.units(objective) for weight in unit.parameters()}
    left = [weight for weight in objective.parameters() if weight not in apart]
    logits = language.get_output_embeddings().parameters()
    each = [(_bytes(unit.parameters()), _gradient(unit.parameters())) for unit in computes]
    unit = max(size for size, _ in each)
    unit_and_gradient = max(map(sum, each))
    whole, gradient = _bytes(left), _gradient(left)
    return max(
        2 * whole + 2 * unit - activations,
        whole + _gradient(logits) + 2 * unit_and_gradient,
        whole + 2 * gradient - activations,
    )


def _gradient(weights: Iterable[nn.Parameter]) -> int:
    return _bytes(weight for weight in weights if weight.requires_grad)


def _bytes(weights: Iterable[nn.Parameter]) -> int:
    return sum(weight.numel() * weight.element_size() for weight in weights)


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


def _rounded(language: Any, stage: PartsStage) -> int:
    """Bytes: what trains whole computes in bfloat16, in which all of it is kept for the backward
    pass, unless that computes it anew."""
    if stage.language != "full" or stage.checkpoint_activations:
        return 0
    return 2 * _count(language, trained=True)


def rows_at_once(stage: Stage, gpus: int) -> int:
    """The most rows that one of so many GPUs computes in one part of a step."""
    own = -(-stage.rows_per_step // gpus)
    return -(-own // stage.accumulate)


def _activations(
    stage: Stage, language: Any, tokens: int, gpus: int, answered: int = ANSWER_TOKENS
) -> int:
    """What one part of a step keeps at least for the backward pass, in bytes: the language model's
    layers (34 bytes per token and width, 5 per head and pair of tokens: Korthikanti et al. 2022,
    section 4.1) and the logits of so many `answered` tokens of a row, but nothing of a tower that
    moves. With checkpoint_activations a layer keeps its input alone, and one layer at a time is
    whole.
    """
    rows = rows_at_once(stage, gpus)
    width, heads = language.hidden_size, language.num_attention_heads
    layer = rows * tokens * (34 * width + 5 * heads * tokens)
    if stage.checkpoint_activations:
        layers = layer + language.num_hidden_layers * rows * tokens * width * 2
    else:
        layers = layer * language.num_hidden_layers
    return int(layers + rows * answered * language.vocab_size * 2 * 2)  # and their gradient
