"""A vision Mamba: its scan is the recurrence, both ends of an image see each other, and it is
trained from scratch by what is hidden from it."""

import json
import re
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import save_file
from torch import Tensor

from models.assets import AssetError
from models.parts.mamba import Block, scan
from models.parts.vision import Tower, TowerConfig
from models.training.masked import HIDDEN, MaskedPixels, keep, pretrain

NAME = "mamba_tiny_patch16"


def recurrence(x: Tensor, decay: Tensor, enters: Tensor, leaves: Tensor) -> Tensor:
    """One patch after the other, as the state's equation is written."""
    state = x.new_zeros(*x[:, 0].shape, enters.shape[-1])
    read = []
    for t in range(x.shape[1]):
        state = decay[:, t].exp()[..., None, None] * state
        state = state + x[:, t, :, :, None] * enters[:, t, None, None, :]
        read.append((state * leaves[:, t, None, None, :]).sum(-1))
    return torch.stack(read, dim=1)


def test_a_case_by_hand() -> None:
    """Half of the state is left at each step, and one comes in: 1, 1.5, 1.75, 1.875."""
    one = torch.ones(1, 4, 1)

    read = scan(one[..., None], one * torch.tensor(0.5).log(), one, one, chunk=2)

    assert read.flatten().tolist() == pytest.approx([1, 1.5, 1.75, 1.875])


@pytest.mark.parametrize(("patches", "chunk"), [(12, 4), (13, 4), (3, 32), (1, 4), (7, 1)])
def test_in_chunks_it_is_the_recurrence(patches: int, chunk: int) -> None:
    """Value and gradient, whether the chunk divides the patches or not."""
    torch.manual_seed(0)
    shapes = ((2, patches, 3, 4), (2, patches, 3), (2, patches, 5), (2, patches, 5))
    given = [torch.randn(shape, dtype=torch.double) for shape in shapes]
    given[1] = -given[1].abs() * 3
    for each in given:
        each.requires_grad_()

    found, expected = scan(*given, chunk=chunk), recurrence(*given)

    assert torch.allclose(found, expected)
    weights = torch.randn_like(found)
    gradients = zip(
        torch.autograd.grad((found * weights).sum(), given),
        torch.autograd.grad((expected * weights).sum(), given),
        strict=True,
    )
    assert all(torch.allclose(mine, its) for mine, its in gradients)


def test_a_long_image_keeps_its_digits() -> None:
    """4,096 patches, those of 1,024 px, in float32: what is nearly forgotten is not made up."""
    torch.manual_seed(0)
    given = [torch.randn(1, 4096, 1, 2), -16 * torch.rand(1, 4096, 1), *torch.randn(2, 1, 4096, 2)]

    expected = recurrence(*(each.double() for each in given))

    assert torch.allclose(scan(*given).double(), expected, atol=1e-2, rtol=1e-3)


def test_the_first_patch_sees_the_last_and_the_last_the_first() -> None:
    torch.manual_seed(0)
    block, patches = Block(64), torch.randn(1, 40, 64, requires_grad=True)

    for here, there in ((0, 39), (39, 0)):
        (seen,) = torch.autograd.grad(block(patches)[0, here].sum(), patches)
        assert seen[0, there].abs().sum() > 0


@pytest.fixture(scope="module")
def tower() -> Tower:
    torch.manual_seed(0)
    return Tower(TowerConfig(NAME, "none", 64), load_weights=False)


def test_it_is_as_large_as_the_transformer_beside_it(tower: Tower) -> None:
    other = Tower(TowerConfig("vit_tiny_patch16_224", "none", 64), load_weights=False)
    sizes = [sum(p.numel() for p in each.parameters()) for each in (tower, other)]

    assert tower.dim == other.dim
    assert sizes[0] / sizes[1] == pytest.approx(1, abs=0.05)


@pytest.fixture
def drawn(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{number}.png" for number in range(2)]
    for number, path in enumerate(paths):
        image = Image.new("RGB", (80, 64))
        ImageDraw.Draw(image).rectangle((8, 8, 40 + number, 40), fill="white")
        image.save(path)
    return paths


def test_what_is_hidden_is_not_seen(tower: Tower) -> None:
    model = MaskedPixels(tower)
    pixels, hidden = torch.randn(1, 3, 64, 64), model.drawn(1)
    changed = pixels.clone()
    place = int(hidden[0].nonzero()[0])
    row, column = 16 * (place // 4), 16 * (place % 4)
    changed[:, :, row : row + 16, column : column + 16] += 1
    told: list[Tensor] = []
    model.pixels.register_forward_hook(lambda _, __, out: told.append(out))

    with torch.no_grad():
        model(pixels, hidden), model(changed, hidden)

    assert torch.equal(*told)
    # In squares of two patches, of which there are four here.
    assert hidden.sum() / hidden.numel() == pytest.approx(HIDDEN, abs=0.25)
    assert torch.equal(hidden.view(2, 2, 2, 2)[:, 0], hidden.view(2, 2, 2, 2)[:, 1])


def test_it_learns_from_images_alone_and_is_found_again(
    tower: Tower, drawn: list[Path], tmp_path: Path
) -> None:
    """What comes of it is a folder that a recipe may name, for this tower and no other."""
    said: list[str] = []
    torch.manual_seed(0)

    pretrain(tower, drawn, steps=2, batch=2, report=said.append)
    keep(tower, tmp_path / "kept")

    assert re.fullmatch(r"step 2 of 2: a hidden pixel is \d\.\d{3} off", said[-1])
    again, pixels = Tower(TowerConfig(NAME, str(tmp_path / "kept"), 64)), torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(again(pixels), tower(pixels))
    index = {"weight_map": {"norm.weight": "one.safetensors", "norm.bias": "two.safetensors"}}
    for name, file in index["weight_map"].items():  # as a model in several files
        save_file({name: torch.ones(192)}, tmp_path / "kept" / file)
    (tmp_path / "kept/model.safetensors").unlink()
    (tmp_path / "kept/model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(AssetError, match="does not hold the weights of this tower"):
        Tower(TowerConfig("vit_tiny_patch16_224", str(tmp_path / "kept"), 64))


@pytest.mark.parametrize("steps", [1, 10])
def test_few_steps_are_as_good_as_many(drawn: list[Path], steps: int) -> None:
    """Of ten, one warms up: from no step to itself torch would divide by nothing."""
    said: list[str] = []
    tower = Tower(TowerConfig("vit_tiny_patch16_224", "none", 32), load_weights=False)

    pretrain(tower, drawn, steps, batch=1, report=said.append)

    assert said[-1].startswith(f"step {steps} of {steps}")


@pytest.mark.parametrize(("name", "size"), [("mobilenetv2_100", 64), (NAME, 80)])
def test_what_has_no_squares_to_hide_is_told(name: str, size: int) -> None:
    with pytest.raises(ValueError, match="no even grid of patches to hide"):
        MaskedPixels(Tower(TowerConfig(name, "none", size), load_weights=False))
