"""What the gateway itself costs: python -m benchmarks.cost.overhead [--cases N] [--delay-ms MS]

Three workers and a 500 KB JPEG on the fast path; the gateway has one core to itself, workers and
caller share another. Each case goes through the gateway, as a form, as JSON and as a form with an
image that it never saw, and in turns the same three calls are made directly, their bodies prepared
beforehand: that is the floor. Beside the difference stand the gateway's own histogram of its
overhead and what a case cost in processor time, which a busy machine changes less. Exit status 1
where the median of the form is over 3 ms above the floor, or the histogram's median is more than
20 % away from the outside measurement.
"""

import argparse
import asyncio
import json
import os
import re
import time
from collections.abc import Awaitable
from pathlib import Path

import aiohttp
import numpy as np

from benchmarks.serving import URL, gateway
from benchmarks.traffic import JSON, MULTIPART, NUMBER, case, chat, form, photograph, workers

BAR_MS = 3.0
AGREE = 0.2
KILOBYTES = 500
WARM_UP = 20
WAYS = ("form", "json", "unseen")  # through the gateway
NAMES = (*WAYS, "direct")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--cases", type=int, default=300)
    arguments.add_argument("--delay-ms", type=float, default=0, help="of every worker")
    options = arguments.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[-1]})
    with (
        workers(delay_ms=options.delay_ms) as urls,
        gateway(urls, "quorum = 2", cores={cores[0]}) as process,
    ):
        seconds, spent, buckets = asyncio.run(measured(urls, options.cases, process))
    raise SystemExit(report(seconds, spent, buckets))


def varied(image: bytes, number: int) -> bytes:
    """The same with other quantisation, by which all its pixels are others and as many bits read:
    one of the table's entries, from 1 to 255, says which number it is."""
    table = image.index(b"\xff\xdb") + 5
    place, value = divmod(number % (64 * 255), 255)
    return image[: table + place] + bytes([value + 1]) + image[table + place + 1 :]


async def measured(
    urls: list[str], cases: int, process: int
) -> tuple[dict[str, list[float]], dict[str, list[float]], dict[float, float]]:
    """Seconds of every case by how it was asked; those in which the gateway's process was at work;
    the histogram of its own overhead."""
    image = photograph(KILOBYTES)
    print(f"a JPEG of {len(image) / 1000:.0f} KB")
    straight = chat(image)

    async with aiohttp.ClientSession() as http:

        async def ask(body: bytes, kind: str) -> None:
            headers = {"content-type": kind}
            async with http.post(f"{URL}/vqa", data=body, headers=headers) as response:
                response.raise_for_status()
                await response.read()

        async def direct() -> None:
            async def one(url: str) -> None:
                where, headers = f"{url}/v1/chat/completions", {"content-type": JSON}
                async with http.post(where, data=straight, headers=headers) as response:
                    response.raise_for_status()
                    await response.read()

            await asyncio.gather(*map(one, urls))

        def prepared(name: str, number: int) -> Awaitable[None]:
            """A call whose body is there: what it takes to make one is not measured."""
            own = b"%012d" % (2 * (WARM_UP + number) + (name == "json"))
            if name == "form":
                return ask(form(image).replace(NUMBER, own), MULTIPART)
            if name == "unseen":
                return ask(form(varied(image, number)).replace(NUMBER, own), MULTIPART)
            if name == "json":
                return ask(case(image).replace(NUMBER, own), JSON)
            return direct()

        seconds: dict[str, list[float]] = {name: [] for name in NAMES}
        for number in range(WARM_UP):
            for name in NAMES:
                await prepared(name, -1 - number)
        spent: dict[str, list[float]] = {name: [] for name in NAMES}
        before = await overhead_histogram(http)
        for number in range(cases):
            for name in NAMES:
                call = prepared(name, number)
                spent[name].append(-processor_seconds(process))
                began = time.perf_counter()
                await call
                seconds[name].append(time.perf_counter() - began)
                spent[name][-1] += processor_seconds(process)
        after = await overhead_histogram(http)
    buckets = {edge: after[edge] - before.get(edge, 0.0) for edge in after}
    return seconds, spent, buckets


def processor_seconds(process: int) -> float:
    """Of all its threads, to the nanosecond (schedstat: proc_pid_schedstat(5))."""
    threads = Path(f"/proc/{process}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


async def overhead_histogram(http: aiohttp.ClientSession) -> dict[float, float]:
    """Cases so far by the upper edge of their overhead, cumulated, as Prometheus reads it."""
    async with http.get(f"{URL}/metrics") as response:
        text = await response.text()
    pattern = r'consilium_gateway_overhead_seconds_bucket\{le="([^"]+)"\} (\S+)'
    return {float(edge): float(count) for edge, count in re.findall(pattern, text)}


def quantile(buckets: dict[float, float], share: float) -> float:
    """Within a bucket in proportion, as Prometheus's histogram_quantile does."""
    wanted, low, below = share * max(buckets.values()), 0.0, 0.0
    for edge, count in sorted(buckets.items()):
        if count >= wanted:
            return low + (edge - low) * (wanted - below) / (count - below)
        low, below = edge, count
    return low


def report(
    seconds: dict[str, list[float]], spent: dict[str, list[float]], buckets: dict[float, float]
) -> bool:
    """Print the figures; whether a bar is missed."""
    middle = {name: 1000 * float(np.median(found)) for name, found in seconds.items()}
    over = {name: middle[name] - middle["direct"] for name in WAYS}
    # The histogram holds every way of asking, so all are the outside measurement.
    outside = float(
        np.median(
            [
                1000 * (mine - floor)
                for name in WAYS
                for mine, floor in zip(seconds[name], seconds["direct"], strict=True)
            ]
        )
    )
    inside = 1000 * quantile(buckets, 0.5)
    cpu = {name: 1000 * float(np.median(spent[name])) for name in WAYS}
    print(f"{len(seconds['direct'])} cases each; medians in ms")
    print(f"three calls made directly {middle['direct']:.2f} (floor)")
    for name in over:
        told = f"{over[name]:.2f} above the floor, {cpu[name]:.2f} of processor time"
        print(f"through the gateway, {name:6} {middle[name]:.2f}: {told}")
    print(f"the gateway's own histogram {inside:.2f}, outside {outside:.2f}, bar {AGREE:.0%} apart")
    figures = {"over_ms": over, "direct_ms": middle["direct"], "inside_ms": inside}
    print(json.dumps(figures | {"outside_ms": outside, "cpu_ms": cpu}))
    return over["form"] > BAR_MS or abs(inside / outside - 1) > AGREE


if __name__ == "__main__":
    main()
