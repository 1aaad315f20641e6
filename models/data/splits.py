"""Splits that do not leak: no image, and no near-duplicate of one, on both sides.

Images are compared by their decoded pixels, so a copy in another format is found. Two are near
duplicates where their difference hashes (64 bits of which neighbour is brighter) differ in at most
two bits: slices of one scan, one film with two crops.
"""

import random
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from models.data.example import DataError, Example
from models.data.pixels import open_rgb, pixel_hash

NEAR = 2  # bits of 64


def refuse_shared_images(train: Iterable[Example], test: Iterable[Example]) -> None:
    """Raises DataError where the two hold an image with the same decoded pixels, and names it."""
    trained = {pixel_hash(image): image for image in _images(train)}
    for image in _images(test):
        if twin := trained.get(pixel_hash(image)):
            raise DataError(
                f"{image} is also a training image ({twin}): a score on it says nothing. Split by "
                "image (models.data.splits.folds)."
            )


def near_duplicates(images: Iterable[Path]) -> list[tuple[Path, Path, int]]:
    """Every pair that looks alike, and in how many bits it differs, the most alike first."""
    paths = sorted(set(images))
    hashes = [_difference_hash(path) for path in paths]
    pairs = [
        (paths[i], paths[j], distance)
        for i in range(len(paths))
        for j in range(i + 1, len(paths))
        if (distance := (hashes[i] ^ hashes[j]).bit_count()) <= NEAR
    ]
    return sorted(pairs, key=lambda pair: pair[2])


def folds(examples: Sequence[Example], k: int, seed: int) -> list[list[Example]]:
    """`k` parts of about as many questions each; what shares an image or a near duplicate of one
    stays together.

    Raises:
        DataError: fewer than `k` groups of images.
    """
    group = {image: image for image in _images(examples)}

    def root(image: Path) -> Path:
        while group[image] != image:
            image = group[image]
        return image

    alike = [(one, other) for one, other, _ in near_duplicates(group)]
    together = [(e.images[0], other) for e in examples for other in e.images[1:]]
    for one, other in alike + together:
        group[root(one)] = root(other)
    members: dict[Path, list[Example]] = {}
    for example in examples:
        members.setdefault(root(example.images[0]), []).append(example)
    if len(members) < k:
        raise DataError(f"{len(members)} groups of images cannot be split into {k} folds.")
    groups = [members[key] for key in sorted(members)]
    random.Random(seed).shuffle(groups)
    groups.sort(key=len, reverse=True)  # the largest first, each into the smallest fold
    parts: list[list[Example]] = [[] for _ in range(k)]
    for each in groups:
        min(parts, key=len).extend(each)
    return parts


def _images(examples: Iterable[Example]) -> list[Path]:
    return sorted({image for example in examples for image in example.images})


def _difference_hash(path: Path) -> int:
    small = open_rgb(path).convert("L").resize((9, 8), Image.Resampling.LANCZOS)
    grey = np.asarray(small, dtype=np.int16)
    return int.from_bytes(np.packbits(grey[:, 1:] > grey[:, :-1]).tobytes(), "big")
