"""Whether a gateway stays what it is: make soak [MINUTES=30]

How many cases a second it can take is measured first; then it gets four fifths of that, come when
they may: new questions and old ones about pictures of every kind, as JSON and as forms. Beside
them callers open streams and leave, others send what must be refused, and the panel is taken up
anew every twenty seconds. Exit status 1 unless every good case was answered and every bad one
refused, each minute's 99th percentile is within twice the first one's, memory has grown by less
than 3 % since the first minute, and no more tasks, sockets and files are open than before.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import aiohttp
import numpy as np
import psutil
import pybase64
import pydicom.data
import uvloop

from benchmarks import serving
from benchmarks.traffic import BOUNDARY, JSON, MULTIPART, NUMBER, form, photograph, workers
from gateway import __main__ as gateway
from tests.conftest import picture

CALLERS, SHARE = 16, 0.8  # who find out what it can take; what of that it gets
P99_BAR, MEMORY_BAR = 2.0, 1.03
RELOAD_S = 20
IDLE_S = 12.0  # a line to a worker is kept for five, and looked at every five
STREAM = {"content-type": JSON, "accept": "text/event-stream"}
# In a hundred: cases new and old, streams that are left, what must be refused.
MIX = {"new": 80, "old": 8, "left": 4, "bad": 8}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--minutes", type=int, default=30)
    arguments.add_argument("--gateway", type=Path, help=argparse.SUPPRESS)
    options, others = arguments.parse_known_args()
    if options.gateway:
        count_tasks(options.gateway)
        sys.argv = ["gateway", *others]
        gateway.main()
        return
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[-1]})
    with tempfile.TemporaryDirectory() as folder, workers(delay_ms=20) as urls:
        counted = Path(folder) / "tasks"
        program = ["-m", "benchmarks.faults.soak", f"--gateway={counted}"]
        with serving.gateway(urls, "quorum = 2", cores={cores[0]}, program=program) as process:
            soak = Soak(psutil.Process(process), counted)
            raise SystemExit(uvloop.run(soak.run(options.minutes)))


def count_tasks(file: Path) -> None:
    """From now on this process writes how many tasks it has into the file, when it gets SIGUSR1."""
    signal.signal(signal.SIGUSR1, lambda *_: file.write_text(str(len(asyncio.all_tasks()))))


class Soak:
    """What came of everything that was sent to the gateway whose process it is."""

    def __init__(self, process: psutil.Process, counted: Path):
        self._process, self._counted = process, counted
        self._chance, self._number = random.Random(0), 0
        self._failures: Counter[str] = Counter()
        self._taken: list[tuple[float, float]] = []  # of good cases: when they came, how long
        scan = str(pydicom.data.get_testdata_file("CT_small.dcm", download=False))
        self._pictures = [photograph(100, seed) for seed in range(4)]
        self._pictures += [picture("L", (256, 256), kind) for kind in ("PNG", "WEBP", "TIFF")]
        self._pictures.append(Path(scan).read_bytes())

    async def run(self, minutes: int) -> bool:
        """Print the figures; whether a bar is missed."""
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=2)
        async with aiohttp.ClientSession(serving.URL, connector=connector) as self._http:
            rate = await self._saturation(15)
            print(
                f"{rate:.0f} requests a second at most, {SHARE * rate:.0f} from now on", flush=True
            )
            before = await self._open()
            self._taken.clear()
            memory, tails = list[float](), list[float]()  # at each minute's end, and of each
            for minute in range(minutes):
                began = time.monotonic()
                await self._traffic(SHARE * rate, 60)
                memory.append(self._process.memory_info().rss)
                taken = [seconds for at, seconds in self._taken if at >= began]
                p50, p99 = (1000 * float(np.quantile(taken, share)) for share in (0.5, 0.99))
                tails.append(p99)
                print(
                    f"minute {minute + 1}: {len(taken)} good cases, median {p50:.0f} ms, "
                    f"p99 {p99:.0f} ms, {memory[-1] / 1e6:.0f} MB",
                    flush=True,
                )
            after = await self._open()
        grown, worst = memory[-1] / memory[0], max(tails) / tails[0]
        leaked = {what: after[what] - before[what] for what in after if after[what] > before[what]}
        print(f"what went wrong: {dict(self._failures) or 'nothing'}")
        print(f"p99 at most {worst:.2f} × the first minute's (bar {P99_BAR:g})")
        print(f"memory {grown:.3f} × the first minute's (bar {MEMORY_BAR:g})")
        print(f"open before {before} and after {after}: {leaked or 'nothing'} leaked")
        figures = {"rate": rate, "worst": worst, "grown": grown, "leaked": leaked}
        print(json.dumps(figures | {"cases": len(self._taken), "failures": self._failures}))
        return bool(self._failures or leaked or worst > P99_BAR or grown > MEMORY_BAR)

    async def _saturation(self, seconds: float) -> float:
        """Requests a second of the same mix when each caller waits for his own alone."""
        until, asked = time.monotonic() + seconds, 0

        async def caller() -> None:
            nonlocal asked
            while time.monotonic() < until:
                await self._one(time.monotonic())
                asked += 1

        await asyncio.gather(*(caller() for _ in range(CALLERS)))
        return asked / seconds

    async def _traffic(self, rate: float, seconds: float) -> None:
        """They come by chance, whether the others were answered or not."""
        at = began = time.monotonic()
        reload_at = began
        async with asyncio.TaskGroup() as group:
            while at < began + seconds:
                at += self._chance.expovariate(rate)
                if at > reload_at:
                    self._process.send_signal(signal.SIGHUP)
                    reload_at += RELOAD_S
                await asyncio.sleep(max(at - time.monotonic(), 0))
                group.create_task(self._one(at))

    async def _one(self, due: float) -> None:
        """One request, which is `due` now, or was."""
        [what] = self._chance.choices(list(MIX), list(MIX.values()))
        try:
            if what == "bad":
                await self._sent(*self._chance.choice(BAD), range(400, 500))
            elif what == "left":
                await self._left()
            elif await self._good(new=what == "new"):
                self._taken.append((due, time.monotonic() - due))
        except (aiohttp.ClientError, OSError) as error:
            self._failures[f"{what}: {type(error).__name__}"] += 1

    async def _good(self, *, new: bool) -> bool:
        """Whether it was answered."""
        image = self._chance.choice(self._pictures)
        self._number += new
        if self._chance.random() < 0.5:
            return await self._sent(self._case(image), JSON, range(200, 201))
        body = form(image).replace(NUMBER, b"%012d" % self._number)
        return await self._sent(body, MULTIPART, range(200, 201))

    def _case(self, image: bytes) -> bytes:
        images = [pybase64.b64encode(image).decode()]
        question = f"Case {self._number:012d}?"
        return json.dumps({"question": question, "images": images}).encode()

    async def _left(self) -> None:
        """A stream, of which the first event is read."""
        self._number += 1
        body = self._case(self._pictures[0])
        async with self._http.post("/vqa", data=body, headers=STREAM) as response:
            await response.content.readany()

    async def _sent(self, body: bytes, kind: str, wanted: range) -> bool:
        """Whether the status was one of those."""
        headers = {"content-type": kind}
        async with self._http.post("/vqa", data=body, headers=headers) as response:
            await response.read()
            if response.status not in wanted:
                self._failures[f"HTTP {response.status} for {wanted.start}"] += 1
            return response.status in wanted

    async def _open(self) -> dict[str, int]:
        """What is open when nobody asks anything any more."""
        await asyncio.sleep(IDLE_S)
        self._process.send_signal(signal.SIGUSR1)
        await asyncio.sleep(1)
        sockets = len(self._process.net_connections())
        return {
            "tasks": int(self._counted.read_text()),
            "sockets": sockets,
            "files": self._process.num_fds() - sockets,
        }


BAD = [  # (body, its kind)
    (b"{", JSON),
    (b"[" * 30_000, JSON),
    (b'{"question": "?", "images": []}', JSON),
    (b'{"question": "?", "images": ["aGVsbG8="]}', JSON),
    (f"--{BOUNDARY}\r\n".encode(), MULTIPART),
    (b"question=?", "application/x-www-form-urlencoded"),
    (form(photograph(100)[:50_000]), MULTIPART),
]


if __name__ == "__main__":
    main()
