"""What a second server saves where one of the two is now and then very late:
python -m benchmarks.faults.hedging [--calls N]

Two mock servers of one seat over real HTTP. One takes 200 ms; the other's 99th percentile is 20
times its median of 200 ms, either because 3 calls in 100 stall for so long, or along a log-normal
tail. The same calls are brought to the seat with hedging and without, in turns; of the log-normal
tail it is told as well how low the ratio could be at all. Exit status 1 where, with stalls, the
99th percentile of the hedged calls is over 0.3 of that of the others, or they are over 6 % more
than were to be answered.
"""

import argparse
import asyncio
import json
import math
import random
import time
from collections.abc import Callable
from statistics import NormalDist

import numpy as np

from gateway.asking.model_server import Completion, complete, new_http_client
from gateway.asking.replicas import Replicas
from gateway.tables import WorkerSettings
from gateway.watch.metrics import Metrics
from tests.mock_vllm import MockVllm

BAR, MOST_CALLS = 0.3, 1.06
MEDIAN_S = 0.2
LATE_S = 20 * MEDIAN_S
SIGMA = math.log(20) / NormalDist().inv_cdf(0.99)
AT_ONCE = 16
BODY = json.dumps({"messages": [{"role": "user", "content": [{"type": "text", "text": "?"}]}]})


class Unhedged(Replicas):
    def _may_hedge(self) -> bool:
        return False


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--calls", type=int, default=1500)
    options = arguments.parse_args()
    late = random.Random(0)
    tails: dict[str, Callable[[], float]] = {
        "stalls": lambda: LATE_S if late.random() < 0.03 else MEDIAN_S,
        "log-normal": lambda: late.lognormvariate(math.log(MEDIAN_S), SIGMA),
    }
    figures = {}
    for name, delay_s in tails.items():
        servers = [MockVllm(delay_s=MEDIAN_S).start(), MockVllm(delay_s=delay_s).start()]
        seconds, calls = asyncio.run(asked_in_turns(servers, options.calls))
        for server in servers:
            server.stop()
        p99 = {arm: float(np.quantile(found, 0.99)) for arm, found in seconds.items()}
        ratio, more = p99["hedged"] / p99["unhedged"], calls / options.calls
        print(f"{name:10} {options.calls} calls each, {AT_ONCE} at once")
        for arm, found in seconds.items():
            print(f"  {arm:9} median {np.median(found):6.3f} s   p99 {p99[arm]:6.3f} s")
        print(f"  p99 hedged over unhedged {ratio:.2f}; servers were asked {more:.3f} times a call")
        figures[name] = {"p99_s": p99, "ratio": ratio, "calls": more}
    for more in (0.05, MOST_CALLS - 1, 0.08):
        print(f"log-normal, {more:.0%} more calls: {lowest_ratio(more):.2f} at the least")
    print(json.dumps(figures))
    stalls = figures["stalls"]
    raise SystemExit(stalls["ratio"] > BAR or stalls["calls"] > MOST_CALLS)


def lowest_ratio(more: float) -> float:
    """What no policy can be below that knows the log-normal tail and not what a call will take,
    for a share of `more` calls. Half of the calls are brought to that server; the other answers in
    the median. The best asks at one moment, and not every call that is late by then (Kaler, He and
    Elnikety, Optimal Reissue Policies for Reducing Tail Latency, SPAA 2017)."""
    tail = NormalDist(math.log(MEDIAN_S), SIGMA)

    def late(seconds: float) -> float:
        return (1 - tail.cdf(math.log(seconds))) / 2

    unhedged = math.exp(tail.inv_cdf(0.98))
    for p99 in map(float, np.arange(2 * MEDIAN_S, unhedged, 0.001)):
        asked = max(1 - 0.01 / late(p99), 0) * late(p99 - MEDIAN_S)
        if asked <= more:
            return p99 / unhedged
    return 1.0


async def asked_in_turns(servers: list[MockVllm], calls: int) -> tuple[dict[str, list[float]], int]:
    """Seconds of every call by whether it may be hedged, and how often a server was asked for the
    hedged ones. Each is about another image."""
    seat = WorkerSettings(
        name="seat",
        family="mock",
        model="mock",
        prompt="{question}",
        url=tuple(server.url for server in servers),
        external=True,
    )
    asked = 0

    async with new_http_client() as http:

        async def ask(url: str) -> Completion:
            return await complete(http, url, BODY.encode())

        async def ask_counted(url: str) -> Completion:
            nonlocal asked
            asked += 1
            return await ask(url)

        async def is_well(url: str) -> bool:
            return True

        def seated(kind: type[Replicas]) -> Replicas:
            metrics = Metrics("benchmark")
            return kind(seat, http, metrics, is_well, 60.0, lambda url: None)

        arms = {
            "unhedged": (seated(Unhedged), ask),
            "hedged": (seated(Replicas), ask_counted),
        }
        seconds: dict[str, list[float]] = {name: [] for name in arms}
        at_once = asyncio.Semaphore(AT_ONCE)

        async def one(number: int) -> None:
            async with at_once:
                for name, (replica, call) in arms.items():
                    began = time.perf_counter()
                    await replica.first_good(f"image {number}", call)
                    seconds[name].append(time.perf_counter() - began)

        await asyncio.gather(*(one(number) for number in range(calls)))
    return seconds, asked


if __name__ == "__main__":
    main()
