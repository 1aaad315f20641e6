"""An image file's decoded pixels: what it shows, in whatever format it is kept.

The gateway's own reader: a worker is trained on the picture that it will be sent.
"""

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image

from gateway.intake.pixels import Refused, shown
from models.data.example import DataError

ORIENTATION, LYING = 0x0112, {5, 6, 7, 8}  # of EXIF: width and height are each other's


def open_rgb(path: Path) -> Image.Image:
    """The decoded image, upright and of 8 bits.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return shown(path.read_bytes(), str(path)).convert("RGB")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error}): download it again.") from error
    except Refused as refused:
        raise DataError(str(refused)) from refused


def size_of(path: Path) -> tuple[int, int]:
    """Width and height in pixels, read from the file's head where it has a plain one.

    Raises:
        DataError: it is no image.
    """
    try:
        with Image.open(path, formats=["JPEG", "PNG", "WEBP"]) as image:
            width, height = image.size
            lies = image.getexif().get(ORIENTATION) in LYING
    except OSError:
        return open_rgb(path).size
    return (height, width) if lies else (width, height)


def pixel_hash(image: Image.Image) -> str:
    """Of an image as `open_rgb` gives it: the same for two exactly where they show the same."""
    return hashlib.sha256(str(image.size).encode() + image.tobytes()).hexdigest()


def difference_hash(image: Image.Image) -> int:
    """64 bits of which neighbour is brighter, in nine by eight patches: alike for what looks alike,
    in whatever size."""
    small = image.convert("L").resize((9, 8), Image.Resampling.LANCZOS)
    grey = np.asarray(small, dtype=np.int16)
    return int.from_bytes(np.packbits(grey[:, 1:] > grey[:, :-1]).tobytes(), "big")
