"""A tower's last layer with finer ones beside it, on the last one's grid."""

import re

import pytest
import torch
from PIL import Image

from models.parts.vision import Tower, TowerConfig
from models.training.inputs.augment import copy_of

NAMED = ("mobilenetv2_100", "none", 64)


@pytest.fixture
def drawn() -> Image.Image:
    return Image.linear_gradient("L").convert("RGB")


@pytest.mark.parametrize(
    ("strides", "dim"), [((), 1280), ((32,), 1280), ((16, 32), 1664), ((8, 32, 16), 1664 + 16 * 32)]
)
def test_layers_are_joined_on_the_coarsest_grid(
    strides: tuple[int, ...], dim: int, drawn: Image.Image
) -> None:
    """The last layer's features come first, and are those that the tower gives alone."""
    torch.manual_seed(0)
    tower = Tower(TowerConfig(*NAMED, strides), load_weights=False)
    pixels = tower.preprocess(drawn)[None]

    with torch.no_grad():
        features = tower(pixels)
        alone = tower.net.forward_features(pixels).flatten(2).transpose(1, 2)

    assert tower.dim == dim
    assert features.shape == (1, tower.patches, dim) == (1, 4, dim)
    assert torch.equal(features[..., :1280], alone)


def test_a_place_has_what_lies_in_it() -> None:
    """A finer layer's four places, and not those of a neighbour."""
    tower = Tower(TowerConfig(*NAMED, (16, 32)), load_weights=False)
    finer = torch.arange(96 * 16.0).view(1, 96, 4, 4)
    last = torch.zeros(1, 1280, 2, 2)
    tower.net.forward_intermediates = lambda *_, **__: (last, [finer])

    features = tower(torch.zeros(1, 3, 64, 64))[0, :, 1280:]

    for place, (row, column) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        block = finer[0, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        assert sorted(features[place].tolist()) == sorted(block.flatten().tolist())


@pytest.mark.parametrize(
    ("name", "size", "strides", "says"),
    [
        ("mobilenetv2_100", 64, (16,), "32 must be among them, and there are 2, 4, 8, 16 finer"),
        ("mobilenetv2_100", 64, (12, 32), "there are 2, 4, 8, 16 finer"),
        ("mobilenetv2_100", 80, (16, 32), "image_size must be a multiple of"),
        ("vit_tiny_patch16_224", 224, (8, 16), "and there are none finer"),
    ],
)
def test_a_layer_that_is_not_there_is_told(
    name: str, size: int, strides: tuple[int, ...], says: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        Tower(TowerConfig(name, "none", size, strides), load_weights=False)


def test_a_copy_is_the_same_each_time_and_another_than_the_others(drawn: Image.Image) -> None:
    """So it may be cached; and torch's random numbers go on as if it had not been made."""
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)

    first, again, second = (copy_of(drawn, number).tobytes() for number in (1, 1, 2))

    assert torch.equal(torch.rand(3), expected)
    assert first == again != second
    assert copy_of(drawn, 0) is drawn
    other = Image.new("RGB", drawn.size, "grey")
    assert copy_of(other, 1).tobytes() != first
