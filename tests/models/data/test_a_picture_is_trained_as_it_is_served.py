"""What a worker is trained on is, pixel for pixel, what the gateway will send it."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.data import get_testdata_file

from gateway.intake.pixels import only_pixels
from models.data.example import DataError
from models.data.pixels import open_rgb, pixel_hash, size_of


def file_of(folder: Path, kind: str) -> Path:
    is_deep = kind in ("tiff", "16 bits.png")
    path = folder / f"picture.{kind}"
    if kind == "dcm":
        path.write_bytes(Path(get_testdata_file("CT_small.dcm")).read_bytes())
        return path
    deep = Image.fromarray(np.linspace(0, 4095, 1200, dtype=np.uint16).reshape(30, 40))
    held = Image.Exif()
    held[0x0112] = 6
    (deep if is_deep else deep.convert("L")).save(path, exif=held)
    return path


@pytest.mark.parametrize("kind", ["png", "16 bits.png", "jpg", "webp", "tiff", "dcm"])
def test_training_sees_what_is_sent(tmp_path: Path, kind: str) -> None:
    """A turned photograph, sixteen bits, a DICOM."""
    path = file_of(tmp_path, kind)

    trained = open_rgb(path)

    served = Image.open(io.BytesIO(only_pixels(path.read_bytes(), "Image 1 of 1").data))
    assert trained.tobytes() == served.convert("RGB").tobytes()
    assert trained.size == served.size == size_of(path)
    assert kind == "dcm" or trained.size == (30, 40)


def test_twins_in_two_formats_are_found(tmp_path: Path) -> None:
    """A split is checked by what is seen."""
    lying = file_of(tmp_path, "png")
    upright = tmp_path / "upright.png"
    open_rgb(lying).save(upright)

    assert pixel_hash(open_rgb(lying)) == pixel_hash(open_rgb(upright))


def test_a_file_that_shows_nothing_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cut.jpg"
    path.write_bytes(file_of(tmp_path, "jpg").read_bytes()[:-60])
    with pytest.raises(DataError, match=r"cut\.jpg cannot be decoded"):
        open_rgb(path)
    with pytest.raises(DataError, match=r"gone\.jpg"):
        open_rgb(tmp_path / "gone.jpg")


def test_the_features_of_real_images_are_still_theirs(dataset: Path) -> None:
    """They are kept under the hash of the pixels, as Pillow alone decodes these."""
    images = sorted((dataset / "slake" / "imgs").glob("*/source.jpg"))[::8]
    for path in images:
        with Image.open(path) as image:
            assert image.convert("RGB").tobytes() == open_rgb(path).tobytes()
