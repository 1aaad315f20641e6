"""A step on another device than the CPU: fake tensors know devices and shapes, and no numbers."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from models.parts.language import load_language
from models.parts.packing import Batch, collate
from models.parts.vlm import assemble, build_model
from models.recipe import Recipe
from models.training.inputs.examples import examples_of
from models.training.learning import tuning
from models.training.learning.losses import Objective
from tests.models.training.learning.test_a_stage_trains_what_it_declares import STAGES

ELSEWHERE = torch.device("meta")  # a "cuda" that is not there cannot even be indexed


def test_a_base_model_is_loaded_where_it_trains(
    tiny_language: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the process's own GPU, in four bits too, and with the fused attention that it has."""
    asked: dict[str, Any] = {}

    def take(*_: object, **named: Any) -> tuple[None, dict[str, Any]]:
        asked.update(named)
        return None, {"missing_keys": set()}

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", take)
    own = torch.device("cuda", 1)

    load_language(str(tiny_language), torch.bfloat16, own, four_bit=True)

    assert asked["device_map"] == {"": own}
    assert asked["attn_implementation"] is None


@pytest.fixture
def batch(tiny_recipe: Callable[..., Recipe], drawn_slake: Path) -> Batch:
    """Two rows of two questions."""
    recipe = tiny_recipe()
    model = build_model(recipe)
    return collate(model.packed(examples_of(recipe.validation, drawn_slake)[:4], recipe.prompt), 0)


@pytest.mark.parametrize("mode", ["lora", *STAGES])
def test_every_tensor_of_a_step_lies_where_the_model_does(
    tiny_recipe: Callable[..., Recipe], batch: Batch, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step itself is told of no device: one that took the default would meet the model's, and
    an operation on two is an error."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # not of that device
    recipe = tiny_recipe(**STAGES.get(mode, {}))
    (stage,), folder = recipe.stage, recipe.language.model
    tokenizer = AutoTokenizer.from_pretrained(folder)

    with ELSEWHERE:
        config = AutoConfig.from_pretrained(folder)
        language = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        model = assemble(recipe, language, tokenizer, load_weights=False)
        tuning.prepare(model, stage)
        objective = Objective(model, stage).train()
    with FakeTensorMode(allow_non_fake_inputs=True) as fake:
        held = dict(chain(objective.named_parameters(), objective.named_buffers()))
        weights = {name: fake.from_tensor(value) for name, value in held.items()}
        tensors = {name: value for name, value in vars(batch).items() if name != "rows"}
        on_cpu = {name: fake.from_tensor(value) for name, value in tensors.items()}
        placed = replace(batch, **on_cpu).to(ELSEWHERE)
        shown = torch.empty(2, 3, 64, 64, device=ELSEWHERE)
        losses = functional_call(objective, weights, (placed, shown))
        (losses.answer + losses.reconstruction + losses.imbalance).backward()

    trained = [weight for weight in weights.values() if weight.requires_grad]
    assert trained and all(w.grad is not None and w.grad.device == ELSEWHERE for w in trained)
