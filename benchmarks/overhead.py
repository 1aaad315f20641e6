"""What the gateway itself costs: python -m benchmarks.overhead [--cases N]

Three mock workers without delay and a 500 KB JPEG on the fast path; the gateway has one core to
itself, workers and caller share another. Each case goes through the gateway, as a form, as JSON and
as a form with an image that it never saw, and in turns the same three calls are made directly,
their bodies prepared beforehand: that is the floor. Beside the difference stand the gateway's own
histogram of its overhead and what a case cost in processor time. Exit status 1 where the median of
the form is over 3 ms above the floor, or the histogram's median is more than 20 % away from the
outside measurement.
"""

import argparse
import asyncio
import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Awaitable

import aiohttp
import numpy as np
import psutil
from PIL import Image

from benchmarks.serving import URL, gateway
from consilium.case import encode
from tests.mock_vllm import MockVllm

BAR_MS = 3.0
AGREE = 0.2
IMAGE_BYTES = 500_000
WARM_UP = 20
BOUNDARY = "b0undary"
MULTIPART = f"multipart/form-data; boundary={BOUNDARY}"
WAYS = ("form", "json", "unseen")  # through the gateway
NAMES = (*WAYS, "direct")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--cases", type=int, default=300)
    arguments.add_argument("--mocks", action="store_true", help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.mocks:
        serve_mocks()
        return
    cores = sorted(os.sched_getaffinity(0))
    own, others = {cores[0]}, {cores[-1]}
    os.sched_setaffinity(0, others)
    mocks = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.overhead", "--mocks"], stdout=subprocess.PIPE, text=True
    )
    assert mocks.stdout is not None
    workers = json.loads(mocks.stdout.readline())
    try:
        with gateway(workers, "quorum = 2") as process:
            os.sched_setaffinity(process, own)
            seconds, buckets, spent = asyncio.run(measured(workers, options.cases, process))
    finally:
        mocks.terminate()
        mocks.wait()
    raise SystemExit(report(seconds, buckets, spent, options.cases))


def serve_mocks() -> None:
    """Three workers in a process of their own; prints where they are."""
    mocks = [MockVllm("yes").start() for _ in range(3)]
    print(json.dumps([mock.url for mock in mocks]), flush=True)
    while True:
        time.sleep(1)
        for mock in mocks:
            mock.requests.clear()


def photograph() -> bytes:
    """A JPEG of about 500 KB, of noise: what a camera makes of a detailed scene."""
    noise = np.random.default_rng(0).integers(0, 256, (560, 720), dtype=np.uint8)
    for quality in range(50, 100):
        file = io.BytesIO()
        Image.fromarray(noise).resize((1440, 1120)).save(file, "JPEG", quality=quality)
        if file.tell() >= IMAGE_BYTES:
            break
    return file.getvalue()


def varied(image: bytes, number: int) -> bytes:
    """The same with other quantisation, by which all its pixels are others and as many bits read:
    one of the table's entries, from 1 to 255, says which number it is."""
    table = image.index(b"\xff\xdb") + 5
    place, value = divmod(number % (64 * 255), 255)
    return image[: table + place] + bytes([value + 1]) + image[table + place + 1 :]


async def measured(
    workers: list[str], cases: int, process: int
) -> tuple[dict[str, list[float]], dict[float, float], float]:
    """Seconds of every case by how it was asked; the histogram of the gateway's own overhead; the
    processor seconds that a case cost it."""
    image = photograph()
    print(f"a JPEG of {len(image) / 1000:.0f} KB")
    encoded = encode(image)

    async with aiohttp.ClientSession() as http:

        async def ask(body: bytes, kind: str) -> None:
            headers = {"content-type": kind}
            async with http.post(f"{URL}/vqa", data=body, headers=headers) as response:
                response.raise_for_status()
                await response.read()

        async def direct() -> None:
            async def one(url: str, body: bytes) -> None:
                headers = {"content-type": "application/json"}
                where = f"{url}/v1/chat/completions"
                async with http.post(where, data=body, headers=headers) as response:
                    response.raise_for_status()
                    await response.read()

            await asyncio.gather(*map(one, workers, straight))

        def prepared(name: str, number: int) -> Awaitable[None]:
            """A call whose body is there: what it takes to make one is not measured."""
            if name == "form":
                return ask(form(number, image), MULTIPART)
            if name == "unseen":
                return ask(form(number, varied(image, number)), MULTIPART)
            if name == "json":
                case = {"question": f"Case {number}, JSON?", "images": [encoded]}
                return ask(json.dumps(case).encode(), "application/json")
            return direct()

        straight = [chat(seat, encoded) for seat in range(len(workers))]
        seconds: dict[str, list[float]] = {name: [] for name in NAMES}
        for number in range(WARM_UP):
            for name in NAMES:
                await prepared(name, -1 - number)
        before = await overhead_histogram(http)
        spending = psutil.Process(process)
        spent = -sum(spending.cpu_times()[:2])
        for number in range(cases):
            for name in NAMES:
                call = prepared(name, number)
                began = time.perf_counter()
                await call
                seconds[name].append(time.perf_counter() - began)
        spent += sum(spending.cpu_times()[:2])
        after = await overhead_histogram(http)
    buckets = {edge: after[edge] - before.get(edge, 0.0) for edge in after}
    return seconds, buckets, spent / (len(WAYS) * cases)


def form(number: int, image: bytes) -> bytes:
    head = 'Content-Disposition: form-data; name="{}"{}\r\n\r\n'
    question = head.format("question", "") + f"Case {number}?"
    picture = head.format("images", '; filename="a.jpg"').encode() + image
    line = f"--{BOUNDARY}".encode()
    return b"\r\n".join([line, question.encode(), line, picture, line + b"--", b""])


def chat(seat: int, encoded: str) -> bytes:
    picture = {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{encoded}"}}
    text = {"type": "text", "text": "Case?"}
    messages = [{"role": "user", "content": [picture, text]}]
    return json.dumps({"model": f"w{seat}", "messages": messages, "logprobs": True}).encode()


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
    seconds: dict[str, list[float]], buckets: dict[float, float], spent: float, cases: int
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
    print(f"{cases} cases each; medians in ms")
    print(f"three calls made directly {middle['direct']:.2f} (floor)")
    for name in over:
        print(f"through the gateway, {name:6} {middle[name]:.2f}: {over[name]:.2f} above the floor")
    print(f"the gateway's own histogram {inside:.2f}, outside {outside:.2f}, bar {AGREE:.0%} apart")
    print(f"processor time of the gateway per case {1000 * spent:.2f}")
    figures = {"over_ms": over, "direct_ms": middle["direct"], "inside_ms": inside}
    print(json.dumps(figures | {"outside_ms": outside, "cpu_ms": 1000 * spent}))
    return over["form"] > BAR_MS or abs(inside / outside - 1) > AGREE


if __name__ == "__main__":
    main()
