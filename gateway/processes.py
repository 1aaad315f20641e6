"""Several gateway processes on one port: started, told and stopped as one.

A killed one costs its open cases, and another takes its place. One that ends by itself with an
error would do so again, so all stop. What they share lies in a folder that is gone with them: who
is inside, and the files in which prometheus-client counts for several processes.
"""

import json
import logging
import multiprocessing
import os
import signal
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from socket import socket
from types import FrameType

from prometheus_client.multiprocess import mark_process_dead

from gateway.door.inside import Inside
from gateway.settings import Settings, SettingsError

log = logging.getLogger("consilium.gateway")


@dataclass(frozen=True)
class Siblings:
    """What one of `count` processes knows of the others."""

    count: int
    folder: Path

    @property
    def inside(self) -> Path:
        return self.folder / "inside.sqlite3"

    def reload(self) -> None:
        """All of them take up panel.toml as it is now."""
        os.kill(os.getppid(), signal.SIGHUP)


Serve = Callable[[Settings, Siblings, socket], None]


class Processes:
    """`count` of them, each of which calls `serve` (of a module) on the same listening socket."""

    def __init__(self, count: int, settings: Settings, serve: Serve, listener: socket):
        self._count, self._settings = count, settings
        self._serve, self._listener = serve, listener
        self._running: list[BaseProcess] = []
        self._stopping = False

    def run(self) -> int:
        """Until they are stopped, or one fails; its exit status."""
        status = 0
        with tempfile.TemporaryDirectory(prefix="consilium-") as folder:
            siblings = Siblings(self._count, Path(folder))
            inside = Inside(siblings.inside)
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder  # read where it is imported
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, self._tell)
            for _ in range(self._count):
                self._start(siblings)
            while self._running:
                wait([process.sentinel for process in self._running])
                for process in [each for each in self._running if not each.is_alive()]:
                    self._running.remove(process)
                    inside.forget(_pid(process))
                    mark_process_dead(_pid(process), folder)  # type: ignore[no-untyped-call]
                    if not self._stopping:
                        ended = process.exitcode or 0  # a signal's number is below 0
                        log.warning(json.dumps({"event": "process_ended", "status": ended}))
                        if ended > 0:
                            status = ended
                            self._tell(signal.SIGTERM, None)
                        else:
                            self._start(siblings)
        return status

    def _start(self, siblings: Siblings) -> None:
        arguments = (self._settings, siblings, self._listener)
        process = multiprocessing.get_context("spawn").Process(target=self._serve, args=arguments)
        process.start()
        self._running.append(process)
        if self._stopping:  # since it was begun to be started
            self._tell(signal.SIGTERM, None)

    def _tell(self, number: int, frame: FrameType | None) -> None:
        """A signal to this process is one to all. Whom a SIGHUP meets before he listens for it, it
        ends, and who replaces him begins with the new panel."""
        if number == signal.SIGHUP:
            with suppress(SettingsError):  # every process says why
                self._settings = self._settings.as_it_is_now()
        else:
            number, self._stopping = signal.SIGTERM, True
        for process in list(self._running):
            if process.exitcode is None:
                os.kill(_pid(process), number)


def _pid(process: BaseProcess) -> int:
    assert process.pid is not None  # it was started
    return process.pid
