"""`python -m gateway`: the gateway of $CONSILIUM_PANEL on a port, until SIGTERM.

On SIGTERM it is no longer ready but answers on for `load.drain_s`, so that whoever sends it cases
can look elsewhere; then it takes no more, and ends with the last open case. A second signal hurries
it. On SIGHUP it takes up panel.toml as it is now.
"""

import argparse
import contextlib
import ctypes
import logging
import math
import signal
import sys
import time
from ipaddress import ip_address
from types import FrameType

import uvicorn
from fastapi import FastAPI

from gateway.app import create_app
from gateway.door.keys import KeysError
from gateway.settings import SettingsError, load_settings
from gateway.store.readers import ReadersError
from gateway.watch.audit import AuditError

# Longer than proxies keep theirs (nginx: 60): who closes first must not be who is asked.
KEEP_ALIVE_S = 75
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h


class Server(uvicorn.Server):
    """One that says that it is about to stop before it does."""

    def __init__(self, app: FastAPI, config: uvicorn.Config, drain_s: float):
        super().__init__(config)
        self._app, self._drain_s, self._stop_at = app, drain_s, math.inf

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if sig != signal.SIGTERM or self._app.state.draining:
            super().handle_exit(sig, frame)
            return
        self._app.state.draining = True
        self._stop_at = time.monotonic() + self._drain_s

    async def on_tick(self, counter: int) -> bool:
        if time.monotonic() >= self._stop_at:
            self.should_exit = True
        return await super().on_tick(counter)


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m gateway", description=__doc__)
    arguments.add_argument("--host", default="127.0.0.1")
    arguments.add_argument("--port", type=int, default=8000)
    arguments.add_argument(
        "--without-keys",
        action="store_true",
        help="listen beyond this machine though nobody needs a key",
    )
    options = arguments.parse_args()
    _keep_freed_memory()
    try:
        settings = load_settings()
        if not (is_loopback(options.host) or settings.keys or options.without_keys):
            raise SettingsError(
                f"Without keys the gateway listens on 127.0.0.1 only, not on {options.host}: make "
                "a key (consilium key add) and name the file with CONSILIUM_KEYS, or say "
                "--without-keys where only who may ask can reach it"
            )
        app = create_app(settings)
    except (SettingsError, KeysError, AuditError, ReadersError) as error:
        sys.exit(str(error))

    # It warns in plain words of every request that is none.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    config = uvicorn.Config(
        app,
        host=options.host,
        port=options.port,
        access_log=False,
        log_config=None,
        timeout_keep_alive=KEEP_ALIVE_S,
    )
    Server(app, config, settings.load.drain_s).run()


def _keep_freed_memory() -> None:
    """A case takes and frees some megabytes; given back to the system and taken again each time,
    they cost more than all else that the gateway does. Elsewhere than with glibc nothing is done.
    """
    with contextlib.suppress(AttributeError, OSError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(M_TRIM_THRESHOLD, 256 << 20)


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


if __name__ == "__main__":
    main()
