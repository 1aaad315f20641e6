"""Whatever ends a stack, no process and no port of it is left."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from services.running.engine import Launch
from services.running.stack import Stack, StackError, running
from tests.ports import free_port

HERE = Path(__file__).parent
MakeLaunch = Callable[..., Launch]


@pytest.fixture
def service() -> MakeLaunch:
    """A service's launch, on a port of its own."""

    def make(name: str, *arguments: str) -> Launch:
        port = free_port()
        command = (sys.executable, str(HERE / "slow_service.py"), str(port), *arguments)
        return Launch(name, command, dict(os.environ), f"http://127.0.0.1:{port}", "/")

    return make


def processes_of(port: str) -> list[psutil.Process]:
    """The services on this port, and their children: a fork shares its parent's command line."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if "slow_service.py" in " ".join(process.info["cmdline"] or [])
        and port in process.cmdline()
    ]


def wait_for(condition: Callable[[], bool], what: str, deadline_s: float = 60.0) -> None:
    give_up_at = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < give_up_at, f"{what}: not within {deadline_s:g} s"
        time.sleep(0.1)


def is_free(port: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(port))) != 0


def keep_until(stack: Stack, condition: Callable[[], bool], what: str) -> None:
    def tended() -> bool:
        stack.tend()
        return condition()

    wait_for(tended, what)


def test_everything_is_healthy_inside_the_block_and_gone_after_it(
    service: MakeLaunch, tmp_path: Path
) -> None:
    """A child that ignores SIGTERM goes too."""
    slow, quick = service("slow", "--child", "--healthy-after", "1"), service("quick")
    said: list[str] = []

    with running([slow, quick], tmp_path, said.append) as stack:
        assert all(each.healthy for each in stack.services)
        assert len(processes_of(slow.command[2])) == 2

    for launch in (slow, quick):
        assert processes_of(launch.command[2]) == []
        assert is_free(launch.command[2])
    assert any("quick: ready after" in line for line in said)


def test_a_service_that_dies_while_starting_is_a_failure_that_names_its_log(
    service: MakeLaunch, tmp_path: Path
) -> None:
    """The others do not outlive it."""
    dying = service("dying", "--healthy-after", "300", "--exit-after", "0.5")
    other = service("other")

    with (
        pytest.raises(StackError, match=r"dying exited with 3 while starting; see .*dying\.log"),
        running([dying, other], tmp_path, print),
    ):
        pytest.fail("the block must not be entered")

    assert processes_of(other.command[2]) == []


def test_waiting_has_a_deadline(service: MakeLaunch, tmp_path: Path) -> None:
    """A service that never becomes healthy is given up, by name."""
    never = service("never", "--healthy-after", "300")

    with (
        pytest.raises(StackError, match=r"never is not ready after 1 s; see .*never\.log"),
        running([never], tmp_path, print, deadline_s=1.0),
    ):
        pytest.fail("the block must not be entered")

    assert processes_of(never.command[2]) == []


def test_a_service_that_is_killed_comes_back(service: MakeLaunch, tmp_path: Path) -> None:
    """What it leaves behind is cleared away first, since it may hold the port."""
    launch = service("worker", "--child")

    with running([launch], tmp_path, print) as stack:
        (only,) = stack.services
        assert only.process is not None
        killed = only.process.pid
        os.kill(killed, signal.SIGKILL)
        keep_until(stack, lambda: not only.healthy, "the death is noticed")
        keep_until(stack, lambda: only.healthy, "the restart")
        assert only.process is not None
        assert only.process.pid != killed
        assert len(processes_of(launch.command[2])) == 2

    assert processes_of(launch.command[2]) == []


def test_a_service_that_keeps_dying_is_left_down(
    service: MakeLaunch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Restarts are bounded: a broken model must not load for ever."""
    monkeypatch.setattr("services.running.stack.FIRST_BACK_OFF_S", 0.01)
    launch = service("worker", "--exit-after", "1.5")
    said: list[str] = []

    with running([launch], tmp_path, said.append) as stack:
        only = stack.services[0]
        # It never works again after its first death.
        only.launch = service("worker", "--healthy-after", "300", "--exit-after", "0")
        keep_until(stack, lambda: any("left down" in line for line in said), "giving up")
        stack.tend()
        assert only.process is None

    assert sum("exited with 3" in line for line in said) == 5


def test_without_a_guard_everything_is_stopped_all_the_same(
    service: MakeLaunch, tmp_path: Path
) -> None:
    """Even what ignores SIGTERM, in every group."""
    launches = [service("one", "--child"), service("two", "--child")]

    with running(launches, tmp_path, print) as stack:
        stack.guard.kill()
        stack.guard.wait()

    for launch in launches:
        assert processes_of(launch.command[2]) == []


def test_the_guard_outlasts_what_tells_everybody_to_stop(
    service: MakeLaunch, tmp_path: Path
) -> None:
    """It is needed most where a machine is shut down in haste."""
    with running([service("one")], tmp_path, print) as stack:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            stack.guard.send_signal(number)
        with pytest.raises(subprocess.TimeoutExpired):
            stack.guard.wait(0.5)


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stack_that_is_ended_from_outside_takes_everything_along(
    ending: signal.Signals, service: MakeLaunch, tmp_path: Path
) -> None:
    """Ctrl-C, a supervisor's stop, and even the kill that no program can catch."""
    # What a shell runs in the background inherits a Ctrl-C that is ignored; ours must not be.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    port = service("slow").command[2]
    program = subprocess.Popen(
        [sys.executable, str(HERE / "stack_program.py"), port, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert program.stdout is not None
        assert "up\n" in iter(program.stdout.readline, "")
        assert len(processes_of(port)) == 2
        program.send_signal(ending)
        program.wait(60)
    finally:
        program.kill()

    wait_for(lambda: processes_of(port) == [], "the last process is gone")
    # A process loses its name a moment before its port.
    wait_for(lambda: is_free(port), "the port is free")
