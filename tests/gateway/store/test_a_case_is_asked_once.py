"""A hundred callers with the same case cost one call to each worker, on one gateway and on two."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from typing import Any

import httpx
import pytest

from tests.gateway.asking.test_the_panel_survives_its_workers import CASE, ask

pytestmark = pytest.mark.alone

CALLERS = 100


def ask_at_once(*urls: str, callers: int = CALLERS) -> list[dict[str, Any]]:
    """All of them at the same moment, the gateways in turn.

    Through one client: a hundred that each read the certificates would hold up the gateways, which
    run in this process, for longer than they wait for their Redis.
    """
    barrier = threading.Barrier(callers)
    client = httpx.Client(timeout=30, limits=httpx.Limits(max_connections=callers))

    def one(url: str) -> dict[str, Any]:
        barrier.wait()
        response = client.post(f"{url}/vqa", json=CASE)
        assert response.status_code == 200, response.text
        return dict(response.json())

    with client, ThreadPoolExecutor(callers) as pool:
        return list(pool.map(one, [url for url, _ in zip(cycle(urls), range(callers))]))


def test_on_one_gateway(vllm, gateway):
    workers = [vllm("yes", delay_s=1), vllm("no", delay_s=1)]
    verdicts = ask_at_once(gateway(workers))

    assert [len(worker.requests) for worker in workers] == [1, 1]
    assert len({verdict["id"] for verdict in verdicts}) == CALLERS
    [first] = [verdict for verdict in verdicts if not verdict["cached"]]
    assert {v["cached_from"] for v in verdicts if v["cached"]} == {first["id"]}


def test_on_two_gateways_that_share_a_redis(vllm, gateway, redis_server):
    worker = vllm("yes", delay_s=1)
    panel = f'quorum = 1\nstore = "{redis_server.url}"'
    secret = {"CONSILIUM_SECRET": "shared"}
    ask_at_once(
        gateway([worker], panel=panel, environ=secret),
        gateway([worker], panel=panel, environ=secret),
    )

    assert len(worker.requests) == 1


def test_without_its_redis_a_gateway_still_asks_once(vllm, gateway, redis_server):
    redis_server.stop()
    # Nothing is stored: all must have come before it speaks, and it before it is doubted.
    worker = vllm("yes", delay_s=5)
    ask_at_once(gateway([worker], panel=f'quorum = 1\nstore = "{redis_server.url}"'))

    assert len(worker.requests) == 1


def test_what_failed_is_told_to_all_and_asked_anew_by_the_next(vllm, gateway):
    worker = vllm(status=500, raw=b"", delay_s=3)
    url = gateway([worker])
    with ThreadPoolExecutor(5) as pool:
        assert [r.status_code for r in pool.map(ask, [url] * 5)] == [503] * 5
    assert len(worker.requests) == 1
    worker.raw = None
    assert ask(url).status_code == 200


def test_who_leaves_does_not_take_the_others_along(vllm, gateway):
    """Not even who came first."""
    worker = vllm("yes", delay_s=2)
    url = gateway([worker])
    with ThreadPoolExecutor(2) as pool:
        leaving = pool.submit(httpx.post, f"{url}/vqa", json=CASE, timeout=0.7)
        time.sleep(0.2)
        staying = pool.submit(ask, url)
        with pytest.raises(httpx.ReadTimeout):
            leaving.result()
        assert staying.result().json()["answer"] == "yes"
    assert len(worker.requests) == 1 and not worker.dropped
