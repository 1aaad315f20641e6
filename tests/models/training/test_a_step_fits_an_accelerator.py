"""A step on another device than the CPU: fake tensors know devices and shapes, and no numbers."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
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
    take = lambda *_, **named: asked.update(named)  # noqa: E731
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


# The others cast or move what is there already, which torch does not do to fake parameters.
@pytest.mark.parametrize("mode", ["lora", "tower lora", "tower full", "connector frozen"])
def test_every_tensor_of_a_step_lies_where_the_model_does(
    tiny_recipe: Callable[..., Recipe], batch: Batch, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step itself is told of no device: one that took the default would meet the model's, and
    an operation on two is an error."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # not of that device
    recipe = tiny_recipe(**STAGES.get(mode, {}))
    (stage,), folder = recipe.stage, recipe.language.model
    tokenizer = AutoTokenizer.from_pretrained(folder)

    with FakeTensorMode(allow_non_fake_inputs=True) as fake:
        with ELSEWHERE:
            config = AutoConfig.from_pretrained(folder)
            language = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
            model = assemble(recipe, language, tokenizer, load_weights=False)
            tuning.prepare(model, stage)
            objective = Objective(model, stage).train()
        tensors = {name: value for name, value in vars(batch).items() if name != "rows"}
        on_cpu = {name: fake.from_tensor(value) for name, value in tensors.items()}
        placed = replace(batch, **on_cpu).to(ELSEWHERE)
        losses = objective(placed, torch.empty(2, 3, 64, 64, device=ELSEWHERE))
        (losses.answer + losses.reconstruction + losses.imbalance).backward()

    trained = [p for p in objective.parameters() if p.requires_grad]
    assert trained and all(p.grad is not None and p.grad.device == ELSEWHERE for p in trained)
