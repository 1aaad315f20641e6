"""A vision Mamba: patches read from the first to the last and back by a selective state space, in
plain torch (Zhu et al. 2024, "Vision Mamba"; its scan that of Dao and Gu 2024, "Mamba-2").

A block's cost grows with the number of patches, attention's with its square. Departs from Vision
Mamba: Mamba-2's scan, whose decay is one number for each head, since that is matrix products and no
kernel of its own; no class token; a patch's place by `models.positions.fourier`, so that one set of
weights reads images of any size. timm knows the networks by their names once this is imported.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

import models.cpu_torch  # noqa: F401  before timm, which imports torchvision

# isort: split
from timm.layers import PatchEmbed
from timm.models import generate_default_cfgs, register_model

from models.positions import FOURIER_DIM, fourier, grid_positions

CHUNK = 32  # patches that are read at once
KERNEL = 4  # patches that a direction's convolution sees: a patch and those before it

default_cfgs = generate_default_cfgs({"mamba_tiny_patch16.none": {"input_size": (3, 224, 224)}})


def mamba_tiny_patch16(pretrained: bool = False, **kwargs: Any) -> "VisionMamba":
    """As wide as timm's vit_tiny_patch16_224, and as many weights."""
    if pretrained:
        raise ValueError("mamba_tiny_patch16 has no published weights: train it from scratch")
    return VisionMamba(width=192, depth=20)


register_model(mamba_tiny_patch16)


def scan(x: Tensor, decay: Tensor, enters: Tensor, leaves: Tensor, chunk: int = CHUNK) -> Tensor:
    """The states `h[t] = exp(decay[t]) h[t - 1] + x[t] enters[t]ᵀ` from `h[-1] = 0`, read as
    `h[t] leaves[t]`: Dao and Gu 2024, section 6. Within a chunk it is one masked product of all
    with all; what a chunk leaves behind goes on to those after it. A last chunk that is not full is
    filled up with nothing.

    Args:
        x: [b, n, heads, width]
        decay: [b, n, heads], logarithms, at most 0
        enters, leaves: [b, n, state], the same for all heads

    Returns:
        [b, n, heads, width]
    """
    length = x.shape[1]
    chunk = min(chunk, length)
    x, decay, enters, leaves = (
        functional.pad(each, (0, 0) * (each.dim() - 2) + (0, -length % chunk)).unflatten(
            1, (-1, chunk)
        )
        for each in (x, decay, enters, leaves)
    )
    x, decay = x.movedim(3, 1), decay.movedim(3, 1)  # heads before chunks
    enters, leaves = enters[:, None], leaves[:, None]
    within = (leaves @ enters.mT * _decays(decay)) @ x
    so_far = decay.cumsum(-1)[..., None]
    whole = so_far[..., -1:, :]
    left = enters.mT @ ((whole - so_far).exp() * x)  # [b, heads, chunks, state, width]
    # Between chunks it is the same once more, a chunk in the place of a patch.
    ends = (_decays(whole.flatten(2)) @ left.flatten(3)).unflatten(3, left.shape[3:])
    begins = functional.pad(ends, (0, 0, 0, 0, 1, 0))[:, :, :-1]
    read = within + so_far.exp() * (leaves @ begins)
    return read.movedim(1, 3).flatten(1, 2)[:, :length]


def _decays(decay: Tensor) -> Tensor:
    """Logarithms [..., n] → what is left at t of what came in at i: [..., n, n]; 0 for i > t."""
    so_far = decay.cumsum(-1)
    spans = so_far[..., :, None] - so_far[..., None, :]
    later = spans.new_ones(spans.shape[-2:], dtype=torch.bool).triu(1)
    return spans.masked_fill(later, -math.inf).exp()


class VisionMamba(nn.Module):
    """Images [b, 3, size, size] → features [b, patches, width], rows first; a network as timm's
    vision transformers are."""

    num_prefix_tokens = 0

    def __init__(self, width: int, depth: int, patch: int = 16):
        super().__init__()
        self.num_features = width
        self.patch_embed = PatchEmbed(None, patch, embed_dim=width)
        self.place = nn.Linear(FOURIER_DIM, width)
        self.blocks = nn.Sequential(*(Block(width) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)

    def set_input_size(self, img_size: int) -> None:
        """It reads any whose sides are multiples of a patch."""

    def forward_features(self, pixels: Tensor) -> Tensor:
        patches = self.patch_embed(pixels)
        places = fourier(grid_positions(math.isqrt(patches.shape[1])).to(pixels.device))
        return self.norm(self.blocks(patches + self.place(places.to(patches.dtype))))


class Block(nn.Module):
    """Vision Mamba's block: both directions of one projection, gated and added to what came in."""

    def __init__(self, width: int, expand: int = 2, head: int = 32, state: int = 16):
        super().__init__()
        inner = expand * width
        self.norm = nn.LayerNorm(width)
        self.enter = nn.Linear(width, 2 * inner, bias=False)
        self.there = Direction(inner, inner // head, state)
        self.back = Direction(inner, inner // head, state)
        self.leave = nn.Linear(inner, width, bias=False)

    def forward(self, patches: Tensor) -> Tensor:
        x, gate = self.enter(self.norm(patches)).chunk(2, dim=-1)
        seen = self.there(x) + self.back(x.flip(1)).flip(1)
        return patches + self.leave(seen * functional.silu(gate))


class Direction(nn.Module):
    """One direction: a short convolution, and a scan whose steps and states the patches choose."""

    def __init__(self, inner: int, heads: int, state: int):
        super().__init__()
        self.heads, self.state = heads, state
        self.near = nn.Conv1d(inner, inner, KERNEL, groups=inner)
        self.choose = nn.Linear(inner, 2 * state + heads)
        # Steps of 0.001 to 0.1 and decays of 1 to 16 at first, evenly in logarithms and as they
        # are: Gu and Dao 2023, section 3.6.
        step = np.geomspace(0.001, 0.1, heads)
        steps = step + np.log(-np.expm1(-step))  # of which softplus gives step
        with torch.no_grad():
            self.choose.bias[2 * state :] = torch.tensor(steps.tolist())
        self.rate = nn.Parameter(torch.tensor(np.log(np.linspace(1, 16, heads)).tolist()))
        self.through = nn.Parameter(torch.ones(heads))

    def forward(self, x: Tensor) -> Tensor:
        """[b, n, inner] → [b, n, inner]"""
        before = functional.pad(x.transpose(1, 2), (KERNEL - 1, 0))
        x = functional.silu(self.near(before)).transpose(1, 2)
        chosen = self.choose(x).float()  # decays are multiplied up over hundreds of patches
        enters, leaves, step = chosen.split([self.state, self.state, self.heads], dim=-1)
        step = functional.softplus(step)
        heads = x.unflatten(-1, (self.heads, -1)).float()
        read = scan(heads * step[..., None], -step * self.rate.exp(), enters, leaves)
        return (read + heads * self.through[:, None]).flatten(2).to(x.dtype)
