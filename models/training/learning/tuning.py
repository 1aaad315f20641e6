"""What trains in a stage, and how what was trained is kept: tower, connector, language model.

    CHECKPOINT/connector.safetensors                       always
    CHECKPOINT/tower/, adapter/                            peft adapters of tower, language model
    CHECKPOINT/soft_prompt/                                or a soft prompt with what makes it
    CHECKPOINT/tower.safetensors, language.safetensors     of a part that has trained in full

A folder of the zoo has the same layout.
"""

import hashlib
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import models.cpu_torch  # noqa: F401  before peft, which imports torchvision

# isort: split
from peft import (
    LoraConfig,
    PeftConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    TaskType,
    get_peft_model,
)

from models.parts.vlm import Vlm
from models.recipe.stage import Lora, PartsStage, Stage
from models.tensors import load_tensors, told_where_broken
from models.training.learning.sharding import whole

# peft's soft prompts: what they learn stands before everything that a question sees.
SOFT_PROMPTS: dict[str, type[PeftConfig]] = {
    "prefix": PrefixTuningConfig,  # Li and Liang 2021: keys and values in every layer
    "p_tuning": PromptEncoderConfig,  # Liu et al. 2021: embeddings out of a small network
    "prompt": PromptTuningConfig,  # Lester et al. 2021: embeddings
}


class TuningError(Exception):
    """A stage that cannot train so; one sentence that says why and how to mend it."""


def prepare(model: Vlm, stage: PartsStage) -> None:
    """Freezes everything and unfreezes what the stage declares, in place.

    A part that its parent adapted goes on with that adapter.

    Raises:
        TuningError: the parent's adapter is not the one that the stage declares.
    """
    model.requires_grad_(False)
    model.connector.requires_grad_(stage.connector == "full")
    if stage.tower_lora:
        _refuse_full(model, "tower", stage)
        settings = lora_config(stage.tower_lora, model.tower.pointwise())
        model.tower.net = adapt(model.tower.net, settings, stage)
    elif stage.tower == "full":
        _train_full(model, "tower", stage)
    if stage.language not in ("frozen", "full"):
        _refuse_full(model, "language", stage)
    if stage.lora:
        model.language = adapt(model.language, lora_config(stage.lora), stage)
    elif kind := SOFT_PROMPTS.get(stage.language):
        soft = kind(**_soft_prompt(model.language.config, stage))
        model.language = adapt(model.language, soft, stage)
    elif stage.language == "full":
        # In bfloat16 most of Adam's steps would round to nothing.
        model.language.float()
        _train_full(model, "language", stage)
    if stage.checkpoint_activations:
        model.language.gradient_checkpointing_enable({"use_reentrant": False})


def lora_config(lora: Lora, layers: str | list[str] = "all-linear") -> PeftConfig:
    """peft's settings for a LoRA in `layers`, as peft names them."""
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=layers,
    )


def adapt(part: Any, config: PeftConfig, stage: Stage) -> PeftModel:
    """A fresh adapter, unless a parent has handed on one of the same kind."""
    if not isinstance(part, PeftModel):
        try:
            return get_peft_model(part, config)
        except ValueError as error:
            mend = " Of a language model with experts a lora has dropout = 0."
            known = mend if "dropout" in str(error) else ""
            raise TuningError(f"stage {stage.name}: {error}{known}") from error
    handed_on = part.peft_config["default"]
    for key in ("peft_type", "r", "lora_alpha", "lora_dropout", "num_virtual_tokens"):
        theirs, ours = getattr(handed_on, key, None), getattr(config, key, None)
        if theirs != ours:
            raise TuningError(
                f"stage {stage.name}: its parent's adapter has {key} {theirs}, the recipe says "
                f"{ours}. Let both stages say the same."
            )
    for name, parameter in part.named_parameters():
        parameter.requires_grad_(any(mark in name for mark in ("lora_", "prompt_encoder")))
    return part


def save_trained(model: Vlm, weights: Mapping[str, Tensor], folder: Path) -> None:
    """Writes all that has trained, in this stage or before it, in the dtype in which it trains.
    `weights` are the model's by name, which may be shared out among processes while it trains."""
    save_file(within(weights, "connector"), folder / "connector.safetensors")
    if soft_prompt(model.language):
        # peft would keep the prompt alone, and not the network that it comes out of.
        model.language.active_peft_config.save_pretrained(folder / "soft_prompt")
        encoder = within(weights, "language.prompt_encoder")
        save_file(encoder, folder / "soft_prompt" / "prompt_encoder.safetensors")
    elif isinstance(model.language, PeftModel):
        adapter = within(weights, "language")
        model.language.save_pretrained(folder / "adapter", state_dict=adapter)
    if isinstance(model.tower.net, PeftModel):
        adapter = within(weights, "tower.net")
        model.tower.net.save_pretrained(folder / "tower", state_dict=adapter)
    for name in model.full:
        tied = getattr(model.get_submodule(name), "all_tied_weights_keys", {})
        part = {k: v.contiguous() for k, v in within(weights, name).items() if k not in tied}
        save_file(part, folder / f"{name}.safetensors")


def within(weights: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    """Those of one part, by their names in it."""
    prefix = f"{part}."
    return {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}


def load_trained(model: Vlm, folder: Path, merge: bool = False) -> None:
    """Puts what `save_trained` wrote, or a folder of the zoo, into a fresh `model`, in place.

    `merge` folds the adapters into the weights; else they can be trained on.

    Raises:
        TuningError: a file is of another tower, connector or language model.
        OSError: one is missing or broken.
    """
    try:
        model.connector.load_state_dict(load_kept(folder, "connector.safetensors"))
    except RuntimeError as error:
        raise TuningError(
            f"{folder} holds another connector than the recipe's: take the recipe that made it."
        ) from error
    for name in ("tower", "language"):
        if (path := folder / f"{name}.safetensors").exists():
            part = model.get_submodule(name).float()  # nothing is rounded on the way
            found = part.load_state_dict(load_kept(folder, path.name), strict=False)
            tied = getattr(part, "all_tied_weights_keys", {})
            if found.unexpected_keys or set(found.missing_keys) - set(tied):
                raise TuningError(f"{path} is of another {name}: take the recipe that made it.")
            model.full.add(name)
    if (folder / "tower").is_dir():
        model.tower.net = _with_adapter(model.tower.net, folder / "tower", merge)
    if (folder / "adapter").is_dir():
        model.language = _with_adapter(model.language, folder / "adapter", merge)
    if (prompt := folder / "soft_prompt").is_dir():
        config = PeftConfig.from_pretrained(prompt)
        config.inference_mode = False
        model.language = get_peft_model(model.language, config)
        kept = load_kept(folder, "soft_prompt/prompt_encoder.safetensors")
        model.language.prompt_encoder.load_state_dict(kept)


def load_kept(folder: Path, name: str) -> dict[str, Tensor]:
    """A file of a checkpoint, or of a folder of the zoo.

    Raises:
        OSError: it is missing or broken.
    """
    return load_tensors(folder / name, mend_of(folder))


def mend_of(folder: Path) -> str:
    """Of a file in it that is broken."""
    return f"copy it anew, or delete {folder}: a run goes on from the checkpoint before it"


def soft_prompt(language: Any) -> bool:
    """Is the language model adapted by embeddings or keys that stand before every prompt?"""
    return isinstance(language, PeftModel) and language.active_peft_config.is_prompt_learning


def optimiser(groups: list[dict[str, Any]], stage: Stage) -> torch.optim.Optimizer:
    """AdamW over `groups` of weights with their rates; its moments in blocks of eight bits, where
    the stage says so (Dettmers et al. 2022, 8-bit Optimizers).

    Raises:
        TuningError: what does that is not installed.
    """
    if stage.optimiser == "adamw":
        # Fused: on a GPU the usual one takes the memory of one more moment while it updates.
        return torch.optim.AdamW(groups, weight_decay=stage.weight_decay, fused=True)
    try:
        from bitsandbytes.optim.adamw import AdamW8bit
    except ImportError as error:
        raise TuningError(
            f'stage {stage.name}: optimiser = "adamw_8bit" is of bitsandbytes, which is not '
            'installed: pip install bitsandbytes, or take "adamw".'
        ) from error
    made: torch.optim.Optimizer = AdamW8bit(groups, weight_decay=stage.weight_decay)
    return made


def gates(model: Vlm) -> list[nn.Parameter]:
    """What starts at zero in a connector that trains, so that all behind it waits until it opens:
    at the rate of the rest it would hardly open in a few hundred steps."""
    named = model.connector.named_parameters()
    return [gate for name, gate in named if name.endswith("_gate") and gate.requires_grad]


class Proof:
    """What the first step moved, held against what the stage declares."""

    def __init__(self, model: nn.Module):
        self.model = model
        self.gated = any(
            name.startswith("connector.") and name.endswith("_gate")
            for name, _ in model.named_parameters()
        )
        self.before = dict(self.fingerprints())

    def buffers(self) -> Iterator[tuple[str, Tensor]]:
        """A mixture's bias is one that moves with its connector."""
        for name, value in self.model.named_buffers():
            if name.startswith("connector."):
                yield name, value

    def fingerprints(self) -> Iterator[tuple[str, str]]:
        for name, value in chain(self.model.named_parameters(), self.buffers()):
            flat = whole(value.detach()).cpu().contiguous().view(-1).view(torch.uint8)
            yield name, hashlib.blake2b(flat.numpy().data, digest_size=16).hexdigest()

    def waits(self, name: str) -> bool:
        """Does what it feeds into start at zero, so that no gradient reaches it in the first step?
        A LoRA's first matrix does, and everything behind a gate.
        """
        behind = name.startswith("connector.") and not name.endswith("_gate") and self.gated
        return behind or ".lora_A." in name

    def check(self, stage: Stage) -> None:
        """Raises TuningError where something frozen moved, or something declared did not."""
        moved = {name for name, value in self.fingerprints() if self.before[name] != value}
        trains = {name for name, p in self.model.named_parameters() if p.requires_grad}
        may_move = trains
        if any(name.startswith("connector.") for name in trains):
            may_move = trains | {name for name, _ in self.buffers()}
        if loose := moved - may_move:
            raise TuningError(f"stage {stage.name}: frozen, yet moved: {sorted(loose)[:3]}")
        if stuck := {name for name in trains - moved if not self.waits(name)}:
            raise TuningError(
                f"stage {stage.name}: declared to train, yet still: {sorted(stuck)[:3]}"
            )


def _soft_prompt(language: Any, stage: PartsStage) -> dict[str, Any]:
    settings = {"task_type": TaskType.CAUSAL_LM, "num_virtual_tokens": stage.virtual_tokens}
    if stage.language == "prefix":
        # peft takes a head to be as wide as the model divided by its heads, which Gemma's are not.
        heads = language.num_key_value_heads
        width = getattr(language, "head_dim", None)
        width = width or language.hidden_size // language.num_attention_heads
        settings |= {"num_attention_heads": heads, "token_dim": heads * width}
    return settings


def _refuse_full(model: Vlm, name: str, stage: Stage) -> None:
    """An adapter beside such weights would be kept in two places that must fit each other."""
    if name in model.full:
        raise TuningError(
            f"stage {stage.name}: its parent has trained the {name} in full: go on with "
            f'{name} = "full", or leave it frozen.'
        )


def _train_full(model: Vlm, name: str, stage: Stage) -> None:
    part = model.get_submodule(name)
    if any(isinstance(module, PeftModel) for module in part.modules()):
        raise TuningError(
            f"stage {stage.name}: its parent has adapted the {name}, which cannot train in full "
            "any more. Start this stage without that parent, or adapt here too."
        )
    part.requires_grad_(True)
    model.full.add(name)


def _with_adapter(part: nn.Module, folder: Path, merge: bool) -> Any:
    with told_where_broken(folder / "adapter_model.safetensors", mend_of(folder.parent)):
        adapted = PeftModel.from_pretrained(part, folder, is_trainable=not merge)
    return adapted.merge_and_unload() if merge else adapted
