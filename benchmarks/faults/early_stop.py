"""What wait = "enough" saves where one worker is now and then very late:
python -m benchmarks.faults.early_stop [--cases N] [--divided SHARE]

Three mock workers over real HTTP: two take 100 ms, the third a log-normal time with the same median
and a 99th percentile 20 times that. In SHARE of the cases the first two disagree, so that the third
decides and must be waited for. The same cases go through the gateway with wait = "all" and with
"enough", in turns. Beside them stands the floor: the slower of the first two, asked straight. Exit
status 1 where the 99th percentile of "enough" is over 0.35 of that of "all".
"""

import argparse
import asyncio
import json
import math
import random
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.data import get_testdata_file

from benchmarks.serving import URL, gateway
from consilium.case import encode
from gateway.asking.model_server import complete, new_http_client
from tests.mock_vllm import MockVllm

BAR = 0.35
MEDIAN_S = 0.1
SIGMA = math.log(20) / 2.3263  # the 99th percentile of a standard normal
AT_ONCE = 8
SCAN = Path(str(get_testdata_file("CT_small.dcm", download=False)))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--cases", type=int, default=600)
    arguments.add_argument("--divided", type=float, default=0.0)
    options = arguments.parse_args()
    late = random.Random(0)

    def second(request: dict[str, Any]) -> str:
        number = int(re.findall(r"[0-9]+", json.dumps(request["messages"][0]["content"][-1]))[0])
        return "no" if random.Random(number).random() < options.divided else "yes"

    workers = [
        MockVllm("yes", delay_s=MEDIAN_S),
        MockVllm(second, delay_s=MEDIAN_S),
        MockVllm("yes", delay_s=lambda: late.lognormvariate(math.log(MEDIAN_S), SIGMA)),
    ]
    for worker in workers:
        worker.start()
    with gateway([worker.url for worker in workers], "quorum = 2\ndeadline_s = 60"):
        seconds = asyncio.run(ask_in_turns(workers, options.cases))
    for worker in workers:
        worker.stop()
    tail = {name: float(np.quantile(found, 0.99)) for name, found in seconds.items()}
    middle = {name: float(np.median(found)) for name, found in seconds.items()}
    for name in seconds:
        print(f"{name:9} median {middle[name]:6.3f} s   p99 {tail[name]:6.3f} s")
    ratio = tail["enough"] / tail["all"]
    print(
        f"p99 of enough over that of all: {ratio:.2f} (at most {BAR:g}); {options.cases} cases "
        f"each, the first two divided in {options.divided:.0%}"
    )
    print(json.dumps({"p99_s": tail, "median_s": middle, "ratio": ratio}))
    raise SystemExit(ratio > BAR)


async def ask_in_turns(workers: list[MockVllm], cases: int) -> dict[str, list[float]]:
    """Seconds of every case, by how it was asked. Its number is in its question: none is cached."""
    image = encode(SCAN)
    seconds: dict[str, list[float]] = {"all": [], "enough": [], "floor": []}
    at_once = asyncio.Semaphore(AT_ONCE)

    async def verdict(number: int, wait: str) -> None:
        body = {
            "question": f"Case {number}, {wait}?",
            "images": [image],
            "options": {"wait": wait, "summarise": "never"},
        }
        async with http.post(f"{URL}/vqa", json=body) as response:
            response.raise_for_status()
            await response.read()

    async def straight(number: int) -> None:
        question = {"role": "user", "content": [{"type": "text", "text": f"Case {number}"}]}
        calls = (
            complete(http, worker.url, json.dumps({"messages": [question]}).encode())
            for worker in workers[:2]
        )
        await asyncio.gather(*calls)

    async def one(number: int) -> None:
        async with at_once:
            for name, call in (
                ("all", verdict(number, "all")),
                ("enough", verdict(number, "enough")),
                ("floor", straight(number)),
            ):
                began = time.perf_counter()
                await call
                seconds[name].append(time.perf_counter() - began)

    async with new_http_client() as http:
        await asyncio.gather(*(one(number) for number in range(cases)))
    return seconds


if __name__ == "__main__":
    main()
