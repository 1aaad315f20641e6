"""Several images for each case: drawn from SLAKE, trained on, refused where they make no stack."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from models.data.example import DataError, Example
from models.data.slake import synthetic_stacks as stacks
from models.data.slake.captions import boxes
from models.parts.vlm import build_model
from models.recipe import Recipe
from models.recipe.stage import Source
from models.training.inputs.examples import examples_of
from models.training.learning.tuning import load_trained
from models.training.stages import train
from tests.tiny import LOOKS, draw_abdomens

RecipeMaker = Callable[..., Recipe]
STACKS = {"set": "slake_synthetic_stacks", "split": "train", "languages": ["en"]}
SPATIAL: dict[str, Any] = {"name": "spatial3d", "hidden": 16, "edge": 1}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return draw_abdomens(tmp_path)


def of(data: Path, split: str = "train") -> list[Example]:
    return stacks.load(data / "slake_synthetic_stacks", split, "en")


def test_every_question_is_true_of_one_image_alone(data: Path) -> None:
    examples = of(data)

    assert {len(example.images) for example in examples} <= {2, 3, 4} and len(examples) >= 4
    for example in examples:
        kind, what = example.question.removeprefix("Which image ").removesuffix("?").split(" ", 1)
        holds = [
            what.split()[-1] == LOOKS[int(image.parent.name[5:]) % 10][0]
            if kind == "shows"
            else [what] == [name.lower() for each in boxes(image) for name in each]
            for image in example.images
        ]
        assert holds.count(True) == 1
        kinds = {LOOKS[int(image.parent.name[5:]) % 10][0] for image in example.images}
        assert example.modality == (kinds.pop() if len(kinds) == 1 else None)
        assert example.answer == stacks.ORDINALS[holds.index(True)]


def test_a_stack_is_of_one_body_part_size_and_split_and_always_the_same(data: Path) -> None:
    examples = of(data)

    assert examples == of(data)
    numbers = {int(image.parent.name[5:]) for example in examples for image in example.images}
    assert numbers == {0, 1, 2, 3}
    assert len({example.id for example in examples}) == len(examples)
    held_out = {image for example in of(data, "validate") for image in example.images}
    assert held_out.isdisjoint(image for example in examples for image in example.images)


def test_slake_gives_hundreds_of_them(dataset: Path) -> None:
    counts = {split: len(of(dataset, split)) for split in ("train", "validate", "test")}

    assert counts == {"train": 852, "validate": 190, "test": 188}


def test_other_languages_are_told_apart(data: Path) -> None:
    with pytest.raises(DataError, match="synthetic stacks are in en, not in 'zh'"):
        stacks.load(data / "slake_synthetic_stacks", "train", "zh")


def recipe_of_stacks(tiny_recipe: RecipeMaker, max_images: int) -> Recipe:
    content = tiny_recipe(data=[STACKS], epochs=1).model_dump()
    content |= {"validation": [STACKS | {"split": "validate"}], "connector": SPATIAL}
    return Recipe.model_validate(content | {"max_images": max_images})


def test_a_stack_is_trained_on_and_asked(
    tiny_recipe: RecipeMaker, data: Path, tmp_path: Path
) -> None:
    recipe = recipe_of_stacks(tiny_recipe, max_images=4)

    checkpoint = train(recipe, data, tmp_path / "runs")

    model = build_model(recipe)
    load_trained(model, checkpoint, merge=True)
    assert [model.image_tokens(images) for images in (1, 2, 3, 4)] == [4, 4, 8, 8]
    three = [Image.new("RGB", (64, 64))] * 3
    assert model.answer(three, "Which image shows a CT?", max_tokens=2)


def test_more_images_than_the_recipe_takes_are_refused_at_the_start(
    tiny_recipe: RecipeMaker, data: Path, tmp_path: Path
) -> None:
    recipe = recipe_of_stacks(tiny_recipe, max_images=1)

    with pytest.raises(DataError, match=r"has \d images, and recipe tiny takes 1: set max_images"):
        train(recipe, data, tmp_path / "runs")


def test_slices_of_two_sizes_make_no_stack(tiny_recipe: RecipeMaker, data: Path) -> None:
    recipe = recipe_of_stacks(tiny_recipe, max_images=4)
    model = build_model(recipe)
    complaint = "one size, and these 2 have 32 x 32, 64 x 64: send slices of one series"
    example, *_ = examples_of([Source.model_validate(STACKS)], data)
    small = data / "slake" / "imgs" / "xmlab4" / "source.jpg"
    crooked = Example("x", (example.images[0], small), "?", "!", "en", False)

    with pytest.raises(DataError, match=complaint):
        model.packed([crooked], recipe.prompt)
    with pytest.raises(DataError, match=complaint):
        model.answer([Image.new("RGB", (64, 64)), Image.new("RGB", (32, 32))], "?")
