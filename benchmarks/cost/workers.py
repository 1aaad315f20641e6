"""What a seat costs as we start it, beside vLLM as it comes:
python -m benchmarks.cost.workers SEAT … [--cases N] [--callers N] [--rounds N]

Each seat of panel.toml that is named is started in turns as `consilium worker` does it, and by the
same program without those arguments that are only there for what they save. Of each: seconds until
it is well; memory of all its processes, in which what they share counts once; seconds for cases of
an image each, so many callers at a time; and for as many about one image. Medians of the rounds.
Nothing else may listen at the seat's port.
"""

import argparse
import asyncio
import io
import statistics
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import psutil
from PIL import Image

from benchmarks.serving import server
from consilium.case import encode
from gateway.asking.model_server import new_http_client
from gateway.settings import Settings, load_settings
from services.running import engine

# Without these it would be another model, or would not start everywhere.
KEPT = ("dtype", "max-model-len", "generation-config", "limit-mm-per-prompt", "enforce-eager")
ONE_PROCESS = "VLLM_ENABLE_V1_MULTIPROCESSING"
SIDE = 224
GIGABYTE = 1e9


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("seats", nargs="+")
    arguments.add_argument("--cases", type=int, default=48)
    arguments.add_argument("--callers", type=int, default=4)
    arguments.add_argument("--rounds", type=int, default=3)
    options = arguments.parse_args()
    settings = load_settings()
    if others := set(options.seats) - set(engine.engines(settings)):
        raise SystemExit(f"vLLM serves no seat {', '.join(sorted(others))} here.")
    print("seat | started | up, s | memory, GB | an image each, s | one image, s")
    for seat in options.seats:
        folder = engine.model_folder(settings, seat)
        ways = {"ours": engine.launch(settings, seat, folder), "bare": bare(settings, seat, folder)}
        found = defaultdict(list)
        for _ in range(options.rounds):
            for way, launch in ways.items():
                found[way].append(measured(launch, options.cases, options.callers))
        for way, rounds in found.items():
            medians = map(statistics.median, zip(*rounds, strict=True))
            print(" | ".join([seat, way, *(f"{figure:.2f}" for figure in medians)]))


def bare(settings: Settings, seat: str, folder: Path) -> engine.Launch:
    """The seat's server without what we add for speed and memory."""
    ours = engine.launch(settings, seat, folder)
    place = urlsplit(ours.url)
    kept = {k: v for k, v in engine.arguments_of(settings, seat).items() if k in KEPT}
    kept |= {"model": str(folder), "served-model-name": seat, "port": place.port}
    command = (*ours.command[:3], *engine.flags(kept), "--host", "127.0.0.1")
    environment = {k: v for k, v in ours.environment.items() if k != ONE_PROCESS}
    return replace(ours, command=command, environment=environment)


def measured(launch: engine.Launch, cases: int, callers: int) -> tuple[float, ...]:
    """Seconds until it is well, gigabytes, seconds for images of their own and for one image."""
    began = time.perf_counter()
    with server(launch.command, launch.url + launch.probe, launch.environment, up_s=300) as pid:
        up_s = time.perf_counter() - began
        asyncio.run(asked(launch, range(1), callers))  # warms everything up
        apart_s = asyncio.run(asked(launch, range(1, 1 + cases), callers))
        together_s = asyncio.run(asked(launch, [0] * cases, callers))
        own = psutil.Process(pid)
        memory = sum(p.memory_full_info().pss for p in (own, *own.children(recursive=True)))
    return up_s, memory / GIGABYTE, apart_s, together_s


async def asked(launch: engine.Launch, images: range | list[int], callers: int) -> float:
    """Seconds for a new question about each of the images, which are given by their seeds."""
    bodies = [
        {
            "model": launch.name,
            "messages": [{"role": "user", "content": content(image, f"What is it, {number}?")}],
            "max_tokens": 16,
            "temperature": 0,
        }
        for number, image in enumerate(images)
    ]
    free = asyncio.Semaphore(callers)
    async with new_http_client() as http:

        async def ask(body: dict[str, object]) -> None:
            url = f"{launch.url}/v1/chat/completions"
            async with free, http.post(url, json=body, raise_for_status=True) as reply:
                await reply.read()

        began = time.perf_counter()
        await asyncio.gather(*map(ask, bodies))
        return time.perf_counter() - began


def content(image: int, question: str) -> list[dict[str, object]]:
    noise = np.random.default_rng(image).integers(0, 256, (SIDE, SIDE), "u1")
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG")
    uri = f"data:image/png;base64,{encode(file.getvalue())}"
    return [{"type": "image_url", "image_url": {"url": uri}}, {"type": "text", "text": question}]


if __name__ == "__main__":
    main()
