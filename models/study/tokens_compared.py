"""What VQ-GAN's two terms are worth to image tokens: folders of models.study.tokens, of the same
seeds without them and with, compared on held-out images.

    python -m models.study.tokens_compared FOLDER… --data DATA --out PICTURE
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.assets import AssetError
from models.data.example import DataError
from models.metrics.score import Score
from models.study import tokens
from models.study.adversary import MOBILENET, Eye
from models.study.seeds import over_seeds
from models.study.tokens import Autoencoder, TokensError, images_of, perplexity, picture, psnr, ssim

EFFICIENTNET = ("tf_efficientnet_lite0", "base:efficientnet-lite0-imagenet")
PLAIN = (0.0, 0.0)
Weights = tuple[float, float]  # perceptual, adversarial
Judge = Callable[[Tensor, Tensor], Tensor]  # images, and what is decoded → [b]


def grouped(folders: Sequence[Path]) -> dict[Weights, list[Path]]:
    """The folders by what they were trained with, the plain ones first, each in its seeds' order.

    Raises:
        TokensError: one holds no tokens, or not each group has the same two seeds or more.
    """
    found: dict[Weights, dict[int, Path]] = {PLAIN: {}}
    for folder in folders:
        tokens.load(folder)
        told = json.loads((folder / "tokens.json").read_text())
        # Those from before the terms tell of none.
        weights = (told.get("perceptual", 0.0), told.get("adversarial", 0.0))
        found.setdefault(weights, {})[told["seed"]] = folder
    seeds = sorted(found[PLAIN])
    if len(seeds) < 2 or any(sorted(each) != seeds for each in found.values()):
        raise TokensError(
            "Tokens are compared by their seeds: give two or more without the terms, and as many "
            "of the same seeds with each."
        )
    return {weights: [each[seed] for seed in seeds] for weights, each in found.items()}


@torch.no_grad()
def judged(
    model: Autoencoder, pixels: Tensor, judges: dict[str, Judge]
) -> tuple[dict[str, NDArray[np.float64]], float]:
    """Of held-out `pixels` [n, 3, side, side]: what each judge says of each, [n], and the
    codebook's perplexity."""
    numbers = torch.cat([model.tokens(part) for part in pixels.split(64)])
    decoded = torch.cat([model.pixels(part) for part in numbers.split(64)])
    pairs = list(zip(pixels.split(64), decoded.split(64), strict=True))
    said = {
        name: torch.cat([judge(*pair) for pair in pairs]).cpu().double().numpy()
        for name, judge in judges.items()
    }
    return said, perplexity(numbers, model.sizes.codes)


def line(name: str, score: Score) -> str:
    return f"  {name:12} {score.value:+.3f} ({score.low:+.3f} to {score.high:+.3f})"


def main() -> None:
    ask = argparse.ArgumentParser(description="Compare image tokens, by seeds and images.")
    ask.add_argument("folders", type=Path, nargs="+", help="What models.study.tokens wrote.")
    ask.add_argument("--data", type=Path, required=True)
    ask.add_argument(
        "--out", type=Path, required=True, help="Originals above each kind, a picture."
    )
    ask.add_argument("--few", type=int, help="So many images, to see that it runs.")
    told = ask.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    groups = grouped(told.folders)
    side = tokens.load(told.folders[0]).sizes.side
    images = images_of(told.data, "validate")[: told.few]
    pixels = tokens.read(images, side).to(device)
    # EfficientNet is a judge that no tokens were trained to please.
    judges: dict[str, Judge] = {
        "PSNR, dB": psnr, "SSIM": ssim,
        "MobileNetV2": Eye(*MOBILENET, side).to(device),
        "EfficientNet": Eye(*EFFICIENTNET, side).to(device),
    }  # fmt: skip
    shown = pixels[:: max(1, len(pixels) // 8)][:8]
    rows, plain = [shown], dict[str, NDArray[np.float64]]()
    for (perceptual, adversarial), folders in groups.items():
        models = [tokens.load(folder).to(device) for folder in folders]
        rows.append(models[0].pixels(models[0].tokens(shown)))
        each, varied = zip(*(judged(model, pixels, judges) for model in models), strict=True)
        found = {name: np.stack([said[name] for said in each]) for name in judges}
        plain = plain or found
        print(f"perceptual {perceptual:g}, adversarial {adversarial:g}, {len(models)} seeds")
        print("  perplexity  ", *(f"{value:.0f}" for value in varied))
        for name, values in found.items():
            print(line(name, over_seeds(values, images)))
            if found is not plain:
                print(line("  less plain", over_seeds(values - plain[name], images)))
    picture(torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1)).save(told.out)


if __name__ == "__main__":
    try:
        main()
    except (AssetError, DataError, TokensError) as error:
        raise SystemExit(str(error)) from None
