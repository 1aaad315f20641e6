"""Patches that see each other, in both directions, before the text sees them: a small transformer
encoder (Vaswani et al. 2017, section 3.1; normalised first).

For a language model that starts from nothing. Its own layers let a patch see those before it only,
and have first to learn what lies where; here a patch carries its place, and knows the whole image.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from models.positions import FOURIER_DIM, fourier


@dataclass(frozen=True)
class Config:
    width: PositiveInt = 256
    heads: PositiveInt = 4
    depth: PositiveInt = 1
    expansion: PositiveInt = 4  # width of the feed-forward layer, in widths
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    gain: float = 0.1  # first scale of the output: about that of the text's own embeddings
    mark: float = 0.0  # first mean of every token: heads tell by it what is an image's


class Connector(nn.Module):
    def __init__(self, config: Config, vision_dim: int, text_dim: int):
        super().__init__()
        if config.width % config.heads:
            raise ValueError(
                f"encoder: width ({config.width}) must be a multiple of heads ({config.heads})"
            )
        self.read_in = nn.Sequential(nn.LayerNorm(vision_dim), nn.Linear(vision_dim, config.width))
        self.place = nn.Linear(FOURIER_DIM, config.width)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                config.width,
                config.heads,
                config.expansion * config.width,
                config.dropout,
                activation="gelu",
                batch_first=True,
                norm_first=True,
            )
            for _ in range(config.depth)
        )
        self.read_out = nn.Sequential(
            nn.LayerNorm(config.width),
            nn.Linear(config.width, text_dim),
            nn.LayerNorm(text_dim, elementwise_affine=False),
        )
        self.gain = nn.Parameter(torch.full((text_dim,), config.gain))
        self.mark = nn.Parameter(torch.full((text_dim,), config.mark))

    def num_tokens(self, patches: int, images: int = 1) -> int:
        return patches * images

    def forward(self, features: Tensor, positions: Tensor) -> Tensor:
        """[b, patches, vision_dim], [patches, 2] → [b, patches, text_dim]"""
        patches = self.read_in(features) + self.place(fourier(positions).to(features.dtype))
        for block in self.blocks:
            patches = block(patches)
        return self.read_out(patches) * self.gain + self.mark
