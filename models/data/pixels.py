"""An image file's decoded pixels: what it shows, in whatever format it is kept."""

import hashlib
from pathlib import Path

from PIL import Image

from models.data.example import DataError


def open_rgb(path: Path) -> Image.Image:
    """The decoded image; the file is closed again.

    Raises:
        DataError: it cannot be decoded.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except OSError as error:  # what Pillow raises for a truncated image, or for none at all
        raise DataError(f"{path} is no readable image ({error}): download it again.") from error


def size_of(path: Path) -> tuple[int, int]:
    """Width and height in pixels, read from the file's head.

    Raises:
        DataError: it is no image.
    """
    try:
        with Image.open(path) as image:
            return image.size
    except OSError as error:
        raise DataError(f"{path} is no readable image ({error}): download it again.") from error


def pixel_hash(path: Path) -> str:
    """The same for two files exactly where they show the same pixels."""
    image = open_rgb(path)
    return hashlib.sha256(str(image.size).encode() + image.tobytes()).hexdigest()
