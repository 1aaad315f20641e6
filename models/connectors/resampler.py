"""Perceiver resampler: a fixed number of learned queries read the patches (Flamingo, Alayrac et
al. 2022, section 3.1 and appendix A.1.1).

The number of tokens no longer depends on the image's size; what no query asks for is lost.
Departs from Flamingo: there is one image and no time axis, so a key carries the 2D position of its
patch; and each query has a place of its own, on a grid, starts as the mean of what lies there, and
looks around from there. Without that, a few hundred images are too few for the queries to spread
over the image by themselves.
"""

import math
from dataclasses import dataclass

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from models.positions import FOURIER_DIM, fourier, grid_positions

# A head's narrowness: from a neighbour's distance on a 9 x 9 grid to the whole image.
NARROW, WIDE = 80.0, 2.0


@dataclass(frozen=True)
class Config:
    queries: PositiveInt = 36  # a square number: they start on a grid
    width: PositiveInt = 384
    heads: PositiveInt = 6
    depth: PositiveInt = 2
    expansion: PositiveInt = 2  # width of the feed-forward layer, in widths
    gain: float = 0.1  # first scale of the output: about that of the text's own embeddings


class Connector(nn.Module):
    def __init__(self, config: Config, vision_dim: int, text_dim: int):
        super().__init__()
        side = math.isqrt(config.queries)
        if side**2 != config.queries or config.width % config.heads:
            raise ValueError(
                f"resampler: queries ({config.queries}) must be a square number, and width "
                f"({config.width}) a multiple of heads ({config.heads})"
            )
        self.side = side
        self.queries = nn.Parameter(torch.randn(config.queries, config.width) * 0.02)
        self.read_in = nn.Sequential(nn.LayerNorm(vision_dim), nn.Linear(vision_dim, config.width))
        self.place = nn.Linear(FOURIER_DIM, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.read_out = nn.Sequential(
            nn.LayerNorm(config.width),
            nn.Linear(config.width, text_dim),
            nn.LayerNorm(text_dim, elementwise_affine=False),
        )
        self.gain = nn.Parameter(torch.full((text_dim,), config.gain))

    def num_tokens(self, patches: int, images: int = 1) -> int:
        return len(self.queries) * images

    def forward(self, features: Tensor, positions: Tensor) -> Tensor:
        """[b, patches, vision_dim], [patches, 2] → [b, queries, text_dim]"""
        dtype = features.dtype
        patches = self.read_in(features) + self.place(fourier(positions).to(dtype))
        places = grid_positions(self.side).to(positions)
        latents = self.queries.to(patches.dtype) + self.place(fourier(places).to(dtype))
        distance = torch.cdist(places, positions).square()  # [queries, patches]
        nearby = (-NARROW * distance).softmax(-1).to(dtype) @ patches
        latents = latents + nearby
        for block in self.blocks:
            latents = block(latents, patches, distance)
        return self.read_out(latents) * self.gain


class Block(nn.Module):
    """Queries attend to the patches and to each other, then a feed-forward layer."""

    def __init__(self, config: Config):
        super().__init__()
        self.heads = config.heads
        self.norm_queries = nn.LayerNorm(config.width)
        self.norm_patches = nn.LayerNorm(config.width)
        self.query = nn.Linear(config.width, config.width, bias=False)
        self.key_value = nn.Linear(config.width, 2 * config.width, bias=False)
        self.out = nn.Linear(config.width, config.width, bias=False)
        self.focus = nn.Parameter(
            torch.linspace(math.log(NARROW), math.log(WIDE), config.heads)  # as a log
        )
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(config.width),
            nn.Linear(config.width, config.expansion * config.width),
            nn.GELU(),
            nn.Linear(config.expansion * config.width, config.width),
        )

    def forward(self, latents: Tensor, patches: Tensor, distance: Tensor) -> Tensor:
        queries = self.norm_queries(latents)
        seen = torch.cat([self.norm_patches(patches), queries], dim=1)
        key, value = self.key_value(seen).chunk(2, dim=-1)
        near = -self.focus.float().exp()[:, None, None] * distance  # [heads, queries, patches]
        bias = functional.pad(near, (0, latents.shape[1])).to(key.dtype)  # no place among queries
        mixed = functional.scaled_dot_product_attention(
            self.split(self.query(queries)), self.split(key), self.split(value), attn_mask=bias
        )
        latents = latents + self.out(mixed.transpose(1, 2).flatten(2))
        return latents + self.feed_forward(latents)

    def split(self, x: Tensor) -> Tensor:
        """[b, n, width] → [b, heads, n, width / heads]"""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
