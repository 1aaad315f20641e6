"""Limits: of a key in a minute, of cases at a time, of time and size for a body.

Who is over one is told so at once, and nobody else waits for it.
"""

import asyncio
import base64
import contextlib
import itertools
import json
import socket
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx
import pytest
from starlette.requests import Request

from gateway.door import keys
from gateway.door.admission import Admission, Rates
from gateway.door.inside import Inside
from gateway.refusals import Busy
from gateway.server import Server
from gateway.tables import Load
from tests.conftest import picture

pytestmark = pytest.mark.alone

IMAGE = base64.b64encode(picture()).decode()


def case(number: int = 0) -> dict:
    return {"question": f"Case {number}?", "images": [IMAGE]}


@pytest.fixture
def a_quiet_minute() -> None:
    """Early in one: across the turn of a minute a sliding window forgets a little."""
    if (second := time.time() % 60) > 45:
        time.sleep(60 - second)


def test_a_key_may_ask_so_often_in_a_minute(vllm, gateway, tmp_path, a_quiet_minute):
    file = tmp_path / "keys.json"
    twice, often = keys.add(file, "clinic", 2, False), keys.add(file, "clinic", None, False)
    url = gateway([vllm()], environ={"CONSILIUM_KEYS": str(file)})

    def asked(key: str) -> httpx.Response:
        return httpx.post(f"{url}/vqa", json=case(), headers={"authorization": f"Bearer {key}"})

    assert [asked(twice).status_code for _ in range(3)] == [200, 200, 429]
    refused = asked(twice)
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert refused.json()["title"] == "Too many requests"
    assert asked(often).status_code == 200


@pytest.mark.parametrize("by_s", [-3600, 3600])
def test_a_clock_that_is_set_lets_nobody_wait_for_longer(monkeypatch, by_s):
    """Whichever two looks at it are before and after; who has waited is let in."""

    async def told(looks_before: int) -> int:
        now, looks = 1_000_000.5, itertools.count(-100)
        moved = lambda: now + (by_s if next(looks) >= looks_before else 0)  # noqa: E731
        monkeypatch.setattr(time, "time", moved)
        rates = Rates("memory://")
        assert await rates.wait_s("key", 1, count=True) == 0
        looks = itertools.count()
        wait_s = await rates.wait_s("key", 1, count=True)
        now += wait_s
        assert not wait_s or await rates.wait_s("key", 1, count=True) == 0
        return wait_s

    waits_s = [asyncio.run(told(looks_before)) for looks_before in range(12)]
    assert max(waits_s) <= 60 and waits_s[-1] > 0


def test_gateways_count_together_through_redis_and_alone_without(
    vllm, gateway, tmp_path, redis_server, a_quiet_minute
):
    file = tmp_path / "keys.json"
    key = keys.add(file, "clinic", 4, False)
    panel = f'quorum = 1\nstore = "{redis_server.url}"'
    one, two = (gateway([vllm()], panel=panel, environ={"CONSILIUM_KEYS": str(file)}) for _ in "ab")

    def asked(url: str) -> int:
        headers = {"authorization": f"Bearer {key}"}
        return httpx.post(f"{url}/vqa", json=case(), headers=headers, timeout=20).status_code

    assert [asked(url) for url in (one, two, one, two, one, two)] == [200] * 4 + [429] * 2
    redis_server.stop()
    assert [asked(one) for _ in range(5)] == [200] * 4 + [429]


def test_what_does_not_fit_in_is_sent_away_and_who_waits_is_answered(vllm, gateway):
    worker = vllm(delay_s=0.3)
    url = gateway([worker], load="max_at_work = 2\nmax_waiting = 4")
    with ThreadPoolExecutor(20) as pool:
        found = list(
            pool.map(lambda n: httpx.post(f"{url}/vqa", json=case(n), timeout=30), range(20))
        )
    statuses = Counter(response.status_code for response in found)
    assert set(statuses) == {200, 503} and statuses[200] >= 6
    refused = next(response for response in found if response.status_code == 503)
    assert refused.json()["title"] == "Busy" and int(refused.headers["retry-after"]) > 0
    assert len(worker.requests) == statuses[200]
    assert httpx.post(f"{url}/vqa", json=case(99)).status_code == 200


def test_never_more_at_work_than_there_are_seats(vllm, gateway):
    at_work, most = 0, 0

    def arrives() -> float:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        return 0.1

    def leaves(request: dict) -> str:
        nonlocal at_work
        at_work -= 1
        return "yes"

    url = gateway([vllm(leaves, delay_s=arrives)], load="max_at_work = 3")
    with ThreadPoolExecutor(12) as pool:
        found = pool.map(lambda n: httpx.post(f"{url}/vqa", json=case(n), timeout=30), range(12))
        assert {response.status_code for response in found} == {200}
    assert most == 3


def test_many_are_taken_in_at_a_turn_of_the_loop():
    """Else who comes to a gateway that is behind waits where no limit sees him. Two hundred are at
    the door, and each turn of the loop may be a long one."""
    turns, came = 0, []

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def app(scope, receive, send) -> None:
        if not came:
            app.counting = asyncio.create_task(count_turns())
        came.append(turns)
        server.should_exit = len(came) == 200
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    server = Server(app, drain_s=0)
    server.config.lifespan = "off"
    with contextlib.ExitStack() as callers, socket.create_server(("", 0), backlog=200) as listener:
        for _ in range(200):
            line = socket.create_connection(listener.getsockname())
            callers.enter_context(line).sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        server.run([listener])
    assert came[-1] - came[0] < 100


def connected(url: str) -> socket.socket:
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), timeout=20)


def test_a_body_that_dribbles_in_is_given_up(vllm, gateway):
    url = gateway([vllm()], load="body_s = 0.5")
    with connected(url) as line:
        head = "POST /vqa HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        line.sendall((head + "Content-Length: 1000\r\n\r\n{").encode())
        began = time.monotonic()
        reply = line.recv(65536).decode()
    assert reply.startswith("HTTP/1.1 408") and "within 0.5 s" in reply
    assert time.monotonic() - began < 5


def test_slow_callers_do_not_hold_up_a_quick_one(vllm, gateway):
    """Two hundred lines on which a request never gets to its end, before or within its body."""
    url = gateway([vllm()], load="body_s = 20")
    with contextlib.ExitStack() as lines:
        for number in range(200):
            line = lines.enter_context(connected(url))
            head = "POST /vqa HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            ending = "Content-Length: 1000\r\n\r\n{" if number % 2 else "X-Slow: "
            line.sendall((head + ending).encode())
        assert httpx.post(f"{url}/vqa", json=case(), timeout=10).status_code == 200


def test_a_huge_header_is_refused(vllm, gateway):
    worker = vllm()
    url = gateway([worker])
    with connected(url) as line, contextlib.suppress(OSError):
        line.sendall(b"POST /vqa HTTP/1.1\r\nHost: x\r\nX-Huge: " + b"a" * 5_000_000 + b"\r\n\r\n")
        reply = line.recv(65536)
        assert reply == b"" or reply.startswith((b"HTTP/1.1 4", b"Invalid"))
    assert not worker.requests
    assert httpx.get(f"{url}/health/live").status_code == 200


def test_a_body_that_says_it_is_too_large_is_not_read(vllm, gateway):
    url = gateway([vllm()])
    with connected(url) as line:
        head = "POST /vqa HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        line.sendall((head + "Content-Length: 900000000\r\n\r\n").encode())
        reply = line.recv(65536).decode()
    assert reply.startswith("HTTP/1.1 413") and "connection: close" in reply.lower()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/vqa", b'{"question": "?", "images": [' + b"[]," * 3_000_000 + b'""]}'),
        (
            "/v1/chat/completions",
            b'{"model": "consilium", "messages": [' + b'{"role":"a"},' * 700_000 + b"{}]}",
        ),
    ],
)
def test_a_million_small_things_are_not_read(vllm, gateway, path, body):
    """Reading them would keep everybody else waiting for half a minute."""
    url = gateway([vllm()])
    headers = {"content-type": "application/json"}
    response = httpx.post(url + path, content=body, headers=headers, timeout=60)
    assert response.status_code == 413 and "items" in response.text


async def test_who_finds_no_room_is_not_told_of_his_key_because_somebody_leaves(monkeypatch):
    """Another process's case may end between the look and the count."""
    inside = Inside()
    inside.enter("b", 1, None)
    monkeypatch.setattr(inside, "total", lambda: 0)
    door = Admission(keys.Keys(None), "memory://", inside, lambda own: None)
    request = Request({"type": "http", "headers": []})
    with pytest.raises(Busy):
        async with door.admitted(request, Load(max_at_work=1, max_waiting=0)):
            pass


def test_a_key_cannot_take_every_place(vllm, gateway, tmp_path):
    file = tmp_path / "keys.json"
    greedy, other = (keys.add(file, tenant, None, False) for tenant in ("a", "b"))
    url = gateway(
        [vllm()], environ={"CONSILIUM_KEYS": str(file)}, load="max_of_a_key = 2\nmax_waiting = 0"
    )
    with contextlib.ExitStack() as lines:
        for _ in range(2):
            line = lines.enter_context(connected(url))
            head = f"POST /vqa HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {greedy}\r\n"
            head += "Content-Type: application/json\r\nContent-Length: 9\r\n\r\n"
            line.sendall(head.encode())
        time.sleep(0.5)

        def asked(key: str) -> int:
            headers = {"authorization": f"Bearer {key}"}
            return httpx.post(f"{url}/vqa", json=case(), headers=headers).status_code

        assert asked(greedy) == 429 and asked(other) == 200


def test_health_is_asked_of_workers_twice_a_second_however_many_want_to_know(vllm, gateway):
    worker = vllm()
    url = gateway([worker])
    with ThreadPoolExecutor(8) as pool:
        began = time.monotonic()
        list(pool.map(lambda _: httpx.get(f"{url}/health/ready"), range(80)))
        seconds = time.monotonic() - began
    assert worker.probed <= 2 * seconds + 2


@pytest.mark.parametrize("path", ["/vqa", "/v1/chat/completions"])
def test_nobody_without_a_key_gets_as_far_as_a_body(vllm, gateway, tmp_path, path):
    file = tmp_path / "keys.json"
    keys.add(file, "clinic", None, False)
    url = gateway([vllm()], environ={"CONSILIUM_KEYS": str(file)})
    with connected(url) as line:
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        line.sendall((head + "Content-Length: 30000000\r\n\r\n").encode())
        reply = line.recv(65536).decode()
    assert reply.startswith("HTTP/1.1 401")
    assert json.dumps(case())[:20] not in reply
