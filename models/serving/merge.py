"""A published model and its adapter, as one: the publisher's own folder, in which those weights are
others that the adapter changes.

transformers calls weights otherwise than a publisher's files do, and vLLM reads the files. So each
is found again by what it is: the one with its kind of name, its shape and its numbers.
"""

import json
import shutil
from collections import defaultdict
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

import models.cpu_torch  # noqa: F401  before peft, which imports torchvision

# isort: split
from peft import PeftModel
from peft.tuners.lora import LoraLayer

from models import assets
from models.parts.whole import build_whole
from models.recipe import WholeRecipe
from models.tensors import save_whole

GENERATION = "generation_config.json"


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
    adapted = PeftModel.from_pretrained(model.net, adapter)
    waiting: dict[tuple[str, torch.Size], list[tuple[Tensor, Tensor]]] = defaultdict(list)
    for name, layer in adapted.named_modules():
        if isinstance(layer, LoraLayer):
            weight = layer.get_base_layer().weight.detach()
            merged = weight + layer.get_delta_weight("default").detach()
            waiting[name.rpartition(".")[2] + ".weight", weight.shape].append((weight, merged))
    base = assets.resolve(recipe.worker.model)
    shutil.copytree(base, folder, ignore=shutil.ignore_patterns("*.safetensors", ".*"))
    for file in assets.weight_files(base):
        weights = load_file(file)
        for key, weight in weights.items():
            layers = waiting.get((".".join(key.split(".")[-2:]), weight.shape), [])
            there = weight.float() if layers else weight
            for number, (before, merged) in enumerate(layers):
                if torch.equal(before, there):
                    weights[key] = merged.to(weight.dtype)
                    del layers[number]
                    break
        save_whole(weights, folder / file.name)
    if lost := sum(map(len, waiting.values())):
        raise MergeError(
            f"recipe {recipe.name}: worker.model: {lost} of its layers with a LoRA are in none of "
            f"the files of {recipe.worker.model} as transformers has them: it cannot be served "
            "merged. Give the adapter to vLLM beside the model (engine: lora-modules)."
        )
    path = folder / GENERATION
    told = json.loads(path.read_text("utf-8")) if path.exists() else {}
    path.write_text(json.dumps(told | {"eos_token_id": model.ends}), "utf-8")
    if recipe.worker.processor:
        model.processor.save_pretrained(folder)
