"""Synthetic scenes: coloured shapes on a 3 x 3 grid, captioned by a grammar.

They stand in for a general caption set where none can be had: they teach a fresh connector to tell
shapes, colours, numbers and places, and nothing of the world. Drawn once into the cache, in the
layout of any caption set.
"""

import json
import random
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw

from models.assets import cache_dir
from models.data import captions
from models.data.example import Example

VERSION = 1  # raise it when what is drawn changes
COUNTS = {"train": 2000, "validate": 100}
SIZE = 224  # pixels
COLOURS = ("red", "green", "blue", "yellow", "white", "grey", "purple", "pink")
SHAPES = ("circle", "square", "triangle", "bar")
ROWS, COLUMNS = ("top", "middle", "bottom"), ("left", "centre", "right")
NUMBERS = ("One shape", "Two shapes", "Three shapes", "Four shapes")


def load(root: Path, split: str, language: str) -> list[Example]:
    """The examples of one split; `root` is not looked at.

    Raises:
        DataError: an unknown split or language.
    """
    folder = cache_dir() / "scenes" / f"v{VERSION}"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            made = Path(scratch) / "scenes"
            write(made)
            try:
                made.rename(folder)
            except OSError:  # another process drew the same first
                if not folder.exists():
                    raise
    return captions.load(folder, split, language)


def write(folder: Path) -> None:
    """Draws every split, the same on every machine."""
    (folder / "images").mkdir(parents=True)
    for seed, (split, count) in enumerate(COUNTS.items()):
        dice = random.Random(seed)
        entries = []
        for number in range(count):
            name = f"{split}-{number}.png"
            image, caption = scene(dice)
            image.save(folder / "images" / name)
            told = [
                {"from": "human", "value": "<image>\nDescribe the image."},
                {"from": "gpt", "value": caption},
            ]
            entries.append({"id": f"{split}-{number}", "image": name, "conversations": told})
        (folder / f"{split}.json").write_text(json.dumps(entries))


def scene(dice: random.Random) -> tuple[Image.Image, str]:
    """One to four shapes of different looks, each in a cell of its own, and what they are."""
    count = dice.randint(1, 4)
    cells = dice.sample(range(9), count)
    looks = dice.sample([(c, s) for c in COLOURS for s in SHAPES], count)
    image = Image.new("RGB", (SIZE, SIZE), (dice.randint(0, 40),) * 3)
    draw = ImageDraw.Draw(image)
    named = []
    for (colour, shape), cell in zip(looks, cells, strict=True):
        row, column = divmod(cell, 3)
        _draw(draw, dice, colour, shape, row, column)
        named.append(f"a {colour} {shape} at the {ROWS[row]} {COLUMNS[column]}")
    listed = " and ".join([", ".join(named[:-1]), named[-1]] if count > 1 else named)
    caption = f"{NUMBERS[count - 1]}: {listed}."
    if count > 1:
        caption += f" The {' '.join(looks[0])} is {_relation(*cells[:2])} the {' '.join(looks[1])}."
    return image, caption


def _relation(cell: int, other: int) -> str:
    (row, column), (other_row, other_column) = divmod(cell, 3), divmod(other, 3)
    if column != other_column:
        return "left of" if column < other_column else "right of"
    return "above" if row < other_row else "below"


def _draw(
    draw: ImageDraw.ImageDraw, dice: random.Random, colour: str, shape: str, row: int, column: int
) -> None:
    cell = SIZE / 3
    radius = dice.uniform(0.2, 0.4) * cell
    x = (column + 0.5) * cell + dice.uniform(-0.1, 0.1) * cell
    y = (row + 0.5) * cell + dice.uniform(-0.1, 0.1) * cell
    if shape == "circle":
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    elif shape == "square":
        draw.rectangle((x - radius, y - radius, x + radius, y + radius), fill=colour)
    elif shape == "triangle":
        draw.polygon(
            [(x, y - radius), (x - radius, y + radius), (x + radius, y + radius)], fill=colour
        )
    else:
        draw.rectangle((x - radius, y - radius / 3, x + radius, y + radius / 3), fill=colour)
