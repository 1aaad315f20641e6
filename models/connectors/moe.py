"""Mixture of experts: every patch is read by a few experts of many, and by those that all share
(DeepSeek-V3, DeepSeek-AI 2024, section 2.1.2).

The gate gives each expert a sigmoid affinity, the `active` best are taken, and their affinities,
normalised among them, weigh their outputs. Experts are SwiGLU networks. A bias is added to the
affinities where experts are selected, and only there: `balance` moves it after every step against
the load, so that no expert starves. Beside it `imbalance` is the sequence-wise balance loss, which
keeps one image from going to a few experts; a sequence is an image here.

Departs from DeepSeek-V3: it stands between tower and language model, not in every layer of one; and
γ is larger, since a programme here has hundreds of steps and not hundreds of thousands.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

BALANCE = 1e-4  # weight of the sequence-wise balance loss: DeepSeek-V3's α


@dataclass(frozen=True)
class Config:
    experts: PositiveInt = 8  # routed ones
    active: PositiveInt = 2  # of them, for each patch
    shared: NonNegativeInt = 1
    hidden: PositiveInt = 256  # width of each expert
    bias_step: Annotated[float, Field(ge=0)] = 0.01  # γ; DeepSeek-V3's is 0.001
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
        self.active, self.bias_step = config.active, config.bias_step
        self.norm = nn.LayerNorm(vision_dim)
        self.gate = nn.Linear(vision_dim, config.experts, bias=False)
        self.routed = nn.ModuleList(
            Expert(vision_dim, config.hidden, text_dim) for _ in range(config.experts)
        )
        self.shared = nn.ModuleList(
            Expert(vision_dim, config.hidden, text_dim) for _ in range(config.shared)
        )
        self.out = nn.LayerNorm(text_dim, elementwise_affine=False)
        self.gain = nn.Parameter(torch.full((text_dim,), config.gain))
        self.register_buffer("bias", torch.zeros(config.experts))
        # How many patches of each image went to each expert, in the last call [images, experts]. No
        # buffer: those are made the same on all processes, and each has images of its own.
        self.load = torch.zeros(0, config.experts)
        self.imbalance = torch.zeros(0)  # of each image in the last call [images]; 1 where even

    def num_tokens(self, patches: int, images: int = 1) -> int:
        return patches * images

    def forward(self, features: Tensor, positions: Tensor) -> Tensor:
        """[b, patches, vision_dim] → [b, patches, text_dim]; the order of patches tells where."""
        normal = self.norm(features)
        chosen, weight = self.route(normal)
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
        """[b, patches, vision_dim] → each patch's experts and weights, [b, patches, active]. Notes
        the images' load and imbalance (equations 17 to 20, of the experts as they are chosen)."""
        affinity = self.gate(normal).float().sigmoid()
        chosen = (affinity + self.bias).topk(self.active, dim=-1).indices
        taken = affinity.gather(-1, chosen)
        experts = affinity.shape[-1]
        self.load = functional.one_hot(chosen, experts).sum(dim=(1, 2)).detach()
        even = self.active * chosen.shape[1] / experts
        wanted = (affinity / affinity.sum(-1, keepdim=True)).mean(1)
        self.imbalance = (self.load / even * wanted).sum(-1)
        return chosen, (taken / taken.sum(-1, keepdim=True)).to(normal.dtype)

    @torch.no_grad()
    def balance(self, load: Tensor) -> None:
        """After a step, in which each expert got `load` [experts] patches: whoever had more than
        the mean is a little less wanted."""
        self.bias += self.bias_step * (load.float().mean() - load).sign()


class Expert(nn.Module):
    """SwiGLU (Shazeer 2020)."""

    def __init__(self, vision_dim: int, hidden: int, text_dim: int):
        super().__init__()
        self.gate = nn.Linear(vision_dim, hidden, bias=False)
        self.up = nn.Linear(vision_dim, hidden, bias=False)
        self.down = nn.Linear(hidden, text_dim, bias=False)

    def forward(self, patches: Tensor) -> Tensor:
        """[n, vision_dim] → [n, text_dim]"""
        return self.down(functional.silu(self.gate(patches)) * self.up(patches))


def within(connector: nn.Module) -> list[Connector]:
    """The mixtures that a connector is, or is made of."""
    return [module for module in connector.modules() if isinstance(module, Connector)]
