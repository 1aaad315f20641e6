"""A case's geometry, from its DICOM headers or its cameras, all the way into a step of training."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from models.data import own_file
from models.data.example import DataError
from models.parts.places import places_of
from models.parts.vlm import build_model
from models.positions import grid_positions, stack_positions
from models.recipe import Recipe
from models.serving.export import ExportError, refuse_unserved
from models.training.stages import train
from tests.dicoms import AXIAL, dicom_of, item, stack

RecipeMaker = Callable[..., Recipe]
SPATIAL: dict[str, Any] = {"name": "spatial3d", "hidden": 16, "edge": 1}
CAMERA: dict[str, Any] = {
    "depth": "wall.npy",
    "intrinsics": [[16, 0, 7.5], [0, 16, 7.5], [0, 0, 1]],
    "pose": [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]],
}


def slices(folder: Path, step: float = 2, **tags: Any) -> list[Path]:
    """Three slices of 16 x 16 pixels of 1 mm, so many mm apart."""
    files = []
    for number in range(3):
        placed = {"ImagePositionPatient": [0, 0, step * number], "PixelSpacing": [1, 1]}
        files.append(folder / f"{number}.dcm")
        files[-1].write_bytes(stack(3, **placed | {"FrameOfReferenceUID": "1.2"} | tags)[number])
    return files


def own_set(file: Path, cases: list[list[Path]], **columns: Any) -> Path:
    rows = [
        {"id": number, "images": [str(image) for image in images], **columns}
        | {"question": "Which?", "answer": f"this {number}"}
        for number, images in enumerate(cases)
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    return file


def recipe_of(make: RecipeMaker, learned: Path, held_out: Path, places: str) -> Recipe:
    of = lambda file: {"set": str(file), "split": "all", "languages": ["en"]}  # noqa: E731
    content = make(data=[of(learned)], epochs=1).model_dump()
    content |= {"validation": [of(held_out)], "max_images": 3, "name": places}
    return Recipe.model_validate(content | {"connector": SPATIAL | {"places": places}})


def test_headers_place_the_patches_of_a_stack(tmp_path: Path) -> None:
    """Slices 2 mm apart, which are an eighth of what one of them shows."""
    found = places_of(slices(tmp_path), (), side=2)

    expected = stack_positions(grid_positions(2), 3)
    expected[..., 2] /= 4
    assert found is not None
    torch.testing.assert_close(found, expected)


def test_of_a_file_of_several_frames_the_one_that_is_shown_counts(tmp_path: Path) -> None:
    """The second of two, 4 mm above the first one's file of one frame."""
    one, two = tmp_path / "one.dcm", tmp_path / "two.dcm"
    pixels = np.zeros((16, 16), "<i2")
    plain = {"ImageOrientationPatient": AXIAL, "PixelSpacing": [1, 1]}
    one.write_bytes(dicom_of(pixels, ImagePositionPatient=[0, 0, 0], **plain))
    places = [item(ImagePositionPatient=[0, 0, z]) for z in (9, 4)]
    frames = [item(PlanePositionSequence=[place]) for place in places]
    shared = item(
        PixelMeasuresSequence=[item(PixelSpacing=[1, 1])],
        PlaneOrientationSequence=[item(ImageOrientationPatient=AXIAL)],
    )
    two.write_bytes(
        dicom_of(
            np.stack([pixels, pixels]),
            NumberOfFrames=2,
            RepresentativeFrameNumber=2,
            SharedFunctionalGroupsSequence=[shared],
            PerFrameFunctionalGroupsSequence=frames,
        )
    )

    found = places_of([one, two], (), side=2)

    assert found is not None
    assert found[:, 0, 2].tolist() == [0, 0.25]


def test_pictures_and_headers_without_a_place_say_nothing(tmp_path: Path) -> None:
    Image.new("L", (16, 16)).save(tmp_path / "a.png")
    bare = slices(tmp_path, ImagePositionPatient=None)

    assert places_of([tmp_path / "a.png"] * 2, (), side=2) is None
    assert places_of(bare, (), side=2) is None


def test_a_single_image_stays_as_it_is(tmp_path: Path) -> None:
    assert places_of(slices(tmp_path, step=0)[:1], (), side=2) is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"ImagePositionPatient": None}, r"1\.dcm does not say where it lies, and others that"),
        ({"PixelSpacing": [0, 1]}, r"0\.dcm and .*: .*Pixel Spacing is missing or not above zero"),
        ({"PixelSpacing": None}, r"Pixel Spacing is missing or not above zero"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, r"Orientation .* holds no directions"),
        ({"FrameOfReferenceUID": "1.3"}, r"0\.dcm and .* have several frames of reference"),
        ({"ImagePositionPatient": ["a", "b", "c"]}, r"1\.dcm: .*Position .* is no number"),
    ],
)
def test_what_is_wrong_with_a_header_is_one_sentence(
    change: dict[str, Any], says: str, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    files = slices(tmp_path)
    if change.get("ImagePositionPatient"):  # pydicom would not write that
        data = files[1].read_bytes()
        assert data.count(b"0.0\\0.0\\2.0") == 1
        files[1].write_bytes(data.replace(b"0.0\\0.0\\2.0", b"0.0\\0.0\\two"))
    else:
        files[1] = slices(tmp_path / "other", **change)[1].rename(tmp_path / "1.dcm")

    with pytest.raises(DataError, match=says):
        places_of(files, (), side=2)


def test_a_picture_beside_a_slice_has_no_place(tmp_path: Path) -> None:
    Image.new("L", (16, 16)).save(tmp_path / "a.png")

    with pytest.raises(DataError, match=r"a\.png does not say where it lies, and others that are"):
        places_of([*slices(tmp_path), tmp_path / "a.png"], (), side=2)


@pytest.fixture
def views(tmp_path: Path) -> list[Path]:
    """Two pictures of a wall 1 m off, the second from a quarter of a metre nearer, and a camera of
    each: at that distance one sees a square metre."""
    np.save(tmp_path / "wall.npy", np.full((16, 16), 1.0, np.float32))
    np.save(tmp_path / "small.npy", np.ones((8, 16)))
    nearer = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0.25], [0, 0, 0, 1]]
    for name, pose in (("a", CAMERA["pose"]), ("b", nearer)):
        Image.new("RGB", (16, 16)).save(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.json").write_text(json.dumps(CAMERA | {"pose": pose}))
    return [tmp_path / "a.png", tmp_path / "b.png"]


def test_cameras_place_the_patches_of_views(views: list[Path], tmp_path: Path) -> None:
    """They come with a set of one's own, and go before headers."""
    file = own_set(tmp_path / "own.jsonl", [views], cameras="a.json;b.json")

    (example,) = own_file.load(file, "all", "en")
    found = places_of(example.images, example.cameras, side=4)

    assert found is not None
    torch.testing.assert_close(found, stack_positions(grid_positions(4), 2))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"depth": "small.npy"}, r"small\.npy holds an array \[8, 16\], and its image has 16 rows"),
        ({"depth": "gone.npy"}, r"gone\.npy is no depth map: save an array"),
        ({"depth": "b.png"}, r"b\.png is no depth map: save an array"),
        ({"pose": CAMERA["pose"][:3]}, r"b\.json is no camera: pose\.3: Field required"),
        ({"intrinsics": CAMERA["pose"]}, r"b\.json is no camera: intrinsics"),
        ({"unit": "mm"}, r"b\.json is no camera: unit: "),
        ({"intrinsics": [[0] * 3] * 3}, r"a\.png and what is shown with it: intrinsics must be"),
    ],
)
def test_what_is_wrong_with_a_camera_is_one_sentence(
    change: dict[str, Any], says: str, views: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "b.json").write_text(json.dumps(CAMERA | change))

    with pytest.raises(DataError, match=says):
        places_of(views, [tmp_path / "a.json", tmp_path / "b.json"], side=4)


def test_a_camera_for_each_image_or_none(views: list[Path], tmp_path: Path) -> None:
    file = own_set(tmp_path / "own.jsonl", [views], cameras="a.json;")

    with pytest.raises(DataError, match=r"line 1 has 1 cameras of 2 images: give one for each, or"):
        own_file.load(file, "all", "en")


def test_the_same_images_by_other_cameras_are_another_row(
    tiny_recipe: RecipeMaker, views: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "c.json").write_text((tmp_path / "a.json").read_text())
    first, second = (
        own_file.load(own_set(tmp_path / "own.jsonl", [views], cameras=cameras), "all", "en")
        for cameras in ("a.json;b.json", "a.json;c.json")
    )
    file = tmp_path / "own.jsonl"
    model = build_model(recipe_of(tiny_recipe, file, file, "geometry"))

    rows = model.packed([*first, *second], "{question}")

    depths = [row.places[1, 0, 2].item() for row in rows if row.places is not None]
    assert depths == pytest.approx([0.25, 0])


def learned(recipe: Recipe, runs: Path) -> dict[str, Tensor]:
    return load_file(train(recipe, runs, runs) / "connector.safetensors")


@pytest.mark.parametrize("images", [3, 1])
def test_a_stack_is_trained_where_it_lies_and_a_single_image_as_ever(
    images: int, tiny_recipe: RecipeMaker, tmp_path: Path
) -> None:
    """One recipe twice, by geometry and by order, from one seed: to other weights of slices that
    lie far apart, to the same ones of a slice alone."""
    sets = []
    for name, step in (("learned", 9), ("held_out", 5)):
        (tmp_path / name).mkdir()
        shown = slices(tmp_path / name, step, WindowCenter=128 - step)[:images]
        sets.append(own_set(tmp_path / f"{name}.jsonl", [shown]))

    by_geometry, by_order = (
        learned(recipe_of(tiny_recipe, *sets, places), tmp_path / "runs" / places)
        for places in ("geometry", "order")
    )

    same = [torch.equal(by_geometry[name], by_order[name]) for name in by_order]
    assert all(same) == (images == 1)


def test_what_is_said_hangs_on_where_a_stack_lies(tiny_recipe: RecipeMaker, tmp_path: Path) -> None:
    """And is what order alone makes of it where slices lie a patch apart."""
    file = own_set(tmp_path / "own.jsonl", [slices(tmp_path)])
    model = build_model(recipe_of(tiny_recipe, file, file, "geometry"))
    torch.manual_seed(0)
    features = torch.randn(3, model.tower.patches, model.tower.dim)
    by_order = model.image_embeddings(features, [3])[0].tokens

    def tokens(step: float) -> Tensor:
        places = places_of(slices(tmp_path, step), (), model.tower.side)
        return model.image_embeddings(features, [3], [places])[0].tokens

    assert not torch.allclose(tokens(2), by_order)
    torch.testing.assert_close(tokens(16 / model.tower.side), by_order)


def test_a_worker_that_learned_by_geometry_is_not_exported(
    tiny_recipe: RecipeMaker, tmp_path: Path
) -> None:
    file = tmp_path / "own.jsonl"
    by_geometry, by_order = (
        recipe_of(tiny_recipe, file, file, places) for places in ("geometry", "order")
    )

    refuse_unserved(by_order)
    with pytest.raises(ExportError, match="told nothing of headers and cameras, by which this"):
        refuse_unserved(by_geometry)
