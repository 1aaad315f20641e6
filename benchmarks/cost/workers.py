"""What a seat costs as we start it, beside vLLM as it comes:
python -m benchmarks.cost.workers SEAT … [--ways WAY …] [--cases N] [--callers N] [--rounds N]
[--resume FILE]

Each seat of panel.toml that is named is started in turns as `consilium worker` does it (`ours`);
the same with nothing kept of an earlier start (`first`); by the same program without those
arguments that are only there for what they save (`bare`); three times over (`three engines`); and
once, with three random adapters (`three adapters`). Of each: seconds until all is well, and
processor seconds until then; memory of all processes, in which what they share counts once;
seconds for cases of an image each, so many callers at a time, spread over those that there are;
and for as many about one image. Medians of the rounds. A start may take as long as its processes
live. With --resume each measurement is kept in FILE, and not taken again.
"""

import argparse
import asyncio
import io
import json
import math
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

import numpy as np
import psutil
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from benchmarks import needs
from benchmarks.serving import free_port
from consilium.case import encode
from gateway.asking.model_server import new_http_client
from gateway.settings import Settings, load_settings
from services.running import engine
from services.running.stack import Stack, StackError, running

# Without these it would be another model, or would not start everywhere: what it would take of the
# memory for its cache may not be free.
KEPT = ("dtype", "max-model-len", "generation-config", "limit-mm-per-prompt", "enforce-eager")
CACHE = ("kv-cache-memory-bytes",)
ONE_PROCESS = "VLLM_ENABLE_V1_MULTIPROCESSING"
SIDE = 224
GIGABYTE = 1e9
SEVERAL, RANK = 3, 8
FIGURES = ("up, s", "processor, s", "memory, GB", "an image each, s", "one image, s")


@dataclass(frozen=True)
class Way:
    """What is started, and by which names its models are asked, each at its address."""

    launches: tuple[engine.Launch, ...]
    asked: tuple[tuple[str, str], ...]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("seats", nargs="+", metavar="SEAT")
    arguments.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), metavar="WAY")
    arguments.add_argument("--cases", type=int, default=48)
    arguments.add_argument("--callers", type=int, default=4)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--resume", type=Path, metavar="FILE")
    options = arguments.parse_args()
    settings = load_settings()
    if others := set(options.seats) - set(engine.engines(settings)):
        raise SystemExit(f"vLLM serves no seat {', '.join(sorted(others))} here.")
    found = _kept(options.resume)
    for seat in options.seats:
        folder = engine.model_folder(settings, seat)
        for number in range(options.rounds):
            for name in options.ways:
                key = f"{seat} | {name} | {number}"
                if key in found:
                    continue
                with WAYS[name](settings, seat, folder) as way, tempfile.TemporaryDirectory() as at:
                    print(key, flush=True)
                    found[key] = measured(way, options.cases, options.callers, Path(at))
                if options.resume:
                    with options.resume.open("a") as file:
                        file.write(json.dumps([key, found[key]]) + "\n")
    print(f"seat | started | {' | '.join(FIGURES)}")
    for seat in options.seats:
        for name in options.ways:
            rounds = [found[f"{seat} | {name} | {n}"] for n in range(options.rounds)]
            medians = map(statistics.median, zip(*rounds, strict=True))
            print(" | ".join([seat, name, *(f"{figure:.2f}" for figure in medians)]))


def _kept(file: Path | None) -> dict[str, Sequence[float]]:
    if file is None or not file.exists():
        return {}
    return dict(json.loads(line) for line in file.read_text().splitlines())


def ours(settings: Settings, seat: str, folder: Path) -> engine.Launch:
    """At a port of its own."""
    launch = engine.launch(settings, seat, folder)
    command, port = list(launch.command), free_port()
    command[command.index("--port") + 1] = str(port)
    return replace(launch, command=tuple(command), url=f"http://127.0.0.1:{port}")


def together(*launches: engine.Launch) -> Way:
    apart = tuple(replace(each, name=f"{each.name}-{n}") for n, each in enumerate(launches, 1))
    return Way(apart, tuple((each.url, each.name) for each in launches))


@contextmanager
def as_ours(settings: Settings, seat: str, folder: Path) -> Iterator[Way]:
    yield together(ours(settings, seat, folder))


@contextmanager
def first(settings: Settings, seat: str, folder: Path) -> Iterator[Way]:
    """What vLLM and torch found out at an earlier start lies in a folder that is empty now."""
    launch = ours(settings, seat, folder)
    with tempfile.TemporaryDirectory() as cache:
        empty = engine.compiled_at(Path(cache)) | engine.bytecode_at(Path(cache))
        environment = launch.environment | empty
        yield together(replace(launch, environment=environment))


@contextmanager
def bare(settings: Settings, seat: str, folder: Path) -> Iterator[Way]:
    """The seat's server without what we add for speed and memory."""
    launch = ours(settings, seat, folder)
    kept = {k: v for k, v in engine.arguments_of(settings, seat).items() if k in KEPT + CACHE}
    at = {"port": launch.url.rpartition(":")[2], "host": "127.0.0.1"}
    kept |= {"model": str(folder), "served-model-name": seat} | at
    command = (*launch.command[:3], *engine.flags(kept))
    ours_alone = {ONE_PROCESS, *engine.bytecode_at(folder)}
    environment = {k: v for k, v in launch.environment.items() if k not in ours_alone}
    environment |= {k: v for k, v in os.environ.items() if k in ours_alone}
    yield together(replace(launch, command=command, environment=environment))


@contextmanager
def engines(settings: Settings, seat: str, folder: Path) -> Iterator[Way]:
    yield together(*(ours(settings, seat, folder) for _ in range(SEVERAL)))


@contextmanager
def adapters(settings: Settings, seat: str, folder: Path) -> Iterator[Way]:
    """Three workers on one engine, as docs/deploy.md has them."""
    launch = ours(settings, seat, folder)
    names = [f"adapter-{number}" for number in range(SEVERAL)]
    with tempfile.TemporaryDirectory() as made:
        for seed, name in enumerate(names):
            random_adapter(folder, Path(made) / name, seed)
        modules = [f"{name}={made}/{name}" for name in names]
        own = {"enable-lora": True, "max-loras": SEVERAL, "max-lora-rank": RANK}
        more = engine.flags(own | {"lora-modules": modules})
        started = replace(launch, command=(*launch.command, *more))
        yield Way((started,), tuple((launch.url, name) for name in names))


def random_adapter(model: Path, folder: Path, seed: int) -> None:
    """A LoRA of every query and value projection of the language model in a served folder."""
    folder.mkdir()
    torch.manual_seed(seed)
    weights = {}
    for file in sorted(model.glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            for key in tensors.keys():  # noqa: SIM118  it is no dict
                if key.endswith(("q_proj.weight", "v_proj.weight")) and "layers" in key:
                    out, width = tensors.get_slice(key).get_shape()
                    name = f"base_model.model.{key.removesuffix('.weight')}"
                    weights[f"{name}.lora_A.weight"] = torch.randn(RANK, width) / width**0.5
                    weights[f"{name}.lora_B.weight"] = torch.randn(out, RANK) / 100
    save_file(weights, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": RANK, "bias": "none"}
    config |= {"target_modules": ["q_proj", "v_proj"], "base_model_name_or_path": str(model)}
    (folder / "adapter_config.json").write_text(json.dumps(config))


WAYS: Mapping[str, Callable[[Settings, str, Path], AbstractContextManager[Way]]] = {
    "ours": as_ours,
    "first": first,
    "bare": bare,
    "three engines": engines,
    "three adapters": adapters,
}


def measured(way: Way, cases: int, callers: int, logs: Path) -> tuple[float, ...]:
    """What FIGURES names."""
    began = perf_counter()
    try:
        with running(way.launches, logs, report, math.inf) as up:
            up_s = perf_counter() - began
            processor_s = sum(sum(each.cpu_times()[:4]) for each in processes(up))
            asyncio.run(asked(way, range(SEVERAL), callers))  # warms everything up
            apart_s = asyncio.run(asked(way, range(SEVERAL, SEVERAL + cases), callers))
            together_s = asyncio.run(asked(way, [0] * cases, callers))
            memory = sum(each.memory_full_info().pss for each in processes(up))
    except StackError as error:
        said = "".join(log.read_text("utf-8", "replace")[-3000:] for log in logs.glob("*.log"))
        raise SystemExit(f"{said}\n{error}") from error
    return up_s, processor_s, memory / GIGABYTE, apart_s, together_s


def report(line: str) -> None:
    print(f"  {line}", flush=True)


def processes(stack: Stack) -> list[psutil.Process]:
    own = [psutil.Process(each.process.pid) for each in stack.services if each.process]
    return [*own, *(child for each in own for child in each.children(recursive=True))]


async def asked(way: Way, images: Sequence[int], callers: int) -> float:
    """Seconds for a new question about each of the images, which are given by their seeds."""
    free = asyncio.Semaphore(callers)
    contents = [content(image, f"What is it, {number}?") for number, image in enumerate(images)]
    async with new_http_client() as http:

        async def ask(number: int) -> None:
            url, name = way.asked[number % len(way.asked)]
            body = {"model": name, "max_tokens": 16, "temperature": 0}
            body["messages"] = [{"role": "user", "content": contents[number]}]
            url = f"{url}/v1/chat/completions"
            async with free, http.post(url, json=body, raise_for_status=True) as reply:
                await reply.read()

        began = perf_counter()
        await asyncio.gather(*map(ask, range(len(contents))))
        return perf_counter() - began


def content(image: int, question: str) -> list[dict[str, object]]:
    noise = np.random.default_rng(image).integers(0, 256, (SIDE, SIDE), "u1")
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG")
    uri = f"data:image/png;base64,{encode(file.getvalue())}"
    return [{"type": "image_url", "image_url": {"url": uri}}, {"type": "text", "text": question}]


if __name__ == "__main__":
    with needs.told():
        main()
