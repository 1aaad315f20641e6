"""Gated cross-attention between the language model's layers (Flamingo, Alayrac et al. 2022,
section 3.1 and appendix A.1.2).

Before some of its layers the text attends to the image's tokens and passes a feed-forward layer.
What either adds is multiplied by the tanh of a gate that starts at zero: at first the language
model says what it would say without an image, and learns to look from there. The gates have a
learning rate of their own (`gate_lr` of a stage): what is behind them learns as far as they open.
Departs from Flamingo: images come before all text, so every token sees all of them, and none are
interleaved with it; one rate for everything served Flamingo, whose run was far longer.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from models import connectors
from models.connectors.cross_attention import CrossAttention

WHY_NOT_SERVED = "its blocks stand between the language model's layers"


@dataclass(frozen=True)
class Config:
    tokens: dict[str, Any] = field(default_factory=lambda: {"name": "resampler"})  # what is read
    blocks: PositiveInt = 4  # spread evenly over the language model's layers
    width: PositiveInt = 384
    heads: PositiveInt = 6
    expansion: PositiveInt = 4  # width of the feed-forward layer, in widths


class Connector(nn.Module):
    def __init__(self, config: Config, vision_dim: int, text_dim: int):
        super().__init__()
        self.tokens: Any = connectors.build_plain(config.tokens, vision_dim, text_dim)
        self.before_layers = nn.ModuleList(Block(config, text_dim) for _ in range(config.blocks))

    def num_tokens(self, patches: int, images: int = 1) -> int:
        return self.tokens.num_tokens(patches, images)

    def forward(self, features: Tensor, positions: Tensor) -> Tensor:
        """[b, patches, vision_dim], [patches, 2] → what is attended to, [b, n, text_dim]"""
        return self.tokens(features, positions)


class Block(nn.Module):
    def __init__(self, config: Config, text_dim: int):
        super().__init__()
        self.attend = CrossAttention(text_dim, config.width, config.heads)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(text_dim),
            nn.Linear(text_dim, config.expansion * config.width, bias=False),
            nn.GELU(),
            nn.Linear(config.expansion * config.width, text_dim, bias=False),
        )
        self.attend_gate = nn.Parameter(torch.zeros(1))
        self.feed_forward_gate = nn.Parameter(torch.zeros(1))

    def forward(self, hidden: Tensor, tokens: Tensor, there: Tensor) -> Tensor:
        """See `models.connectors`: [b, length, text_dim] → the same, having looked."""
        hidden = hidden + self.attend_gate.tanh() * self.attend(hidden, tokens, there)
        return hidden + self.feed_forward_gate.tanh() * self.feed_forward(hidden)
