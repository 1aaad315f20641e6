"""A gateway in a process of its own, before workers at given addresses."""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx

PORT = 8098
URL = f"http://127.0.0.1:{PORT}"


@contextlib.contextmanager
def gateway(
    workers: Sequence[str],
    panel: str,
    environ: dict[str, str] | None = None,
    arguments: Sequence[str] = (),
) -> Iterator[int]:
    """Listens at URL inside the block; gives its process id. `panel` is the table [panel]. Every
    case may ask something new: nothing is asked over grey behind it, which the next would feel."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "panel.toml"
        file.write_text(panel_file(workers, panel))
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway", f"--port={PORT}", *arguments],
            env=os.environ | {"CONSILIUM_PANEL": str(file)} | (environ or {}),
            stderr=subprocess.DEVNULL,
        )
        try:
            _wait_until_up()
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


def _wait_until_up() -> None:
    for _ in range(200):
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{URL}/health/live", trust_env=False).is_success:
                return
        time.sleep(0.1)
    raise SystemExit(f"The gateway did not come up on port {PORT}; is the port taken?")
