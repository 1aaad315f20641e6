"""An image file's decoded pixels: what it shows, in whatever format it is kept."""

import hashlib
from pathlib import Path

from PIL import Image


def open_rgb(path: Path) -> Image.Image:
    """The decoded image; the file is closed again."""
    with Image.open(path) as image:
        return image.convert("RGB")


def pixel_hash(path: Path) -> str:
    """The same for two files exactly where they show the same pixels."""
    image = open_rgb(path)
    return hashlib.sha256(str(image.size).encode() + image.tobytes()).hexdigest()
