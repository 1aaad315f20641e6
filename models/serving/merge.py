"""A published model and its adapter, as one: the publisher's own folder, in which those weights are
others that the adapter changes.

transformers calls weights otherwise than a publisher's files do, and vLLM reads the files. So each
that a LoRA changed gets back the name under which it was read.
"""

import json
import shutil
from pathlib import Path

import torch

import models.cpu_torch  # noqa: F401  before peft, which imports torchvision

# isort: split
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from transformers.core_model_loading import revert_weight_conversion

from models import assets
from models.parts.whole import build_whole
from models.recipe import WholeRecipe
from models.tensors import load_tensors, save_whole, told_where_broken

GENERATION = "generation_config.json"
PEFT = "base_model.model."  # before every name in an adapted model


class MergeError(Exception):
    """A model whose files keep its weights in another form than transformers."""


def merge_whole(recipe: WholeRecipe, adapter: Path, folder: Path) -> None:
    """Makes `folder` of the recipe's model and the adapter, merged in float32 and rounded once to
    what the publisher's files have.

    Raises:
        MergeError: a layer with a LoRA is in none of the publisher's files.
        RecipeError, AssetError: the model cannot be had.
    """
    model = build_whole(recipe, torch.float32)
    with told_where_broken(adapter / "adapter_model.safetensors", "copy it anew"):
        adapted = PeftModel.from_pretrained(model.net, adapter)
    learned = [
        name.removeprefix(PEFT)
        for name, layer in adapted.named_modules()
        if isinstance(layer, LoraLayer)
    ]
    net = adapted.merge_and_unload()
    merged = {f"{name}.weight": net.get_submodule(name).weight.detach() for name in learned}
    waiting = revert_weight_conversion(net, merged)
    base = assets.resolve(recipe.worker.model)
    shutil.copytree(base, folder, ignore=shutil.ignore_patterns("*.safetensors", ".*"))
    for file in assets.weight_files(base):
        weights = load_tensors(file, "copy or fetch that model again")
        for key in weights.keys() & waiting.keys():
            weights[key] = waiting.pop(key).to(weights[key].dtype)
        save_whole(weights, folder / file.name)
    if waiting:
        raise MergeError(
            f"recipe {recipe.name}: worker.model: {len(waiting)} of its layers with a LoRA are in "
            f"none of the files of {recipe.worker.model}, such as {min(waiting)}: it cannot be "
            "served merged. Give the adapter to vLLM beside the model (engine: lora-modules)."
        )
    path = folder / GENERATION
    told = json.loads(path.read_text("utf-8")) if path.exists() else {}
    path.write_text(json.dumps(told | {"eos_token_id": model.ends}), "utf-8")
    if recipe.worker.processor:
        model.processor.save_pretrained(folder)
