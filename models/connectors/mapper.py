"""Mapping networks of prefix tuning: an image becomes a short prefix (Open-ended medical VQA
through prefix tuning, van Sonsbeek et al. 2023, section 3; after ClipCap, Mokady et al. 2021).

`mlp` maps the image's one mean feature to the whole prefix, so it knows what but not where.
`transformer` lets learned constants and the patches attend to each other, and keeps the constants'
outputs; as in ClipCap they start at unit scale. Departs from both: theirs maps CLIP's one embedding
(the transformer after spreading it over several), we have patches, so the transformer reads those,
with their places; and tokens are normalised on the way out.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from models.positions import FOURIER_DIM, fourier


@dataclass(frozen=True)
class Config:
    kind: Literal["mlp", "transformer"] = "transformer"
    length: PositiveInt = 8  # of the prefix, in tokens
    width: PositiveInt = 384  # the mlp's hidden layer has half as much for each token of the prefix
    heads: PositiveInt = 6
    depth: PositiveInt = 4
    gain: float = 0.1  # first scale of the output: about that of the text's own embeddings


class Connector(nn.Module):
    def __init__(self, config: Config, vision_dim: int, text_dim: int):
        super().__init__()
        if config.width % config.heads:
            raise ValueError(
                f"mapper: width ({config.width}) must be a multiple of heads ({config.heads})"
            )
        self.length = config.length
        self.network = (Mlp if config.kind == "mlp" else Transformer)(config, vision_dim, text_dim)
        self.norm = nn.LayerNorm(text_dim, elementwise_affine=False)
        self.gain = nn.Parameter(torch.full((text_dim,), config.gain))

    def num_tokens(self, patches: int, images: int = 1) -> int:
        return self.length * images

    def forward(self, features: Tensor, positions: Tensor) -> Tensor:
        """[b, patches, vision_dim], [patches, 2] → [b, length, text_dim]"""
        return self.norm(self.network(features, positions)) * self.gain


class Mlp(nn.Module):
    def __init__(self, config: Config, vision_dim: int, text_dim: int):
        super().__init__()
        hidden = config.length * config.width // 2
        self.layers = nn.Sequential(
            nn.LayerNorm(vision_dim),
            nn.Linear(vision_dim, hidden),
            nn.Tanh(),
            nn.Linear(hidden, config.length * text_dim),
            nn.Unflatten(-1, (config.length, text_dim)),
        )

    def forward(self, features: Tensor, positions: Tensor) -> Tensor:
        return self.layers(features.mean(dim=1))


class Transformer(nn.Module):
    def __init__(self, config: Config, vision_dim: int, text_dim: int):
        super().__init__()
        self.constants = nn.Parameter(torch.randn(config.length, config.width))
        self.read_in = nn.Sequential(nn.LayerNorm(vision_dim), nn.Linear(vision_dim, config.width))
        self.place = nn.Linear(FOURIER_DIM, config.width)
        self.blocks = nn.ModuleList(
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
        self.read_out = nn.Sequential(nn.LayerNorm(config.width), nn.Linear(config.width, text_dim))

    def forward(self, features: Tensor, positions: Tensor) -> Tensor:
        patches = self.read_in(features) + self.place(fourier(positions).to(features.dtype))
        constants = self.constants.to(patches.dtype).expand(len(features), -1, -1)
        seen = torch.cat([constants, patches], dim=1)
        for block in self.blocks:
            seen = block(seen)
        return self.read_out(seen[:, : constants.shape[1]])
