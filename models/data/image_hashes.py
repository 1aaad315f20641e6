"""What images show, as hashes; each is decoded once: `$CONSILIUM_CACHE/image_hashes.json`.

An entry is known by the bytes of its file and by what decodes them, so that no copy and no other
name makes it untrue, and nobody's file name is kept.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import PIL

from models.assets import cache_dir
from models.data.example import DataError
from models.data.pixels import difference_hash, open_rgb, pixel_hash
from models.files import write_whole

READER = 1  # raise it where `open_rgb` makes other pixels of a file than before


class Hashes(NamedTuple):
    pixels: str  # as pixel_hash
    difference: int  # as difference_hash


def pixel_hashes(images: Iterable[Path]) -> dict[Path, str]:
    """Of each image: the same for two files exactly where they show the same pixels.

    Raises:
        DataError: one cannot be read.
    """
    return {image: found.pixels for image, found in _hashes(images).items()}


def difference_hashes(images: Iterable[Path]) -> dict[Path, int]:
    """Of each image 64 bits, most of which two that look alike share.

    Raises:
        DataError: one cannot be read.
    """
    return {image: found.difference for image, found in _hashes(images).items()}


def _hashes(images: Iterable[Path]) -> dict[Path, Hashes]:
    path = cache_dir() / "image_hashes.json"
    kept = _kept(path)
    known = len(kept)
    found = {}
    for image in sorted(set(images)):
        key = _key(image)
        if key not in kept:
            shown = open_rgb(image)
            kept[key] = Hashes(pixel_hash(shown), difference_hash(shown))
        found[image] = kept[key]
    if len(kept) > known:
        with contextlib.suppress(OSError):  # then they are made again
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, json.dumps(kept))
    return found


def _kept(path: Path) -> dict[str, Hashes]:
    try:
        lines = json.loads(path.read_text("utf-8")).items()
        return {key: Hashes(str(pixels), int(bits)) for key, (pixels, bits) in lines}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _key(image: Path) -> str:
    try:
        content = image.read_bytes()
    except OSError as error:
        raise DataError(f"{image} cannot be read ({error}): download it again.") from error
    return hashlib.sha256(f"{READER} {PIL.__version__} ".encode() + content).hexdigest()
