"""`python -m gateway --workers N`: limits, flights, breakers, metrics and a new panel are of all
processes together, and one that is killed costs its open cases alone."""

import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest
import uvicorn
from fastapi import FastAPI

from gateway.asking import breaker
from gateway.door.inside import Inside
from gateway.server import Server
from tests.conftest import until
from tests.gateway.asking.test_the_panel_survives_its_workers import CASE
from tests.processes import still_running

pytestmark = pytest.mark.alone


CALLER = httpx.Client(timeout=60, trust_env=False)  # one: to make one takes a while


def asked(url: str, question: str) -> int | str:
    """The status; or that the connection was lost."""
    try:
        return CALLER.post(f"{url}/vqa", json=CASE | {"question": question}).status_code
    except httpx.TransportError:
        return "lost"


def metric(url: str, name: str) -> float:
    lines = CALLER.get(f"{url}/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


def test_two_processes_are_one_gateway(vllm, gateway_process, redis_server, panel_file):
    """One pair of processes, for it costs seconds to start."""
    worker = vllm("yes", delay_s=1.0)
    panel = f'quorum = 1\nstore = "{redis_server.url}"'
    load = "max_at_work = 4\nmax_waiting = 2\ndrain_s = 0"
    gateway = gateway_process([worker], panel=panel, load=load, arguments=["--workers", "2"])
    url, parent = gateway.url, psutil.Process(gateway.process.pid)
    until(lambda: metric(url, "consilium_panel_info") == 1)

    def children() -> list[psutil.Process]:
        alive = [c for c in parent.children() if c.status() != psutil.STATUS_ZOMBIE]
        return [each for each in alive if "resource_tracker" not in each.cmdline()[-1]]

    with ThreadPoolExecutor(16) as callers:
        # No more than six are inside, whichever process they reach.
        statuses = Counter(callers.map(lambda n: asked(url, f"{n}?"), range(16)))
        assert statuses == {200: 6, 503: 10} and len(worker.requests) == 6
        # What both are asked at once, is asked once.
        assert set(callers.map(lambda _: asked(url, "The same?"), range(6))) == {200}
        assert len(worker.requests) == 7
        assert metric(url, "consilium_verdicts_total") == 12
        assert metric(url, "consilium_cases_inside") == 0

        # One is killed with cases open: those are lost, and nothing else is.
        first, second = children()
        open_cases = [callers.submit(asked, url, f"open {n}?") for n in range(6)]
        until(lambda: len(worker.requests) >= 9)
        first.kill()
        ended = Counter(case.result() for case in open_cases)
        assert ended["lost"] == len(open_cases) - ended[200]
        until(lambda: len(children()) == 2 and second in children())
        statuses = Counter(callers.map(lambda n: asked(url, f"after {n}?"), range(16)))
        assert statuses == {200: 6, 503: 10}
        assert metric(url, "consilium_verdicts_total") >= 18  # none that it had counted is gone

    # A new panel is taken up by all.
    panel_file([worker.url] * 2, panel=panel, load=load)
    assert CALLER.post(f"{url}/panel/reload").status_code == 200
    panels = [f"{url}/panel"] * 8
    until(lambda: {len(CALLER.get(each).json()["workers"]) for each in panels} == {2})
    processes = children()
    gateway.process.send_signal(signal.SIGTERM)
    assert gateway.process.wait(timeout=20) == 0
    assert still_running(processes) == []


def test_who_starts_does_not_let_those_who_listen_wait(monkeypatch):
    """Whether a socket blocks is of all processes that share it: one that looks for a caller whom
    another took would wait for the next, and all whom it had taken in would wait with it."""
    given: list[socket.socket] = []
    monkeypatch.setattr(uvicorn.Server, "run", lambda _, sockets: given.extend(sockets))
    with socket.create_server(("127.0.0.1", 0)) as theirs:
        theirs.setblocking(False)
        with socket.socket(fileno=os.dup(theirs.fileno())) as ours:  # as a process gets it
            Server(FastAPI(), drain_s=0).run([ours])
            assert len(given) > 1 and {each.getsockname() for each in given} == {ours.getsockname()}
            assert not os.get_blocking(theirs.fileno())
        for each in given:
            each.close()


@pytest.mark.parametrize(
    "load, environ, says",
    [
        ("", {}, "share limits and verdicts through a Redis; set panel.store, or CONSILIUM_STORE"),
        ("max_at_work = 1", {"CONSILIUM_STORE": "redis://x:1/0"}, "load.max_at_work, which is 1"),
    ],
    ids=["no Redis", "less at work than processes"],
)
def test_what_cannot_hold_for_several_is_refused_in_one_line(
    panel_file, monkeypatch, capsys, load, environ, says
):
    from gateway.__main__ import main

    file = panel_file(["http://127.0.0.1:1"], load=load)
    for name, value in (environ | {"CONSILIUM_PANEL": str(file)}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["gateway", "--workers", "2"])
    with pytest.raises(SystemExit) as refused:
        main()
    assert says in str(refused.value) and "\n" not in str(refused.value)


def test_nobody_slips_in_between_processes(tmp_path):
    """Two connections to one file are what two processes have."""
    one, two = Inside(tmp_path / "inside"), Inside(tmp_path / "inside")
    rows = [each.enter("a", 3, 2) for each in (one, two, one, two)]
    assert [row is not None for row in rows] == [True, True, False, False]
    assert two.enter("b", 3, None) and one.enter("b", 3, None) is None
    assert (one.own, two.own, one.total(), two.total()) == (1, 2, 3, 3)
    one.leave(rows[0])
    assert two.enter("b", 3, 2)


def test_what_a_killed_process_had_open_is_forgotten(tmp_path):
    file = tmp_path / "inside"
    code = f"from gateway.door.inside import Inside; Inside({str(file)!r}).enter('a', 9, None)"
    process = subprocess.Popen([sys.executable, "-c", code])
    assert process.wait(timeout=30) == 0
    inside = Inside(file)
    assert inside.total() == 1
    inside.forget(process.pid)
    assert inside.total() == 0


def test_who_rests_in_one_gateway_rests_in_all_that_share_a_redis(
    vllm, gateway, redis_server, monkeypatch
):
    """The second has asked it nothing; and it is back in both."""
    monkeypatch.setattr(breaker, "PATIENCE_S", 0.1)
    monkeypatch.setattr(breaker, "REST_S", 0.3)
    ill = vllm("yes", status=500, raw=b"")
    panel, environ = f'quorum = 1\nstore = "{redis_server.url}"', {"CONSILIUM_SECRET": "s"}
    one, two = (gateway([ill, vllm("yes")], panel=panel, environ=environ) for _ in "ab")

    def rests(url: str) -> bool:
        return CALLER.get(f"{url}/panel").json()["workers"][0]["resting_s"] is not None

    assert not rests(two)
    for number in range(breaker.BROKEN_OFF):
        asked(one, f"{number}?")
    until(lambda: rests(one) and rests(two))
    ill.status, ill.raw = 200, None
    until(lambda: not rests(one) and not rests(two))
