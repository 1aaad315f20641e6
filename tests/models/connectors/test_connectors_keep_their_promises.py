"""Every connector, the moment its file exists: shapes, gradients, saving, settings."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from models import connectors
from models.positions import grid_positions, stack_positions

SIDE, VISION, TEXT = 4, 24, 32
FEATURES = torch.randn(3, SIDE**2, VISION, generator=torch.Generator().manual_seed(0))
POSITIONS = grid_positions(SIDE)
SMALL: dict[str, dict[str, Any]] = {
    "resampler": {"width": 16, "heads": 2, "queries": 4},
    "qformer": {"width": 16, "heads": 2, "queries": 4},
    "encoder": {"width": 16, "heads": 2},
    "mapper": {"width": 16, "heads": 2, "length": 4},
    "dual": {"processed": {"name": "resampler", "width": 16, "heads": 2, "queries": 4}},
    "moe": {"experts": 4, "hidden": 8},
    "spatial3d": {"hidden": 16},
    "cross_attention": {"width": 16, "heads": 2},
    "gated_cross_attention": {"tokens": {"name": "linear"}, "width": 16, "heads": 2},
    "fusion": {"width": 16, "heads": 2},
}
TEXT_SEEN = torch.randn(3, 5, TEXT, generator=torch.Generator().manual_seed(3))


def made(name: str) -> torch.nn.Module:
    torch.manual_seed(1)
    return connectors.build({"name": name, **SMALL.get(name, {})}, VISION, TEXT)


def tokens(connector: Any, features: torch.Tensor = FEATURES) -> torch.Tensor:
    """Of images one by one; where the connector takes stacks, each is a stack of one."""
    if getattr(connector, "stacks", False):
        return connector(features[:, None], stack_positions(POSITIONS, 1))
    return connector(features, POSITIONS)


def result(connector: Any, features: torch.Tensor = FEATURES) -> torch.Tensor:
    """What the language model sees: tokens, fused tokens, or text that has looked at them."""
    made = tokens(connector, features)
    text = TEXT_SEEN[: len(features)]
    if hasattr(connector, "fuse"):
        return connector.fuse(made, text)
    for block in getattr(connector, "before_layers", ()):
        text = block(text, made, torch.ones(made.shape[:2], dtype=torch.bool))
    return text if hasattr(connector, "before_layers") else made


def open_gates(connector: torch.nn.Module) -> None:
    for name, parameter in connector.named_parameters():
        if name.endswith("_gate"):
            torch.nn.init.constant_(parameter, 0.5)


@pytest.mark.parametrize("name", connectors.names())
def test_it_makes_as_many_tokens_as_it_says(name: str) -> None:
    """vLLM reserves places in the prompt by `num_tokens` before the connector has run."""
    connector = made(name)

    assert tokens(connector).shape == (3, connector.num_tokens(SIDE**2), TEXT)
    for images in range(1, 6):
        if getattr(connector, "stacks", False):
            stack = FEATURES[:1, None].expand(-1, images, -1, -1)
            made_of_them = connector(stack, stack_positions(POSITIONS, images)).shape[1]
        else:
            made_of_them = images * tokens(connector).shape[1]
        assert connector.num_tokens(SIDE**2, images) == made_of_them


@pytest.mark.parametrize("name", connectors.names())
def test_every_weight_learns(name: str) -> None:
    """A weight that no gradient reaches is dead."""
    connector = made(name)
    open_gates(connector)
    target = torch.randn(TEXT, generator=torch.Generator().manual_seed(2))

    (result(connector) * target).square().sum().backward()

    assert [n for n, p in connector.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("name", connectors.names())
def test_it_sees_what_and_where(name: str) -> None:
    """Other features give other tokens, and so do the same features at other places."""
    connector = made(name)
    open_gates(connector)
    moved = FEATURES.flip(1)

    assert not torch.allclose(result(connector), result(connector, FEATURES * 2 - 1))
    assert not torch.allclose(result(connector), result(connector, moved))


@pytest.mark.parametrize("name", connectors.names())
def test_saved_and_loaded_it_is_the_same(name: str, tmp_path: Path) -> None:
    connector, other = made(name), made(name)
    torch.nn.init.normal_(next(other.parameters()))
    save_file(connector.state_dict(), tmp_path / "c.safetensors")

    other.load_state_dict(load_file(tmp_path / "c.safetensors"))

    assert torch.equal(result(connector), result(other))


@pytest.mark.parametrize("name", connectors.names())
def test_an_image_does_not_depend_on_its_neighbours(name: str) -> None:
    """vLLM embeds images in whatever batch they arrive."""
    connector = made(name)

    open_gates(connector)

    together, alone = tokens(connector)[1:2], tokens(connector, FEATURES[1:2])

    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_a_wrong_name_or_setting_says_what_there_is() -> None:
    with pytest.raises(ValueError, match=r"Unknown connector 'qformr'. Available: .*resampler"):
        connectors.build({"name": "qformr"}, VISION, TEXT)
    with pytest.raises(ValueError, match=r"'mlp' has no setting depth. It has: hidden, gain"):
        connectors.build({"name": "mlp", "depth": 3}, VISION, TEXT)


def test_the_mappers_mlp_knows_what_and_not_where() -> None:
    torch.manual_seed(1)
    settings = {"name": "mapper", "kind": "mlp", "length": 4, "width": 16, "heads": 2}
    connector = connectors.build(settings, VISION, TEXT)

    prefix = tokens(connector)

    assert prefix.shape == (3, 4, TEXT)
    torch.testing.assert_close(prefix, tokens(connector, FEATURES.flip(1)))
    assert not torch.allclose(prefix, tokens(connector, FEATURES * 2 - 1))


def test_a_patch_is_concatenated_with_the_means_around_it() -> None:
    """At two regions a side and one: its own feature, its quarter's mean, the image's mean."""
    torch.manual_seed(1)
    connector: Any = connectors.build({"name": "concat", "scales": (2, 1)}, VISION, TEXT)
    grid = FEATURES.unflatten(1, (SIDE, SIDE))
    quarters = grid.unflatten(1, (2, 2)).unflatten(3, (2, 2)).mean((2, 4), keepdim=True)
    quarters = quarters.expand(-1, -1, 2, -1, 2, -1).flatten(3, 4).flatten(1, 3)
    whole = FEATURES.mean(1, keepdim=True).expand_as(FEATURES)

    expected = connector.layers(torch.cat([FEATURES, quarters, whole], -1)) * connector.gain

    torch.testing.assert_close(tokens(connector), expected)


def test_a_voxel_is_the_mean_of_its_patches_wherever_the_stack_ends() -> None:
    """Three slices in voxels of two: the last voxels hold one slice."""
    connector: Any = made("spatial3d")
    positions = stack_positions(POSITIONS, 3)
    placed = connector.project(FEATURES) + connector.place(positions)
    placed = placed.unflatten(1, (2, 2, 2, 2)).mean((2, 4)).flatten(1, 2)  # [slices, 4, text_dim]
    voxels = torch.cat([placed[:2].mean(0), placed[2]])

    expected = connector.norm(voxels) * connector.gain

    torch.testing.assert_close(connector(FEATURES[None], positions)[0], expected)


def test_a_stack_knows_which_slice_is_which() -> None:
    """Even within one voxel: the second slice before the first is another stack."""
    connector: Any = connectors.build({"name": "spatial3d", "depth": 1}, VISION, TEXT)
    positions = stack_positions(POSITIONS, 3)
    alike = FEATURES[:1].expand(3, -1, -1)[None]

    first, second, third = connector(alike, positions)[0].chunk(3)

    assert not torch.allclose(first, second) and not torch.allclose(second, third)


def test_a_stack_without_its_places_is_refused() -> None:
    connector = made("spatial3d")

    with pytest.raises(ValueError, match=r"3 images of 16 patches need places \[3, 16, 3\] .* not"):
        connector(FEATURES[None], POSITIONS)


@pytest.mark.parametrize("queried", ["qformer", "mapper"])
def test_learned_queries_do_not_begin_alike(queried: str) -> None:
    """Queries that differ too little at first give one token over and over."""
    torch.manual_seed(1)
    connector = connectors.build({"name": queried}, VISION, TEXT)

    found = torch.nn.functional.normalize(tokens(connector)[0], dim=-1)

    alike = (found @ found.T).fill_diagonal_(0).sum() / (len(found) * (len(found) - 1))
    assert alike < 0.5


def test_an_image_that_goes_to_few_experts_is_told_by_a_loss() -> None:
    """DeepSeek-V3's sequence-wise balance loss, whose gradient reaches the gate."""
    connector: Any = made("moe")
    connector(FEATURES, POSITIONS)
    even = connector.imbalance
    with torch.no_grad():
        connector.gate.weight[0] += 2 * connector.norm(FEATURES).mean(dim=(0, 1))
    connector(FEATURES, POSITIONS)

    assert even.shape == (3,) and (connector.imbalance > even).all()
    connector.imbalance.sum().backward()
    assert connector.gate.weight.grad.any()


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
        ({"name": "encoder", "heads": 5}, r"width \(256\) must be a multiple of heads \(5\)"),
        ({"name": "mapper", "kind": "lstm"}, r"mapper: kind: Input should be 'mlp' or"),
        ({"name": "mlp", "hidden": -3}, r"mlp: hidden: Input should be greater than 0"),
        ({"name": "expand", "tokens": 0}, r"expand: tokens: Input should be greater than 0"),
        ({"name": "resampler", "queries": "four"}, r"resampler: queries: Input should be a valid"),
        ({"name": "dual", "processed": {"name": "x"}}, r"Unknown connector 'x'"),
        (
            {"name": "dual", "processed": {"name": "fusion"}},
            r"'fusion' cannot be a part of another",
        ),
        ({"name": "cross_attention", "heads": 5}, r"cross_attention: width \(384\) must be"),
        ({"name": "gated_cross_attention", "blocks": 0}, r"blocks: Input should be greater than 0"),
    ],
)
def test_settings_that_cannot_be_are_told(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        connectors.build(settings, VISION, TEXT)
