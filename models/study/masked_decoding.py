"""Masked decoding of image tokens: a region is left out and imagined anew (COMMIT: Yu et al. 2023,
MAGVIT, section 3.2), under the prior of images in which nothing was found.

    DIR/masked.safetensors   the transformer's weights      DIR/masked.json   its losses
    DIR/masked.png           held-out images, a region left out, and imagined anew

    python -m models.study.masked_decoding --data DATA --tokens DIR
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from models.data.example import DataError
from models.data.slake.captions import boxes
from models.data.slake.facts import FINDINGS
from models.files import write_whole
from models.study import tokens
from models.study.regions import Hidden, Hide, pasted
from models.study.tokens import Autoencoder, TokensError, images_of, picture, read, shown
from models.tensors import save_whole
from models.training.masked import one_cycle

HEALTHY, FINDING, UNKNOWN = range(3)
STEPS = 12  # of decoding
TEMPERATURE = 0.5


class MaskedTransformer(nn.Module):
    """A bidirectional transformer over a grid of tokens, behind one that says what is found."""

    def __init__(self, codes: int, places: int, width: int = 128, layers: int = 4, heads: int = 4):
        super().__init__()
        self.mask = codes  # the token of what is left out
        self.tokens = nn.Embedding(codes + 1, width)
        self.found = nn.Embedding(3, width)
        self.places = nn.Parameter(torch.randn(places, width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, 0.1, "gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), False)
        self.out = nn.Linear(width, codes)

    def forward(self, given: Tensor, found: Tensor) -> Tensor:
        """Tokens [b, n] and what is found [b] → logits [b, n, codes]."""
        prefix = self.found(found)[:, None]
        seen = torch.cat([prefix, self.tokens(given) + self.places], dim=1)
        logits: Tensor = self.out(self.layers(seen)[:, 1:])
        return logits


class Losses(NamedTuple):
    """The three parts of COMMIT's loss (equation 5), which add up to the cross-entropy of all
    tokens; each summed over its tokens and divided by the number of all."""

    refine: Tensor  # of those that the condition stands in for
    mask: Tensor  # of those that are left out
    reconstruct: Tensor  # of those that are given


def share_open(progress: Tensor | float) -> Tensor:
    """γ, the cosine schedule: all tokens at 0, none at 1."""
    return torch.cos(torch.as_tensor(progress) * math.pi / 2)


def multivariate_mask(
    said: Tensor, condition: Tensor, padded: Tensor, open_: Tensor, mask: int
) -> Tensor:
    """COMMIT's m(z | z̃): of a token that is open, the condition's; the mask where that has been
    padded; else what was said. All [b, n]."""
    return torch.where(open_, torch.where(padded, mask, condition), said)


def smallest(scores: Tensor, count: Tensor) -> Tensor:
    """[b, n], [b] → s*, the count-th smallest score of each, [b, 1]."""
    place = (count.clamp(min=1) - 1)[:, None]
    return scores.sort(dim=1).values.gather(1, place)


def losses(
    logits_of: Callable[[Tensor], Tensor],
    truth: Tensor,
    condition: Tensor,
    padded: Tensor,
    mask: int,
) -> Losses:
    """Of a batch [b, n], with as many tokens open as the schedule has at a moment drawn by lot."""
    scores = torch.rand(truth.shape, device=truth.device)
    count = (share_open(torch.rand(len(truth), device=truth.device)) * truth.shape[1]).ceil().long()
    open_ = scores <= smallest(scores, count)
    logits = logits_of(multivariate_mask(truth, condition, padded, open_, mask))
    each = functional.cross_entropy(logits.transpose(1, 2), truth, reduction="none")
    parts = (open_ & ~padded, open_ & padded, ~open_)
    return Losses(*((each * part).sum() / truth.numel() for part in parts))


def gumbel(like: Tensor) -> Tensor:
    return -torch.empty_like(like).exponential_().log()


@torch.no_grad()
def decode(
    logits_of: Callable[[Tensor], Tensor],
    condition: Tensor,
    padded: Tensor,
    mask: int,
    steps: int = STEPS,
    temperature: float = TEMPERATURE,
    noise: Callable[[Tensor], Tensor] = gumbel,
) -> Tensor:
    """Tokens [b, n] for a condition of which some are padded (MAGVIT, algorithm 1). In each step
    the open ones are drawn; those of the lowest scores, fewer each time, stay open."""
    said = torch.zeros_like(condition)
    scores = torch.zeros(condition.shape, device=condition.device)
    threshold = scores.new_ones(len(scores), 1)
    for step in range(1, steps + 1):
        open_ = scores <= threshold
        logits = logits_of(multivariate_mask(said, condition, padded, open_, mask)).float()
        drawn = (logits + noise(logits)).argmax(-1)
        said = torch.where(open_, drawn, said)
        sure = logits.softmax(-1).gather(-1, said[..., None])[..., 0]
        shaken = sure + temperature * (1 - step / steps) * noise(sure)
        scores = torch.where(open_, shaken, scores)
        count = (share_open(step / steps) * scores.shape[1]).ceil().long()
        threshold = smallest(scores, count.expand(len(scores)).to(scores.device))
        scores = torch.where(scores > threshold, 1.0, scores)
    return said


def left_out(pixels: Tensor, hidden: Tensor, cell: int) -> Tensor:
    """Pixels [b, 3, side, side] without the cells that are hidden, [b, grid, grid]."""
    wide = hidden.repeat_interleave(cell, 1).repeat_interleave(cell, 2)
    return pixels.masked_fill(wide[:, None], 0.0)


def rectangles(count: int, grid: int, device: torch.device) -> Tensor:
    """[count, grid, grid]: a rectangle in each, of a sixteenth of the image up to all of it."""
    size = torch.randint(grid // 4, grid + 1, (count, 2), device=device)
    first = (torch.rand(count, 2, device=device) * (grid + 1 - size)).long()
    place = torch.arange(grid, device=device)
    inside = (place >= first[..., None]) & (place < (first + size)[..., None])  # [count, 2, grid]
    return inside[:, 0, :, None] & inside[:, 1, None, :]


@torch.no_grad()
def imagined(
    autoencoder: Autoencoder, model: MaskedTransformer, pixels: Tensor, hidden: Tensor
) -> Tensor:
    """Pixels [b, 3, side, side] whose hidden cells [b, grid, grid] are decoded anew as if nothing
    were found; all others are as they were."""
    cell = autoencoder.sizes.side // autoencoder.sizes.grid
    condition = autoencoder.tokens(left_out(pixels, hidden, cell)).flatten(1)
    healthy = torch.full((len(pixels),), HEALTHY, device=pixels.device)
    said = decode(lambda given: model(given, healthy), condition, hidden.flatten(1), model.mask)
    anew = autoencoder.pixels(said.view(hidden.shape))
    wide = hidden.repeat_interleave(cell, 1).repeat_interleave(cell, 2)
    return torch.where(wide[:, None], anew, pixels)


def what_is_found(image: Path) -> int:
    """By SLAKE's boxes; of another set's image it is not known."""
    if not image.with_name("detection.json").exists():
        return UNKNOWN
    named = {name for each in boxes(image) for name in each}
    return FINDING if named & FINDINGS else HEALTHY


def train(
    autoencoder: Autoencoder, pixels: Tensor, found: Tensor, steps: int, seed: int, batch: int = 32
) -> MaskedTransformer:
    torch.manual_seed(seed)
    sizes = autoencoder.sizes
    model = MaskedTransformer(sizes.codes, sizes.grid**2).to(pixels.device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    schedule = one_cycle(optimiser, 1e-3, steps, warmup=0.05)
    truth = torch.cat([autoencoder.tokens(part) for part in pixels.split(64)]).flatten(1)
    for step in range(steps):
        chosen = torch.randint(len(pixels), (batch,), device=pixels.device)
        told = drawn_losses(autoencoder, model, pixels[chosen], truth[chosen], found[chosen])
        sum(told).backward()  # type: ignore[union-attr]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        schedule.step()
        if (step + 1) % 200 == 0:
            parts = "  ".join(f"{k} {v.item():.3f}" for k, v in told._asdict().items())
            print(f"step {step + 1}/{steps}  {parts}", flush=True)
    return model.eval()


def drawn_losses(
    autoencoder: Autoencoder, model: MaskedTransformer, pixels: Tensor, truth: Tensor, found: Tensor
) -> Losses:
    """Of a batch of which rectangles are left out by lot."""
    sizes = autoencoder.sizes
    hidden = rectangles(len(pixels), sizes.grid, pixels.device)
    condition = autoencoder.tokens(left_out(pixels, hidden, sizes.side // sizes.grid)).flatten(1)
    cuda = pixels.device.type == "cuda"
    with torch.autocast(pixels.device.type, torch.bfloat16, enabled=cuda):
        return losses(
            lambda given: model(given, found), truth, condition, hidden.flatten(1), model.mask
        )


def load(folder: Path, autoencoder: Autoencoder) -> MaskedTransformer:
    """What this module trained for the tokens that lie in the same folder.

    Raises:
        TokensError: it is not there, broken, or of another codebook.
    """
    sizes = autoencoder.sizes
    model = MaskedTransformer(sizes.codes, sizes.grid**2)
    try:
        model.load_state_dict(load_file(folder / "masked.safetensors"))
    except FileNotFoundError as error:
        raise TokensError(
            f"{folder} has tokens but nothing that imagines them: python -m "
            f"models.study.masked_decoding --tokens {folder} trains it."
        ) from error
    except (RuntimeError, SafetensorError) as error:
        raise TokensError(
            f"{folder}: masked.safetensors is broken, or of another codebook than "
            "tokens.safetensors: train it anew."
        ) from error
    return model.eval()


def imagining(folder: Path, side: int, device: torch.device) -> Hide:
    """Hides cells of a grid of `side` by imagining them anew, without a finding.

    Raises:
        TokensError: what this module trained is not in `folder`, or its tokens lie on a grid that
            such cells do not divide.
    """
    autoencoder = tokens.load(folder).to(device)
    model = load(folder, autoencoder).to(device)
    grid = autoencoder.sizes.grid
    if grid % side:
        fits = ", ".join(str(each) for each in range(2, grid + 1) if grid % each == 0)
        raise TokensError(
            f"{folder} has {grid} tokens in a row, which {side} regions do not divide: take one of "
            f"{fits}."
        )

    def hide(image: Image.Image, hidden: Sequence[Hidden]) -> list[Image.Image]:
        torch.manual_seed(0)
        cells = torch.from_numpy(np.stack(hidden)).to(device)
        fine = cells.repeat_interleave(grid // side, 1).repeat_interleave(grid // side, 2)
        pixels = shown(image, autoencoder.sizes.side).to(device).expand(len(hidden), -1, -1, -1)
        anew = imagined(autoencoder, model, pixels, fine)
        # Only what is hidden comes from the tokens; the rest keeps its sharpness.
        wide = [picture(each).resize(image.size, Image.Resampling.BICUBIC) for each in anew]
        return [pasted(*each) for each in zip(wide, [image] * len(wide), hidden, strict=True)]

    return hide


def main() -> None:
    ask = argparse.ArgumentParser(description="Train the transformer that imagines image tokens.")
    ask.add_argument("--data", type=Path, required=True)
    ask.add_argument("--tokens", type=Path, required=True, help="What models.study.tokens wrote.")
    ask.add_argument("--steps", type=int, default=1500)
    ask.add_argument("--seed", type=int, default=0)
    ask.add_argument("--few", type=int, help="So many images of each split, to see that it runs.")
    told = ask.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    autoencoder = tokens.load(told.tokens).to(device)
    images = {split: images_of(told.data, split)[: told.few] for split in ("train", "validate")}
    pixels, held_out = (read(each, autoencoder.sizes.side).to(device) for each in images.values())
    found, other = (
        torch.tensor([what_is_found(image) for image in each], device=device)
        for each in images.values()
    )
    began = time.monotonic()
    model = train(autoencoder, pixels, found, told.steps, told.seed)
    weights = {name: value.cpu() for name, value in model.state_dict().items()}
    save_whole(weights, told.tokens / "masked.safetensors")
    with torch.no_grad():
        truth = autoencoder.tokens(held_out).flatten(1)
        parts = drawn_losses(autoencoder, model, held_out, truth, other)
    figures = {name: round(value.item(), 4) for name, value in parts._asdict().items()}
    figures |= {"steps": told.steps, "seed": told.seed, "seconds": round(time.monotonic() - began)}
    write_whole(told.tokens / "masked.json", json.dumps(figures, indent=1))
    few = held_out[:: max(1, len(held_out) // 8)][:8]
    hidden = torch.zeros(len(few), *[autoencoder.sizes.grid] * 2, dtype=torch.bool, device=device)
    quarter = autoencoder.sizes.grid // 4
    hidden[:, quarter:-quarter, quarter:-quarter] = True
    grey = left_out(few, hidden, autoencoder.sizes.side // autoencoder.sizes.grid)
    rows = (few, grey, imagined(autoencoder, model, few, hidden))
    lines = [torch.cat(list(row), dim=2) for row in rows]
    picture(torch.cat(lines, dim=1)).save(told.tokens / "masked.png")
    print(json.dumps(figures))


if __name__ == "__main__":
    try:
        main()
    except (DataError, TokensError) as error:
        raise SystemExit(str(error)) from None
