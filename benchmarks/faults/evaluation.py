"""Whether `consilium evaluate` gets through: python -m benchmarks.faults.evaluation [--cases N]
    [--per-minute N] [--workers] [--ray]

A gateway that takes 100 ms over every case and counts what it was asked; the real command asks it
N cases, 64 at a time, and ten times as many. In the same run a bare client sends the same bodies,
prepared beforehand: that is the floor. Told is what share of the mock's 640 cases a second each
got, from the first case that came to the last that went; how much memory the command had at its
most; and what came of a run that was killed at random moments: each of its cases has one verdict.
What was under way when it was killed is asked again, nothing else is. Exit status 1 where a bar is
missed.

With --per-minute the command asks a real gateway over mock workers instead, with a key that may ask
so often, and all that is told is how long it took and how many cases have a verdict. With --workers
it is killed beside a real gateway over mock workers, and told is what they were asked again. With
--ray one node and two of a Ray cluster ask the mock, eight at a time each, which is little enough
for the cores of one machine; told is how much faster two are.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import numpy as np
import psutil
from aiohttp import web
from PIL import Image

from consilium.case import case_json
from gateway.door import keys
from gateway.settings import load_settings
from services.evaluation.stored_run import read_outcomes
from tests.conftest import serving
from tests.fake_gateway import PANEL, VERDICT
from tests.mock_vllm import MockVllm

CONCURRENCY, SECONDS = 64, 0.1
ALLOWED = CONCURRENCY / SECONDS  # cases a second
SHARE_BAR, MEMORY_BAR_MB = 0.9, 300
MORE = 10  # times as many cases, for its memory
OF_A_NODE, FASTER_BAR = 8, 1.7  # at a time, of a node of a cluster; of two over one
ALONE = ("--concurrency", str(CONCURRENCY))
JSON = {"content-type": "application/json"}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--cases", type=int, default=5_000)
    arguments.add_argument("--kills", type=int, default=5)
    arguments.add_argument("--mock", action="store_true", help=argparse.SUPPRESS)
    arguments.add_argument("--per-minute", type=int, metavar="N")
    arguments.add_argument("--workers", action="store_true")
    arguments.add_argument("--ray", action="store_true")
    options = arguments.parse_args()
    if options.mock:
        asyncio.run(serve())
        return
    if options.per_minute:
        with tempfile.TemporaryDirectory() as folder:
            of_a_key(Path(folder), options.cases, options.per_minute)
        return
    if options.workers:
        with tempfile.TemporaryDirectory() as folder:
            of_workers(Path(folder), options.cases, options.kills)
        return
    with tempfile.TemporaryDirectory() as folder, mock() as url:
        if options.ray:
            raise SystemExit(on_nodes(Path(folder), url, options.cases))
        raise SystemExit(measure(Path(folder), url, options.cases, options.kills))


def measure(folder: Path, url: str, cases: int, kills: int) -> bool:
    """Print the figures; whether a bar is missed."""
    few, many = write_set(folder, cases), write_set(folder, MORE * cases)
    floor = asyncio.run(bare(url, folder / "image.jpg", cases)) / ALLOWED
    print(f"{cases} cases, {CONCURRENCY} at a time, {ALLOWED:.0f} a second allowed")
    print(f"a bare client: {floor:.1%} of that (floor)")
    memory = evaluate(url, few, folder / "few")
    share = told(url)["rate"] / ALLOWED
    spent_ms = 1000 * sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]) / cases
    print(f"consilium evaluate: {share:.1%}, {memory:.0f} MB at most (bar {SHARE_BAR:.0%})")
    print(f"a case took {spent_ms:.2f} ms of a processor, start and scores included")
    memory_of_many = evaluate(url, many, folder / "many")
    print(f"{MORE * cases} cases: {memory_of_many:.0f} MB at most (bar {MEMORY_BAR_MB})")
    told(url)
    again = killed(url, few, folder / "killed", cases, kills)
    print(f"killed {kills} times: every case has one verdict; {again} were asked again")
    figures = {
        "share": share,
        "floor": floor,
        "spent_ms": spent_ms,
        "memory_mb": memory,
        "memory_of_many_mb": memory_of_many,
        "asked_again": again,
    }
    print(json.dumps(figures))
    return share < SHARE_BAR or memory_of_many > MEMORY_BAR_MB


def on_nodes(folder: Path, url: str, cases: int) -> bool:
    """Print how fast one node and two of a cluster ask, in turns; whether the bar is missed."""
    from ray.cluster_utils import Cluster

    file, rates = write_set(folder, cases), dict[int, list[float]]()
    for turn, nodes in enumerate((1, 2, 2, 1)):
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        try:
            for _ in range(nodes):
                cluster.add_node(num_cpus=1)
            asking = "--ray", cluster.address, "--concurrency", str(OF_A_NODE)
            evaluate(url, file, folder / f"turn-{turn}", asking)
        finally:
            cluster.shutdown()
        rates.setdefault(nodes, []).append(told(url)["rate"])
        allowed = nodes * OF_A_NODE / SECONDS
        print(f"{nodes} node(s): {rates[nodes][-1]:.1f} cases a second of {allowed:.0f} allowed")
    faster = sum(rates[2]) / sum(rates[1])
    print(f"two nodes ask {faster:.2f} times as fast as one (bar {FASTER_BAR})")
    print(json.dumps({"rates": rates, "faster": faster}))
    return faster < FASTER_BAR


def of_a_key(folder: Path, cases: int, per_minute: int) -> None:
    """Print how long it took one that may ask so often, and what came of it."""
    key = keys.add(folder / "keys.json", "clinic", per_minute, False)
    with real(folder, CONSILIUM_KEYS=str(folder / "keys.json")) as (url, _):
        began = time.monotonic()
        evaluate(url, write_set(folder, cases), folder / "out", CONSILIUM_KEY=key)
        minutes = (time.monotonic() - began) / 60
    told = read_outcomes(folder / "out").values()
    scored = sum(outcome.verdict is not None for outcome in told)
    print(f"a key of {per_minute} a minute: {scored} of {cases} cases in {minutes:.1f} minutes")
    print(json.dumps({"cases": cases, "with_a_verdict": scored, "minutes": minutes}))
    raise SystemExit(scored < cases)


def of_workers(folder: Path, cases: int, kills: int) -> None:
    """Print what kills cost workers behind a real gateway, which keeps what they said."""
    with real(folder) as (url, workers):
        interrupted(url, write_set(folder, cases), folder / "out", cases, kills)
    calls = Counter(
        (seat, json.dumps(request["messages"]))
        for seat, worker in enumerate(workers)
        for request in worker.requests
        if "there?" in str(request["messages"])  # else it is the gateway's, whether it is well
    )
    again = calls.total() - len(calls)
    broken_off = sum(worker.dropped for worker in workers)
    kept = sum(out.verdict.cached for out in read_outcomes(folder / "out").values() if out.verdict)
    print(f"killed {kills} times, {cases} cases, {len(workers)} workers behind a real gateway:")
    print(f"{kept} verdicts were kept ones; {again} calls were made again")
    print(f"{broken_off} were broken off by whoever was killed")
    print(json.dumps({"kept": kept, "again": again, "broken_off": broken_off}))


@contextmanager
def real(folder: Path, **environ: str) -> Iterator[tuple[str, list[MockVllm]]]:
    """A gateway over two mock workers; its address, and them."""
    logging.disable(logging.INFO)  # a line for each case
    panel, workers = (
        "[panel]\nquorum = 2\ngrounding = false\n",
        [MockVllm("Yes", delay_s=SECONDS) for _ in range(2)],
    )
    with contextlib.ExitStack() as servers:
        for seat, worker in enumerate(workers):
            worker.start()
            servers.callback(worker.stop)
            panel += f'[[worker]]\nname = "w{seat}"\nfamily = "f{seat}"\nmodel = "mock"\n'
            panel += f'url = "{worker.url}"\nprompt = "{{question}}"\nlanguages = ["en"]\n'
        (folder / "panel.toml").write_text(panel, "utf-8")
        settings = load_settings(folder / "panel.toml", environ)
        yield servers.enter_context(serving(settings)), workers


def write_set(folder: Path, cases: int) -> Path:
    """A set of one's own, of so many questions about one image of 384 pixels a side, ten of each
    patient."""
    shades = np.random.default_rng(0).integers(0, 256, (48, 48), dtype=np.uint8)
    Image.fromarray(shades).resize((384, 384)).save(folder / "image.jpg")
    rows = (
        {
            "id": n,
            "images": "image.jpg",
            "question": f"Is {n} there?",
            "answer": "Yes",
            "patient": n // 10,
        }
        for n in range(cases)
    )
    file = folder / f"{cases}.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return file


def start(
    url: str, file: Path, out: Path, asking: Sequence[str] = ALONE, **environ: str
) -> subprocess.Popen[bytes]:
    command = f"evaluate --dataset {file} --out {out} --gateway {url}"
    return subprocess.Popen(
        [sys.executable, "-m", "services.cli", *command.split(), *asking],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | environ,
    )


def evaluate(
    url: str, file: Path, out: Path, asking: Sequence[str] = ALONE, **environ: str
) -> float:
    """Runs the command to its end; the memory that it had at its most, in MB."""
    process, most = start(url, file, out, asking, **environ), 0
    memory = psutil.Process(process.pid)
    while process.poll() is None:
        with contextlib.suppress(psutil.Error):
            most = max(most, memory.memory_info().rss)
        time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"consilium evaluate ended with status {process.returncode}.")
    return most / 2**20


def killed(url: str, file: Path, out: Path, cases: int, kills: int) -> int:
    """How many cases `interrupted` asked more than once: none but those that were under way may
    be."""
    interrupted(url, file, out, cases, kills)
    found = told(url)
    assert found["cases"] == cases, "a case was lost"
    assert found["again"] <= kills * CONCURRENCY, "one was asked again that was not under way"
    return int(found["again"])


def interrupted(url: str, file: Path, out: Path, cases: int, kills: int) -> None:
    """Kills the command `kills` times, each time once some of what is left has come, and lets it
    end: every case has one verdict."""
    lines, chance = out / "verdicts.jsonl", random.Random(0)
    for number in range(kills):
        process = start(url, file, out)
        wanted = chance.randint(number, number + 1) / (kills + 1) + chance.random() / (kills + 1)
        while process.poll() is None and _lines(lines) < min(wanted, 0.95) * cases:
            time.sleep(chance.random() / 50)
        process.kill()
        process.wait()
    evaluate(url, file, out)
    ids = Counter(json.loads(line)["id"] for line in lines.read_bytes().splitlines())
    assert len(ids) == cases, "a case was lost"
    assert max(ids.values()) == 1, "a case has two verdicts"


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


async def bare(url: str, image: Path, cases: int) -> float:
    """Cases a second of a client that does nothing but send."""
    bodies = iter([case_json(image, f"Is {n} there?", {}) for n in range(cases)])

    async def send(http: aiohttp.ClientSession) -> None:
        for body in bodies:
            async with http.post(f"{url}/vqa", data=body, headers=JSON) as response:
                await response.read()

    async with aiohttp.ClientSession() as http:
        await asyncio.gather(*(send(http) for _ in range(CONCURRENCY)))
    return float(told(url)["rate"])


def told(url: str) -> dict[str, Any]:
    """What the mock was asked since it last told."""
    return dict(httpx.get(f"{url}/told", trust_env=False).json())


@contextmanager
def mock() -> Iterator[str]:
    """In a process of its own; gives its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.faults.evaluation", "--mock"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()


async def serve() -> None:
    asked: Counter[bytes] = Counter()  # by question
    times: list[float] = []
    verdict, panel = (each.model_dump_json().encode() for each in (VERDICT, PANEL))

    async def vqa(request: web.Request) -> web.Response:
        times.append(time.monotonic())
        _, _, question = (await request.read()).partition(b'"question"')
        asked[question[:40].partition(b"?")[0]] += 1
        await asyncio.sleep(SECONDS)
        times.append(time.monotonic())
        return web.Response(body=verdict, headers=JSON)

    async def tell(request: web.Request) -> web.Response:
        calls, cases = asked.total(), len(asked)
        took = max(times, default=0) - min(times, default=0)
        rate = calls / took if took else 0
        asked.clear()
        times.clear()
        return web.json_response({"cases": cases, "again": calls - cases, "rate": rate})

    app = web.Application(client_max_size=2**20)
    app.router.add_post("/vqa", vqa)
    app.router.add_get("/panel", lambda _: asyncio.sleep(0, web.Response(body=panel, headers=JSON)))
    app.router.add_get("/told", tell)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    main()
