"""A worker is killed, hangs or turns to nonsense while hundreds of cases are under way."""

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.gateway.test_the_panel_survives_its_workers import CASE

CALLERS, CASES = 8, 240


def killed(worker):
    worker.stop()


def hung(worker):
    worker.delay_s = 60


def speaking_nonsense(worker):
    worker.raw = b"<html>"


def answering_nothing(worker):
    worker.says = " "


@pytest.mark.parametrize("fault", [killed, hung, speaking_nonsense, answering_nothing])
def test_no_request_fails_at_a_quorum_of_two_of_three(vllm, gateway, fault):
    """And soon nobody waits for it any more: it rests."""
    from tests.mock_vllm import MockVllm

    lost = MockVllm("yes", delay_s=0.02).start()
    url = gateway(
        [vllm("yes", delay_s=0.02), lost, vllm("yes")], panel="quorum = 2\ndeadline_s = 2"
    )
    numbers, half = itertools.count(), threading.Event()

    def ask(http: httpx.Client) -> list[tuple[int, float]]:
        found = []
        while (number := next(numbers)) < CASES:
            if number == CASES // 2:
                fault(lost)
                half.set()
            began = time.monotonic()
            response = http.post(f"{url}/vqa", json=CASE | {"question": f"Is it {number}?"})
            found.append((response.status_code, time.monotonic() - began))
        return found

    limits = httpx.Limits(max_connections=CALLERS)
    with httpx.Client(timeout=60, limits=limits) as http, ThreadPoolExecutor(CALLERS) as pool:
        found = [each for part in pool.map(ask, [http] * CALLERS) for each in part]
    if fault is not killed:
        lost.stop()
    assert half.is_set() and len(found) == CASES
    assert {status for status, _ in found} == {200}
    # Three times, by as many callers at once as there are: then it is left alone.
    assert sum(seconds > 1.5 for _, seconds in found) <= 3 * CALLERS
