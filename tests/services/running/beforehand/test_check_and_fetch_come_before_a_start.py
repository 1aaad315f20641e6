"""`consilium check`: what a start would stumble over; `consilium fetch`: all that it needs."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.settings import load_settings
from models import assets
from services.running.beforehand.check import check
from services.running.beforehand.fetch import fetch
from services.running.engine import bases, local_seats
from tests.services.cli.test_cli_tells_failure_from_wrong_usage import consilium

ROOT = Path(__file__).parents[4]
PANEL = (ROOT / "panel.toml").read_text("utf-8")


@pytest.fixture
def checked(tmp_path: Path) -> Callable[..., tuple[bool, list[str]]]:
    """What `check` makes of panel.toml with one passage replaced."""

    def run(old: str = "", new: str = "") -> tuple[bool, list[str]]:
        assert old in PANEL
        (tmp_path / "panel.toml").write_text(PANEL.replace(old, new, 1), "utf-8")
        lines: list[str] = []
        settings = load_settings(tmp_path / "panel.toml", {}, with_competence=False)
        return check(settings, lines.append), lines

    return run


@pytest.fixture
def empty_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was fetched yet."""
    monkeypatch.setenv("CONSILIUM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))


@pytest.mark.usefixtures("empty_machine")
def test_every_seat_gets_a_line_and_what_must_be_fetched_is_named(
    checked: Callable[..., tuple[bool, list[str]]],
) -> None:
    """An exported worker needs what it was trained from."""
    good, lines = checked()

    assert good
    assert [line.split(":")[0] for line in lines] == [
        "mobilenet",
        "polyglot",
        "chooser",
        "chooser-efficientnet",
        "memory",
        "summariser",
    ]
    assert lines[0] == (
        "mobilenet: ok: zoo:mobilenet; still to be fetched: "
        "base:mobilenetv2-imagenet, base:smollm2-135m-instruct"
    )


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        (
            "zoo:mobilenet",
            "zoo:mobilnet",
            "mobilenet: no: panel file: mobilenet: model: no zoo",
        ),
        ("zoo:mobilenet", "./nowhere", "mobilenet: no: './nowhere' is no base model: give"),
        ("base:smollm2", "base:smallm2", "summariser: no: Unknown base model 'smallm2"),
        (
            "engine = { max-model-len = 4096 }",
            "engine = { port = 1 }",
            "mobilenet: no: panel file: mobilenet: engine: port is not yours to set; remove it.",
        ),
        (
            "engine = { max-model-len = 4096 }",
            'engine = { lora-modules = "mobilenet=nowhere" }',
            "mobilenet: no: panel file: mobilenet: engine: lora-modules: no adapter_config.json in",
        ),
        ("zoo:mobilenet", "~/mine", "mobilenet: no: '~/mine' is no base model: give"),
        (
            "zoo:mobilenet",
            "docs",
            "mobilenet: no: panel file: mobilenet: model: docs holds neither",
        ),
    ],
)
def test_what_cannot_be_served_is_said_and_the_rest_is_looked_at_too(
    old: str, new: str, line: str, checked: Callable[..., tuple[bool, list[str]]]
) -> None:
    good, lines = checked(old, new)

    assert not good
    assert len(lines) == 6
    assert sum(": no: " in each for each in lines) == 1
    assert any(each.startswith(line) for each in lines), lines


@pytest.mark.usefixtures("empty_machine")
def test_a_folder_that_is_not_there_is_taken_for_a_hubs_model_and_told_so(
    checked: Callable[..., tuple[bool, list[str]]],
) -> None:
    """A path of two words and a hub id are written alike."""
    _, lines = checked("zoo:mobilenet", "runs/mine")

    assert lines[0] == (
        "mobilenet: ok: runs/mine; still to be fetched: runs/mine "
        "(no folder here: runs/mine is taken for a model hub's)"
    )


def test_vllm_is_not_asked_what_is_known_without_it(
    checked: Callable[..., tuple[bool, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes ten seconds to answer, and our own panel needs none of them."""
    monkeypatch.setattr("services.running.beforehand.check._refused_by_vllm", pytest.fail)

    good, _ = checked()

    assert good


def test_vllm_itself_is_asked_about_arguments_that_we_do_not_read(
    checked: Callable[..., tuple[bool, list[str]]],
) -> None:
    """By a program of its own; what it says is the seat's line."""
    old = "engine = { max-model-len = 4096 }"

    good, lines = checked(old, "engine = { max-modle-len = 4096, enforce-eager = true }")

    assert not good
    assert lines[0] == (
        "mobilenet: no: panel file: mobilenet: engine: max-modle-len: vLLM knows no such argument; "
        "is it max-model-len?"
    )
    assert all(": ok: " in line for line in lines[1:])


def test_where_vllm_is_not_installed_that_is_said(
    checked: Callable[..., tuple[bool, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.running.beforehand.check.find_spec", lambda name: None)

    _, lines = checked("engine = { max-model-len = 4096 }", "engine = { max-modle-len = 4096 }")

    said = "vLLM is not installed here: what engine says of mobilenet is not checked"
    assert lines[0] == said


def test_keys_that_the_gateway_could_not_read_are_found_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings(ROOT / "panel.toml", {"CONSILIUM_KEYS": str(tmp_path / "keys.json")})
    lines: list[str] = []

    assert not check(settings, lines.append)
    assert lines[-1].startswith("gateway: no: ")


@pytest.mark.usefixtures("empty_machine")
def test_a_machine_without_a_network_must_have_it_all(
    checked: Callable[..., tuple[bool, list[str]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What CONSILIUM_WEIGHTS does not hold will not come from anywhere else."""
    monkeypatch.setenv("CONSILIUM_WEIGHTS", str(tmp_path))

    good, lines = checked()

    assert not good
    assert lines[-1].startswith("summariser: no: base:smollm2-135m-instruct not in ")


def test_a_seat_that_is_served_elsewhere_is_not_asked(
    checked: Callable[..., tuple[bool, list[str]]],
) -> None:
    """A password in its address is not told."""
    url = "http://user:" + "s3cret@far:9000"
    good, lines = checked('name = "mobilenet"', f'name = "mobilenet"\nurl = "{url}"')

    assert good
    assert lines[0] == "mobilenet: served at http://far:9000, which is not asked here"


@pytest.mark.parametrize(
    ("text", "status", "says"),
    [
        (PANEL, 0, "ok: zoo:mobilenet"),
        (PANEL.replace("zoo:polyglot", "zoo:poly"), 1, "polyglot: no: "),
        (PANEL.replace("quorum = 2", "quorum = 9"), 1, "panel.quorum is 9"),
        (PANEL.replace("zoo/competence", "zoo/incompetence"), 1, "panel.competence: "),
    ],
)
def test_the_command_tells_by_its_exit_status(
    text: str, status: int, says: str, tmp_path: Path
) -> None:
    (tmp_path / "models").symlink_to(ROOT / "models")
    if 'zoo:poly"' in text:
        text = "".join(line for line in text.splitlines(True) if "competence =" not in line)
    (tmp_path / "panel.toml").write_text(text, "utf-8")

    done = consilium("check", str(tmp_path / "panel.toml"))

    assert done.returncode == status, done.stdout + done.stderr
    assert says in done.stdout + done.stderr


def test_the_panel_of_published_models_is_a_panel_file() -> None:
    """It names models of the hub, all of which are fetched by fetch."""
    settings = load_settings(ROOT / "panel.gpu.toml", {})

    assert {base for name in local_seats(settings) for base in bases(settings, name)} == {
        "google/medgemma-4b-it",
        "lingshu-medical-mllm/Lingshu-7B",
        "FreedomIntelligence/HuatuoGPT-Vision-7B-Qwen2.5VL",
        "chaoyinshe/llava-med-v1.5-mistral-7b-hf",
        "mistralai/Mistral-7B-Instruct-v0.3",
    }


def test_everything_a_panel_stands_on_is_fetched_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers and the summariser share a language model; the libraries come too."""
    gathered: list[str] = []
    monkeypatch.setattr(
        "services.running.beforehand.fetch.gather",
        lambda base, folder, report: gathered.append(base),
    )
    monkeypatch.setattr(assets, "_download", _a_file)
    monkeypatch.setattr(assets, "_check", lambda name, file, path: None)

    size = fetch(load_settings(ROOT / "panel.toml", {}), tmp_path / "w", lambda line: None)

    assert gathered == [
        "base:efficientnet-lite0-imagenet",
        "base:gemma3-270m",
        "base:mobilenetv2-imagenet",
        "base:smollm2-135m-instruct",
    ]
    sums = (tmp_path / "w" / "SHA256SUMS").read_text()
    assert sums.endswith("  lib/libnuma.so.1\n")
    assert size == len(sums) + len(b"a library")


def _a_file(name: str, file: object, scratch: Path) -> Path:
    (scratch / "joined").write_bytes(b"a library")
    return scratch / "joined"


def test_a_base_model_is_fetched_carried_and_loaded_without_a_network(tmp_path: Path) -> None:
    """The real SmolLM2, by the real command; then a process that cannot open a connection."""
    panel = tmp_path / "panel.toml"
    panel.write_text(
        '[panel]\nquorum = 1\n[[worker]]\nname = "w0"\nfamily = "f"\nprompt = "{question}"\n'
        'model = "base:smollm2-135m-instruct"\n'
    )
    done = consilium("fetch", "--to", str(tmp_path / "weights"), panel=panel)
    assert done.returncode == 0, done.stderr
    program = (
        "import socket, sys\n"
        "def refuse(event, _):\n"
        "    if event == 'socket.connect': sys.exit('a connection was opened')\n"
        "sys.addaudithook(refuse)\n"
        "from models.assets import resolve\n"
        "print(*sorted(path.name for path in resolve(sys.argv[1], print).iterdir()))\n"
    )
    environment = dict(os.environ) | {
        "CONSILIUM_WEIGHTS": str(tmp_path / "weights"),
        "CONSILIUM_CACHE": str(tmp_path / "cache"),
        "PIP_INDEX_URL": "http://127.0.0.1:9/nothing",
        "PYTHONPATH": str(ROOT),
    }

    found = subprocess.run(
        [sys.executable, "-c", program, "base:smollm2-135m-instruct"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )

    assert found.returncode == 0, found.stderr
    assert "converting smollm2-135m-instruct" in found.stdout
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(found.stdout.split())
