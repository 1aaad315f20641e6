"""What VQ-GAN adds to the training of image tokens (Esser et al. 2021, section 3.1): how alike two
images are to a network that has seen others, and an adversary that tells decoded from real ones.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

import models.cpu_torch  # noqa: F401  before timm, which imports torchvision

# isort: split
import timm

from models.parts.vision import Tower, TowerConfig

MOBILENET = ("mobilenetv2_100", "base:mobilenetv2-imagenet")
STRIDES = (4, 8, 16)  # pixels of a place's side, in the layers that are compared


class Eye(nn.Module):
    """How unlike two images look: LPIPS (Zhang et al. 2018, equation 1) with each channel's weight
    1, by a frozen network of ImageNet. VGG's weights, and those that LPIPS learned, lie on hubs.

    Raises:
        AssetError: the network's weights cannot be had.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, network: str, weights: str, side: int):
        super().__init__()
        self.net = Tower(TowerConfig(network, weights, side)).net.requires_grad_(False)
        self.net.to(memory_format=torch.channels_last)  # by a third faster without a GPU
        layers = enumerate(self.net.feature_info)
        self.places = [place for place, each in layers if each["reduction"] in STRIDES]
        seen = timm.get_pretrained_cfg(network)
        self.register_buffer("mean", torch.tensor(seen.mean).view(3, 1, 1))
        self.register_buffer("deviation", torch.tensor(seen.std).view(3, 1, 1))

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """Of images [b, 3, side, side], pixels from -1 to 1: [b], 0 where two are the same."""
        pairs = zip(self.features(one), self.features(other), strict=True)
        layers = [(a - b).square().sum(1).flatten(1).mean(1) for a, b in pairs]
        return torch.stack(layers).sum(0)

    def features(self, pixels: Tensor) -> list[Tensor]:
        """[b, channels, grid, grid] of each layer, each place's of length 1."""
        seen = ((pixels + 1) / 2 - self.mean) / self.deviation
        maps = self.net.forward_intermediates(
            seen.contiguous(memory_format=torch.channels_last),
            indices=self.places,
            intermediates_only=True,
            stop_early=True,
        )
        return [functional.normalize(each, dim=1) for each in maps]


def hinge(real: Tensor, decoded: Tensor) -> Tensor:
    """The adversary's loss, of what it says of patches: at least 1 of real ones and at most -1 of
    decoded ones costs nothing (Lim and Ye 2017; Esser et al. write logarithms, equation 5, and
    their code has this)."""
    return (functional.relu(1 - real).mean() + functional.relu(1 + decoded).mean()) / 2


def adaptive_weight(rebuilt: Tensor, deceit: Tensor, last: Tensor) -> Tensor:
    """λ (equation 7), by which the gradient of `deceit` is about as long as that of `rebuilt` at
    `last`, the weights of the decoder's last layer. Both losses keep their graphs."""
    one, other = (
        torch.autograd.grad(each, last, retain_graph=True)[0] for each in (rebuilt, deceit)
    )
    return one.norm() / (other.norm() + 1e-6)


class Adversary:
    """A small network that learns to tell, of patches of 34 pixels, decoded from real ones
    (PatchGAN: Isola et al. 2017, section 3.2; theirs has a layer more, for images of 256)."""

    def __init__(self, device: torch.device, channels: int = 32):
        c = channels
        self.net = nn.Sequential(
            nn.Conv2d(3, c, 4, 2, 1), nn.LeakyReLU(0.2),
            nn.Conv2d(c, 2 * c, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * c), nn.LeakyReLU(0.2),
            nn.Conv2d(2 * c, 4 * c, 4, 1, 1, bias=False), nn.BatchNorm2d(4 * c), nn.LeakyReLU(0.2),
            nn.Conv2d(4 * c, 1, 4, 1, 1),
        ).to(device)  # fmt: skip
        self.optimiser = torch.optim.Adam(self.net.parameters(), lr=2e-4, betas=(0.5, 0.9))

    def deceit(self, decoded: Tensor) -> Tensor:
        """Of images [b, 3, side, side]: the less, the more they pass for real ones."""
        said: Tensor = self.net(decoded)
        return -said.mean()

    def learn(self, real: Tensor, decoded: Tensor) -> None:
        """One step on images [b, 3, side, side] of each kind."""
        loss = hinge(self.net(real), self.net(decoded.detach()))
        self.optimiser.zero_grad(set_to_none=True)  # what deceiving it has left
        loss.backward()
        self.optimiser.step()
