"""A seat of panel.toml becomes a vLLM command line that the pinned vLLM understands."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.settings import Settings, load_settings, url_variable
from services.running import engine
from services.running.beforehand.vllm_parser import complaint, vllm_parser
from services.running.deploying import containers
from services.running.engine import (
    EngineError,
    arguments_of,
    compiled_at,
    engines,
    flags,
    launch,
    local_urls,
    longest,
    model_folder,
    most_logprobs,
    number,
)

ROOT = Path(__file__).parents[3]
SEATS = tuple(engines(load_settings(ROOT / "panel.toml", {})))


@pytest.fixture
def settings() -> Settings:
    return load_settings(ROOT / "panel.toml", {})


@pytest.fixture(scope="session")
def vllm_parse() -> Callable[[tuple[str, ...]], Any]:
    """vLLM's own parser for its server's command line."""
    parser = vllm_parser()
    return lambda command: parser.parse_args(list(command[3:]))


@pytest.fixture
def edited(tmp_path: Path) -> Callable[[str, str], Settings]:
    """The settings of panel.toml with one passage replaced."""

    def edit(old: str, new: str) -> Settings:
        text = (ROOT / "panel.toml").read_text("utf-8")
        assert old in text
        panel = tmp_path / "panel.toml"
        panel.write_text(text.replace(old, new, 1), "utf-8")
        return load_settings(panel, {}, with_competence=False)

    return edit


@pytest.mark.parametrize("build", ["cpu", "gpu"])
@pytest.mark.parametrize("name", SEATS)
def test_vllm_understands_every_seats_command_line(
    name: str,
    build: str,
    settings: Settings,
    vllm_parse: Callable[[tuple[str, ...]], Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """On both builds, so that a GPU box is not the first to try its own."""
    monkeypatch.setattr(engine, "is_cpu_build", lambda: build == "cpu")
    server = launch(settings, name, tmp_path)

    parsed = vllm_parse(server.command)

    assert server.command[1:3] == ("-m", "vllm.entrypoints.openai.api_server")
    assert parsed.model == str(tmp_path)
    assert parsed.served_model_name == [name]
    assert (parsed.host, server.url) == ("127.0.0.1", f"http://127.0.0.1:{parsed.port}")
    assert parsed.max_model_len == (2048 if name == "summariser" else 4096)
    if name == "summariser":
        assert parsed.quantization == "bitsandbytes"
    else:
        assert parsed.limit_mm_per_prompt == {"image": 1}
    assert parsed.enforce_eager is (build == "cpu")


@pytest.mark.parametrize("name", SEATS)
def test_a_container_runs_the_same_server_for_the_whole_compose_network(
    name: str,
    settings: Settings,
    vllm_parse: Callable[[tuple[str, ...]], Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """The command in docker-compose.yml, followed to the vLLM command line that it becomes."""
    from typer.testing import CliRunner

    from services.cli.__main__ import app

    became: list[tuple[str, ...]] = []
    monkeypatch.setattr(engine, "is_cpu_build", lambda: False)
    monkeypatch.setattr(engine, "model_folder", lambda settings, name: tmp_path)
    monkeypatch.setattr(os, "execve", lambda path, command, environment: became.append(command))
    monkeypatch.setenv(url_variable(name), "http://127.0.0.1:8100")
    program, *arguments = containers.engine(name).command

    result = CliRunner().invoke(app, [*arguments, "--panel", str(ROOT / "panel.toml")])

    assert program == "consilium"
    assert result.exit_code == 0, result.output
    parsed = vllm_parse(became[0])
    assert parsed.host == "0.0.0.0"
    assert parsed.port == 8100


def test_servers_on_one_gpu_share_it(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM alone would take nine tenths for the first, and the second would not start."""
    monkeypatch.setattr(engine, "is_cpu_build", lambda: False)

    shares = [share_of(launch(settings, name, Path("m")).command) for name in engines(settings)]

    assert 0.8 < sum(shares) <= 0.9


def test_servers_on_one_gpu_share_it_by_their_memory(
    edited: Callable[[str, str], Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model of seven billion parameters does not fit into a small one's part."""
    monkeypatch.setattr(engine, "is_cpu_build", lambda: False)
    text = (ROOT / "panel.toml").read_text("utf-8")
    start = text.index("[[worker]]")
    sized = text[start:].replace("\nengine =", "\nmemory_gb = 1\nengine =")
    settings = edited(text[start:], sized.replace("memory_gb = 1\n", "memory_gb = 6\n", 1))

    shares = {
        name: share_of(launch(settings, name, Path("m")).command) for name in engines(settings)
    }

    assert shares.pop("mobilenet") == pytest.approx(0.54, abs=0.01)
    assert list(shares.values()) == [pytest.approx(0.09, abs=0.01)] * 4


def test_a_server_with_a_gpu_of_its_own_takes_what_it_is_given(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the containers of profile `gpu` are told."""
    monkeypatch.setattr(engine, "is_cpu_build", lambda: False)

    assert share_of(launch(settings, "mobilenet", Path("m"), gpu_share=0.9).command) == 0.9


def share_of(command: tuple[str, ...]) -> float:
    return float(command[command.index("--gpu-memory-utilization") + 1])


def test_what_the_seat_says_wins(
    edited: Callable[[str, str], Settings], vllm_parse: Callable[[tuple[str, ...]], Any]
) -> None:
    """Numbers, switches and tables of [[worker]] engine arrive as vLLM means them."""
    settings = edited(
        "engine = { max-model-len = 4096 }",
        "engine = { max-model-len = 512, enforce-eager = true, enable-prefix-caching = false,"
        " limit-mm-per-prompt = { image = 3 } }",
    )
    name = settings.workers[0].name

    parsed = vllm_parse(launch(settings, name, Path("m")).command)

    assert parsed.max_model_len == 512
    assert parsed.enforce_eager is True
    assert parsed.enable_prefix_caching is False
    assert parsed.limit_mm_per_prompt == {"image": 3}


LENGTHS = [4096, "4096", "4k", "4K", "25.6k", "1M", "1m", "2G", " 512 ", "4_096", -1, "-1", "Auto"]


@pytest.mark.parametrize("value", LENGTHS)
def test_a_length_is_read_as_vllm_reads_it(
    value: Any, vllm_parse: Callable[[tuple[str, ...]], Any]
) -> None:
    """None is what vLLM calls -1: as long as the model takes."""
    parsed = vllm_parse(("", "", "", *flags({"max-model-len": value})))

    assert (longest(value) or -1) == parsed.max_model_len


@pytest.mark.parametrize(
    "value", ["4kk", "k", "25.6K", "4 k", 4096.0, "4.5", True, {"tokens": 4096}, "", "1e3"]
)
def test_a_length_that_vllm_refuses_is_refused_before_it_starts(
    value: Any, vllm_parse: Callable[[tuple[str, ...]], Any]
) -> None:
    for read in (longest, number):
        with pytest.raises(ValueError, match="is no number to vLLM; write 4096, or 4k"):
            read(value)
    with pytest.raises(ValueError, match="max-model-len"):
        vllm_parse(("", "", "", *flags({"max-model-len": value})))


@pytest.mark.parametrize("value", [100, " 100 ", "1_000", -1, "-1"])
def test_how_many_may_be_asked_is_read_as_vllm_reads_it(
    value: Any, vllm_parse: Callable[[tuple[str, ...]], Any]
) -> None:
    parsed = vllm_parse(("", "", "", *flags({"max-logprobs": value})))

    assert most_logprobs(value) == parsed.max_logprobs


@pytest.mark.parametrize("value", ["4k", 100.0, "", True, {"tokens": 4}, "many"])
def test_so_many_as_vllm_refuses_is_refused_before_it_starts(
    value: Any, vllm_parse: Callable[[tuple[str, ...]], Any]
) -> None:
    with pytest.raises(ValueError, match="is no number to vLLM; write 100, or -1 for all"):
        most_logprobs(value)
    with pytest.raises(ValueError, match="max-logprobs"):
        vllm_parse(("", "", "", *flags({"max-logprobs": value})))


@pytest.mark.parametrize("key", ["max_model_len", "max-model_len"])
def test_an_underscore_is_a_dash(key: str, edited: Callable[[str, str], Settings]) -> None:
    """To vLLM it is; so what the seat says stands in place of our own, not beside it."""
    settings = edited("engine = { max-model-len = 4096 }", f'engine = {{ {key} = "8k" }}')

    command = launch(settings, "mobilenet", Path("m")).command

    assert command.count("--max-model-len") == 1
    assert command[command.index("--max-model-len") + 1] == "8k"


@pytest.mark.parametrize(
    ("engine_table", "says"),
    [
        ('max-model-len = "4kb"', "max-model-len: '4kb' is no number to vLLM"),
        ("max-model-len = 0", "max-model-len: 0 tokens are none"),
        ('kv_cache_memory_bytes = "lots"', "kv-cache-memory-bytes: 'lots' is no number to vLLM"),
        ('max_logprobs = "4k"', "max-logprobs: '4k' is no number to vLLM; write 100, or -1"),
        ("max-model-len = 1, max_model_len = 2", "max-model-len stands there twice; keep one"),
        ("served_model_name = 'x'", "served_model_name is not yours to set"),
        ("por = 1", "por is not yours to set"),
    ],
)
def test_what_an_engine_table_says_wrongly_is_one_line(
    engine_table: str, says: str, edited: Callable[[str, str], Settings]
) -> None:
    settings = edited("engine = { max-model-len = 4096 }", f"engine = {{ {engine_table} }}")

    with pytest.raises(EngineError, match=f"^panel file: mobilenet: engine: {says}"):
        arguments_of(settings, "mobilenet")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            {"max-modle-len": 4096},
            "max-modle-len: vLLM knows no such argument; is it max-model-len?",
        ),
        ({"max-model": 4096}, "max-model: vLLM knows no such argument; is it "),
        ({"zzzz": True}, "zzzz: vLLM knows no such argument."),
        ({"dtype": "bfloat17"}, "argument --dtype: invalid choice: 'bfloat17'"),
        ({"max-num-seqs": "many"}, "argument --max-num-seqs: invalid int value: 'many'"),
    ],
)
def test_vllm_is_asked_what_it_takes(
    arguments: dict[str, Any], says: str, vllm_parse: Callable[[tuple[str, ...]], Any]
) -> None:
    parser = vllm_parser()

    assert (complaint(parser, flags(arguments)) or "").startswith(says)
    assert (
        complaint(parser, flags({"enforce-eager": False, "limit-mm-per-prompt.image": 2})) is None
    )


def test_nothing_that_an_engine_compiles_goes_where_nothing_may_run(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A hardened /tmp runs nothing; the cache folder is ours."""
    monkeypatch.setenv("CONSILIUM_CACHE", str(tmp_path))
    monkeypatch.setenv("TRITON_CACHE_DIR", "/tmp/triton")

    environment = launch(settings, "mobilenet", Path("m")).environment

    for variable, folder in compiled_at(tmp_path).items():
        assert environment[variable] == folder
        assert Path(folder).is_relative_to(tmp_path)


def test_what_python_compiles_at_one_start_is_there_at_the_next(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Beside the sources where that may be, else in the cache folder."""
    monkeypatch.setenv("CONSILIUM_CACHE", str(tmp_path))
    module = tmp_path / "module.py"
    module.write_text("")

    def found_after_a_start() -> list[Path]:
        environment = launch(settings, "mobilenet", Path("m")).environment | {
            "PYTHONPATH": str(tmp_path)
        }
        subprocess.run([sys.executable, "-c", "import module"], env=environment, check=True)
        return list(tmp_path.rglob("module.*.pyc"))

    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    assert [each.is_relative_to(tmp_path / "vllm") for each in found_after_a_start()] == [True]
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE")
    assert tmp_path / "__pycache__" in {each.parent for each in found_after_a_start()}


def test_what_lies_where_a_server_is_started_is_not_taken_for_a_package(
    settings: Settings, tmp_path: Path
) -> None:
    """Neither by it nor by the processes that it starts: `models` is a common name for a folder."""
    for package in ("models", "gateway", "vllm"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("raise SystemExit('shadowed')")
    program = (
        "import subprocess, sys\n"
        "if len(sys.argv) > 1: import gateway, models.exported\n"
        "else: subprocess.run([sys.executable, '-m', 'models.exported'], check=True)\n"
    )
    environment = launch(settings, "summariser", Path("m")).environment

    for arguments in ([], ["child"]):
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            cwd=tmp_path,
            env=environment | {"PYTHONPATH": f"{environment['PYTHONPATH']}:{ROOT}"},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr


def test_a_seats_adapter_answers_to_its_name_and_the_base_does_not(
    edited: Callable[[str, str], Settings], vllm_parse: Callable[[tuple[str, ...]], Any]
) -> None:
    """vLLM looks among its base's names first; other seats' adapters may share the engine."""
    settings = edited(
        "engine = { max-model-len = 4096 }",
        "engine = { enable-lora = true, max-loras = 2,"
        ' lora-modules = ["mobilenet=adapters/a", "other=adapters/b"] }',
    )

    parsed = vllm_parse(launch(settings, "mobilenet", Path("m")).command)

    assert [(each.name, each.path) for each in parsed.lora_modules] == [
        ("mobilenet", "adapters/a"),
        ("other", "adapters/b"),
    ]
    assert parsed.served_model_name == ["mobilenet@base"]
    assert parsed.enable_lora is True


@pytest.mark.parametrize(
    ("modules", "says"),
    [
        ('"other=adapters/b"', "none is called mobilenet; the base would answer in its place"),
        ('"adapters/a"', 'write "SEAT=FOLDER", or a list of such'),
    ],
)
def test_an_adapter_that_nobody_would_ask_is_refused(
    modules: str, says: str, edited: Callable[[str, str], Settings]
) -> None:
    settings = edited(
        "engine = { max-model-len = 4096 }", f"engine = {{ lora-modules = {modules} }}"
    )

    with pytest.raises(EngineError, match=f"mobilenet: engine: lora-modules: {says}"):
        launch(settings, "mobilenet", Path("m"))


@pytest.mark.parametrize("key", ["host", "port", "model", "served-model-name"])
def test_what_the_gateway_relies_on_is_not_the_seats_to_set(
    key: str, edited: Callable[[str, str], Settings]
) -> None:
    """Least of all the address: an engine listens on loopback."""
    settings = edited("engine = { max-model-len = 4096 }", f'engine = {{ {key} = "other" }}')

    with pytest.raises(EngineError, match=f"engine: {key} is not yours to set; remove it"):
        launch(settings, settings.workers[0].name, Path("m"))


def test_a_name_that_is_not_seated_is_told_who_is(settings: Settings) -> None:
    """The mend is in the message."""
    with pytest.raises(EngineError, match="seats no 'mobilnet'; it seats mobilenet, polyglot"):
        launch(settings, "mobilnet", Path("m"))


def test_a_zoo_model_that_is_not_there_is_told_what_is(
    edited: Callable[[str, str], Settings],
) -> None:
    """And a reference cannot climb out of the zoo."""
    for wrong in ("zoo:nobody", "zoo:../recipes"):
        settings = edited("zoo:mobilenet", wrong)
        with pytest.raises(EngineError, match=f"model: no {wrong}; models/zoo holds"):
            model_folder(settings, "mobilenet")


def test_a_worker_that_is_served_elsewhere_is_not_started(
    edited: Callable[[str, str], Settings],
) -> None:
    """Neither by the stack nor by hand. A password in its address is not told."""
    url = "http://user:" + "s3cret@far:9000"
    settings = edited('name = "mobilenet"', f'name = "mobilenet"\nurl = "{url}"')

    assert "mobilenet" not in local_urls(settings)
    with pytest.raises(EngineError, match="mobilenet is served at http://far:9000"):
        launch(settings, "mobilenet", Path("m"))


@pytest.mark.skipif(not engine.is_cpu_build(), reason="only the CPU build needs it")
def test_every_process_of_a_cpu_server_can_import_torchvision(settings: Settings) -> None:
    """The index's torchvision is a CUDA build, and fails beside a CPU torch."""
    server = launch(settings, "summariser", Path("m"))

    done = subprocess.run(
        [sys.executable, "-c", "import torchvision, torchvision.ops"],
        env=server.environment,
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert done.returncode == 0, done.stderr
