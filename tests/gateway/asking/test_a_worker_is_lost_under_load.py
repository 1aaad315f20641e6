"""A worker is killed or hangs while hundreds of cases are under way."""

import itertools
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from gateway.asking import breaker
from tests.gateway.asking.test_the_panel_survives_its_workers import CASE
from tests.mock_vllm import MockVllm

pytestmark = pytest.mark.alone

CALLERS, CASES = 8, 240


def killed(worker):
    worker.stop()


def hung(worker):
    worker.delay_s = 60


def dribbling(worker):
    worker.dribbles = True


@pytest.mark.parametrize("fault", [killed, hung, dribbling])
def test_no_request_fails_at_a_quorum_of_two_of_three(vllm, gateway, monkeypatch, fault):
    """And soon it is not asked any more: it rests."""
    monkeypatch.setattr(breaker, "PATIENCE_S", 0)
    monkeypatch.setattr(breaker, "REST_S", 1_000.0)
    lost = MockVllm("yes", delay_s=0.02).start()
    url = gateway(
        [vllm("yes", delay_s=0.02), lost, vllm("yes")], panel="quorum = 2\ndeadline_s = 2"
    )
    numbers = itertools.count()

    def ask(http: httpx.Client) -> list[httpx.Response]:
        found = []
        while (number := next(numbers)) < CASES:
            if number == CASES // 2:
                fault(lost)
            found.append(http.post(f"{url}/vqa", json=CASE | {"question": f"Is it {number}?"}))
        return found

    limits = httpx.Limits(max_connections=CALLERS)
    with httpx.Client(timeout=60, limits=limits) as http, ThreadPoolExecutor(CALLERS) as pool:
        found = [each for part in pool.map(ask, [http] * CALLERS) for each in part]
    if fault is not killed:
        lost.stop()
    assert [response.status_code for response in found] == [200] * CASES
    details = [(response.json()["answers"][1]["error"] or {}).get("detail") for response in found]
    tried = [detail for detail in details if detail and "rests for" not in detail]
    # Who was under way just then, and until the gateway's own question had shown it.
    assert 1 <= len(tried) <= 3 * CALLERS
