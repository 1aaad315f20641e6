"""Perceiver resampler: a fixed number of learned queries read the patches (Flamingo, Alayrac et
al. 2022, section 3.1 and appendix A.1.1).

The number of tokens no longer depends on the image's size; what no query asks for is lost.
Departs from Flamingo: keys carry the 2D position of their patch, since one image has no time axis.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.positions import FOURIER_DIM, fourier


@dataclass(frozen=True)
class Config:
    queries: int = 32
    width: int = 384
    heads: int = 6
    depth: int = 2
    expansion: int = 2  # width of the feed-forward layer, in widths
    gain: float = 0.1  # first scale of the output: about that of the text's own embeddings


class Connector(nn.Module):
    def __init__(self, config: Config, vision_dim: int, text_dim: int):
        super().__init__()
        if config.width % config.heads:
            raise ValueError(
                f"resampler: width {config.width} is not a multiple of its {config.heads} heads"
            )
        self.queries = nn.Parameter(torch.randn(config.queries, config.width) * 0.5)
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
        patches = self.read_in(features) + self.place(fourier(positions).to(features.dtype))
        latents = self.queries.to(patches.dtype).expand(len(features), -1, -1)
        for block in self.blocks:
            latents = block(latents, patches)
        return self.read_out(latents) * self.gain


class Block(nn.Module):
    """Queries attend to the patches and to each other, then a feed-forward layer."""

    def __init__(self, config: Config):
        super().__init__()
        self.heads = config.heads
        self.norm_queries, self.norm_patches = (
            nn.LayerNorm(config.width),
            nn.LayerNorm(config.width),
        )
        self.query = nn.Linear(config.width, config.width, bias=False)
        self.key_value = nn.Linear(config.width, 2 * config.width, bias=False)
        self.out = nn.Linear(config.width, config.width, bias=False)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(config.width),
            nn.Linear(config.width, config.expansion * config.width),
            nn.GELU(),
            nn.Linear(config.expansion * config.width, config.width),
        )

    def forward(self, latents: Tensor, patches: Tensor) -> Tensor:
        queries = self.norm_queries(latents)
        seen = torch.cat([self.norm_patches(patches), queries], dim=1)
        key, value = self.key_value(seen).chunk(2, dim=-1)
        mixed = functional.scaled_dot_product_attention(
            self.split(self.query(queries)), self.split(key), self.split(value)
        )
        latents = latents + self.out(mixed.transpose(1, 2).flatten(2))
        return latents + self.feed_forward(latents)

    def split(self, x: Tensor) -> Tensor:
        """[b, n, width] → [b, heads, n, width / heads]"""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
