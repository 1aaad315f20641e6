"""benchmarks.accuracy.manifold: its sets are kept apart, and what came of panel and monolith is
told."""

from itertools import product
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
from PIL import Image

from benchmarks.accuracy.manifold import (
    MANNERED,
    PARTS,
    SPECIALISTS,
    WORKERS,
    apart,
    manners_of,
    seat,
    store,
    tell,
    write_set,
)
from gateway.contract import Answer
from gateway.settings import load_settings
from models.data.example import Example
from models.data.own_file import read
from models.recipe import load_recipe

SETS = tuple(SPECIALISTS.values())


@pytest.fixture
def examples(tmp_path: Path) -> dict[str, dict[str, list[Example]]]:
    """Twenty-four questions of each part and set, two about each image."""
    return {
        part: {name: [_example(tmp_path, part, name, n) for n in range(24)] for name in SETS}
        for part in PARTS
    }


def _example(folder: Path, part: str, name: str, number: int) -> Example:
    image = folder / f"{name}-{part}-{number // 2}.png"
    if not image.exists():
        dice = np.random.default_rng(crc32(image.name.encode()))
        Image.fromarray(dice.integers(0, 256, (16, 16), np.uint8)).save(image)
    question, answer = f"What is {number} of {name}?", f"{name} {number}"
    return Example(f"{part}-{number}", (image,), question, answer, "en", closed=False)


def test_no_image_of_another_sets_later_part_is_learned_from(examples) -> None:
    """Be it in another size. Within a set the parts are as they were."""
    held_out, learned = examples["test"]["vqa_rad"][0], examples["train"]["vqa_med_2019"][4]
    own = examples["train"]["vqa_rad"][0]
    with Image.open(held_out.images[0]) as image:
        image.resize((64, 64)).save(learned.images[0])
        image.save(own.images[0])

    found = apart(examples)

    assert len(found["train"]["vqa_med_2019"]) == 22
    assert learned not in found["train"]["vqa_med_2019"] and own in found["train"]["vqa_rad"]
    untouched = [each for each in product(PARTS, SETS) if each != ("train", "vqa_med_2019")]
    assert all(found[part][name] == examples[part][name] for part, name in untouched)


def test_each_seed_has_its_recipes_and_panels(tmp_path: Path) -> None:
    seat(tmp_path, 2)

    for name, seed in product(WORKERS, (0, 1)):
        recipe = load_recipe(str(tmp_path / "recipes" / f"{name}-{seed}.toml"))
        assert (recipe.name, recipe.seed) == (f"{name}-{seed}", seed)
    seats = load_settings(tmp_path / "manifold-1.toml").workers
    assert [each.name for each in seats] == [*SPECIALISTS]
    assert all(each.prompt == load_recipe(each.name).prompt for each in seats)


def test_what_came_of_it_is_told_by_set(tmp_path: Path, examples, monkeypatch, capsys) -> None:
    """Each specialist knows most of its own set and says so; the monolith knows every other
    question."""
    monkeypatch.setenv("CONSILIUM_CACHE", str(tmp_path / "cache"))
    seat(tmp_path, 2)
    for name in SETS:
        write_set(tmp_path / f"{name}-train.jsonl", {name: examples["train"][name]})
    for part, seed in product(PARTS[1:], (0, 1)):
        write_set(tmp_path / f"{part}.jsonl", examples[part])
        asked = read(tmp_path / f"{part}.jsonl")
        said = {
            name: [_said(name, example, number) for number, example in enumerate(asked)]
            for name in WORKERS
        }
        store(tmp_path, part, seed, asked, said)

    tell(tmp_path, tmp_path, 2)

    lines = {line.split(" | ")[0]: line for line in capsys.readouterr().out.splitlines()}
    for panel in ("manifold", MANNERED):
        assert lines[f"| {panel}"].count("| 91.7 (") == 5
    assert lines["| monolith"].count("| 50.0 (") == 5
    assert lines["| manifold - monolith"].count("| 41.7 (") == 5
    of_one = lines["| specialist-rad"].split(" | ")
    assert of_one[1] == of_one[3] == "0.0 (0.0 to 0.0)" and of_one[2].startswith("91.7 (")
    assert {"| calibration error, manifold", "| calibration error, monolith"} <= lines.keys()


def _said(name: str, example: Example, number: int) -> Answer:
    if name == "monolith":
        right, sure = number % 2 == 0, 0.6
    else:
        own = example.id.startswith(SPECIALISTS[name])
        right, sure = own and number % 12 != 0, 0.9 if own else 0.3
    text = example.answer if right else f"{name} is lost"
    return Answer(worker=name, text=text, confidence=sure, seconds=0)


def test_a_question_is_in_the_manner_of_who_asks_most_like_it(tmp_path: Path, examples) -> None:
    for name in SETS:
        write_set(tmp_path / f"{name}-train.jsonl", {name: examples["train"][name]})

    asked = [example for of_set in examples["test"].values() for example in of_set]
    assert manners_of(tmp_path, asked) == [name for name in SETS for _ in range(24)]
