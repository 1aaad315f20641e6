"""Caption sets: LLaVA's layout, drawn scenes, and what SLAKE says of its images."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from models.data import captions, scenes, slake
from models.data.example import DataError
from models.data.slake import captions as slake_captions
from models.data.slake import regions as slake_regions


def written(folder: Path, turns: list[dict[str, str]]) -> Path:
    (folder / "images").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(folder / "images" / "a.png")
    entry = {"id": "7", "image": "a.png", "conversations": turns}
    (folder / "train.json").write_text(json.dumps([entry]))
    return folder


def test_every_pair_of_turns_is_an_example(tmp_path: Path) -> None:
    turns = [
        {"from": "human", "value": "Describe it briefly.\n<image>"},
        {"from": "gpt", "value": "A black square."},
        {"from": "human", "value": "What colour?"},
        {"from": "gpt", "value": "Black."},
    ]

    first, second = captions.load(written(tmp_path, turns), "train", "en")

    assert (first.id, first.question, first.answer) == (
        "7-0", "Describe it briefly.", "A black square.")  # fmt: skip
    assert (second.question, second.images) == ("What colour?", first.images)


@pytest.mark.parametrize(
    ("turns", "complaint"),
    [
        ([{"from": "gpt", "value": "A"}], "train.json: 7: human and gpt must take turns"),
        ([], "human and gpt must take turns"),
        ([{"from": "human"}, {"from": "gpt", "value": "A"}], "7 is no captioned image .'value'"),
    ],
)
def test_a_broken_entry_is_named(
    tmp_path: Path, turns: list[dict[str, str]], complaint: str
) -> None:
    with pytest.raises(DataError, match=complaint):
        captions.load(written(tmp_path, turns), "train", "en")


def test_scenes_are_the_same_on_every_machine_and_look_as_they_are_described(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scenes, "COUNTS", {"train": 40, "validate": 5})
    monkeypatch.setenv("CONSILIUM_CACHE", str(tmp_path))

    examples = scenes.load(tmp_path, "train", "en")
    scenes.write(tmp_path / "again")

    assert captions.load(tmp_path / "again", "train", "en")[3].answer == examples[3].answer
    alone = [e for e in examples if e.answer.startswith("One shape")]
    assert alone and len(examples) == 40
    for example in alone:
        # "One shape: a red circle at the top left."
        colour, row, column = (example.answer.split()[place] for place in (3, -2, -1))
        centre = tuple(
            int((names.index(name) + 0.5) * scenes.SIZE / 3)
            for names, name in ((scenes.COLUMNS, column.rstrip(".")), (scenes.ROWS, row))
        )
        swatch = Image.new("RGB", (1, 1), colour)
        with Image.open(example.images[0]) as image:
            assert image.getpixel(centre) == swatch.getpixel((0, 0)), example.answer


@pytest.mark.parametrize(
    ("boxes", "side", "said"),
    [
        ([], 384, "CT of the chest lung."),
        # 512 pixels before it was reduced: 400 of 512 is in the right third.
        ([{"Liver": [380.0, 10.0, 40.0, 40.0]}], 384, "liver at the upper right."),
        # A box that reaches beyond 512 tells of an original of 1,024.
        ([{"Heart": [450.0, 450.0, 100.0, 100.0]}], 384, "heart at the middle."),
        ([{"Spleen": [0.0, 200.0, 20.0, 20.0]}], 240, "spleen at the lower left."),
    ],
)
def test_an_organ_is_where_its_box_is(boxes: list[dict[str, Any]], side: int, said: str) -> None:
    assert slake_captions.caption("CT", "Chest_lung", boxes, side).endswith(said)


@pytest.mark.parametrize(
    ("box", "side", "said"),
    [
        ([64.0, 128.0, 128.0, 256.0], 512, "rows 25 to 75, columns 12 to 38"),
        # A box that leaves the image ends with it.
        ([-5.0, 200.0, 45.0, 80.0], 240, "rows 83 to 100, columns 0 to 17"),
    ],
)
def test_a_region_is_told_in_hundredths(box: list[float], side: int, said: str) -> None:
    assert slake_regions.region(box, side) == said


def test_every_box_is_a_region(dataset: Path) -> None:
    """It says which organ, in the word of the box, and the caption of that image names it too."""
    told = {
        e.images: e.answer for e in slake_captions.load(dataset / "slake_captions", "train", "en")
    }

    regions = slake_regions.load(dataset / "slake_regions", "train", "en")

    assert len(regions) == sum(len(slake_captions.boxes(image)) for (image,) in told)
    assert all(e.answer.lower() in told[e.images].lower() for e in regions)


def test_every_slake_image_has_one_caption(dataset: Path) -> None:
    """And where SLAKE's own questions put the liver on one side, captions do not put it on the
    other."""
    folder = dataset / "slake_captions"
    told = {e.images: e.answer for e in slake_captions.load(folder, "train", "en")}
    asked = slake.load(dataset / "slake", "train", "en")

    assert set(told) == {e.images for e in asked} and len(told) == 450
    sides = [
        (e.answer.lower(), told[e.images].split("liver at the ")[1].split(",")[0])
        for e in asked
        if e.question.lower().startswith("where is the liver") and "liver at" in told[e.images]
    ]
    assert len(sides) > 40
    opposite = {"left": "right", "right": "left"}
    contradicted = [
        (answer, place)
        for answer, place in sides
        if opposite.get(answer.split()[-1], "neither") in place
    ]
    assert len(contradicted) <= 1  # one of SLAKE's answers gives the patient's side
