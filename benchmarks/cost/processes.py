"""What a verdict costs where two gateway processes share a port:
python -m benchmarks.cost.processes --store redis://HOST:PORT/DB [--cases N]

Three mock workers without delay and a 500 KB JPEG, 32 callers at a time. The same gateway
answers with one process and with two, in turns of three each, through the same Redis; what a case
cost in processor time, of all processes together, is compared. Exit status 1 where it is over 1.1
times that with one.
"""

import argparse
import asyncio
import json

import aiohttp
import numpy as np
import psutil

from benchmarks import needs
from benchmarks.serving import URL, gateway
from benchmarks.traffic import MULTIPART, NUMBER, form, photograph, workers

BAR = 1.1
TURNS = 3
AT_ONCE = 32  # more than one process would want
WARM_UP = 200  # each process has its own first cases, and grows its own memory


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--store", required=True)
    arguments.add_argument("--cases", type=int, default=300)
    options = arguments.parse_args()
    needs.redis_at(options.store)
    spent: dict[int, list[float]] = {1: [], 2: []}
    with workers(3) as urls:
        for turn in range(TURNS):
            for count, found in spent.items():
                panel = f'quorum = 2\nstore = "{options.store}"'
                program = ("-m", "gateway", f"--workers={count}")
                with gateway(urls, panel, program=program) as process:
                    name = f"{turn} {count}"
                    found.append(asyncio.run(measured(process, name, options.cases)))
                print(f"{count} process(es): {1000 * found[-1]:.2f} ms of processor time a case")
    middle = {count: float(np.median(found)) for count, found in spent.items()}
    ratio = middle[2] / middle[1]
    print(f"two over one: {ratio:.2f} (at most {BAR:g}); {options.cases} cases a turn")
    print(json.dumps({"cpu_s": middle, "ratio": ratio}))
    raise SystemExit(ratio > BAR)


async def measured(process: int, name: str, cases: int) -> float:
    """Processor seconds of a case, in the process and its children; every question is a new one."""
    body = form(photograph(500))
    at_once = asyncio.Semaphore(AT_ONCE)

    async def ask(number: int) -> None:
        own = body.replace(NUMBER, f"{name} {number}".encode())
        async with (
            at_once,
            http.post(f"{URL}/vqa", data=own, headers={"content-type": MULTIPART}) as response,
        ):
            response.raise_for_status()
            await response.read()

    async with aiohttp.ClientSession() as http:
        await asyncio.gather(*(ask(-1 - number) for number in range(WARM_UP)))
        before = cpu_s(process)
        await asyncio.gather(*(ask(number) for number in range(cases)))
        return (cpu_s(process) - before) / cases


def cpu_s(process: int) -> float:
    parent = psutil.Process(process)
    return sum(sum(each.cpu_times()[:2]) for each in (parent, *parent.children(recursive=True)))


if __name__ == "__main__":
    main()
