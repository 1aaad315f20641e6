"""Image tokens without VQ-GAN's terms and with them: the same seeds, the same held-out images."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models.parts.codes import Sizes
from models.study import tokens, tokens_compared
from models.study.tokens import Autoencoder, TokensError

SMALL = Sizes(side=32, codes=8, width=4, channels=32)
PLAIN, BOTH = (0.0, 0.0), (1.0, 0.8)


def trained(folder: Path, seed: int, weights: tuple[float, float], lot: int) -> Path:
    torch.manual_seed(lot)
    given = dict(zip(("perceptual", "adversarial"), weights, strict=True))
    tokens.save(Autoencoder(SMALL), {"seed": seed, **given}, folder)
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Two seeds without and with, of which one has changed nothing."""
    return [
        trained(tmp_path / "both1", 1, BOTH, lot=1),
        trained(tmp_path / "plain0", 0, PLAIN, lot=0),
        trained(tmp_path / "plain1", 1, PLAIN, lot=1),
        trained(tmp_path / "both0", 0, BOTH, lot=2),
    ]


def test_folders_are_grouped_by_their_terms_and_paired_by_their_seeds(folders: list[Path]) -> None:
    found = tokens_compared.grouped(folders)

    assert [(weights, [each.name for each in group]) for weights, group in found.items()] == [
        (PLAIN, ["plain0", "plain1"]),
        (BOTH, ["both0", "both1"]),
    ]


@pytest.mark.parametrize("given", [[0, 1, 2], [1], [0, 3], [0, 1, 3]])
def test_what_has_no_partner_of_its_seed_is_told(folders: list[Path], given: list[int]) -> None:
    with pytest.raises(TokensError, match="give two or more without the terms, and as many"):
        tokens_compared.grouped([folders[number] for number in given])


def test_each_is_judged_by_what_its_tokens_keep(folders: list[Path]) -> None:
    """The judge hears the images and what the tokens alone are decoded to."""
    model, pixels = tokens.load(folders[1]), torch.rand(70, 3, 32, 32) * 2 - 1
    decoded = model.pixels(model.tokens(pixels))

    said, varied = tokens_compared.judged(model, pixels, {"PSNR, dB": tokens.psnr})

    expected = tokens.psnr(pixels, decoded).double().numpy()
    assert said["PSNR, dB"] == pytest.approx(expected, rel=1e-4)
    assert varied == pytest.approx(tokens.perplexity(model.tokens(pixels), 8))


def test_a_comparison_tells_pairs_and_draws_each_kind(
    folders: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Seed 1 is the same in both groups: half of what seed 0 differs by is the difference."""
    for number in range(3):
        drawn = np.random.default_rng(number).integers(0, 256, (40, 40, 3), np.uint8)
        Image.fromarray(drawn).save(tmp_path / f"{number}.png")
    images = sorted(tmp_path.glob("*.png"))
    monkeypatch.setattr(tokens_compared, "images_of", lambda *_: images)
    out = tmp_path / "out.png"
    asked = ["", *map(str, folders), "--data", str(tmp_path), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", asked)

    tokens_compared.main()

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "perceptual 0, adversarial 0, 2 seeds"
    assert lines[6] == "perceptual 1, adversarial 0.8, 2 seeds"
    pixels = tokens.read(images, 32)
    means = [
        tokens.psnr(model.pixels(model.tokens(pixels)), pixels).mean().item()
        for model in map(tokens.load, folders)
    ]
    assert float(lines[9].split()[2]) == pytest.approx((means[3] - means[1]) / 2, abs=0.001)
    assert Image.open(out).size == (3 * 32, 3 * 32)
