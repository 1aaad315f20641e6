"""Mixture of experts: every patch is read by a few experts of many, and by those that all share
(DeepSeek-V3, DeepSeek-AI 2024, section 2.1.2).

The gate gives each expert a sigmoid affinity, the `active` best are taken, and their affinities,
normalised among them, weigh their outputs. A bias is added to the affinities where experts are
selected, and only there: `balance` moves it after every step against the load, so that no expert
starves and no loss has to say so.
"""

from dataclasses import dataclass

import torch
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

BIAS_STEP = 0.001  # DeepSeek-V3's γ


@dataclass(frozen=True)
class Config:
    experts: PositiveInt = 8  # routed ones
    active: PositiveInt = 2  # of them, for each patch
    shared: NonNegativeInt = 1
    hidden: PositiveInt = 256  # width of each expert
    gain: float = 0.1  # first scale of the output: about that of the text's own embeddings


class Connector(nn.Module):
    bias: Tensor

    def __init__(self, config: Config, vision_dim: int, text_dim: int):
        super().__init__()
        if not 0 < config.active <= config.experts:
            raise ValueError(
                f"moe: active ({config.active}) must be at least 1 and at most experts "
                f"({config.experts})"
            )
        self.active = config.active
        self.norm = nn.LayerNorm(vision_dim)
        self.gate = nn.Linear(vision_dim, config.experts, bias=False)
        self.routed = nn.ModuleList(
            _expert(vision_dim, config.hidden, text_dim) for _ in range(config.experts)
        )
        self.shared = nn.ModuleList(
            _expert(vision_dim, config.hidden, text_dim) for _ in range(config.shared)
        )
        self.out = nn.LayerNorm(text_dim, elementwise_affine=False)
        self.gain = nn.Parameter(torch.full((text_dim,), config.gain))
        self.register_buffer("bias", torch.zeros(config.experts))
        # How many patches of each image went to each expert, in the last call [images, experts]. No
        # buffer: those are made the same on all processes, and each has images of its own.
        self.load = torch.zeros(0, config.experts)

    def num_tokens(self, patches: int, images: int = 1) -> int:
        return patches * images

    def forward(self, features: Tensor, positions: Tensor) -> Tensor:
        """[b, patches, vision_dim] → [b, patches, text_dim]; the order of patches tells where."""
        normal = self.norm(features)
        chosen, weight = self.route(normal)
        self.load = functional.one_hot(chosen, len(self.routed)).sum(dim=(1, 2)).detach()
        flat, chosen, weight = normal.flatten(0, 1), chosen.flatten(0, 1), weight.flatten(0, 1)
        mixed = torch.zeros(len(flat), len(self.gain), dtype=flat.dtype, device=flat.device)
        for expert in self.shared:
            mixed = mixed + expert(flat)
        for number, expert in enumerate(self.routed):
            patch, place = (chosen == number).nonzero(as_tuple=True)
            found = expert(flat[patch]) * weight[patch, place, None]
            mixed = mixed.index_add(0, patch, found.to(mixed.dtype))
        return self.out(mixed.unflatten(0, features.shape[:2])) * self.gain

    def route(self, normal: Tensor) -> tuple[Tensor, Tensor]:
        """[b, patches, vision_dim] → each patch's experts and weights, [b, patches, active]"""
        affinity = self.gate(normal).float().sigmoid()
        chosen = (affinity + self.bias).topk(self.active, dim=-1).indices
        taken = affinity.gather(-1, chosen)
        return chosen, (taken / taken.sum(-1, keepdim=True)).to(normal.dtype)

    @torch.no_grad()
    def balance(self, load: Tensor) -> None:
        """After a step, in which each expert got `load` [experts] patches: whoever had more than
        the mean is a little less wanted."""
        self.bias += BIAS_STEP * (load.float().mean() - load).sign()


def _expert(vision_dim: int, hidden: int, text_dim: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(vision_dim, hidden), nn.SiLU(), nn.Linear(hidden, text_dim, bias=False)
    )
