"""A training image, seen a little differently each time."""

import zlib

import torch

import models.cpu_torch  # noqa: F401  before torchvision

# isort: split
from PIL import Image
from torchvision.transforms import v2

# Never mirrored: left and right are what half the questions are about.
_CHANGE = v2.Compose(
    [
        v2.RandomAffine(
            degrees=8,
            translate=(0.05, 0.05),
            scale=(0.9, 1.1),
            interpolation=v2.InterpolationMode.BILINEAR,
        ),
        v2.ColorJitter(brightness=0.2, contrast=0.2),
    ]
)


def augmented(image: Image.Image) -> Image.Image:
    """Shifted, turned, scaled and dimmed a little, by torch's random numbers."""
    return _CHANGE(image)


def copy_of(image: Image.Image, number: int) -> Image.Image:
    """Its augmented copy of that number: always the same, and torch's random numbers stay theirs.
    Copy 0 is the image itself.
    """
    if number == 0:
        return image
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(zlib.crc32(image.tobytes(), number))
        return augmented(image)
