"""Every connector, the moment its file exists: shapes, gradients, saving, settings."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from models import connectors
from models.positions import grid_positions

SIDE, VISION, TEXT = 4, 24, 32
FEATURES = torch.randn(3, SIDE**2, VISION, generator=torch.Generator().manual_seed(0))
POSITIONS = grid_positions(SIDE)
SMALL: dict[str, dict[str, Any]] = {
    "resampler": {"width": 16, "heads": 2, "queries": 4},
    "qformer": {"width": 16, "heads": 2, "queries": 4},
    "mapper": {"width": 16, "heads": 2, "length": 4},
    "dual": {"processed": {"name": "resampler", "width": 16, "heads": 2, "queries": 4}},
    "moe": {"experts": 4, "hidden": 8},
}


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


def test_the_mappers_mlp_knows_what_and_not_where() -> None:
    torch.manual_seed(1)
    settings = {"name": "mapper", "kind": "mlp", "length": 4, "width": 16, "heads": 2}
    connector = connectors.build(settings, VISION, TEXT)

    tokens = connector(FEATURES, POSITIONS)

    assert tokens.shape == (3, 4, TEXT)
    torch.testing.assert_close(tokens, connector(FEATURES.flip(1), POSITIONS))
    assert not torch.allclose(tokens, connector(FEATURES * 2 - 1, POSITIONS))


def test_the_sparse_mixture_equals_a_dense_one() -> None:
    """Every expert on every patch, weighed by a gate that is zero for those not chosen."""
    connector: Any = made("moe")
    connector.bias.copy_(torch.tensor([0.3, -0.3, 0.0, 0.1]))  # selection sees it, weights do not
    normal = connector.norm(FEATURES)
    affinity = connector.gate(normal).sigmoid()
    chosen = (affinity + connector.bias).topk(2, dim=-1).indices
    gate = torch.zeros_like(affinity).scatter(-1, chosen, affinity.gather(-1, chosen))
    gate = gate / gate.sum(-1, keepdim=True)
    dense = connector.shared[0](normal) + sum(
        expert(normal) * gate[..., number, None] for number, expert in enumerate(connector.routed)
    )

    sparse = connector(FEATURES, POSITIONS)

    torch.testing.assert_close(sparse, connector.out(dense) * connector.gain)
    assert connector.load.sum(-1).tolist() == [2 * SIDE**2] * 3


def test_a_mixture_learns_to_share_the_load() -> None:
    """Only the bias moves, and by it alone the busiest expert is chosen less."""
    connector: Any = made("moe")
    with torch.no_grad():
        connector.gate.weight[0] += 2 * connector.norm(FEATURES).mean(dim=(0, 1))
    connector(FEATURES, POSITIONS)
    before = connector.load.sum(0)
    weights = {name: value.clone() for name, value in connector.named_parameters()}

    for _ in range(500):
        connector(FEATURES, POSITIONS)
        connector.balance(connector.load.sum(0))

    spread = connector.load.sum(0).float().std() / before.float().std()
    assert spread < 0.5
    assert all(torch.equal(weights[name], value) for name, value in connector.named_parameters())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "moe", "active": 9}, r"active \(9\) must be .* at most experts \(8\)"),
        ({"name": "qformer", "heads": 5}, r"width \(384\) must be a multiple of heads \(5\)"),
        ({"name": "mapper", "kind": "lstm"}, r"mapper: kind: Input should be 'mlp' or"),
        ({"name": "mlp", "hidden": -3}, r"mlp: hidden: Input should be greater than 0"),
        ({"name": "expand", "tokens": 0}, r"expand: tokens: Input should be greater than 0"),
        ({"name": "resampler", "queries": "four"}, r"resampler: queries: Input should be a valid"),
        ({"name": "dual", "processed": {"name": "x"}}, r"Unknown connector 'x'"),
    ],
)
def test_settings_that_cannot_be_are_told(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        connectors.build(settings, VISION, TEXT)
