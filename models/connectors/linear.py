"""One linear layer: every patch becomes one token (MiniGPT-4, Zhu et al. 2023, section 3;
SkinGPT-4, Zhou et al. 2024).

The least that can join a tower to a language model. Both sides are normalised, which theirs are
not: a convolutional tower's features and a small language model's embeddings differ in scale.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Config:
    gain: float = 0.1  # first scale of the output: about that of the text's own embeddings


class Connector(nn.Module):
    def __init__(self, config: Config, vision_dim: int, text_dim: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(vision_dim),
            nn.Linear(vision_dim, text_dim),
            nn.LayerNorm(text_dim, elementwise_affine=False),
        )
        self.gain = nn.Parameter(torch.full((text_dim,), config.gain))

    def num_tokens(self, patches: int, images: int = 1) -> int:
        return patches * images

    def forward(self, features: Tensor, positions: Tensor) -> Tensor:
        """[b, patches, vision_dim] → [b, patches, text_dim]; the order of patches tells where."""
        return self.layers(features) * self.gain
