"""Everything on one machine, started and stopped as one: workers, summariser, gateway.

Each service is a process group of its own with a log of its own. While the stack starts, a service
that dies is a failure; once it has started, `tend` restarts what dies. Whatever ends the stack
(`with` is left, Ctrl-C, SIGTERM, a failure) stops every group; services/running/guard.py does it
where the stack was killed outright.
"""

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from urllib.parse import urlsplit

import httpx

from gateway.settings import Settings
from models.assets import AssetError
from services.running.engine import (
    SAFE_PATH,
    EngineError,
    Launch,
    launch,
    local_urls,
    missing,
    model_folder,
)

GUARD = Path(__file__).with_name("guard.py")
POLL_S = 0.5
STOP_GRACE_S = 10.0
KILL_GRACE_S = 5.0
PROGRESS_S = 10.0
FIRST_BACK_OFF_S = 1.0
MAX_BACK_OFF_S = 60.0
MAX_DEATHS_IN_A_ROW = 5


class StackError(Exception):
    """One line: which service could not start, why, and where to look."""


@dataclass
class Service:
    """One server of the stack, and how it has fared."""

    launch: Launch
    log: Path
    process: subprocess.Popen[bytes] | None = None
    healthy: bool = False
    deaths: int = 0  # in a row: a restart that becomes healthy clears it
    start_at: float = 0.0  # on time.monotonic(), while the process is down

    @property
    def name(self) -> str:
        return self.launch.name


def gateway_url(port: int) -> str:
    """Where the gateway of `whole_panel` listens."""
    return f"http://127.0.0.1:{port}"


def whole_panel(
    settings: Settings,
    panel_file: Path,
    gateway_port: int,
    logs: Path,
    report: Callable[[str], None],
) -> Iterator[Launch]:
    """What `serve` and `demo` start: the gateway, and every seat that is not placed elsewhere.

    Each comes once its model is ready, those with the least to fetch first: while the weights of
    one are on their way, others load theirs. `report` hears what is done, and that it goes on.

    Raises:
        StackError: a port is taken: at once.
        EngineError, AssetError: a model that panel.toml names cannot be served: at once, or in
            place of the next.
    """
    gateway = _gateway(panel_file, gateway_port)
    urls = local_urls(settings)
    # First of all, since a server would find out only minutes from now.
    for name, url in [*urls.items(), (gateway.name, gateway.url)]:
        check_port(name, url)
    names = sorted(urls, key=lambda name: len(missing(settings, name)))

    def launches() -> Iterator[Launch]:
        yield gateway
        for name, folder in _model_folders(settings, names, logs / "models.log", report):
            yield launch(settings, name, folder)

    return launches()


@contextmanager
def running(
    launches: Iterable[Launch],
    logs: Path,
    report: Callable[[str], None],
    deadline_s: float = 900.0,
) -> Iterator["Stack"]:
    """Everything runs and is healthy inside the block, and nothing is left after it. Each starts as
    soon as `launches` gives it.

    Raises:
        StackError: a service died while starting, or `deadline_s` passed since all had started.
        Whatever `launches` raises.
    """
    stack = Stack(logs, report)
    try:
        stack.start(launches, deadline_s)
        yield stack
    finally:
        stack.stop()


class Stack:
    """The services as `running` has them; `tend` keeps them so."""

    def __init__(self, logs: Path, report: Callable[[str], None]):
        self.services = list[Service]()
        self.logs = logs
        self.report = report
        self.http = httpx.Client(timeout=2.0, trust_env=False)
        self.guard = subprocess.Popen(
            [sys.executable, "-I", "-S", str(GUARD)],
            stdin=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C in the terminal must not reach it
        )

    def start(self, launches: Iterable[Launch], deadline_s: float) -> None:
        self.logs.mkdir(parents=True, exist_ok=True)
        self.report(f"logs in {self.logs}")
        for each in launches:
            service = Service(each, self.logs / f"{each.name}.log")
            service.log.write_bytes(b"")
            self.services.append(service)
            self._spawn(service)
            self.report(f"{service.name}: starting")
        self._wait(time.monotonic(), deadline_s)

    def tend(self) -> None:
        """One look at every service: restarts what died, sooner at first and then more rarely.

        A service that dies five times in a row is left down; the gateway answers without it, or
        says that it cannot.
        """
        for service in self.services:
            if service.process is None:
                if service.deaths < MAX_DEATHS_IN_A_ROW and time.monotonic() >= service.start_at:
                    self._spawn(service)
                    self.report(f"{service.name}: restarting")
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
                self.report(f"{service.name}: exited with {status}; {what_next}")
            elif not service.healthy and self._answers(service):
                service.healthy, service.deaths = True, 0
                self.report(f"{service.name}: ready again")

    def stop(self) -> None:
        with _signals_held():
            for service in self.services:
                if service.process:
                    service.process.terminate()
            give_up_at = time.monotonic() + STOP_GRACE_S
            for service in self.services:
                if service.process:
                    with suppress(subprocess.TimeoutExpired):
                        service.process.wait(max(0.0, give_up_at - time.monotonic()))
                    self._bury(service)
            self.http.close()
            assert self.guard.stdin is not None
            with suppress(BrokenPipeError):
                self.guard.stdin.close()
            self.guard.wait()

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
            for service in self.services:
                assert service.process is not None
                if (status := service.process.poll()) is not None:
                    raise StackError(
                        f"{service.name} exited with {status} while starting; see {service.log}"
                    )
                if not service.healthy and self._answers(service):
                    service.healthy = True
                    self.report(f"{service.name}: ready after {seconds:.0f} s")
            if seconds > deadline_s:
                raise StackError(
                    f"{waiting[0].name} is not ready after {deadline_s:g} s; see {waiting[0].log}"
                )
            if seconds > next_line_s:
                next_line_s += 10.0
                if names := ", ".join(service.name for service in waiting if not service.healthy):
                    self.report(f"{seconds:.0f} s: waiting for {names}")
            time.sleep(POLL_S)

    def _bury(self, service: Service) -> None:
        """Kill what is left of the group: a server's children outlive it when it is killed."""
        assert service.process is not None
        give_up_at = time.monotonic() + KILL_GRACE_S
        with suppress(ProcessLookupError):  # the group is gone, as it should be
            while time.monotonic() < give_up_at:
                os.killpg(service.process.pid, signal.SIGKILL)
                service.process.poll()  # a group lives on in a dead leader until it is collected
                time.sleep(0.01)
        self._tell_guard(f"-{service.process.pid}")
        service.process, service.healthy = None, False

    def _answers(self, service: Service) -> bool:
        try:
            return self.http.get(service.launch.url + service.launch.probe).status_code == 200
        except httpx.HTTPError:
            return False

    def _tell_guard(self, line: str) -> None:
        assert self.guard.stdin is not None
        with suppress(BrokenPipeError):  # without a guard the services are still ours to stop
            self.guard.stdin.write(f"{line}\n".encode())
            self.guard.stdin.flush()


def _model_folders(
    settings: Settings, names: Sequence[str], log: Path, report: Callable[[str], None]
) -> Iterator[tuple[str, Path]]:
    """Each seat's model as it is ready, made so in a process of its own: it needs half a gigabyte
    of torch for some seconds, and its libraries talk a lot."""
    log.parent.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    helper = context.Process(target=_send_model_folders, args=(settings, names, log, sender))
    began, doing = time.monotonic(), "starting"
    helper.start()
    sender.close()
    try:
        while True:
            # pip says nothing while it downloads hundreds of megabytes.
            if not receiver.poll(PROGRESS_S):
                report(f"{time.monotonic() - began:.0f} s: still at it: {doing}")
                continue
            match receiver.recv():
                case str(doing):
                    report(doing)
                case Exception() as error:
                    raise error
                case None:
                    return
                case ready:
                    yield ready
    except EOFError as error:
        raise StackError(f"A model could not be made ready; see {log}") from error
    finally:
        with _signals_held():
            _end_helper(helper)


def _end_helper(helper: BaseProcess) -> None:
    """Asked first, so that it removes its temporary folders; then killed with what it started."""
    assert helper.pid is not None
    try:
        os.killpg(helper.pid, signal.SIGTERM)
    except ProcessLookupError:  # it is no group yet
        helper.terminate()
    helper.join(KILL_GRACE_S)
    with suppress(ProcessLookupError):
        os.killpg(helper.pid, signal.SIGKILL)
    helper.kill()
    helper.join()


def _send_model_folders(
    settings: Settings, names: Sequence[str], log: Path, sender: Connection
) -> None:
    """The helper: sends lines of progress, each name with its folder, and at last None, or what
    went wrong."""
    os.setsid()  # whoever ends this group ends the pip that it started too
    signal.signal(signal.SIGTERM, _leave_once)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with log.open("wb") as output:
        os.dup2(output.fileno(), sys.stdout.fileno())
        os.dup2(output.fileno(), sys.stderr.fileno())
    try:
        for name in names:
            sender.send(f"{name}: getting the model")
            sender.send((name, model_folder(settings, name, report=sender.send)))
    except (AssetError, EngineError) as error:
        sender.send(error)
    else:
        sender.send(None)


def _leave_once(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # the way out must not be broken off
    raise SystemExit(128 + number)


def _end_with_parent() -> None:
    """A stack that was killed can no longer end its helper."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.killpg(0, signal.SIGTERM)
    time.sleep(KILL_GRACE_S)
    os.killpg(0, signal.SIGKILL)


def _gateway(panel_file: Path, port: int) -> Launch:
    command = [sys.executable, "-m", "gateway", "--port", str(port)]
    environment = dict(os.environ) | SAFE_PATH | {"CONSILIUM_PANEL": str(panel_file.resolve())}
    return Launch("gateway", tuple(command), environment, gateway_url(port), "/health/ready")


def check_port(name: str, url: str) -> None:
    """Raises StackError where somebody listens already."""
    port = urlsplit(url).port or 80
    with socket.socket() as probe:
        # What the servers do too: a port that only waits out old connections is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise StackError(
                f"Port {port}, which {name} needs, is taken ({error.strerror}). Stop what listens "
                "there (another consilium serve?) and start again."
            ) from error


@contextmanager
def _signals_held() -> Iterator[None]:
    """Signals that end us wait until the block is done, and then do what they would have done.
    They come to the main thread alone: another's blocks they do not break."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
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
