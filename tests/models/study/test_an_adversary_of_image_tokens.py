"""What VQ-GAN adds to the training of image tokens, each part held to a case worked by hand."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from models.parts.codes import Sizes
from models.study import tokens
from models.study.adversary import MOBILENET, Adversary, Eye, adaptive_weight, hinge
from models.study.tokens import Autoencoder

SMALL = Sizes(side=32, codes=8, width=4, channels=32)


@pytest.fixture(scope="module")
def eye() -> Eye:
    return Eye(*MOBILENET, 32)


@pytest.fixture
def pixels() -> Tensor:
    torch.manual_seed(1)
    return torch.rand(6, 3, 32, 32) * 2 - 1


def test_who_is_sure_and_right_has_nothing_to_learn() -> None:
    """Real patches at 2 and 0.5 cost 0 and 0.5, decoded ones at -3 and 1 cost 0 and 2: half of the
    sum of the means 0.25 and 1."""
    found = hinge(torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 1.0]))

    assert found.item() == pytest.approx(0.625)
    assert hinge(torch.tensor([1.0]), torch.tensor([-1.0])).item() == 0


def test_the_adversarys_gradient_becomes_as_long_as_the_reconstructions() -> None:
    """Of two weights: 3a + 4b has a gradient of length 5, 6a - 8b one of length 10."""
    last = torch.tensor([1.0, 1.0], requires_grad=True)
    rebuilt, deceit = last @ torch.tensor([3.0, 4.0]), last @ torch.tensor([6.0, -8.0])

    weight = adaptive_weight(rebuilt, deceit, last)
    (rebuilt + weight * deceit).backward()

    assert weight.item() == pytest.approx(0.5) and not weight.requires_grad
    assert last.grad is not None and last.grad.tolist() == pytest.approx([6, 0], abs=1e-5)
    gone = adaptive_weight(last @ torch.tensor([3.0, 4.0]), (0 * last).sum(), last)
    assert gone.item() == pytest.approx(5e6)  # finite, by δ


def test_an_image_looks_like_itself_and_the_less_so_the_more_it_is_changed(
    eye: Eye, pixels: Tensor
) -> None:
    lot = torch.randn_like(pixels)

    same, near, far = (eye(pixels, pixels + by * lot) for by in (0.0, 0.1, 0.5))

    assert same.tolist() == [0] * 6
    assert (near > 0).all() and (far > near).all()


def test_unlikeness_is_the_square_of_what_lies_between_two_directions(
    eye: Eye, pixels: Tensor
) -> None:
    """Between vectors of length 1 it is 2 - 2 cos: the mean of each layer's places, summed up."""
    one, other = pixels[:1], pixels[1:2]
    seen = [
        eye.net.forward_intermediates(
            ((each + 1) / 2 - eye.mean) / eye.deviation,
            indices=[1, 2, 3],
            intermediates_only=True,
        )
        for each in (one, other)
    ]
    by_hand = [
        2 - 2 * functional.cosine_similarity(a, b).mean() for a, b in zip(*seen, strict=True)
    ]

    assert [each.shape[-1] for each in seen[0]] == [8, 4, 2]
    assert eye(one, other).item() == pytest.approx(sum(by_hand).item(), rel=1e-4)


def test_what_looks_keeps_still_and_what_is_looked_at_moves(eye: Eye, pixels: Tensor) -> None:
    decoded = pixels.flip(0).requires_grad_()

    eye(decoded, pixels).sum().backward()

    assert decoded.grad is not None and decoded.grad.abs().sum() > 0
    assert all(each.grad is None for each in eye.parameters())


def test_an_adversary_learns_to_tell_decoded_from_real(pixels: Tensor) -> None:
    torch.manual_seed(0)
    adversary, blurred = Adversary(torch.device("cpu"), 8), functional.avg_pool2d(pixels, 5, 1, 2)
    before = adversary.deceit(blurred).item()

    for _ in range(60):
        adversary.learn(pixels, blurred)

    assert adversary.deceit(blurred).item() > max(before, 0)
    assert hinge(adversary.net(pixels), adversary.net(blurred)).item() < 0.5


def test_without_them_tokens_are_trained_to_the_bit_as_ever(pixels: Tensor) -> None:
    """The loop as it was before there were any, written out."""
    torch.manual_seed(3)
    model = Autoencoder(SMALL)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 4, eta_min=2e-5)
    for _ in range(4):
        chosen = pixels[torch.randint(6, (2,))]
        decoded, _, commitment = model(chosen)
        loss = functional.mse_loss(decoded, chosen) + functional.l1_loss(decoded, chosen)
        (loss + commitment).backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        schedule.step()

    found = tokens.train(pixels, SMALL, 4, 3, batch=2)

    expected = model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in found.state_dict().items())


@pytest.mark.parametrize(
    ("weights", "learned"), [({}, 0), ({"perceptual": 1.0}, 0), ({"adversarial": 1.0}, 3)]
)
def test_either_changes_them_and_the_adversary_comes_in_at_half(
    weights: dict[str, float], learned: int, pixels: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    lessons: list[Tensor] = []
    learn = Adversary.learn

    def counted(self: Adversary, real: Tensor, decoded: Tensor) -> None:
        lessons.append(decoded)
        learn(self, real, decoded)

    monkeypatch.setattr(Adversary, "learn", counted)
    plain, found = (
        tokens.train(pixels, SMALL, 6, 3, batch=2, **given).decoder[-1].weight
        for given in ({}, weights)
    )

    assert torch.equal(plain, found) == (not weights)
    assert len(lessons) == learned
