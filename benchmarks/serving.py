"""A gateway, or another server, in a process of its own, before workers at given addresses."""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import httpx


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


PORT = free_port()
URL = f"http://127.0.0.1:{PORT}"


@contextlib.contextmanager
def gateway(
    workers: Sequence[str],
    panel: str,
    environ: Mapping[str, str] | None = None,
    cores: Collection[int] | None = None,
    program: Sequence[str] = ("-m", "gateway"),
    tables: str = "",
) -> Iterator[int]:
    """Listens at URL inside the block; gives its process id. `panel` is the table [panel], `tables`
    others. Every case may ask something new: nothing is asked over grey behind it, which the next
    would feel."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "panel.toml"
        file.write_text(panel_file(workers, panel) + tables)
        command = [sys.executable, *program, f"--port={PORT}"]
        env = os.environ | {"CONSILIUM_PANEL": str(file)} | dict(environ or {})
        with server(command, f"{URL}/health/live", env, cores) as process:
            yield process


@contextlib.contextmanager
def server(
    command: Sequence[str],
    health: str,
    env: Mapping[str, str] | None = None,
    cores: Collection[int] | None = None,
    up_s: float = 60,
) -> Iterator[int]:
    """Runs inside the block, on `cores` where they are given; gives its process id once `health`
    answers, which it must within `up_s`."""
    with _on(cores or os.sched_getaffinity(0)):  # every thread that it starts stays there
        process = subprocess.Popen(
            command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
    try:
        _wait_until_up(process, health, up_s)
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def panel_file(workers: Sequence[str], panel: str) -> str:
    seats = "".join(
        f'[[worker]]\nname = "w{seat}"\nfamily = "f{seat}"\nmodel = "mock"\nurl = "{url}"\n'
        'prompt = "{question}"\n'
        for seat, url in enumerate(workers)
    )
    return f"[panel]\n{panel}\ngrounding = false\n[load]\ndrain_s = 0\n{seats}"


@contextlib.contextmanager
def _on(cores: Collection[int]) -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _wait_until_up(process: subprocess.Popen[bytes], health: str, up_s: float) -> None:
    for _ in range(int(up_s * 10)):
        if _answers(health):
            return
        if process.poll() is not None:
            break
        time.sleep(0.1)
    raise SystemExit(f"Nothing came up at {health}.")


def _answers(url: str) -> bool:
    try:
        httpx.get(url, trust_env=False)
    except httpx.TransportError:
        return False
    return True
