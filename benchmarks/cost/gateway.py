"""What the gateway costs beside what else one could take:
python -m benchmarks.cost.gateway [--litellm PATH] [--kb 0 100 500] [--callers 1 16] [--out FILE]

Three workers without delay. Each server has a core to itself, workers and callers share another
(with one core in all, what one caller sees is the same, and the processor time).
In turns, several times, each is asked about the same JPEGs by so many callers:

- `direct`: the callers make the three calls themselves. That is the floor.
- `bare`: the least that a fan-out costs in Python (benchmarks/cost/bare.py).
- `consilium`: the gateway, asked in JSON as `bare` is; `form`: asked in a form.
- `litellm`: a caller makes three calls through LiteLLM's proxy, which gets the image three times
  where the others get it once. PATH is its program in an environment of its own.

The gateway has seen the four pictures before; benchmarks/cost/overhead.py has those that
it has not. With 16 callers it is asked once more, seven tenths as often as it has just been able to
answer, by the clock. Prints a table; FILE gets it as JSON. Exit status 1 where a bar is missed.
"""

import argparse
import asyncio
import contextlib
import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import uvloop

from benchmarks import needs, serving
from benchmarks.traffic import (
    JSON,
    MULTIPART,
    Line,
    Request,
    case,
    chat,
    form,
    load,
    photograph,
    workers,
)

BARE_PORT, LITELLM_PORT = serving.free_port(), serving.free_port()
KEY = "sk-bench"
PICTURES = 4
P50_BAR_MS, P99_BAR_MS, CPU_BAR, LITELLM_BAR = 2.0, 6.0, 1.6, 10.0
OWN = ("consilium", "form")  # the ways into the gateway
# So many callers, at so much of what it could answer: by how much the p99 may be over the p50.
BUSY_CALLERS, BUSY_SHARE, BUSY_BAR = 16, 0.7, 4.0
# Without them it looks for what it cannot reach, or writes a line for each call.
LITELLM = {
    "LITELLM_MODE": "PRODUCTION",
    "LITELLM_LOG": "ERROR",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "NO_PROXY": "127.0.0.1",
}
COLUMNS = ("verdicts_per_s", "p50_ms", "p99_ms", "cpu_ms", "memory_mb", "others_on_core")
Figures = dict[str, Any]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--litellm", type=Path)
    arguments.add_argument("--kb", type=int, nargs="+", default=[0, 100, 500])
    arguments.add_argument("--callers", type=int, nargs="+", default=[1, 4, 16, 64, 128])
    arguments.add_argument("--runs", type=int, default=3)
    arguments.add_argument("--seconds", type=float, default=2.0)
    arguments.add_argument("--out", type=Path)
    options = arguments.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    own = cores[0]
    os.sched_setaffinity(0, {cores[-1]})
    if options.litellm:
        needs.program(options.litellm, "pip install 'litellm[proxy]' in an environment of its own")
    with workers() as urls, servers(urls, own, options.litellm) as processes:
        times = options.runs, options.seconds
        rows = [
            figures
            for kilobytes in options.kb
            for callers in options.callers
            for figures in uvloop.run(in_turns(urls, processes, own, kilobytes, callers, *times))
        ]
    print(f"| KB | callers | | {' | '.join(COLUMNS)} |\n|--:|--:|---|{'--:|' * len(COLUMNS)}")
    for row in rows:
        told = " | ".join("" if row[name] is None else f"{row[name]:.4g}" for name in COLUMNS)
        name = row["name"] + (f", at {row['share']:g}" if row["share"] else "")
        print(f"| {row['kb']} | {row['callers']} | {name} | {told} |")
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
    raise SystemExit(any([missed(rows, kilobytes) for kilobytes in options.kb]))


@contextlib.contextmanager
def servers(urls: list[str], core: int, litellm: Path | None) -> Iterator[dict[str, int]]:
    """The process of each, by its name; each idles while another is asked."""
    bare = [sys.executable, "-m", "benchmarks.cost.bare", str(BARE_PORT), *urls]
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        gateway = stack.enter_context(serving.gateway(urls, "quorum = 2", cores={core}))
        processes = {"consilium": gateway, "form": gateway}
        processes["bare"] = stack.enter_context(
            serving.server(bare, f"http://127.0.0.1:{BARE_PORT}/", cores={core})
        )
        if litellm:
            config = Path(folder) / "litellm.json"  # YAML is wider than JSON
            config.write_text(json.dumps(litellm_config(urls)))
            command = [str(litellm), "--config", str(config), "--host", "127.0.0.1"]
            command += ["--port", str(LITELLM_PORT), "--num_workers", "1"]
            env = LITELLM | {"PATH": f"{litellm.parent}:/usr/bin:/bin", "HOME": folder}
            health = f"http://127.0.0.1:{LITELLM_PORT}/health/liveliness"
            processes["litellm"] = stack.enter_context(
                serving.server(command, health, env, cores={core})
            )
        yield processes


def litellm_config(urls: list[str]) -> dict[str, Any]:
    models = [
        {
            "model_name": f"m{seat}",
            "litellm_params": {
                "model": f"openai/m{seat}",
                "api_base": f"{url}/v1",
                "api_key": "none",
            },
        }
        for seat, url in enumerate(urls)
    ]
    return {
        "model_list": models,
        "litellm_settings": {"num_retries": 0, "callbacks": [], "set_verbose": False},
        "general_settings": {"master_key": KEY, "disable_spend_logs": True},
    }


async def in_turns(
    urls: list[str],
    processes: dict[str, int],
    core: int,
    kilobytes: int,
    callers: int,
    runs: int,
    seconds: float,
) -> list[Figures]:
    """What each server did with pictures of that size and so many callers, `runs` times."""
    pictures = [photograph(kilobytes, seed) for seed in range(PICTURES)]
    names = ["direct", *sorted(processes)]
    asked = {name: requests(name, urls, pictures) for name in names}
    found: dict[str, list[Figures]] = {name: [] for name in names}
    busy: dict[str, list[Figures]] = {name: [] for name in OWN if callers == BUSY_CALLERS}
    for run in range(runs + 1):
        for name in names:
            # The first warms everything up.
            took = seconds if run else min(seconds, 0.5)
            figures = await measured(asked[name], processes.get(name), core, callers, took)
            found[name] += [figures] * bool(run)
            if run and name in busy:
                per_s = BUSY_SHARE * figures["verdicts_per_s"]
                busy[name].append(
                    await measured(asked[name], processes[name], core, callers, took, per_s)
                )
    of = {"kb": kilobytes, "callers": callers}
    rows = [of | {"name": name, "share": None} | summed_up(found[name]) for name in names]
    return rows + [of | {"name": n, "share": BUSY_SHARE} | summed_up(busy[n]) for n in busy]


def summed_up(runs: list[Figures]) -> Figures:
    """Quantiles of all answers, and of every other figure the median."""
    taken = np.concatenate([run.pop("taken") for run in runs])
    middle = {
        what: None if runs[0][what] is None else float(np.median([run[what] for run in runs]))
        for what in runs[0]
    }
    p50, p99 = (float(np.quantile(taken, share)) for share in (0.5, 0.99))
    return {"asked": len(taken), "p50_ms": 1000 * p50, "p99_ms": 1000 * p99} | middle


def requests(name: str, urls: list[str], pictures: list[bytes]) -> list[list[Request]]:
    """Of each picture, what a caller sends at once for one verdict."""
    if name == "direct":
        where = [f"{url}/v1/chat/completions" for url in urls]
        return [[Request(url, chat(picture)) for url in where] for picture in pictures]
    if name == "litellm":
        url = f"http://127.0.0.1:{LITELLM_PORT}/v1/chat/completions"
        models = [f"m{seat}" for seat in range(len(urls))]
        bodies = [[chat(p, model, logprobs=False) for model in models] for p in pictures]
        return [[Request(url, body, key=KEY) for body in each] for each in bodies]
    url = f"http://127.0.0.1:{BARE_PORT}/vqa" if name == "bare" else f"{serving.URL}/vqa"
    make, kind = (form, MULTIPART) if name == "form" else (case, JSON)
    return [[Request(url, make(picture), kind)] for picture in pictures]


async def measured(
    asked: list[list[Request]],
    process: int | None,
    core: int,
    callers: int,
    seconds: float,
    per_s: float | None = None,
) -> Figures:
    async def ask(own: list[Line], number: int) -> None:
        sent = asked[number % len(asked)]
        replies = await asyncio.gather(
            *(line.ask(request, number) for line, request in zip(own, sent, strict=True))
        )
        for status, body in replies:
            if status != 200 or b"Yes" not in body:
                raise SystemExit(f"HTTP {status}: {body[:500]!r}")

    server = psutil.Process(process) if process else None
    # Its own collections of garbage, of up to 100 ms, would be taken for the server's.
    gc.collect()
    gc.disable()
    busy, spent = busy_s(core), spent_s(server)
    began = time.monotonic()
    taken = await load(asked[0], ask, callers, seconds, per_s)
    took = time.monotonic() - began  # until the last of them is answered
    gc.enable()
    busy, spent = busy_s(core) - busy, spent_s(server) - spent
    return {
        "taken": taken,
        "verdicts_per_s": len(taken) / took,
        "cpu_ms": 1000 * spent / len(taken) if server else None,
        "memory_mb": server.memory_info().rss / 1e6 if server else None,
        "others_on_core": max(0.0, busy - spent) / took,
    }


def busy_s(core: int) -> float:
    times = psutil.cpu_times(percpu=True)[core]
    return float(sum(times) - times.idle - times.iowait)


def spent_s(server: psutil.Process | None) -> float:
    if server is None:
        return 0.0
    family = [server, *server.children(recursive=True)]
    return float(sum(sum(each.cpu_times()[:2]) for each in family))


def missed(rows: list[Figures], kilobytes: int) -> bool:
    """Print how each way into the gateway stands with pictures of that size; whether a bar is
    missed."""
    of = {(r["name"], r["callers"], r["share"]): r for r in rows if r["kb"] == kilobytes}
    few, many = (pick(callers for _, callers, _ in of) for pick in (min, max))
    direct, bare, litellm = (of.get((each, few, None)) for each in ("direct", "bare", "litellm"))
    assert direct and bare
    is_missed = False
    for way in OWN:
        own, busy = of[way, few, None], of.get((way, BUSY_CALLERS, BUSY_SHARE))
        stands = [
            ("ms over the direct fan-out, p50", own["p50_ms"] - direct["p50_ms"], P50_BAR_MS),
            ("ms over it, p99", own["p99_ms"] - direct["p99_ms"], P99_BAR_MS),
            ("× the bare one's processor time", own["cpu_ms"] / bare["cpu_ms"], CPU_BAR),
        ]
        if litellm:
            more = own["cpu_ms"] / litellm["cpu_ms"]
            stands.append(("of LiteLLM's processor time", more, 1 / LITELLM_BAR))
            theirs, ours = (of[each, many, None]["verdicts_per_s"] for each in ("litellm", way))
            stands.append(
                (f"is LiteLLM's rate of ours, {many} callers", theirs / ours, 1 / LITELLM_BAR)
            )
        if busy:
            late = busy["p99_ms"] / busy["p50_ms"]
            stands.append((f"× the p50 is the p99 at {BUSY_SHARE:g} of the most", late, BUSY_BAR))
        for what, found, bar in stands:
            verdict = "**missed**" if found > bar else "held"
            print(f"{kilobytes} KB, {way}: {found:.3g} {what} (bar {bar:g}): {verdict}")
            is_missed |= found > bar
    return is_missed


if __name__ == "__main__":
    main()
