"""A stage of a model that is taken whole: the loop is the same, and its own are the model, what a
step shows it, the loss, and what is kept.

    CHECKPOINT/adapter_config.json, adapter_model.safetensors    a peft adapter

as in an exported worker's folder.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

import models.cpu_torch  # noqa: F401  before peft, which imports torchvision

# isort: split
from peft import PeftModel

from models.data.example import Example
from models.parts.packing import IGNORED, Batch, Row
from models.parts.whole import Whole, build_whole
from models.recipe import WholeRecipe
from models.recipe.stage import WholeStage
from models.tensors import told_where_broken
from models.training.learning import tuning
from models.training.learning.losses import Losses
from models.training.learning.sharding import Trained
from models.training.learning.tuning import TuningError
from models.training.loop import StageRun


class WholeObjective(nn.Module):
    """What several GPUs compute gradients of."""

    def __init__(self, model: Whole):
        super().__init__()
        self.model = model

    def forward(self, batch: Batch, seen: Any) -> Losses:
        """`seen` is the rows' cases as `Whole.laid_out` gives them."""
        rows, places = batch.labelled
        labels, lengths = batch.labels[rows, places], (batch.labels != IGNORED).sum(1)
        with torch.autocast(labels.device.type, torch.bfloat16):
            logits = self.model.answer_logits(seen, lengths)
        answer = functional.cross_entropy(logits, labels, reduction="none").float().sum()
        none = answer.new_zeros(())
        return Losses(answer, none, none, logits.argmax(-1) != labels)


class WholeRun(StageRun):
    """As `StageRun`, whose steps, checkpoints and reports it has."""

    recipe: WholeRecipe
    stage: WholeStage
    model: Whole

    def built(self, run: Path) -> Whole:
        return build_whole(self.recipe, device=self.accelerator.device)

    def packed(self, learned: Sequence[Example]) -> list[Row]:
        return self.model.packed(learned, self.recipe.prompt)

    def adapted(self, origin: Path | None) -> tuple[nn.Module, list[Trained]]:
        adapt(self.model, self.stage, origin)
        objective = WholeObjective(self.model).to(self.accelerator.device)
        trained = [weight for weight in self.model.parameters() if weight.requires_grad]
        return objective, [(trained, self.stage.language_lr)]

    def preprocessed(self, rows: Sequence[Row], images: Iterable[Image.Image]) -> Any:
        shown = iter(images)
        each_case = [[next(shown) for _ in row.images] for row in rows]
        asked = [self.recipe.prompt.format(question=row.questions[0].question) for row in rows]
        # The end is predicted, never read.
        answers = [row.labels[row.labels != IGNORED][:-1] for row in rows]
        return self.model.laid_out(asked, each_case, answers)

    def keep(self, folder: Path, weights: Mapping[str, Tensor]) -> None:
        adapter = tuning.within(weights, "model.net")
        self.model.net.save_pretrained(folder, state_dict=adapter, save_embedding_layers=False)


def adapt(model: Whole, stage: WholeStage, origin: Path | None) -> None:
    """Freezes all of it, and puts a LoRA into its language model, where the stage says so into its
    tower too: the one that `origin`, a checkpoint or an exported worker, holds, or a fresh one.

    Raises:
        TuningError: the parent's adapter is not the one that the stage declares.
    """
    model.requires_grad_(False)
    layers = _linear_layers(model.inner, stage)
    if origin:
        with told_where_broken(origin / "adapter_model.safetensors", tuning.mend_of(origin)):
            model.net = PeftModel.from_pretrained(model.net, origin, is_trainable=True)
        if model.net.peft_config["default"].target_modules != layers:
            raise TuningError(
                f"stage {stage.name}: its parent's adapter is in other layers: let both stages "
                "say the same of tower."
            )
    model.net = tuning.adapt(model.net, tuning.lora_config(stage.lora, layers), stage)
    if stage.checkpoint_activations:
        model.inner.gradient_checkpointing_enable({"use_reentrant": False})


def _linear_layers(net: Any, stage: WholeStage) -> str:
    """Those that learn, as a pattern over their names. With some of the tower vLLM does not take an
    adapter beside the model; merged it serves them all."""
    language = net.get_decoder() if hasattr(net, "get_decoder") else None
    where = next((name for name, module in net.named_modules() if module is language), None)
    if language is None or not where:
        raise TuningError(
            f"stage {stage.name}: transformers does not say which part of a {type(net).__name__} "
            "writes, so no adapter is put into it: take another model."
        )
    kinds = sorted({name.rpartition(".")[2] for name in _linear(net, language)})
    pattern = rf"{re.escape(where)}\..*\.({'|'.join(kinds)})"
    if stage.tower == "frozen":
        return pattern
    tower = net.get_encoder(modality="image")
    if tower in (net, net.base_model):
        raise TuningError(
            f'stage {stage.name}: tower = "lora": transformers does not say which part of a '
            f"{type(net).__name__} looks at images: leave it out."
        )
    # Name by name: what is called by its number is a linear layer here and a whole block there.
    inside = [name for name in _linear(net, tower) if _is_seen(net, name)]
    return "|".join([pattern, *map(re.escape, inside)])


def _is_seen(net: Any, name: str) -> bool:
    """LLaVA's kind takes features from before a tower's last layers: no gradient reaches those."""
    taken = getattr(net.config, "vision_feature_layer", None)
    number = re.search(r"\.layers\.(\d+)\.", name)
    if taken is None or number is None:
        return True
    depth = net.config.vision_config.num_hidden_layers
    counted = [each % (depth + 1) for each in (taken if isinstance(taken, list) else [taken])]
    return int(number[1]) < max(counted)


def _linear(net: nn.Module, part: nn.Module) -> list[str]:
    """The names in `net` of the linear layers of a part of it."""
    inside = set(part.modules())
    named = net.named_modules()
    return [name for name, each in named if isinstance(each, nn.Linear) and each in inside]
