"""Vision towers: an image in, a grid of patch features out.

A tower is any convolutional network of timm, or a vision transformer (CLIP's and SigLIP's among
them), whose last layer's patches are taken; of a convolutional one those of finer layers as well,
where `strides` names them; a vision Mamba (models.parts.mamba); or an image's discrete tokens
(models.parts.codes). Its weights come from
`models.assets`, from a folder of one's own (models.training.masked) or, where a hub can be reached,
from timm. It runs in float32, and the features that training caches and the ones that vLLM
computes are then the same; only within a training step on an accelerator is it cast.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import pixel_unshuffle

import models.cpu_torch  # noqa: F401  before timm, which imports torchvision

# isort: split
import timm

from models import assets
from models.data.example import DataError
from models.data.pixels import size_of
from models.parts import codes, mamba  # noqa: F401  timm knows their networks from here on
from models.tensors import load_tensors

UNUSED = ("head", "attn_pool")  # of a timm network, behind the features that are taken


@dataclass(frozen=True)
class TowerConfig:
    """`weights` is a reference of `models.assets`, or "timm" for timm's own on the hub.

    `strides` says which layers are taken, by the image's pixels per place of their grids: the last
    layer's and finer ones, whose neighbouring places are put beside each other to lie on its grid
    (space to depth). Left out, it is the last layer's alone.
    """

    name: str
    weights: str
    image_size: int = 224  # pixels; images are squeezed to a square, as SLAKE's mostly are
    strides: tuple[int, ...] = ()


class Tower(nn.Module):
    """A timm network without its head.

    Attributes:
        dim: width of one patch's features.
        side: patches per side of the square grid.

    Raises:
        ValueError: timm has no such network, it makes no square grid of features, or has no layer
            of such a stride.
        AssetError: its weights cannot be had or are another network's.
    """

    def __init__(self, config: TowerConfig, load_weights: bool = True):
        super().__init__()
        if not timm.is_model(config.name):
            raise ValueError(f"timm has no tower {config.name!r}: timm.list_models() names them")
        self.config = config
        self.net = timm.create_model(
            config.name, pretrained=load_weights and config.weights == "timm", num_classes=0
        )
        for name in UNUSED:
            if hasattr(self.net, name):
                setattr(self.net, name, nn.Identity())
        own: Path | None = None
        if load_weights and config.weights != "timm":
            own = assets.resolve(config.weights)
            if own.is_file():
                _load_by_order(self.net, own)
        self.dim = int(self.net.num_features)
        size = config.image_size
        # Of a transformer's tokens its class token comes before the patches.
        self.before: int | None = None
        if hasattr(self.net, "num_prefix_tokens") and hasattr(self.net, "set_input_size"):
            self.before = self.net.num_prefix_tokens
            self.net.set_input_size(img_size=size)  # its places are learned for one size
        if own and own.is_dir():
            _load_by_name(self.net, own)
        self.eval()
        with torch.no_grad():
            shape = self.net.forward_features(torch.zeros(1, 3, size, size)).shape
        if self.before is not None:
            self.side = math.isqrt(shape[1] - self.before)
            fits = len(shape) == 3 and self.side**2 == shape[1] - self.before
        else:
            self.side = int(shape[-1])
            fits = len(shape) == 4 and shape[1] == self.dim and shape[2] == shape[3]
        if not fits:
            raise ValueError(
                f"{config.name} gives features {list(shape)}, no square grid: take a convolutional "
                "tower or a vision transformer"
            )
        self.finer: list[int] = []  # the places of the layers taken before the last one
        if config.strides:
            self._take(config.strides, size // self.side)

    def _take(self, strides: Sequence[int], last: int) -> None:
        layers = [] if self.before is not None else list(self.net.feature_info)
        place = {each["reduction"]: number for number, each in enumerate(layers)}
        finer = [stride for stride in place if stride < last and last % stride == 0]
        wanted = set(strides) - {last}
        if last not in strides or wanted - set(finer) or self.config.image_size % last:
            raise ValueError(
                f"strides {list(strides)} of {self.config.name} at {self.config.image_size} px: "
                f"{last} must be among them, and there are {', '.join(map(str, finer)) or 'none'} "
                f"finer; image_size must be a multiple of {last}"
            )
        self.finer = [place[stride] for stride in sorted(wanted)]
        for stride in wanted:
            self.dim += layers[place[stride]]["num_chs"] * (last // stride) ** 2

    @property
    def patches(self) -> int:
        return self.side**2

    def preprocess(self, image: Image.Image) -> Tensor:
        return preprocess(image, self.config.name, self.config.image_size)

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels [b, 3, size, size] → features [b, patches, dim], rows first."""
        if self.finer:
            last, maps = self.net.forward_intermediates(pixels.float(), indices=self.finer)
            beside = [pixel_unshuffle(each, each.shape[-1] // self.side) for each in maps]
            return torch.cat([last, *beside], dim=1).flatten(2).transpose(1, 2)
        found = self.net.forward_features(pixels.float())
        if self.before is not None:
            return found[:, self.before :]
        return found.flatten(2).transpose(1, 2)

    def train(self, mode: bool = True) -> "Tower":
        """Batch statistics of a handful of images are noise: BatchNorm stays in eval mode."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def pointwise(self) -> list[str]:
        """The names of the linear layers and 1 x 1 convolutions, where most weights are: what a
        LoRA adapts.
        """
        return [
            name
            for name, module in self.net.named_modules()
            if isinstance(module, nn.Linear)
            or (
                isinstance(module, nn.Conv2d)
                and module.kernel_size == (1, 1)
                and module.groups == 1
            )
        ]

    def describe(self) -> dict[str, object]:
        return asdict(self.config)


def preprocess(image: Image.Image, tower: str, size: int) -> Tensor:
    """An image of any size and mode → float32 pixels [3, size, size], as that tower wants them.

    Needs no weights: vLLM calls it in a process that has none.
    """
    statistics = timm.get_pretrained_cfg(tower)
    resized = image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC)
    pixels = np.asarray(resized, dtype=np.float32) / 255
    normalised = (pixels - np.float32(statistics.mean)) / np.float32(statistics.std)
    return torch.from_numpy(normalised.transpose(2, 0, 1).copy())


def require_one_size(images: Sequence[Path | Image.Image]) -> None:
    """Of a stack, whose patches must lie behind each other.

    Raises:
        DataError: two sizes among them, or a file that is no image.
    """
    sizes = sorted({size_of(image) if isinstance(image, Path) else image.size for image in images})
    if len(sizes) > 1:
        listed = ", ".join(f"{width} x {height}" for width, height in sizes)
        raise DataError(
            f"A stack's slices must have one size, and these {len(images)} have {listed}: send "
            "slices of one series, or take a connector that reads images one by one."
        )


def _load_by_name(net: nn.Module, folder: Path) -> None:
    """Loads what `models.training.masked` kept.

    Raises:
        assets.AssetError: the folder holds no tower's weights, or another's.
    """
    mend = "copy it anew"
    theirs = {
        k: v for file in assets.weight_files(folder) for k, v in load_tensors(file, mend).items()
    }
    ours = net.state_dict()
    if {k: v.shape for k, v in theirs.items()} != {k: v.shape for k, v in ours.items()}:
        raise assets.AssetError(
            f"{folder} does not hold the weights of this tower at this image_size: take those that "
            "it was trained with."
        )
    net.load_state_dict(theirs)


def _load_by_order(net: nn.Module, path: Path) -> None:
    """Loads a state dict whose layers have other names but the same order and shapes.

    Raises:
        assets.AssetError: the file is not of this architecture.
    """
    theirs = torch.load(path, map_location="cpu", weights_only=True)
    ours = net.state_dict()
    # The file still has the classifier that num_classes=0 left out.
    pairs = list(zip(ours.items(), theirs.items(), strict=False))
    # BatchNorm's four tensors have one shape: the last part of the name tells them apart.
    fit = all(
        a.rpartition(".")[2] == b.rpartition(".")[2] and mine.shape == its.shape
        for (a, mine), (b, its) in pairs
    )
    if len(theirs) - len(ours) not in (0, 2) or not fit:
        raise assets.AssetError(
            f"{path.name} does not hold the weights of this tower: {len(theirs)} tensors where "
            f"{len(ours)} of the same shapes were expected. Name the matching weights in [tower]."
        )
    net.load_state_dict({name: theirs_value for (name, _), (_, theirs_value) in pairs})
