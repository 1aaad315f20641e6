"""Q-Former: learned queries read the patches through a small transformer (BLIP-2, Li et al. 2023,
section 3.1; ClinicalBLIP). Unconditioned: it never sees the question.

As in BLIP-2, learned queries enter through a LayerNorm (else they would all begin as good as
alike), and attend to each other in every block and to the patches in every other. Departs from it:
blocks normalise before they attend, and keys carry their patch's place (features of a convolution
do not). So it cannot start from BERT, whose blocks have another form; and BLIP-2's first stage
(contrast, matching and captioning) wants a text side within the connector, which none of our
recipes has: that was left. It learns as BLIP-2's second stage does, from what the language model
says.
"""

from dataclasses import dataclass

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from models.positions import FOURIER_DIM, fourier


@dataclass(frozen=True)
class Config:
    queries: PositiveInt = 32
    width: PositiveInt = 384
    heads: PositiveInt = 6
    depth: PositiveInt = 4
    expansion: PositiveInt = 2  # width of the feed-forward layer, in widths
    gain: float = 0.1  # first scale of the output: about that of the text's own embeddings


class Connector(nn.Module):
    def __init__(self, config: Config, vision_dim: int, text_dim: int):
        super().__init__()
        if config.width % config.heads:
            raise ValueError(
                f"qformer: width ({config.width}) must be a multiple of heads ({config.heads})"
            )
        self.queries = nn.Parameter(torch.randn(config.queries, config.width) * 0.02)
        self.norm_queries = nn.LayerNorm(config.width)
        self.read_in = nn.Sequential(nn.LayerNorm(vision_dim), nn.Linear(vision_dim, config.width))
        self.place = nn.Linear(FOURIER_DIM, config.width)
        self.blocks = nn.ModuleList(
            Block(config, reads=number % 2 == 0) for number in range(config.depth)
        )
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
        patches = self.read_in(features)
        places = self.place(fourier(positions).to(features.dtype))
        queries = self.norm_queries(self.queries).to(features.dtype).expand(len(features), -1, -1)
        for block in self.blocks:
            queries = block(queries, patches, places)
        return self.read_out(queries) * self.gain


class Block(nn.Module):
    """Queries attend to each other, where it `reads` to the patches, and are transformed."""

    def __init__(self, config: Config, reads: bool):
        super().__init__()
        self.among = Attention(config)
        self.patches = Attention(config) if reads else None
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(config.width),
            nn.Linear(config.width, config.expansion * config.width),
            nn.GELU(),
            nn.Linear(config.expansion * config.width, config.width),
        )

    def forward(self, queries: Tensor, patches: Tensor, places: Tensor) -> Tensor:
        queries = queries + self.among(queries, queries, 0)
        if self.patches is not None:
            queries = queries + self.patches(queries, patches, places)
        return queries + self.feed_forward(queries)


class Attention(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.heads = config.heads
        self.norm_queries, self.norm_seen = nn.LayerNorm(config.width), nn.LayerNorm(config.width)
        self.query = nn.Linear(config.width, config.width)
        self.key_value = nn.Linear(config.width, 2 * config.width, bias=False)
        self.out = nn.Linear(config.width, config.width)

    def forward(self, queries: Tensor, seen: Tensor, places: Tensor | int) -> Tensor:
        """[b, q, width], [b, n, width] → [b, q, width]; `places` are added to what is seen."""
        seen = self.norm_seen(seen) + places
        query, key, value = (
            x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for x in (
                self.query(self.norm_queries(queries)),
                *self.key_value(seen).chunk(2, dim=-1),
            )
        )
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        return self.out(mixed.transpose(1, 2).flatten(2))
