"""Image and question fused by six transformer layers before the language model reads either
(OphGLM, Deng et al. 2024: image encoder, text encoder, fusion module, language model).

The image's tokens are what this question makes of the image. Kept are six layers over both. Departs
from OphGLM: there is no text encoder beside the image's, so that words come in as the language
model's embeddings, each without the others; only the image's half goes on to the language model,
which reads the question itself; and an image keeps all its patches.
"""

from dataclasses import dataclass

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from models.positions import FOURIER_DIM, fourier

WHY_NOT_SERVED = "its image tokens depend on the question"


@dataclass(frozen=True)
class Config:
    width: PositiveInt = 384
    heads: PositiveInt = 6
    depth: PositiveInt = 6
    gain: float = 0.1  # first scale of the output: about that of the text's own embeddings


class Connector(nn.Module):
    def __init__(self, config: Config, vision_dim: int, text_dim: int):
        super().__init__()
        if config.width % config.heads:
            raise ValueError(
                f"fusion: width ({config.width}) must be a multiple of heads ({config.heads})"
            )
        self.read_in = nn.Sequential(nn.LayerNorm(vision_dim), nn.Linear(vision_dim, text_dim))
        self.place = nn.Linear(FOURIER_DIM, text_dim)
        self.image_in, self.text_in = (
            nn.Sequential(nn.LayerNorm(text_dim), nn.Linear(text_dim, config.width))
            for _ in range(2)
        )
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                config.width,
                config.heads,
                2 * config.width,
                dropout=0.0,
                activation="gelu",
                batch_first=True,
                norm_first=True,
            )
            for _ in range(config.depth)
        )
        self.out = nn.Linear(config.width, text_dim)
        self.norm = nn.LayerNorm(text_dim, elementwise_affine=False)
        self.gain = nn.Parameter(torch.full((text_dim,), config.gain))

    def num_tokens(self, patches: int, images: int = 1) -> int:
        return patches * images

    def forward(self, features: Tensor, positions: Tensor) -> Tensor:
        """[b, patches, vision_dim], [patches, 2] → [b, patches, text_dim], before any question"""
        placed = self.read_in(features) + self.place(fourier(positions).to(features.dtype))
        return self.norm(placed) * self.gain

    def fuse(self, tokens: Tensor, question: Tensor) -> Tensor:
        """[b, n, text_dim], [b, length, text_dim] → the image's tokens [b, n, text_dim]"""
        both = torch.cat([self.image_in(tokens), self.text_in(question)], dim=1)
        for layer in self.layers:
            both = layer(both)
        return self.norm(self.norm(tokens) + self.out(both[:, : tokens.shape[1]])) * self.gain
