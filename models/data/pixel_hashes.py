"""What images show, as hashes; each is decoded once: `$CONSILIUM_CACHE/pixel_hashes.json`.

An entry is known by the bytes of its file and by what decodes them, so that no copy and no other
name makes it untrue, and nobody's file name is kept.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import PIL

from models.assets import cache_dir
from models.data.example import DataError
from models.data.pixels import pixel_hash
from models.files import write_whole

READER = 1  # raise it where `open_rgb` makes other pixels of a file than before


def pixel_hashes(images: Iterable[Path]) -> dict[Path, str]:
    """Of each image: the same for two files exactly where they show the same pixels.

    Raises:
        DataError: one cannot be read.
    """
    path = cache_dir() / "pixel_hashes.json"
    kept = _kept(path)
    known = len(kept)
    found = {}
    for image in sorted(set(images)):
        key = _key(image)
        if key not in kept:
            kept[key] = pixel_hash(image)
        found[image] = kept[key]
    if len(kept) > known:
        with contextlib.suppress(OSError):  # then they are made again
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, json.dumps(kept))
    return found


def _kept(path: Path) -> dict[str, str]:
    try:
        return dict(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def _key(image: Path) -> str:
    try:
        content = image.read_bytes()
    except OSError as error:
        raise DataError(f"{image} cannot be read ({error}): download it again.") from error
    return hashlib.sha256(f"{READER} {PIL.__version__} ".encode() + content).hexdigest()
