"""Text that looks at the image before the language model reads it: one cross-modal attention
(IQAGPT, Chen et al. 2023, where it fuses image and text features of a captioning model).

The patches take no place in the prompt, so that a question costs its own tokens alone. Kept is that
text asks and the image answers. Departs from IQAGPT, which encodes text by a network of its own and
attends in every layer of a captioning decoder: here the text is the language model's embeddings,
and each token attends once, before the first layer of a language model that stays as it is.
"""

from dataclasses import dataclass

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from models.positions import FOURIER_DIM, fourier

WHY_NOT_SERVED = "its text attends to the image before the language model's first layer"


@dataclass(frozen=True)
class Config:
    width: PositiveInt = 384
    heads: PositiveInt = 6
    gain: float = 0.1  # first scale of what is added: about that of the text's own embeddings


class Connector(nn.Module):
    def __init__(self, config: Config, vision_dim: int, text_dim: int):
        super().__init__()
        self.read_in = nn.Sequential(nn.LayerNorm(vision_dim), nn.Linear(vision_dim, text_dim))
        self.place = nn.Linear(FOURIER_DIM, text_dim)
        self.before_layers = nn.ModuleList([Block(config, text_dim)])

    def num_tokens(self, patches: int, images: int = 1) -> int:
        return patches * images

    def forward(self, features: Tensor, positions: Tensor) -> Tensor:
        """[b, patches, vision_dim], [patches, 2] → what is attended to, [b, patches, text_dim]"""
        return self.read_in(features) + self.place(fourier(positions).to(features.dtype))


class Block(nn.Module):
    def __init__(self, config: Config, text_dim: int):
        super().__init__()
        self.attend = CrossAttention(text_dim, config.width, config.heads)
        self.norm = nn.LayerNorm(text_dim, elementwise_affine=False)
        self.gain = nn.Parameter(torch.full((text_dim,), config.gain))

    def forward(self, hidden: Tensor, tokens: Tensor, there: Tensor) -> Tensor:
        """See `models.connectors`: [b, length, text_dim] → the same, having looked."""
        return hidden + self.norm(self.attend(hidden, tokens, there)) * self.gain


class CrossAttention(nn.Module):
    """Text asks, images answer; both are normalised first."""

    def __init__(self, text_dim: int, width: int, heads: int):
        super().__init__()
        if width % heads:
            raise ValueError(
                f"cross_attention: width ({width}) must be a multiple of heads ({heads})"
            )
        self.heads = heads
        self.norm_text = nn.LayerNorm(text_dim)
        self.norm_tokens = nn.LayerNorm(text_dim)
        self.query = nn.Linear(text_dim, width, bias=False)
        self.key_value = nn.Linear(text_dim, 2 * width, bias=False)
        self.out = nn.Linear(width, text_dim, bias=False)

    def forward(self, hidden: Tensor, tokens: Tensor, there: Tensor) -> Tensor:
        """[b, length, text_dim], [b, n, text_dim], [b, n] → [b, length, text_dim]"""
        query, key, value = (
            x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for x in (
                self.query(self.norm_text(hidden)),
                *self.key_value(self.norm_tokens(tokens)).chunk(2, dim=-1),
            )
        )
        mixed = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=there[:, None, None]
        )
        return self.out(mixed.transpose(1, 2).flatten(2))
