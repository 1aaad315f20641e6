"""An image as discrete tokens: a grid of codes, each one of 512 vectors (VQ-VAE, van den Oord et
al. 2017). `models.study.tokens` learns them; here they are a tower too, whose patches are the codes
at their places: a connector that maps each patch by itself gives each code one embedding.

timm knows two networks once this is imported: `vq_codes`, and `vq_features`, the same encoder
before its patches become codes, which is what codes are to be compared with.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import models.cpu_torch  # noqa: F401  before timm, which imports torchvision

# isort: split
from timm.models import generate_default_cfgs, register_model

COMMITMENT = 0.25  # β: how much the encoder is drawn to the codes
DECAY = 0.99  # of the codes' moving averages
DEAD = 0.02  # of a code's even share of the patches: one that has less starts anew
STRIDE = 8  # pixels of a patch's side

CENTRED = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}  # pixels from -1 to 1
default_cfgs = generate_default_cfgs({"vq_codes.none": CENTRED, "vq_features.none": CENTRED})


def vq_codes(pretrained: bool = False, **kwargs: Any) -> "Codes":
    return _made_here("vq_codes", pretrained, as_codes=True)


def vq_features(pretrained: bool = False, **kwargs: Any) -> "Codes":
    return _made_here("vq_features", pretrained, as_codes=False)


def _made_here(name: str, pretrained: bool, as_codes: bool) -> "Codes":
    if pretrained:
        raise ValueError(
            f"{name} has no published weights: python -m models.study.tokens trains it"
        )
    return Codes(as_codes=as_codes)


register_model(vq_codes)
register_model(vq_features)


class Codebook(nn.Module):
    """`codes` vectors, each the moving average of what fell to it (van den Oord et al. 2017,
    appendix A.1): no gradient moves them. One that hardly anything falls to is put where a patch
    lies (Dhariwal et al. 2020, Jukebox, section 3).
    """

    vectors: Tensor
    counts: Tensor
    sums: Tensor

    def __init__(self, codes: int, width: int):
        super().__init__()
        self.register_buffer("vectors", torch.randn(codes, width))
        self.register_buffer("counts", torch.zeros(codes))
        self.register_buffer("sums", torch.zeros(codes, width))

    def nearest(self, found: Tensor) -> Tensor:
        """[n, width] → [n], the number of the nearest code."""
        distances = self.vectors.square().sum(1) - 2 * found @ self.vectors.T
        return distances.argmin(1)

    def forward(self, found: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[n, width] → the codes in their place, through which the gradient goes straight; their
        numbers [n]; and the commitment loss."""
        numbers = self.nearest(found.detach())
        if self.training:
            self.follow(found.detach(), numbers)
        coded = self.vectors[numbers]
        commitment = COMMITMENT * functional.mse_loss(found, coded)
        return found + (coded - found).detach(), numbers, commitment

    @torch.no_grad()
    def follow(self, found: Tensor, numbers: Tensor) -> None:
        """Moves each code to the mean of what falls to it, of late."""
        fell = functional.one_hot(numbers, len(self.vectors)).to(found)
        self.counts.lerp_(fell.sum(0), 1 - DECAY)
        self.sums.lerp_(fell.T @ found, 1 - DECAY)
        alive = self.counts > DEAD * self.counts.mean()
        self.vectors[alive] = self.sums[alive] / self.counts[alive, None]
        if dead := int((~alive).sum()):
            anew = found[torch.randint(len(found), (dead,), device=found.device)]
            even = self.counts.mean()
            self.vectors[~alive], self.counts[~alive], self.sums[~alive] = anew, even, anew * even


@dataclass(frozen=True)
class Sizes:
    side: int = 64  # pixels; images are squeezed to a square, as the towers see them
    codes: int = 512
    width: int = 32  # of a code
    channels: int = 64

    @property
    def grid(self) -> int:
        """Tokens on a side."""
        return self.side // STRIDE


class Residual(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.inner = nn.Sequential(
            nn.GroupNorm(8, channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, 1, 1),
            nn.GroupNorm(8, channels), nn.SiLU(), nn.Conv2d(channels, channels, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.inner(x)
        return y


def encoder(sizes: Sizes) -> nn.Sequential:
    """Pixels from -1 to 1, [b, 3, side, side] → [b, width, grid, grid]."""
    c = sizes.channels
    return nn.Sequential(
        nn.Conv2d(3, c // 4, 4, 2, 1), nn.SiLU(),
        nn.Conv2d(c // 4, c // 2, 4, 2, 1), Residual(c // 2),
        nn.Conv2d(c // 2, c, 4, 2, 1), Residual(c), Residual(c),
        nn.Conv2d(c, sizes.width, 1),
    )  # fmt: skip


class Codes(nn.Module):
    """Pixels [b, 3, side, side] → [b, width, grid, grid], as timm's convolutional networks: of any
    side that is a multiple of eight, the vectors of the codes, or what was found before."""

    def __init__(self, sizes: Sizes = Sizes(), as_codes: bool = True):
        super().__init__()
        self.as_codes, self.num_features = as_codes, sizes.width
        self.feature_info = [{"reduction": STRIDE, "num_chs": sizes.width}]
        self.encoder = encoder(sizes)
        self.codebook = Codebook(sizes.codes, sizes.width)

    def forward_features(self, pixels: Tensor) -> Tensor:
        found: Tensor = self.encoder(pixels)
        if not self.as_codes:
            return found
        patches = found.permute(0, 2, 3, 1)
        numbers = self.codebook.nearest(patches.detach().flatten(0, 2))
        coded = self.codebook.vectors[numbers].view(patches.shape).permute(0, 3, 1, 2)
        # The gradient goes straight through; without one a code is exactly its vector.
        return found + (coded - found).detach() if found.requires_grad else coded
