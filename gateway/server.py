"""The process that answers: it listens, drains, stops.

On SIGTERM it is no longer ready but answers on for `load.drain_s`, so that whoever sends it cases
can look elsewhere; then it takes no more, and ends with the last open case. A second signal hurries
it.
"""

import contextlib
import ctypes
import gc
import logging
import math
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from types import FrameType

import uvicorn
from fastapi import FastAPI

from gateway.app import create_app
from gateway.door.heads import Heads
from gateway.door.keys import KeysError
from gateway.processes import Siblings
from gateway.settings import Settings
from gateway.store.readers import ReadersError
from gateway.watch.audit import AuditError

# Longer than proxies keep theirs (nginx: 60): who closes first must not be who is asked.
KEEP_ALIVE_S = 75
TAKEN_IN_AT_ONCE = 16  # callers, in one turn of the loop
TICKS_A_MINUTE = 600  # of uvicorn's
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h


class Server(uvicorn.Server):
    """One that says that it is about to stop before it does."""

    def __init__(self, app: FastAPI, drain_s: float):
        # It warns in plain words of every request that is none.
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        super().__init__(
            uvicorn.Config(
                app,
                http=Heads,
                access_log=False,
                log_config=None,
                timeout_keep_alive=KEEP_ALIVE_S,
            )
        )
        self._parent = multiprocessing.parent_process()
        self._app, self._drain_s, self._stop_at = app, drain_s, math.inf

    def run(self, sockets: Sequence[socket.socket] | None = None) -> None:
        """On sockets that are bound, of which each is asked several times a turn of the loop:
        uvloop takes in one caller a turn, and when the gateway is behind a turn is long. Those who
        are not taken in wait for minutes, where admission would have told them to come again."""
        # One that blocks is copied as one that does, and whether it does is of all who share it: a
        # process that started would let the others wait for a caller whom somebody else took.
        for one in sockets or ():
            one.setblocking(False)
        again = [one.dup() for one in sockets or () for _ in range(TAKEN_IN_AT_ONCE - 1)]
        super().run([*(sockets or ()), *again])

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if sig != signal.SIGTERM or self._app.state.draining:
            super().handle_exit(sig, frame)
            return
        self._app.state.draining = True
        self._stop_at = time.monotonic() + self._drain_s

    async def on_tick(self, counter: int) -> bool:
        if self._parent and os.getppid() != self._parent.pid:  # nobody else would ever stop it
            self.should_exit = True
        if time.monotonic() >= self._stop_at:
            self.should_exit = True
        if counter % TICKS_A_MINUTE == 0:
            give_freed_memory_back()
        return await super().on_tick(counter)


def serve(settings: Settings, siblings: Siblings, listener: socket.socket) -> None:
    """One process of several."""
    keep_freed_memory()
    try:
        app = create_app(settings, siblings)
    except (KeysError, AuditError, ReadersError) as error:
        sys.exit(str(error))
    leave_what_stays()
    Server(app, settings.load.drain_s).run([listener])


def leave_what_stays() -> None:
    """What is there before the first case stays to the end, some hundred thousand objects: a
    collection of garbage that looks through them all lets every open case wait."""
    gc.collect()
    gc.freeze()


def keep_freed_memory() -> None:
    """A case takes and frees some megabytes; given back to the system and taken again each time,
    they cost more than all else that the gateway does: it is kept, for a minute at most. Elsewhere
    than with glibc nothing is done.
    """
    with contextlib.suppress(AttributeError, OSError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(M_TRIM_THRESHOLD, 256 << 20)


def give_freed_memory_back() -> None:
    """To be called now and then: what the largest burst took would stay for good otherwise. Of
    50 MB it takes a millisecond, of a gigabyte twelve."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
