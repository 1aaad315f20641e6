"""What the gateway adds to its slowest worker: python -m benchmarks.cost.wall_time [--cases N]

Asks a running gateway (`make serve`) N questions about a real CT slice, each new to every cache,
one after the other. In the same run, in turn with them, equal questions go straight to the workers,
in parallel and without a gateway. The floor of a verdict is the slowest worker so asked, plus the
summariser as the verdict reports it. Exit status 1 where the wall time is over 1.05 × the floor.

Serve with `grounding = false` in [panel]: what is asked over grey behind one case would else be
timed with the next.
"""

import argparse
import asyncio
import json
import statistics
import time
from pathlib import Path

from pydicom.data import get_testdata_file

from benchmarks import needs
from consilium.case import encode
from consilium.client import GATEWAY_URL
from gateway.asking.model_server import Http, complete, new_http_client
from gateway.asking.panel import MAX_ANSWER_TOKENS
from gateway.contract import Verdict
from gateway.intake.pixels import only_pixels
from gateway.settings import load_settings
from gateway.tables import WorkerSettings

BAR = 1.05
SCAN = Path(str(get_testdata_file("CT_small.dcm", download=False)))
IMAGE = only_pixels(SCAN.read_bytes(), "Image 1")


async def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--cases", type=int, default=30)
    arguments.add_argument("--gateway", default=GATEWAY_URL)
    options = arguments.parse_args()
    needs.answering(options.gateway, "start the panel, make serve")
    workers = [w for w in load_settings().workers if "en" in w.languages]
    body = {"images": [encode(SCAN)], "options": {"summarise": "always", "deadline_s": 60}}
    walls, summarisers, slowest, reported = [], [], [], []
    async with new_http_client() as http:
        for number in range(options.cases + 2):
            # Who goes first takes turns: a busy minute, or a warm core, falls on both.
            for by_gateway in (True, False) if number % 2 else (False, True):
                question = f"What modality is used to take image {time.time_ns()}?"
                began = time.perf_counter()
                if not by_gateway:
                    await straight(http, workers, question)
                    slowest.append(time.perf_counter() - began)
                    continue
                asked = body | {"question": question}
                async with http.post(f"{options.gateway}/vqa", json=asked) as response:
                    response.raise_for_status()
                    content = await response.read()
                walls.append(time.perf_counter() - began)
                verdict = Verdict.model_validate_json(content)
                summarisers.append(verdict.summary.seconds)
                reported.append(max(answer.seconds for answer in verdict.answers))
    # The first of each warms everything up.
    wall, worker, summariser, own = (
        statistics.median(seconds[2:]) for seconds in (walls, slowest, summarisers, reported)
    )
    figures = {
        "cases": options.cases,
        "wall_over_floor": wall / (worker + summariser),
        "wall_over_reported_floor": wall / (own + summariser),
        "panel_over_slowest_worker": (wall - summariser) / worker,
        "wall_s": wall,
        "slowest_worker_straight_s": worker,
        "summariser_s": summariser,
    }
    print(
        f"{options.cases} cases, {len(workers)} workers, summariser always asked; medians\n"
        f"one verdict {wall:.3f} s; slowest worker asked straight {worker:.3f} s, "
        f"summariser {summariser:.3f} s\n"
        f"wall time over slowest worker + summariser: {figures['wall_over_floor']:.3f} "
        f"(floor 1, bar {BAR}); by the verdicts' own figures "
        f"{figures['wall_over_reported_floor']:.3f}; without the summariser "
        f"{figures['panel_over_slowest_worker']:.3f}"
    )
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))
    raise SystemExit(figures["wall_over_floor"] > BAR)


async def straight(http: Http, workers: list[WorkerSettings], question: str) -> None:
    """The same worker calls, in parallel, with nothing around them."""
    picture = json.loads(IMAGE.part)

    def body(worker: WorkerSettings) -> bytes:
        text = {"type": "text", "text": worker.prompt.format(question=question)}
        content = {
            "model": worker.name,
            "messages": [{"role": "user", "content": [picture, text]}],
            "temperature": 0,
            "max_tokens": MAX_ANSWER_TOKENS,
            "logprobs": True,
        }
        return json.dumps(content).encode()

    await asyncio.gather(*(complete(http, worker.url, body(worker)) for worker in workers))


if __name__ == "__main__":
    with needs.told():
        asyncio.run(main())
