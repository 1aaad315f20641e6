"""The original features, linearly mapped, beside what another connector makes of them.

Whatever that connector drops can still be read from the patches; what it finds need not be found
again. The patches' tokens come first.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from models import connectors
from models.connectors import linear


@dataclass(frozen=True)
class Config:
    processed: dict[str, Any] = field(default_factory=lambda: {"name": "resampler"})
    gain: float = 0.1  # of the linearly mapped ones


class Connector(nn.Module):
    def __init__(self, config: Config, vision_dim: int, text_dim: int):
        super().__init__()
        self.original = linear.Connector(linear.Config(config.gain), vision_dim, text_dim)
        self.processed: Any = connectors.build_plain(config.processed, vision_dim, text_dim)

    def num_tokens(self, patches: int, images: int = 1) -> int:
        return self.original.num_tokens(patches, images) + self.processed.num_tokens(
            patches, images
        )

    def forward(self, features: Tensor, positions: Tensor) -> Tensor:
        """[b, patches, vision_dim], [patches, 2] → [b, patches + processed, text_dim]"""
        both = self.original(features, positions), self.processed(features, positions)
        return torch.cat(both, dim=1)
