"""Whether `consilium plan --rate` foretells what comes:
python -m benchmarks.accuracy.forecast [--cases N] [--picture FILE]

Three mock workers over real HTTP, each of which has six calls under way at a time and lets the
next wait; a call takes a log-normal time of 1.5 s at the median. Cases are asked six at a time,
which leaves a stored run as `consilium evaluate` does. From that run alone the median and the 99th
percentile of a verdict's time are forecast at several rates; then cases come to the same gateway at
those rates, independently of each other, however many are under way. Exit status 1 where one of the
figures is more than 15 % away from what was measured.
"""

import argparse
import asyncio
import json
import math
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from aiohttp import web
from pydicom.data import get_testdata_file

from benchmarks.serving import URL, gateway, panel_file
from consilium.case import encode
from gateway.asking.model_server import Http, new_http_client
from gateway.contract import Verdict
from gateway.settings import load_settings
from services.evaluation.forecast import Demand, Forecast, forecast, times_of
from services.evaluation.stored_run import Run, write_run
from tests.mock_vllm import MockVllm

BAR = 0.15
AT_ONCE, WORKERS = 6, 3
MEDIAN_S, SIGMA = 1.5, 0.5
WARM_UP = 12
RATES = (1.6, 2.4, 3.0)  # six at a time of 1.7 s on an average are 3.5 a second
PANEL = "quorum = 2\ndeadline_s = 60"
SCAN = Path(str(get_testdata_file("CT_small.dcm", download=False)))

RUN = Run(
    dataset="mock",
    split="all",
    language="en",
    shuffle_images=None,
    blank_images=False,
    workers=None,
    summarise="never",
    panel="",
    models={},
)

Quantiles = tuple[float, float]  # the median and the 99th percentile, in seconds


class Server(MockVllm):
    """One that takes so many calls at a time."""

    def __init__(self, seed: int):
        late = random.Random(seed)
        super().__init__(delay_s=lambda: late.lognormvariate(math.log(MEDIAN_S), SIGMA))
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        async with self._turns:
            self.requests.clear()
            return await super()._chat(request)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--cases", type=int, default=700, help="At each rate.")
    arguments.add_argument("--picture", type=Path)
    arguments.add_argument("--mocks", action="store_true", help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.mocks:
        print(json.dumps([Server(seed).start().url for seed in range(WORKERS)]), flush=True)
        while True:
            time.sleep(60)
    command = [sys.executable, "-m", "benchmarks.accuracy.forecast", "--mocks"]
    mocks = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert mocks.stdout is not None
    try:
        workers = json.loads(mocks.stdout.readline())
        with gateway(workers, PANEL), tempfile.TemporaryDirectory() as folder:
            raise SystemExit(measure(Path(folder), workers, options.cases, options.picture))
    finally:
        mocks.terminate()
        mocks.wait()


def measure(folder: Path, workers: list[str], cases: int, picture: Path | None) -> bool:
    """Print the figures as they come; whether one is missed."""
    (folder / "panel.toml").write_text(panel_file(workers, PANEL))
    settings = load_settings(folder / "panel.toml", {})
    asyncio.run(asked_in_turns("Warm-up", WARM_UP))
    write_run(folder / "run", RUN, asyncio.run(asked_in_turns("Case", cases // 2)))
    took = times_of(folder / "run", settings)
    foretold, found = dict[float, Quantiles](), dict[float, Quantiles]()
    for rate in RATES:
        foretold[rate] = of(forecast(settings, took, Demand(rate, AT_ONCE)))
        found[rate] = asyncio.run(asked_at(rate, cases))
        print(
            f"{rate:g} cases a second: median {foretold[rate][0]:.3f} s foretold, "
            f"{found[rate][0]:.3f} s measured; p99 {foretold[rate][1]:.3f} s and "
            f"{found[rate][1]:.3f} s",
            flush=True,
        )
    apart = max(
        abs(mine / real - 1)
        for rate in RATES
        for mine, real in zip(foretold[rate], found[rate], strict=True)
    )
    print(f"at most {apart:.1%} apart (bar {BAR:.0%}); {cases} cases at each rate")
    print(json.dumps({"foretold_s": foretold, "measured_s": found, "apart": apart}))
    if picture:
        draw(foretold, found, picture)
    return apart > BAR


async def asked_in_turns(what: str, cases: int) -> dict[str, Verdict]:
    """What came of so many cases, by their names, AT_ONCE of them at a time."""
    image, verdicts = encode(SCAN), dict[str, Verdict]()
    numbers = iter(range(cases))

    async def ask_in_turn(http: Http) -> None:
        for number in numbers:
            name = f"{what} {number}"
            verdicts[name] = await verdict(http, image, name)

    async with new_http_client() as http:
        await asyncio.gather(*(ask_in_turn(http) for _ in range(AT_ONCE)))
    return verdicts


async def asked_at(rate: float, cases: int) -> Quantiles:
    """Seconds of a verdict, as a caller measures them, where cases come at random."""
    image, lot = encode(SCAN), random.Random(rate)
    seconds: list[float] = []

    async def ask(number: int) -> None:
        began = time.perf_counter()
        await verdict(http, image, f"Case {number} at {rate} a second")
        seconds.append(time.perf_counter() - began)

    async with new_http_client() as http, asyncio.TaskGroup() as group:
        comes_at = time.perf_counter()
        for number in range(cases):
            # By the clock: what the last one took to send must not delay the next.
            comes_at += lot.expovariate(rate)
            await asyncio.sleep(comes_at - time.perf_counter())
            group.create_task(ask(number))
    p50_s, p99_s = np.quantile(seconds[cases // 10 :], (0.5, 0.99))
    return float(p50_s), float(p99_s)


async def verdict(http: Http, image: str, question: str) -> Verdict:
    body = {"question": question, "images": [image], "options": {"summarise": "never"}}
    async with http.post(f"{URL}/vqa", json=body) as response:
        response.raise_for_status()
        return Verdict.model_validate_json(await response.read())


def of(told: Forecast) -> Quantiles:
    return told.p50_s, told.p99_s


def draw(foretold: Mapping[float, Quantiles], found: Mapping[float, Quantiles], path: Path) -> None:
    """What was foretold as lines, what was measured as points."""
    from matplotlib import pyplot as plt

    from services.evaluation.pictures import STYLE

    with plt.rc_context(STYLE):
        figure, axes = plt.subplots()
        for place, (name, colour) in enumerate((("median", "tab:blue"), ("p99", "tab:orange"))):
            axes.plot(
                list(foretold),
                [each[place] for each in foretold.values()],
                color=colour,
                marker="",
                label=f"{name}, foretold",
            )
            axes.scatter(
                list(found),
                [each[place] for each in found.values()],
                color=colour,
                label=f"{name}, measured",
            )
        axes.set(xlabel="cases a second", ylabel="seconds to a verdict", ylim=(0, None))
        axes.legend()
        figure.tight_layout()
        figure.savefig(path)
        plt.close(figure)


if __name__ == "__main__":
    main()
