"""Each patch becomes several tokens, so that less of it is squeezed out.

A tower's feature is often wider than a token's embedding (1,280 to 576): one token per patch must
drop more than half of it. A patch's tokens stand beside each other.
"""

from dataclasses import dataclass

import torch
from pydantic import PositiveInt
from torch import Tensor, nn


@dataclass(frozen=True)
class Config:
    tokens: PositiveInt = 2  # of each patch
    hidden: PositiveInt = 576
    gain: float = 0.1  # first scale of the output: about that of the text's own embeddings


class Connector(nn.Module):
    def __init__(self, config: Config, vision_dim: int, text_dim: int):
        super().__init__()
        self.tokens = config.tokens
        self.layers = nn.Sequential(
            nn.LayerNorm(vision_dim),
            nn.Linear(vision_dim, config.tokens * config.hidden),
            nn.GELU(),
            nn.Unflatten(-1, (config.tokens, config.hidden)),
            nn.Linear(config.hidden, text_dim),
            nn.LayerNorm(text_dim, elementwise_affine=False),
        )
        self.gain = nn.Parameter(torch.full((config.tokens, text_dim), config.gain))

    def num_tokens(self, patches: int, images: int = 1) -> int:
        return self.tokens * patches * images

    def forward(self, features: Tensor, positions: Tensor) -> Tensor:
        """[b, patches, vision_dim] → [b, patches · tokens, text_dim]"""
        return (self.layers(features) * self.gain).flatten(1, 2)
