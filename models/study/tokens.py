"""Discrete image tokens: a vector-quantised autoencoder (van den Oord et al. 2017) on the sets;
with VQ-GAN's two terms where they are asked for (models.study.adversary).

DIR/tokens.safetensors   its weights      DIR/tokens.json   its sizes, and what it was worth
DIR/tokens.png           held-out images above what their tokens hold of them
DIR/tower                encoder and codes, as a recipe's [tower] may name them

python -m models.study.tokens --data DATA --out DIR
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from models.assets import AssetError
from models.data import slake, vqa_med_2019
from models.data.example import DataError
from models.data.pixels import open_rgb
from models.files import make_folder, write_whole
from models.parts.codes import Codebook, Residual, Sizes, encoder
from models.study.adversary import MOBILENET, Adversary, Eye, adaptive_weight
from models.tensors import save_whole


class TokensError(Exception):
    """A folder of tokens that cannot be used; one sentence that says why and how to mend it."""


class Autoencoder(nn.Module):
    """Pixels from -1 to 1, [b, 3, side, side], and their tokens, [b, grid, grid]."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        self.sizes, c = sizes, sizes.channels
        self.encoder = encoder(sizes)
        self.codebook = Codebook(sizes.codes, sizes.width)
        self.decoder = nn.Sequential(
            nn.Conv2d(sizes.width, c, 3, 1, 1), Residual(c), Residual(c),
            nn.ConvTranspose2d(c, c // 2, 4, 2, 1), Residual(c // 2),
            nn.ConvTranspose2d(c // 2, c // 4, 4, 2, 1), nn.SiLU(),
            nn.ConvTranspose2d(c // 4, 3, 4, 2, 1),
        )  # fmt: skip

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What is decoded, the tokens, and the commitment loss."""
        found = self.encoder(pixels).permute(0, 2, 3, 1)  # [b, grid, grid, width]
        coded, numbers, commitment = self.codebook(found.flatten(0, 2))
        decoded = self.decoder(coded.view(found.shape).permute(0, 3, 1, 2))
        return decoded, numbers.view(found.shape[:3]), commitment

    @torch.no_grad()
    def tokens(self, pixels: Tensor) -> Tensor:
        found = self.encoder(pixels).permute(0, 2, 3, 1)
        return self.codebook.nearest(found.flatten(0, 2)).view(found.shape[:3])

    @torch.no_grad()
    def pixels(self, tokens: Tensor) -> Tensor:
        coded = self.codebook.vectors[tokens].permute(0, 3, 1, 2)
        decoded: Tensor = self.decoder(coded)
        return decoded.clamp(-1, 1)


def psnr(one: Tensor, other: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in decibels of each image, pixels from -1 to 1."""
    return 10 * torch.log10(4 / (one - other).square().flatten(1).mean(1))


def ssim(one: Tensor, other: Tensor) -> Tensor:
    """Structural similarity of each image, pixels from -1 to 1 (Wang et al. 2004: a Gaussian window
    of 11 pixels and deviation 1.5, K₁ 0.01, K₂ 0.03)."""
    x = torch.arange(11, device=one.device) - 5.0
    line = torch.exp(-x.square() / (2 * 1.5**2))
    window = torch.outer(line, line) / line.sum() ** 2

    def blurred(image: Tensor) -> Tensor:
        kernel = window.expand(image.shape[1], 1, 11, 11).to(image)
        return functional.conv2d(image, kernel, groups=image.shape[1])

    a, b = blurred(one), blurred(other)
    aa, bb = blurred(one * one) - a * a, blurred(other * other) - b * b
    ab = blurred(one * other) - a * b
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    likeness = (2 * a * b + c1) * (2 * ab + c2) / ((a * a + b * b + c1) * (aa + bb + c2))
    return likeness.flatten(1).mean(1)


def perplexity(numbers: Tensor, codes: int) -> float:
    """How many codes would be as varied, if they were used alike."""
    share = torch.bincount(numbers.flatten(), minlength=codes).double() / numbers.numel()
    return float(torch.exp(-(share * share.clamp(min=1e-12).log()).sum()))


def shown(image: Image.Image, side: int) -> Tensor:
    """[3, side, side], from -1 to 1."""
    resized = image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.asarray(resized, np.float32) / 127.5 - 1).permute(2, 0, 1)


def picture(pixels: Tensor) -> Image.Image:
    """[3, h, w] from -1 to 1 → an image."""
    eight = ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte()
    return Image.fromarray(eight.permute(1, 2, 0).cpu().numpy())


def images_of(data: Path, split: str) -> list[Path]:
    """SLAKE's images of a split and VQA-Med's, each once.

    Raises:
        DataError: a set cannot be read.
    """
    found = [
        *slake.load(data / "slake", split, "en"),
        *vqa_med_2019.load(data / "vqa_med_2019", split, "en"),
    ]
    return sorted({image for example in found for image in example.images})


def read(images: Sequence[Path], side: int) -> Tensor:
    return torch.stack([shown(open_rgb(image), side) for image in images])


def train(
    pixels: Tensor,
    sizes: Sizes,
    steps: int,
    seed: int,
    batch: int = 32,
    perceptual: float = 0.0,
    adversarial: float = 0.0,
) -> Autoencoder:
    """On `pixels` [n, 3, side, side], wherever they lie. The last two weigh what VQ-GAN adds
    (models.study.adversary); its adversary comes in at half of the steps.

    Raises:
        AssetError: the weights for the perceptual term cannot be had.
    """
    torch.manual_seed(seed)
    with torch.random.fork_rng(devices=()):  # with them and without the same lots are drawn
        eye = Eye(*MOBILENET, sizes.side).to(pixels.device) if perceptual else None
        adversary = Adversary(pixels.device) if adversarial else None
    model = Autoencoder(sizes).to(pixels.device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps, eta_min=2e-5)
    for step in range(steps):
        chosen = pixels[torch.randint(len(pixels), (batch,), device=pixels.device)]
        decoded, _, commitment = model(chosen)
        # Alike in brightness and, by the absolute difference, in edges.
        rebuilt = functional.mse_loss(decoded, chosen) + functional.l1_loss(decoded, chosen)
        if eye:
            rebuilt = rebuilt + perceptual * eye(decoded, chosen).mean()
        loss = rebuilt + commitment
        if adversary and step >= steps // 2:
            deceit = adversary.deceit(decoded)
            weight = adaptive_weight(rebuilt, deceit, model.decoder[-1].get_parameter("weight"))
            loss = loss + adversarial * weight * deceit
        loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        schedule.step()
        if adversary and step >= steps // 2:
            adversary.learn(chosen, decoded)
        if (step + 1) % 200 == 0:
            print(f"step {step + 1}/{steps}  loss {rebuilt.item():.4f}", flush=True)
    return model.eval()


@torch.no_grad()
def worth(model: Autoencoder, pixels: Tensor) -> dict[str, float]:
    """Of held-out `pixels`: PSNR in dB, SSIM, and the codebook's perplexity."""
    parts = [model(part) for part in pixels.split(64)]
    decoded = torch.cat([part[0] for part in parts]).clamp(-1, 1)
    return {
        "psnr_db": psnr(decoded, pixels).mean().item(),
        "ssim": ssim(decoded, pixels).mean().item(),
        "perplexity": perplexity(torch.cat([part[1] for part in parts]), model.sizes.codes),
        "images": len(pixels),
    }


def save(model: Autoencoder, figures: dict[str, float], out: Path) -> None:
    make_folder(out / "tower")
    weights = {name: value.cpu().contiguous() for name, value in model.state_dict().items()}
    save_whole(weights, out / "tokens.safetensors")
    seen = {name: value for name, value in weights.items() if not name.startswith("decoder.")}
    save_whole(seen, out / "tower" / "model.safetensors")
    told = {"sizes": asdict(model.sizes), **figures}
    write_whole(out / "tokens.json", json.dumps(told, indent=1))


def load(folder: Path) -> Autoencoder:
    """What `save` wrote.

    Raises:
        TokensError: nothing of the kind lies there, it is broken, or its weights have other sizes
            than it says.
    """
    try:
        told = json.loads((folder / "tokens.json").read_text())
        model = Autoencoder(Sizes(**told["sizes"]))
        model.load_state_dict(load_file(folder / "tokens.safetensors"))
    except FileNotFoundError as error:
        raise TokensError(
            f"{folder} holds no image tokens: python -m models.study.tokens --out {folder} "
            "makes them."
        ) from error
    except (RuntimeError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise TokensError(
            f"{folder}: one of tokens.json and tokens.safetensors is broken, or they tell of "
            "another codebook or other sizes: train them anew."
        ) from error
    return model.eval()


def side_by_side(model: Autoencoder, pixels: Tensor) -> Image.Image:
    """Images above what their tokens hold of them."""
    decoded = model.pixels(model.tokens(pixels))
    rows = [torch.cat(list(each), dim=2) for each in (pixels, decoded)]
    return picture(torch.cat(rows, dim=1))


def main() -> None:
    ask = argparse.ArgumentParser(description="Train image tokens on SLAKE's and VQA-Med's images.")
    ask.add_argument("--data", type=Path, required=True)
    ask.add_argument("--out", type=Path, required=True)
    ask.add_argument("--steps", type=int, default=1500)
    ask.add_argument("--seed", type=int, default=0)
    ask.add_argument("--few", type=int, help="So many images of each split, to see that it runs.")
    ask.add_argument("--perceptual", type=float, default=0.0, help="VQ-GAN's first term's weight.")
    ask.add_argument("--adversarial", type=float, default=0.0, help="That of its second.")
    told = ask.parse_args()
    sizes, device = Sizes(), "cuda" if torch.cuda.is_available() else "cpu"
    pixels, held_out = (
        read(images_of(told.data, split)[: told.few], sizes.side).to(device)
        for split in ("train", "validate")
    )
    began = time.monotonic()
    given = {"perceptual": told.perceptual, "adversarial": told.adversarial}
    model = train(pixels, sizes, told.steps, told.seed, **given)
    figures = worth(model, held_out) | {"seconds": round(time.monotonic() - began)}
    save(model, figures | {"steps": told.steps, "seed": told.seed} | given, told.out)
    side_by_side(model, held_out[:: max(1, len(held_out) // 8)][:8]).save(told.out / "tokens.png")
    print(json.dumps(figures))


if __name__ == "__main__":
    try:
        main()
    except (AssetError, DataError) as error:
        raise SystemExit(str(error)) from None
