"""A patch beside what surrounds it: features at several scales, concatenated and projected by one
layer (MUSK, Xiang et al. 2025; multi-scale features as in S2, Shi et al. 2024, section 3.1).

One feature says both what is here and what it lies in. Kept of MUSK are its scales alone. Departs
from it: MUSK concatenates the features of image and text too, for one transformer with an expert of
each, runs anew on the image at every scale, concatenates the scales' one global feature, and reads
the answer off a classifier. Here no text is concatenated: a language model reads the image's tokens
and then the question, as with every connector; the tower runs once, its grid is averaged over ever
larger regions, and every patch stays a token of its own.
"""

from dataclasses import dataclass

import torch
from pydantic import PositiveInt
from torch import Tensor, nn


@dataclass(frozen=True)
class Config:
    scales: tuple[PositiveInt, ...] = (3, 1)  # regions per side; 1 is the whole image
    gain: float = 0.1  # first scale of the output: about that of the text's own embeddings


class Connector(nn.Module):
    def __init__(self, config: Config, vision_dim: int, text_dim: int):
        super().__init__()
        self.scales = config.scales
        width = (1 + len(config.scales)) * vision_dim
        self.layers = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, text_dim),
            nn.LayerNorm(text_dim, elementwise_affine=False),
        )
        self.gain = nn.Parameter(torch.full((text_dim,), config.gain))

    def num_tokens(self, patches: int, images: int = 1) -> int:
        return patches * images

    def forward(self, features: Tensor, positions: Tensor) -> Tensor:
        """[b, patches, vision_dim], [patches, 2] → [b, patches, text_dim]"""
        around = [_neighbours(positions, scale).to(features.dtype) for scale in self.scales]
        seen = torch.cat([features, *(mean @ features for mean in around)], dim=-1)
        return self.layers(seen) * self.gain


def _neighbours(positions: Tensor, scale: int) -> Tensor:
    """[patches, patches]: times the features, each patch's mean over its region of scale²."""
    row, column = (positions * scale).long().unbind(-1)
    region = row * scale + column
    same = (region[:, None] == region).float()
    return same / same.sum(-1, keepdim=True)
