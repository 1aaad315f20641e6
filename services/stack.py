"""Everything on one machine, started and stopped as one: workers, summariser, gateway.

Each service is a process group of its own with a log of its own. While the stack starts, a service
that dies is a failure; once it has started, `tend` restarts what dies. Whatever ends the stack
(`with` is left, Ctrl-C, SIGTERM, a failure) stops every group; services/guard.py does it where the
stack was killed outright.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self
from urllib.parse import urlsplit

import httpx
from rich.console import Console

from gateway.settings import Settings
from models.assets import cache_dir
from services.engine import Launch, launch, local_names, model_folder

GATEWAY = "gateway"
GUARD = Path(__file__).with_name("guard.py")
POLL_S = 0.5
STOP_GRACE_S = 10.0
FIRST_BACK_OFF_S = 1.0
MAX_BACK_OFF_S = 60.0
MAX_DEATHS_IN_A_ROW = 5


class StackError(Exception):
    """One line: which service could not start, why, and where to look."""


@dataclass
class Service:
    """A server that this stack answers for, and how it has fared."""

    launch: Launch
    log: Path
    probe: str  # the path that answers 200 once the service works
    process: subprocess.Popen[bytes] | None = None
    healthy: bool = False
    deaths: int = 0  # in a row: a restart that becomes healthy clears it
    start_at: float = 0.0  # on time.monotonic(), while the process is down

    @property
    def name(self) -> str:
        return self.launch.name


@dataclass
class Stack:
    """`with Stack(settings, panel_file, console) as stack: stack.start(); …`"""

    settings: Settings
    panel_file: Path
    console: Console
    gateway_port: int = 8000
    services: list[Service] = field(default_factory=list)
    _guard: subprocess.Popen[bytes] | None = None
    _http: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=2.0, trust_env=False))

    @property
    def gateway_url(self) -> str:
        return f"http://127.0.0.1:{self.gateway_port}"

    def __enter__(self) -> Self:
        self._guard = subprocess.Popen(
            [sys.executable, "-I", "-S", str(GUARD)],
            stdin=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C in the terminal must not reach it
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with _signals_held():
            self._stop()

    def start(self, deadline_s: float = 900.0) -> None:
        """Start everything and return once the gateway says that it is ready.

        Raises:
            StackError: a port is taken, a service died, or the deadline passed.
            EngineError, AssetError: a model that panel.toml names cannot be served.
        """
        names = local_names(self.settings)
        self._check_ports(names)
        logs = cache_dir() / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        for name in names:
            self.console.print(f"{name}: getting the model")
            model = model_folder(self.settings, name)
            self._add(launch(self.settings, name, model), logs, "/health")
        self._add(self._gateway(), logs, "/health/live")
        began = time.monotonic()
        for service in self.services:
            service.log.write_bytes(b"")
            self._spawn(service)
        self.console.print(f"starting {', '.join(s.name for s in self.services)}; logs in {logs}")
        self._wait(began, deadline_s)

    def tend(self) -> None:
        """One look at every service: restarts what died, sooner at first and then more rarely.

        A service that dies five times in a row is left down; the gateway answers without it, or
        says that it cannot.
        """
        for service in self.services:
            if service.process is None:
                if service.deaths < MAX_DEATHS_IN_A_ROW and time.monotonic() >= service.start_at:
                    self._spawn(service)
                    self.console.print(f"{service.name}: restarting")
            elif (status := service.process.poll()) is not None:
                self._bury(service)
                service.deaths += 1
                back_off_s = min(MAX_BACK_OFF_S, FIRST_BACK_OFF_S * 2 ** (service.deaths - 1))
                service.start_at = time.monotonic() + back_off_s
                what_next = (
                    f"restart in {back_off_s:g} s"
                    if service.deaths < MAX_DEATHS_IN_A_ROW
                    else f"{service.deaths} times in a row, left down"
                )
                self.console.print(f"{service.name}: exited with {status}; {what_next}")
            elif not service.healthy and self._answers(service.launch.url + service.probe):
                service.healthy, service.deaths = True, 0
                self.console.print(f"{service.name}: ready again")

    def _check_ports(self, names: tuple[str, ...]) -> None:
        """Before anything starts, since a server finds out only after half a minute."""
        seats = {worker.name: worker.url for worker in self.settings.workers}
        if self.settings.summariser:
            seats["summariser"] = self.settings.summariser.url
        wanted = {GATEWAY: self.gateway_url} | {name: seats[name] for name in names}
        for name, url in wanted.items():
            port = urlsplit(url).port or 80
            with socket.socket() as probe:
                # What the servers do too: a port that only waits out old connections is free.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError as error:
                    raise StackError(
                        f"Port {port}, which {name} needs, is taken ({error.strerror}). Stop what "
                        "listens there (another consilium serve?) and start again."
                    ) from error

    def _gateway(self) -> Launch:
        command = [sys.executable, "-m", "uvicorn", "--factory", "gateway.app:create_app"]
        command += ["--host", "127.0.0.1", "--port", str(self.gateway_port), "--no-access-log"]
        environment = dict(os.environ) | {"CONSILIUM_PANEL": str(self.panel_file.resolve())}
        return Launch(GATEWAY, tuple(command), environment, self.gateway_url)

    def _add(self, launched: Launch, logs: Path, probe: str) -> None:
        self.services.append(Service(launched, logs / f"{launched.name}.log", probe))

    def _spawn(self, service: Service) -> None:
        # Held, so that no signal falls between a process and our knowing of it.
        with _signals_held(), service.log.open("ab") as log:
            service.process = subprocess.Popen(
                service.launch.command,
                env=service.launch.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._tell_guard(f"+{service.process.pid}")
        service.healthy = False

    def _wait(self, began: float, deadline_s: float) -> None:
        """Until every service is healthy; a line whenever one becomes so, and every ten seconds."""
        next_line_s = 10.0
        while waiting := [service for service in self.services if not service.healthy]:
            seconds = time.monotonic() - began
            for service in waiting:
                assert service.process is not None
                if (status := service.process.poll()) is not None:
                    raise StackError(
                        f"{service.name} exited with {status} while starting; see {service.log}"
                    )
                if self._answers(service.launch.url + service.probe):
                    service.healthy = True
                    self.console.print(f"{service.name}: ready after {seconds:.0f} s")
            if seconds > deadline_s:
                raise StackError(
                    f"{waiting[0].name} is not ready after {deadline_s:g} s; see {waiting[0].log}"
                )
            if seconds > next_line_s:
                next_line_s += 10.0
                names = ", ".join(service.name for service in waiting if not service.healthy)
                self.console.print(f"{seconds:.0f} s: waiting for {names}")
            time.sleep(POLL_S)
        if not self._answers(f"{self.gateway_url}/health/ready"):
            raise StackError(
                "Everything started, but the gateway is not ready: too few workers can be reached "
                f"for the quorum of {self.settings.panel.quorum}. Are the workers that panel.toml "
                "places elsewhere up?"
            )

    def _stop(self) -> None:
        for service in self.services:
            if service.process and service.process.poll() is None:
                service.process.terminate()
        give_up_at = time.monotonic() + STOP_GRACE_S
        for service in self.services:
            if service.process:
                with suppress(subprocess.TimeoutExpired):
                    service.process.wait(max(0.0, give_up_at - time.monotonic()))
                self._bury(service)
        self._http.close()
        if self._guard and self._guard.stdin:
            self._guard.stdin.close()
            self._guard.wait()

    def _bury(self, service: Service) -> None:
        """Kill what is left of the group: a server's children outlive it when it is killed."""
        assert service.process is not None
        with suppress(ProcessLookupError):  # it may have taken its children along
            os.killpg(service.process.pid, signal.SIGKILL)
        service.process.wait()
        self._tell_guard(f"-{service.process.pid}")
        service.process, service.healthy = None, False

    def _answers(self, url: str) -> bool:
        try:
            return self._http.get(url).status_code == 200
        except httpx.HTTPError:
            return False

    def _tell_guard(self, line: str) -> None:
        if self._guard is None or self._guard.stdin is None:
            raise RuntimeError("Stack is used outside its with block.")
        self._guard.stdin.write(f"{line}\n".encode())
        self._guard.stdin.flush()


@contextmanager
def _signals_held() -> Iterator[None]:
    """Signals that end us wait until the block is done, and then do what they would have done."""
    caught: list[int] = []

    def hold(number: int, frame: FrameType | None) -> None:
        caught.append(number)

    endings = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, hold) for number in endings}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if caught:
            signal.raise_signal(caught[0])
