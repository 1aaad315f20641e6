"""Whether a flood of wrong keys is felt by who has one: python -m benchmarks.faults.wrong_keys

One mock worker of 50 ms. A caller with a good key asks all the time, in turns of quiet and of
flood: 500 requests a second with a wrong key, 10,000 in all. Exit status 1 where a wrong key
reached the worker, or where the good key's median in the flood is more than a tenth above that in
quiet.
"""

import asyncio
import json
import tempfile
import time
from collections import Counter
from pathlib import Path

import aiohttp
import numpy as np
from pydicom.data import get_testdata_file

from benchmarks.serving import URL, gateway
from consilium.case import encode
from gateway.door import keys
from tests.mock_vllm import MockVllm

BAR = 1.1
TURNS = 10
A_TURN_S = 2.0
WRONG_PER_S = 500
SCAN = Path(str(get_testdata_file("CT_small.dcm", download=False)))


def main() -> None:
    worker = MockVllm("yes", delay_s=0.05).start()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "keys.json"
        key = keys.add(file, "clinic", None, admin=False)
        with gateway([worker.url], "quorum = 1", {"CONSILIUM_KEYS": str(file)}):
            quiet, flooded, statuses = asyncio.run(measured(key))
    asked, good = len(worker.requests), len(quiet) + len(flooded)
    worker.stop()
    quiet_ms, flooded_ms = (1000 * float(np.median(found)) for found in (quiet, flooded))
    ratio = flooded_ms / quiet_ms
    print(f"{statuses[401]} wrong keys refused, {statuses.total() - statuses[401]} not")
    print(f"good cases {good}, worker asked {asked} times")
    print(f"good key, median: {quiet_ms:.1f} ms in quiet, {flooded_ms:.1f} ms in the flood")
    print(f"ratio {ratio:.3f} (at most {BAR})")
    print(json.dumps({"ratio": ratio, "refused": statuses[401], "worker_asked": asked - good}))
    raise SystemExit(asked != good or set(statuses) != {401} or ratio > BAR)


async def measured(key: str) -> tuple[list[float], list[float], Counter[int]]:
    """Seconds of the good key's cases in quiet and in the flood; how the wrong ones fared."""
    image = encode(SCAN)
    statuses: Counter[int] = Counter()
    found: dict[str, list[float]] = {"quiet": [], "flood": []}

    async def ask(http: aiohttp.ClientSession, sent: str, number: int) -> int:
        body = {"question": f"Case {number}?", "images": [image]}
        headers = {"authorization": f"Bearer {sent}"}
        async with http.post(f"{URL}/vqa", json=body, headers=headers) as response:
            await response.read()
            return response.status

    async def wrong(http: aiohttp.ClientSession) -> None:
        statuses[await ask(http, "consilium_00000000_" + "A" * 43, 0)] += 1

    async def flood(http: aiohttp.ClientSession) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(int(WRONG_PER_S * A_TURN_S)):
                group.create_task(wrong(http))
                await asyncio.sleep(1 / WRONG_PER_S)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=100)) as http:
        for turn in range(TURNS):
            for name in found:
                going_on = flood(http) if name == "flood" else asyncio.sleep(A_TURN_S)
                meanwhile = asyncio.create_task(going_on)
                while not meanwhile.done():
                    began = time.perf_counter()
                    number = time.monotonic_ns()
                    assert await ask(http, key, number) == 200, turn
                    found[name].append(time.perf_counter() - began)
    return found["quiet"], found["flood"], statuses


if __name__ == "__main__":
    main()
