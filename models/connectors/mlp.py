"""Two-layer MLP: every patch becomes one token (LLaVA-1.5, Liu et al. 2023, section 3.2).

Keeps the whole grid, at the price of one token per patch. Departs from LLaVA-1.5, whose projector
is two linear layers with a GELU between them, each as wide as the language model: features are
normalised on the way in and tokens on the way out, where a learned gain brings them to the scale of
the text's own embeddings, which are far smaller; and where a recipe says nothing the hidden layer
is as wide as SmolLM2-135M, whatever the language model.
"""

from dataclasses import dataclass

import torch
from pydantic import PositiveInt
from torch import Tensor, nn


@dataclass(frozen=True)
class Config:
    hidden: PositiveInt = 576
    gain: float = 0.1  # first scale of the output: about that of the text's own embeddings


class Connector(nn.Module):
    def __init__(self, config: Config, vision_dim: int, text_dim: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(vision_dim),
            nn.Linear(vision_dim, config.hidden),
            nn.GELU(),
            nn.Linear(config.hidden, text_dim),
            nn.LayerNorm(text_dim, elementwise_affine=False),
        )
        self.gain = nn.Parameter(torch.full((text_dim,), config.gain))

    def num_tokens(self, patches: int, images: int = 1) -> int:
        return patches * images

    def forward(self, features: Tensor, positions: Tensor) -> Tensor:
        """[b, patches, vision_dim] → [b, patches, text_dim]; the order of patches tells where."""
        return self.layers(features) * self.gain
