"""A vision transformer or a vision Mamba from scratch, by images alone: most of an image is hidden,
and the tower is to tell its pixels (Xie et al. 2022, "SimMIM").

What comes of it is a folder that a recipe's `[tower] weights` may name.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

import models.cpu_torch  # noqa: F401  before timm, which imports torchvision

# isort: split
import timm

from models.data.pixels import open_rgb
from models.parts.vision import Tower
from models.tensors import save_whole

HIDDEN = 0.6  # of an image, in squares of two patches, or their neighbours would tell them
RATE, DECAY, WARMUP = 8e-4, 0.05, 0.1
REPORT_EVERY = 50  # steps


class MaskedPixels(nn.Module):
    """A tower with a token for what is hidden, and a layer that tells a patch's pixels.

    Raises:
        ValueError: it is no network of single patches, or has an odd number of them on a side.
    """

    def __init__(self, tower: Tower):
        super().__init__()
        if not hasattr(tower.net, "patch_embed") or tower.side % 2:
            raise ValueError(
                f"{tower.config.name} has no even grid of patches to hide: take a vision "
                "transformer or a vision Mamba, and an image_size of an even number of patches"
            )
        self.tower = tower
        (self.patch, _) = tower.net.patch_embed.patch_size
        self.token = nn.Parameter(torch.zeros(tower.dim))
        self.pixels = nn.Linear(tower.dim, 3 * self.patch**2)

    def forward(self, pixels: Tensor, hidden: Tensor) -> Tensor:
        """Pixels [b, 3, size, size], hidden patches [b, patches] → their mean absolute error."""

        def hide(_: nn.Module, __: object, patches: Tensor) -> Tensor:
            return torch.where(hidden[..., None], self.token.to(patches.dtype), patches)

        handle = self.tower.net.patch_embed.register_forward_hook(hide)
        try:
            told = self.pixels(self.tower(pixels))
        finally:
            handle.remove()
        true = functional.unfold(pixels, self.patch, stride=self.patch).transpose(1, 2)
        return (told.float() - true).abs().mean(-1)[hidden].mean()

    def drawn(self, images: int) -> Tensor:
        """What to hide of so many images, by torch's random numbers: [images, patches]"""
        squares = self.tower.side // 2
        order = torch.rand(images, squares**2).argsort(-1)
        hidden = (order < HIDDEN * squares**2).unflatten(1, (squares, squares))
        return hidden.repeat_interleave(2, 1).repeat_interleave(2, 2).flatten(1)


def pretrain(
    tower: Tower, images: Sequence[Path], steps: int, batch: int, report: Callable[[str], None]
) -> None:
    """Trains `tower` where it lies, by torch's random numbers; all `images` are in memory at once,
    a byte for each value.

    Raises:
        DataError: an image that cannot be read.
        ValueError: as MaskedPixels.
    """
    device = next(tower.parameters()).device
    size = tower.config.image_size
    model = MaskedPixels(tower).to(device).train()
    shown = torch.stack([_bytes(path, size) for path in images])
    known = timm.get_pretrained_cfg(tower.config.name)
    mean, std = (
        torch.tensor(each, device=device).view(3, 1, 1) for each in (known.mean, known.std)
    )
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY)
    schedule = one_cycle(optimiser, RATE, steps, WARMUP)
    for step in range(1, steps + 1):
        picked = shown[torch.randint(len(shown), (batch,))].to(device).float() / 255
        hidden = model.drawn(batch).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type != "cpu"):
            loss = model((_moved(picked) - mean) / std, hidden)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % REPORT_EVERY == 0 or step == steps:
            report(f"step {step} of {steps}: a hidden pixel is {loss.item():.3f} off")
    tower.eval()


def one_cycle(
    optimiser: torch.optim.Optimizer, rate: float, steps: int, warmup: float
) -> torch.optim.lr_scheduler.OneCycleLR:
    """Up to `rate` in a part `warmup` of the steps, and down again in the others."""
    part = warmup if warmup * steps > 1 else 0.0  # of a single step torch would divide by none
    return torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, steps, pct_start=part)


def keep(tower: Tower, folder: Path) -> None:
    """Writes what `[tower] weights` may name."""
    folder.mkdir(parents=True, exist_ok=True)
    save_whole(tower.net.state_dict(), folder / "model.safetensors")


def _bytes(path: Path, size: int) -> Tensor:
    """The image, squeezed to a square: [3, size, size] of bytes."""
    image = open_rgb(path).resize((size, size))
    return (
        torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
        .view(size, size, 3)
        .permute(2, 0, 1)
    )


def _moved(images: Tensor) -> Tensor:
    """Each shifted by up to a tenth and scaled by up to a fifth, by torch's random numbers."""
    count = len(images)
    scale, shift = 1 - 0.2 * torch.rand(count, 1, 1), 0.2 * torch.rand(count, 2, 1) - 0.1
    change = torch.cat([scale * torch.eye(2), shift], dim=-1).to(images.device)
    grid = functional.affine_grid(change, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
