"""Splits that do not leak: no image, and no near-duplicate of one, on both sides.

Images are compared by their decoded pixels, so a copy in another format is found. Two are near
duplicates where their difference hashes (64 bits of which neighbour is brighter) differ in at most
two bits: slices of one scan, one film with two crops.
"""

import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from models.data.example import DataError, Example
from models.data.image_hashes import difference_hashes, pixel_hashes

NEAR = 2  # bits of 64


def refuse_shared_images(train: Iterable[Example], test: Iterable[Example]) -> None:
    """Raises DataError where the two hold an image with the same decoded pixels, and names it."""
    trained = {pixels: image for image, pixels in pixel_hashes(_images(train)).items()}
    for image, pixels in pixel_hashes(_images(test)).items():
        if twin := trained.get(pixels):
            raise DataError(
                f"{image} is also a training image ({twin}): a score on it says nothing. Split by "
                "image (models.data.splits.folds)."
            )


Pair = tuple[Path, Path, int]  # two images that look alike, and in how many bits they differ


def near_duplicates(images: Iterable[Path]) -> list[Pair]:
    """Every pair of `images` that looks alike, the most alike first."""
    found = difference_hashes(images)
    return [pair for pair in _alike(found, found) if pair[0] < pair[1]]


def near_duplicates_between(train: Iterable[Example], test: Iterable[Example]) -> list[Pair]:
    """Every training image with a test image that looks like it, the most alike first."""
    return _alike(difference_hashes(_images(train)), difference_hashes(_images(test)))


def folds(examples: Sequence[Example], k: int, seed: int) -> list[list[Example]]:
    """`k` parts of about as many questions each; what shares a patient, an image or a near
    duplicate of one stays together.

    Raises:
        DataError: fewer than `k` groups of images.
    """
    alike = near_duplicates(_images(examples))
    of_group: dict[Path, list[Example]] = defaultdict(list)
    for example, group in zip(examples, groups(examples, alike), strict=True):
        of_group[group].append(example)
    if len(of_group) < k:
        raise DataError(f"{len(of_group)} groups of images cannot be split into {k} folds.")
    members = [of_group[group] for group in sorted(of_group)]
    random.Random(seed).shuffle(members)
    members.sort(key=len, reverse=True)  # the largest first, each into the smallest fold
    parts: list[list[Example]] = [[] for _ in range(k)]
    for each in members:
        min(parts, key=len).extend(each)
    return parts


def groups(examples: Sequence[Example], alike: Iterable[Pair] = ()) -> list[Path]:
    """For each example the group that it is of, by an image of that: what shares an image or a
    patient, or holds two that are `alike`, is of one."""
    group = {image: image for image in _images(examples)}

    def root(image: Path) -> Path:
        while group[image] != image:
            image = group[image]
        return image

    of_patient: dict[str, Path] = {}
    together = [(one, other) for one, other, _ in alike]
    for example in examples:
        first, *others = example.images
        together += [(first, other) for other in others]
        if example.patient is not None:
            together.append((first, of_patient.setdefault(example.patient, first)))
    for one, other in together:
        group[root(one)] = root(other)
    return [root(example.images[0]) for example in examples]


def _images(examples: Iterable[Example]) -> list[Path]:
    return sorted({image for example in examples for image in example.images})


def _alike(ones: Mapping[Path, int], others: Mapping[Path, int]) -> list[Pair]:
    """Pairs of one of each whose difference hashes are near, the most alike first."""
    paths = list(others)
    hashes = np.array(list(others.values()), dtype=np.uint64)
    found = []
    for one, hash_ in ones.items():
        distances = np.bitwise_count(hashes ^ np.uint64(hash_))
        near = np.flatnonzero(distances <= NEAR)
        found += [(one, paths[each], int(distances[each])) for each in near]
    return sorted(found, key=lambda pair: pair[2])
