"""docs/connectors.md is enough to add one: its code, in a file of its own, keeps every promise."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from models import connectors
from models.data.pixels import open_rgb
from models.parts.vlm import build_model
from models.recipe import Recipe
from models.recipe.programme import RecipeError
from models.training.learning.tuning import load_trained
from models.training.stages import train
from tests import pages
from tests.models.connectors import test_connectors_keep_their_promises as promises

# Every test there that is held against each connector's name.
PROMISES = {
    name: test
    for name, test in vars(promises).items()
    if any(mark.args[0] == "name" for mark in getattr(test, "pytestmark", []))
}


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The page's connector as one file more of the package; its name."""
    return pages.add_module(pages.read("connectors.md"), connectors, tmp_path, monkeypatch)


@pytest.mark.parametrize("promise", PROMISES)
def test_the_documented_connector_keeps_every_promise(
    promise: str, added: str, tmp_path: Path
) -> None:
    test: Callable[..., None] = PROMISES[promise]
    wanted: dict[str, Any] = {"name": added, "tmp_path": tmp_path}

    test(**{key: wanted[key] for key in inspect.signature(test).parameters})


def test_there_are_promises_to_keep() -> None:
    assert len(PROMISES) == 5


def test_it_trains_and_answers_by_its_name(
    added: str, tiny_recipe: Callable[..., Recipe], drawn_slake: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe(epochs=1).model_copy(update={"connector": {"name": added, "factor": 2}})

    checkpoint = train(recipe, drawn_slake, tmp_path / "runs")

    model = build_model(recipe, torch.float32)
    load_trained(model, checkpoint, merge=True)
    assert model.image_tokens(1) == 1  # of the tower's 2 x 2 patches
    image = drawn_slake / "slake" / "imgs" / "xmlab0" / "source.jpg"
    assert model.answer([open_rgb(image)], "Which colour?", max_tokens=2)


def test_a_grid_of_patches_that_it_does_not_take_is_one_line(
    added: str, tiny_recipe: Callable[..., Recipe]
) -> None:
    recipe = tiny_recipe().model_copy(update={"connector": {"name": added, "factor": 3}})

    with pytest.raises(RecipeError, match=f"connector: {added}: 4 patches make no blocks of 3²"):
        build_model(recipe, torch.float32)
