"""Where a patch lies in its image, and in a stack of images."""

import math

import torch
from torch import Tensor

FOURIER_DIM = 16  # of a place in an image
STACK_FOURIER_DIM = 24  # of one in a stack


def grid_positions(side: int) -> Tensor:
    """Centres of a side x side grid, rows first: [side², 2] as (row, column) in 0..1."""
    centres = (torch.arange(side, dtype=torch.float32) + 0.5) / side
    return torch.cartesian_prod(centres, centres)


def stack_positions(grid: Tensor, images: int) -> Tensor:
    """The places of so many images' patches on `grid` [patches, 2], one image behind the other:
    [images, patches, 3] as (row, column, slice). Slices lie as far apart as patches do.
    """
    depth = torch.arange(images, dtype=grid.dtype, device=grid.device) / math.isqrt(len(grid))
    slices = depth[:, None, None].expand(-1, len(grid), 1)
    return torch.cat([grid.expand(images, -1, -1), slices], dim=-1)


def fourier(positions: Tensor) -> Tensor:
    """Positions in 0..1, [patches, n] → sines and cosines of 1, 2, 4, 8 half turns [patches, 8n]"""
    # In float32 whatever the default: vLLM builds its models with bfloat16 as the default.
    octaves = torch.tensor([1.0, 2.0, 4.0, 8.0], dtype=torch.float32, device=positions.device)
    turns = positions[..., None] * (torch.pi * octaves)
    return torch.cat([turns.sin(), turns.cos()], dim=-1).flatten(-2)
