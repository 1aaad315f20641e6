"""`consilium train RECIPE --smoke`: everything once, on a handful of everything."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from models.recipe import Recipe
from models.training import loop
from models.training.features import cached_features
from models.training.loop import train
from models.training.progress import read_log

RecipeMaker = Callable[..., Recipe]


@pytest.fixture
def featured(monkeypatch: pytest.MonkeyPatch) -> list[set[Path]]:
    """The images that the tower was run on, call by call."""
    calls: list[set[Path]] = []

    def noted(tower: Any, images: Iterable[Path]) -> Any:
        calls.append(set(images))
        return cached_features(tower, calls[-1])

    monkeypatch.setattr(loop, "cached_features", noted)
    return calls


def test_every_stage_takes_three_steps_on_a_few_questions_about_a_few_images(
    tiny_recipe: RecipeMaker, drawn_slake: Path, tmp_path: Path, featured: list[set[Path]]
) -> None:
    """Under a name of its own, so that the real run is not taken for begun."""
    recipe = tiny_recipe(more=[{"name": "more", "parent": "vqa"}], rows_per_step=1, epochs=9)

    checkpoint = train(recipe.in_a_minute(), drawn_slake, tmp_path)

    assert checkpoint == tmp_path / "tiny-smoke" / "more" / "step-3"
    assert len(featured) == 2
    for stage, images in zip(("vqa", "more"), featured, strict=True):
        lines = read_log(tmp_path / "tiny-smoke" / stage / "log.jsonl")
        assert [line["step"] for line in lines if line["part"] == "validation"][-1] == 3
        held_out = {image for image in images if int(image.parent.name[5:]) >= 8}
        assert len(held_out) == 4 and len(images - held_out) <= 4


def test_the_tower_runs_on_what_the_steps_come_to_and_no_more(
    tiny_recipe: RecipeMaker, drawn_slake: Path, tmp_path: Path, featured: list[set[Path]]
) -> None:
    """A stage that ends after a step of two images has no use for the other six."""
    train(tiny_recipe(steps=1), drawn_slake, tmp_path)

    (images,) = featured
    assert len([image for image in images if int(image.parent.name[5:]) < 8]) == 2
