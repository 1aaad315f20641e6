"""Every connector, the moment its file exists: shapes, gradients, saving, settings."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from models import connectors
from models.positions import grid_positions

SIDE, VISION, TEXT = 4, 24, 32
FEATURES = torch.randn(3, SIDE**2, VISION, generator=torch.Generator().manual_seed(0))
POSITIONS = grid_positions(SIDE)
SMALL = {"resampler": {"width": 16, "heads": 2, "queries": 4}}


def made(name: str) -> torch.nn.Module:
    torch.manual_seed(1)
    return connectors.build({"name": name, **SMALL.get(name, {})}, VISION, TEXT)


@pytest.mark.parametrize("name", connectors.names())
def test_it_makes_as_many_tokens_as_it_says(name: str) -> None:
    """vLLM reserves places in the prompt by `num_tokens` before the connector has run."""
    connector = made(name)

    assert connector(FEATURES, POSITIONS).shape == (3, connector.num_tokens(SIDE**2), TEXT)
    assert connector.num_tokens(SIDE**2, 2) == 2 * connector.num_tokens(SIDE**2)


@pytest.mark.parametrize("name", connectors.names())
def test_every_weight_learns(name: str) -> None:
    """A weight that no gradient reaches is dead."""
    connector = made(name)
    target = torch.randn(TEXT, generator=torch.Generator().manual_seed(2))

    (connector(FEATURES, POSITIONS) * target).square().sum().backward()

    assert [n for n, p in connector.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("name", connectors.names())
def test_it_sees_what_and_where(name: str) -> None:
    """Other features give other tokens, and so do the same features at other places."""
    connector = made(name)
    moved = FEATURES.flip(1)

    assert not torch.allclose(
        connector(FEATURES, POSITIONS), connector(FEATURES * 2 - 1, POSITIONS)
    )
    assert not torch.allclose(connector(FEATURES, POSITIONS), connector(moved, POSITIONS))


@pytest.mark.parametrize("name", connectors.names())
def test_saved_and_loaded_it_is_the_same(name: str, tmp_path: Path) -> None:
    connector, other = made(name), made(name)
    torch.nn.init.normal_(next(other.parameters()))
    save_file(connector.state_dict(), tmp_path / "c.safetensors")

    other.load_state_dict(load_file(tmp_path / "c.safetensors"))

    assert torch.equal(connector(FEATURES, POSITIONS), other(FEATURES, POSITIONS))


@pytest.mark.parametrize("name", connectors.names())
def test_an_image_does_not_depend_on_its_neighbours(name: str) -> None:
    """vLLM embeds images in whatever batch they arrive."""
    connector = made(name)

    together = connector(FEATURES, POSITIONS)[1:2]

    torch.testing.assert_close(together, connector(FEATURES[1:2], POSITIONS), rtol=1e-4, atol=1e-5)


def test_a_wrong_name_or_setting_says_what_there_is() -> None:
    with pytest.raises(ValueError, match=r"Unknown connector 'qformr'. Available: .*resampler"):
        connectors.build({"name": "qformr"}, VISION, TEXT)
    with pytest.raises(ValueError, match=r"'mlp' has no setting depth. It has: hidden, gain"):
        connectors.build({"name": "mlp", "depth": 3}, VISION, TEXT)
