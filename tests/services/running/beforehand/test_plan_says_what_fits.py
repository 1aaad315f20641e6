"""`consilium plan`: what fits on which GPU, or one line that says what does not."""

import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from gateway.settings import Settings, load_settings
from services.cli.running import plan as plan_command
from services.running.beforehand.check import check
from services.running.beforehand.plan import (
    ALLOWANCE_GB,
    CASES,
    GB,
    Need,
    PlanError,
    needs,
    place,
    plan,
    read_gpus,
)
from services.running.engine import engines, gpu_shares
from tests.services.cli.test_cli_tells_failure_from_wrong_usage import consilium

ROOT = Path(__file__).parents[4]
TEXT = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
}


def write_model(folder: Path, shapes: Mapping[str, list[int]], config: Mapping[str, Any]) -> Path:
    """A model's folder, whose safetensors file has a header and nothing after it."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    header |= {
        name: {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}
        for name, shape in shapes.items()
    }
    raw = json.dumps(header).encode()
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(raw)) + raw)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def panel(tmp_path: Path) -> Callable[..., Settings]:
    """A panel of one worker w0 of the given model, and a summariser if one is given."""

    def write(model: Path | str, more: str = "", summariser: Path | None = None) -> Settings:
        text = f'[panel]\nquorum = 1\n[[worker]]\nname = "w0"\nfamily = "f"\nmodel = "{model}"\n'
        text += f'prompt = "{{question}}"\n{more}\n'
        if summariser:
            text += f'[summariser]\nmodel = "{summariser}"\nprompt.en = "{{question}}{{answers}}"\n'
        (tmp_path / "panel.toml").write_text(text, "utf-8")
        return load_settings(tmp_path / "panel.toml", {})

    return write


def test_weights_and_cache_are_counted_from_the_files(
    panel: Callable[..., Settings], tmp_path: Path
) -> None:
    """Loaded in bfloat16 whatever they are stored as; keys and values for some cases at once."""
    shapes = {"model.layers.0.w": [1024, 1024], "model.norm": [64]}
    model = write_model(tmp_path / "m", shapes, {"text_config": TEXT})

    need = needs(panel(model, "engine = { max-model-len = 1000 }"))["w0"]

    assert need.weights_gb == pytest.approx(2 * (1024 * 1024 + 64) / GB)
    # Two layers, two heads of 8 numbers each, keys and values, two bytes.
    cache_gb = CASES * 1000 * (2 * 2 * 2 * 8 * 2) / GB
    assert need.total_gb == pytest.approx(need.weights_gb + cache_gb + ALLOWANCE_GB)
    assert not need.stated


@pytest.mark.parametrize(
    ("engine", "tokens"),
    [
        ('max_model_len = "2k"', 2000),
        ('max-model-len = "2K"', 2048),
        ("max-model-len = -1", 300),
        ('max-model-len = "auto"', 300),
        ("enforce-eager = true", 2048),
    ],
)
def test_the_cache_is_as_long_as_vllm_makes_it(
    engine: str, tokens: int, panel: Callable[..., Settings], tmp_path: Path
) -> None:
    """-1 leaves it to the model."""
    model = write_model(tmp_path / "m", {"w": [1]}, TEXT | {"max_position_embeddings": 300})

    need = needs(panel(model, f"engine = {{ {engine} }}"))["w0"]

    assert need.weights_gb is not None
    cache_gb = need.total_gb - need.weights_gb - ALLOWANCE_GB
    assert cache_gb == pytest.approx(CASES * tokens * (2 * 2 * 2 * 8 * 2) / GB)


def test_a_cache_that_the_seat_states_is_taken_as_it_is(
    panel: Callable[..., Settings], tmp_path: Path
) -> None:
    model = write_model(tmp_path / "m", {"w": [1]}, TEXT)

    need = needs(panel(model, 'engine = { kv_cache_memory_bytes = "2G" }'))["w0"]

    assert need.total_gb == pytest.approx(2 + ALLOWANCE_GB, abs=1e-6)


def test_a_quantised_summariser_counts_its_layers_at_four_bits(
    panel: Callable[..., Settings], tmp_path: Path
) -> None:
    """The embeddings stay as they are."""
    shapes = {"model.layers.0.w": [1024, 1024], "model.embed_tokens.weight": [512, 64]}
    model = write_model(tmp_path / "m", shapes, TEXT)

    need = needs(panel(model, summariser=model))["summariser"]

    packed = 1024 * 1024 * (0.5 + 4 / 64)
    assert need.weights_gb == pytest.approx((packed + 2 * 512 * 64) / GB)


def test_what_the_seat_says_is_taken_unless_it_cannot_be(
    panel: Callable[..., Settings], tmp_path: Path
) -> None:
    """memory_gb is what vLLM will be given; less than the weights is a mistake."""
    gigabyte = {"model.layers.0.w": [GB // 2]}
    model = write_model(tmp_path / "m", gigabyte, TEXT)

    assert needs(panel(model, "memory_gb = 5"))["w0"] == Need(5, 1.0, stated=True)
    with pytest.raises(PlanError, match=r"w0: memory_gb is 2, but its weights take 1\.0 GB"):
        needs(panel(model, "memory_gb = 2"))


def test_weights_that_are_not_here_need_a_size(panel: Callable[..., Settings]) -> None:
    with pytest.raises(PlanError, match=r"w0: no-such-owner/no-such-model is not on.*memory_gb"):
        needs(panel("no-such-owner/no-such-model"))
    assert needs(panel("no-such-owner/no-such-model", "memory_gb = 9"))["w0"].total_gb == 9


def test_weights_in_another_format_need_one_too(
    panel: Callable[..., Settings], tmp_path: Path
) -> None:
    """They counted for nothing, and each GPU had room."""
    model = write_model(tmp_path / "m", {}, TEXT)
    (model / "model.safetensors").rename(model / "pytorch_model.bin")

    with pytest.raises(PlanError, match=r"w0: .* holds no safetensors, .*; write memory_gb"):
        needs(panel(model))
    assert needs(panel(model, "memory_gb = 9"))["w0"] == Need(9, None, stated=True)


def test_weights_that_were_cut_short_are_told(
    panel: Callable[..., Settings], tmp_path: Path
) -> None:
    """Whatever their first bytes say of the rest."""
    weights = write_model(tmp_path / "m", {"a": [2]}, TEXT) / "model.safetensors"
    for content in (weights.read_bytes()[:20], b"", b"\xff" * 9):
        weights.write_bytes(content)
        with pytest.raises(PlanError, match=r"model\.safetensors is broken or cut short: copy or"):
            needs(panel(tmp_path / "m"))


def test_an_exported_worker_is_made_ready_where_all_of_it_is_here(
    panel: Callable[..., Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `check` says that it is, merged or not; what is absent, both name."""
    merged = write_model(tmp_path / "merged", {"w": [GB // 2]}, TEXT)
    settings = panel("zoo:mobilenet", "engine = { max-model-len = 1000 }")
    monkeypatch.setattr("services.running.beforehand.plan.model_folder", lambda *_: merged)
    said: list[str] = []

    monkeypatch.setattr("models.assets.at_hand", lambda base: tmp_path)
    assert needs(settings)["w0"].weights_gb == 1.0
    assert check(settings, said.append)

    monkeypatch.setattr("models.assets.at_hand", lambda base: None)
    absent = "base:mobilenetv2-imagenet, base:smollm2-135m-instruct"
    with pytest.raises(PlanError, match=f"w0: {absent} is not on this machine"):
        needs(settings)
    assert check(settings, said.append)
    assert said == [
        "w0: ok: zoo:mobilenet, all of it on this machine",
        f"w0: ok: zoo:mobilenet; still to be fetched: {absent}",
    ]


def test_a_config_without_the_sizes_needs_one_too(
    panel: Callable[..., Settings], tmp_path: Path
) -> None:
    model = write_model(tmp_path / "m", {"w": [1]}, {"text_config": {"hidden_size": 64}})

    with pytest.raises(PlanError, match=r"does not say num_attention_heads; write memory_gb"):
        needs(panel(model))


def needing(**sizes: float) -> dict[str, Need]:
    return {name: Need(size, None, stated=True) for name, size in sizes.items()}


def test_the_largest_is_placed_first_and_each_on_the_first_gpu_with_room() -> None:
    """In the panel's order 30 and 20 would fill the first GPU's 72, and 50 would have no place."""
    places = place(needing(a=30, b=20, c=50, d=2), (80, 40))

    assert [each.gpus for each in places.values()] == [(1,), (0,), (0,), (0,)]
    assert list(places) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("gpus", [(80.0,), (48.0, 48.0), (24.0, 24.0, 24.0, 24.0, 24.0)])
def test_no_gpu_is_promised_twice(gpus: tuple[float, ...]) -> None:
    """Each gets its share, rounded up, and a tenth of every GPU is left alone."""
    wanted = needing(a=18, b=18.5, c=11.3, d=6.7, e=0.3)

    places = place(wanted, gpus)

    for gpu, size in enumerate(gpus):
        mine = {name: each.share for name, each in places.items() if gpu in each.gpus}
        assert sum(mine.values()) <= 0.9 + 1e-9
        assert all(share * size >= wanted[name].total_gb - 1e-9 for name, share in mine.items())


def test_who_spreads_over_several_takes_equal_ones(
    panel: Callable[..., Settings], tmp_path: Path
) -> None:
    """An equal part on each; CUDA and the like take theirs on every one."""
    model = write_model(tmp_path / "m", {"model.layers.0.w": [GB]}, TEXT)
    settings = panel(
        model, 'engine = { tensor_parallel_size = 2, kv-cache-memory-bytes = "1073741824" }'
    )

    assert needs(settings)["w0"] == Need(2 + 2 * (1 + ALLOWANCE_GB), 2.0, stated=False, gpus=2)
    assert plan(settings, (24, 8, 8)) == [
        "w0  gpu 1,2    7.0 GB  (2.0 weights, computed)",
        "gpu 0: 0.0 of the 21.6 GB that may be used",
        "gpu 1: 3.5 of the 7.2 GB that may be used",
        "gpu 2: 3.5 of the 7.2 GB that may be used",
    ]
    assert place(needs(settings), (8, 8))["w0"].share == 0.438
    with pytest.raises(PlanError, match=r"w0 needs 3\.5 GB on each and no 2 equal GPUs have that"):
        plan(settings, (80,))


def test_what_fits_nowhere_is_one_sentence_with_the_sizes() -> None:
    with pytest.raises(PlanError, match=r"b needs 30\.0 GB and no GPU has more than 12\.0 left"):
        place(needing(a=60, b=30), (80,))


@pytest.mark.parametrize("text", ["80", "0x80", "1x0", "1x80;2x24", "x", "1x80,", "-1x80"])
def test_gpus_that_are_not_understood_are_told_how(text: str) -> None:
    with pytest.raises(PlanError, match="such as 1x80 or 2x80,1x24"):
        read_gpus(text)


def test_gpus_are_counted_in_order() -> None:
    assert read_gpus("2x80, 1x24.5") == (80, 80, 24.5)


def test_the_panel_of_published_models_fits_one_large_gpu() -> None:
    """And each server then gets, by engine.py, at least what was planned for it."""
    settings = load_settings(ROOT / "panel.gpu.toml", {})

    lines = plan(settings, (80.0,))

    assert lines[-1] == "gpu 0: 71.0 of the 72.0 GB that may be used"
    wanted = needs(settings)
    assert all(
        80 * share >= wanted[name].total_gb for name, share in gpu_shares(engines(settings)).items()
    )


@pytest.mark.parametrize(("gpus", "status"), [("1x80", 0), ("2x48", 0), ("1x48", 1), ("1*80", 1)])
def test_the_command_tells_by_its_exit_status(gpus: str, status: int) -> None:
    done = consilium("plan", "--gpus", gpus, panel=ROOT / "panel.gpu.toml")

    assert done.returncode == status
    lines = (done.stderr if status else done.stdout).splitlines()
    assert len(lines) == (1 if status else 5 + int(gpus[0]))


@pytest.mark.parametrize(("gpus", "rate", "run"), [(None, 3.0, None), ("1x80", None, ROOT)])
def test_a_rate_and_the_run_that_tells_of_it_go_together(
    gpus: str | None, rate: float | None, run: Path | None, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        plan_command(gpus, rate, run, panel=ROOT / "panel.gpu.toml")

    said = capsys.readouterr()
    assert said.err.startswith("consilium: --rate and --run RUN go together") and not said.out
