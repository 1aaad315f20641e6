"""What the gateway adds to its slowest worker: python benchmarks/wall_time.py [--cases N]

Asks a running gateway (`make serve`) N questions about a real CT slice, each new to its cache, one
after the other. In the same run, in turn with them, the same calls go straight to the workers, in
parallel and without a gateway: that is the peer. The floor of a verdict is its slowest worker plus
the summariser, as the verdict itself reports them.
"""

import argparse
import asyncio
import json
import statistics
import time
from pathlib import Path
from typing import Any

import httpx
from pydicom.data import get_testdata_file

from gateway.client import GATEWAY_URL, encode
from gateway.contract import CaseImage, Verdict
from gateway.intake import to_png
from gateway.panel import MAX_ANSWER_TOKENS, complete, new_http_client
from gateway.settings import WorkerSettings, load_settings

SCAN = Path(str(get_testdata_file("CT_small.dcm", download=False)))
IMAGE = CaseImage(to_png(SCAN.read_bytes(), "Image 1"), identity="")


async def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--cases", type=int, default=30)
    arguments.add_argument("--gateway", default=GATEWAY_URL)
    options = arguments.parse_args()
    workers = [w for w in load_settings().workers if "en" in w.languages]
    body = {"images": [encode(SCAN)], "options": {"summarise": "always", "deadline_s": 60}}
    ratios, peers, gateways = [], [], []
    async with new_http_client() as http:
        for number in range(options.cases + 1):
            question = f"What modality is used to take image {number}-{time.time_ns()}?"
            began = time.perf_counter()
            response = await http.post(f"{options.gateway}/vqa", json=body | {"question": question})
            seconds = time.perf_counter() - began
            verdict = Verdict.model_validate_json(response.raise_for_status().content)
            peer = await straight(http, workers, question)
            if number:  # the first warms everything up
                ratios.append(seconds / floor(verdict))
                gateways.append(seconds)
                peers.append(peer)
    figures = {
        "cases": options.cases,
        "wall_over_floor_median": statistics.median(ratios),
        "wall_over_floor_max": max(ratios),
        "gateway_s_median": statistics.median(gateways),
        "workers_straight_s_median": statistics.median(peers),
    }
    print(
        f"{options.cases} cases, {len(workers)} workers, summariser always asked\n"
        "wall time over slowest worker + summariser: "
        f"median {figures['wall_over_floor_median']:.3f}, max {figures['wall_over_floor_max']:.3f} "
        "(floor 1, bar 1.1)\n"
        f"one verdict {figures['gateway_s_median']:.3f} s; the same worker calls with no gateway "
        f"and no summariser {figures['workers_straight_s_median']:.3f} s"
    )
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))


def floor(verdict: Verdict) -> float:
    """Seconds that no gateway could save: the slowest worker, then the summariser."""
    return max(answer.seconds for answer in verdict.answers) + verdict.summary.seconds


async def straight(http: httpx.AsyncClient, workers: list[WorkerSettings], question: str) -> float:
    """Seconds for the same worker calls, in parallel, with nothing around them."""
    picture = {"type": "image_url", "image_url": {"url": IMAGE.data_uri}}

    def body(worker: WorkerSettings) -> dict[str, Any]:
        text = {"type": "text", "text": worker.prompt.format(question=question)}
        return {
            "model": worker.name,
            "messages": [{"role": "user", "content": [picture, text]}],
            "temperature": 0,
            "max_tokens": MAX_ANSWER_TOKENS,
            "logprobs": True,
        }

    began = time.perf_counter()
    await asyncio.gather(*(complete(http, worker.url, body(worker)) for worker in workers))
    return time.perf_counter() - began


if __name__ == "__main__":
    asyncio.run(main())
