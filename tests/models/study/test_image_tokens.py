"""Image tokens and their masked decoding, each held to a case worked by hand."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from models.parts.codes import COMMITMENT, Codebook, Sizes
from models.parts.vision import Tower, TowerConfig
from models.study import masked_decoding, tokens
from models.study.masked_decoding import (
    HEALTHY,
    UNKNOWN,
    MaskedTransformer,
    decode,
    gumbel,
    imagined,
    losses,
    multivariate_mask,
    rectangles,
)
from models.study.tokens import (
    Autoencoder,
    TokensError,
    perplexity,
    psnr,
    ssim,
)

SMALL = Sizes(side=32, codes=8, width=4, channels=32)
MASK = 2


@pytest.fixture
def autoencoder() -> Autoencoder:
    torch.manual_seed(0)
    return Autoencoder(SMALL).eval()


def test_a_gradient_goes_straight_through_the_nearest_code() -> None:
    book = Codebook(2, 1).eval()
    book.vectors = torch.tensor([[0.0], [1.0]])
    found = torch.tensor([[0.2], [0.9]], requires_grad=True)

    coded, numbers, commitment = book(found)
    (coded * torch.tensor([[3.0], [5.0]])).sum().backward()

    assert coded.flatten().tolist() == [0, 1] and numbers.tolist() == [0, 1]
    assert found.grad is not None and found.grad.flatten().tolist() == [3, 5]
    assert commitment.item() == pytest.approx(COMMITMENT * (0.2**2 + 0.1**2) / 2)


def test_a_code_is_the_mean_of_what_falls_to_it_and_a_dead_one_starts_anew() -> None:
    """After one step from nothing: the first two codes are means, the third, which nothing falls
    to, is one of the patches, as if it had had as many as the others."""
    book = Codebook(3, 1)
    book.vectors = torch.tensor([[0.0], [10.0], [99.0]])

    book(torch.tensor([[1.0], [3.0], [9.0]]))

    assert book.vectors[:2].flatten().tolist() == pytest.approx([2, 9])
    assert book.vectors[2].item() in (1, 3, 9)
    assert book.counts.tolist() == pytest.approx([0.02, 0.01, 0.01])


def test_likenesses_are_what_their_papers_say() -> None:
    """Of two even greys 0.2 apart: 10 log (2² / 0.2²) = 20 dB; and only brightness is unlike."""
    one, other = torch.full((1, 3, 16, 16), 0.5), torch.full((1, 3, 16, 16), 0.3)

    assert psnr(one, other).item() == pytest.approx(20)
    c1 = 0.02**2
    assert ssim(one, other).item() == pytest.approx((0.3 + c1) / (0.34 + c1), rel=1e-3)
    assert ssim(one, one).item() == pytest.approx(1)
    assert perplexity(torch.tensor([0, 1, 2, 3]), 8) == pytest.approx(4)


def test_structural_likeness_is_its_formula_over_one_window() -> None:
    """11 × 11 pixels are one window: the formula with every pixel's weight written out (Wang et al.
    2004, equation 13), its constants for pixels that span 2."""
    lot = np.random.default_rng(0)
    one, other = lot.uniform(-1, 1, (2, 11, 11))
    far = np.subtract.outer(np.arange(11), np.full(11, 5)) ** 2
    weight = np.exp(-(far + far.T) / (2 * 1.5 * 1.5))
    weight /= weight.sum()
    a, b = (weight * one).sum(), (weight * other).sum()
    aa, bb = (weight * (one - a) ** 2).sum(), (weight * (other - b) ** 2).sum()
    ab = (weight * (one - a) * (other - b)).sum()
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    expected = (2 * a * b + c1) * (2 * ab + c2) / ((a * a + b * b + c1) * (aa + bb + c2))

    found = ssim(*(torch.from_numpy(each)[None, None] for each in (one, other)))

    assert found.item() == pytest.approx(expected)


def test_the_mask_shows_the_condition_where_there_is_one() -> None:
    said, condition = torch.tensor([[5, 6, 7, 8]]), torch.tensor([[1, 2, 3, 4]])
    padded = torch.tensor([[False, True, False, True]])
    open_ = torch.tensor([[True, True, False, False]])

    assert multivariate_mask(said, condition, padded, open_, 9).tolist() == [[1, 9, 7, 8]]


def test_the_three_parts_of_the_loss_add_up_to_the_whole() -> None:
    torch.manual_seed(0)
    truth, padded = torch.randint(2, (3, 20)), torch.rand(3, 20) < 0.5
    logits = torch.randn(3, 20, 2)

    parts = losses(lambda given: logits, truth, truth, padded, MASK)

    whole = functional.cross_entropy(logits.flatten(0, 1), truth.flatten())
    assert sum(parts).item() == pytest.approx(whole.item())


def test_each_part_of_the_loss_is_of_the_tokens_that_it_names() -> None:
    """By what was given for a token: its condition, the mask, or itself; equation 5 names them in
    this order. As many are open as the cosine has at a moment drawn by lot: 2/π on the average."""
    torch.manual_seed(0)
    truth, padded = torch.randint(2, (2_000, 16)), torch.rand(2_000, 16) < 0.3
    logits, condition, given = torch.randn(2_000, 16, 2), torch.full_like(truth, 5), []

    def logits_of(tokens: Tensor) -> Tensor:
        given.append(tokens)
        return logits

    parts = losses(logits_of, truth, condition, padded, MASK)

    each = functional.cross_entropy(logits.transpose(1, 2), truth, reduction="none")
    (seen,) = given
    for part, shown in zip(parts, (seen == 5, seen == MASK, seen == truth), strict=True):
        assert part.item() == pytest.approx((each * shown).sum().item() / truth.numel(), rel=1e-4)
    opened = (seen != truth).float().mean().item()
    # Rounded up to whole tokens, half a token of sixteen is added.
    assert opened == pytest.approx(2 / math.pi + 0.5 / 16, abs=0.015)


def test_the_noise_is_gumbels() -> None:
    """Whoever has the largest sum of log-chance and noise is drawn as often as its chance says; the
    mean is Euler's constant."""
    torch.manual_seed(0)
    chances = torch.tensor([0.6, 0.3, 0.1])
    noise = gumbel(torch.zeros(40_000, 3))

    drawn = torch.bincount((chances.log() + noise).argmax(-1)) / 40_000

    assert drawn.tolist() == pytest.approx(chances.tolist(), abs=0.01)
    assert noise.mean().item() == pytest.approx(0.5772, abs=0.02)


def test_what_is_drawn_hears_the_noise() -> None:
    """Of two tokens the less likely, where the noise is for it."""
    likely = torch.tensor([[[0.9, 0.1]]]).log()

    def noise(like: Tensor) -> Tensor:
        return torch.tensor([[[0.0, 5.0]]]) if like.dim() == 3 else torch.zeros_like(like)

    for louder, said in ((noise, 1), (torch.zeros_like, 0)):
        decoded = decode(
            lambda _: likely,
            torch.zeros(1, 1).long(),
            torch.ones(1, 1).bool(),
            MASK,
            1,
            1.0,
            louder,
        )
        assert decoded.tolist() == [[said]]


@pytest.mark.parametrize(
    ("shaken", "second"),
    [
        # Scores 0.9 0.6 0.8 0.7: of 4 tokens ⌈cos(π/4) · 4⌉ = 3 stay open, up to 0.8.
        ([0.0, 0.0, 0.0, 0.0], [1, MASK, MASK, 1]),
        # Noise, at half of the temperature: 0.4 0.6 0.8 1.2, so the last one is settled.
        ([-1.0, 0.0, 0.0, 1.0], [0, MASK, MASK, 1]),
        # 0.825 at half of it, which is still the largest; whole it would be 0.75.
        ([-0.15, 0.0, 0.0, 0.0], [1, MASK, MASK, 1]),
    ],
)
def test_decoding_goes_step_by_step_as_in_the_paper(shaken: list[float], second: list[int]) -> None:
    """The condition is 0 1 0 0 with two in the middle padded; the model says 1 of everything in the
    first step and 0 in the second, which only those that are open hear."""
    condition = torch.tensor([[0, 1, 0, 0]])
    padded = torch.tensor([[False, True, True, False]])
    sure = torch.tensor([0.9, 0.6, 0.8, 0.7])
    given: list[list[int]] = []

    def logits_of(tokens: Tensor) -> Tensor:
        given.append(tokens[0].tolist())
        likely = torch.stack([1 - sure, sure], dim=-1).log()[None]
        return likely if len(given) == 1 else likely.flip(-1)

    def noise(like: Tensor) -> Tensor:
        return torch.tensor([shaken]) if like.dim() == 2 else torch.zeros_like(like)

    said = decode(logits_of, condition, padded, MASK, steps=2, temperature=1.0, noise=noise)

    settled = 3 if shaken[3] else 0
    expected = [0, 0, 0, 0]
    expected[settled] = 1
    second[3 - settled] = 0  # still open, and its condition is there
    assert given == [[0, MASK, MASK, 0], second]
    assert said.tolist() == [expected]


def test_only_what_is_hidden_is_imagined(autoencoder: Autoencoder) -> None:
    model = MaskedTransformer(SMALL.codes, SMALL.grid**2, width=16, layers=1, heads=2).eval()
    pixels, hidden = torch.rand(2, 3, 32, 32), torch.zeros(2, 4, 4, dtype=torch.bool)
    hidden[:, 1, 2] = True

    anew = imagined(autoencoder, model, pixels, hidden)

    changed = (anew != pixels).any(1)
    assert changed[:, 8:16, 16:24].any()
    changed[:, 8:16, 16:24] = False
    assert not changed.any()


@pytest.mark.parametrize("steps", [1, 20])
def test_few_steps_are_as_good_as_many(autoencoder: Autoencoder, steps: int) -> None:
    """Of twenty, one warms up: from no step to itself torch would divide by nothing."""
    pixels, found = torch.zeros(2, 3, 32, 32), torch.tensor([HEALTHY, UNKNOWN])

    model = masked_decoding.train(autoencoder, pixels, found, steps, seed=0, batch=2)

    assert all(weight.isfinite().all() for weight in model.parameters())


def test_what_is_left_out_in_training_is_a_rectangle() -> None:
    for each in rectangles(20, 8, torch.device("cpu")):
        rows, columns = each.any(1), each.any(0)
        assert torch.equal(each, torch.outer(rows, columns))
        assert each.sum() >= 4


def test_tokens_are_read_as_they_were_written_or_refused(
    autoencoder: Autoencoder, tmp_path: Path
) -> None:
    with pytest.raises(TokensError, match="holds no image tokens"):
        tokens.load(tmp_path)
    tokens.save(autoencoder, {"psnr_db": 1.0}, tmp_path)
    pixels = torch.rand(1, 3, 32, 32)

    assert torch.equal(tokens.load(tmp_path).tokens(pixels), autoencoder.tokens(pixels))

    with pytest.raises(TokensError, match="nothing that imagines them"):
        masked_decoding.load(tmp_path, autoencoder)
    save_file({"places": torch.zeros(16, 128)}, tmp_path / "masked.safetensors")
    with pytest.raises(TokensError, match="of another codebook"):
        masked_decoding.load(tmp_path, autoencoder)
    told = (tmp_path / "tokens.json").read_text().replace('"codes": 8', '"codes": 16')
    (tmp_path / "tokens.json").write_text(told)
    with pytest.raises(TokensError, match="another codebook or other sizes"):
        tokens.load(tmp_path)
    (tmp_path / "masked.safetensors").write_bytes(b"")
    with pytest.raises(TokensError, match="is broken, or of another codebook"):
        masked_decoding.load(tmp_path, autoencoder)


def test_what_was_trained_is_a_tower_whose_patches_are_codes(tmp_path: Path) -> None:
    """Each patch is exactly the vector of its token, so a connector gives a code one embedding;
    the other tower has what was found before. A gradient goes straight through."""
    torch.manual_seed(0)
    autoencoder = Autoencoder(Sizes()).eval()
    tokens.save(autoencoder, {}, tmp_path)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 80, 3), np.uint8))
    coded, before = (
        Tower(TowerConfig(name, str(tmp_path / "tower"), 64))
        for name in ("vq_codes", "vq_features")
    )
    pixels = coded.preprocess(image)[None]

    with torch.no_grad():
        features, found = coded(pixels), before(pixels)

    assert torch.equal(pixels[0], tokens.shown(image, 64))
    numbers = autoencoder.tokens(pixels).flatten()
    assert torch.equal(features[0], autoencoder.codebook.vectors[numbers])
    assert torch.equal(autoencoder.codebook.nearest(found[0]), numbers)
    assert not torch.equal(found, features)
    gradients = []
    for tower in (coded, before):
        tower.net.zero_grad()
        (tower(pixels) * torch.arange(32.0)).sum().backward()
        gradients.append(tower.net.encoder[0].weight.grad)
    assert torch.equal(*gradients)


@pytest.mark.parametrize("broken", ["{", "[]", "{}", '{"sizes": {"colour": 3}}'])
def test_a_broken_description_of_tokens_is_told(
    autoencoder: Autoencoder, tmp_path: Path, broken: str
) -> None:
    tokens.save(autoencoder, {}, tmp_path)
    (tmp_path / "tokens.json").write_text(broken)

    with pytest.raises(TokensError, match=r"tokens\.json and .* is broken"):
        tokens.load(tmp_path)


def test_a_schedule_opens_all_and_closes_all() -> None:
    assert masked_decoding.share_open(0.0).item() == 1
    assert masked_decoding.share_open(0.5).item() == pytest.approx(math.sqrt(0.5))
    assert masked_decoding.share_open(1.0).item() == pytest.approx(0, abs=1e-6)
