"""Where a patch lies in its image."""

import torch
from torch import Tensor

FOURIER_DIM = 16


def grid_positions(side: int) -> Tensor:
    """Centres of a side x side grid, rows first: [side², 2] as (row, column) in 0..1."""
    centres = (torch.arange(side, dtype=torch.float32) + 0.5) / side
    return torch.cartesian_prod(centres, centres)


def fourier(positions: Tensor) -> Tensor:
    """Positions in 0..1, [patches, 2] → sines and cosines of 1, 2, 4, 8 half turns [patches, 16]"""
    # In float32 whatever the default: vLLM builds its models with bfloat16 as the default.
    octaves = torch.tensor([1.0, 2.0, 4.0, 8.0], dtype=torch.float32, device=positions.device)
    turns = positions[..., None] * (torch.pi * octaves)
    return torch.cat([turns.sin(), turns.cos()], dim=-1).flatten(-2)
