"""What of this machine fits, and how to mend what does not: one finding for each thing that a panel
stands on. Nothing is fetched or started."""

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from gateway.door import keys
from gateway.settings import Settings
from models.assets import AssetError, cache_dir, weights_dir
from services.running.beforehand.check import check
from services.running.engine import (
    SHARE_OF_GPU,
    EngineError,
    engines,
    is_cpu_build,
    local_urls,
    missing,
)
from services.running.stack import StackError, check_port

GB = 1e9
# Measured with the shipped panel: 13 GB for its five engines and all else, 2.9 GB of models.
ENGINE_GB, MODELS_GB = 2.6, 3.0
# The oldest driver that runs a CUDA's minor versions (NVIDIA, CUDA Compatibility, table 1).
DRIVERS = {12: 525, 13: 580}
QUERY = "name,driver_version,memory.total,memory.free"
MEMORY = Path("/proc/meminfo")


@dataclass(frozen=True)
class Finding:
    """`mend` is what to do, where something is to be done; where it `fits` all the same, the panel
    starts without it."""

    what: str
    said: str
    mend: str = ""
    fits: bool = True

    def __str__(self) -> str:
        word = "no" if not self.fits else "note" if self.mend else "ok"
        return f"{self.what}: {word}: {self.said}" + (f"; {self.mend}" if self.mend else "")


def examine(settings: Settings, port: int, report: Callable[[str], None]) -> bool:
    """Whether the panel can be brought up here with its gateway at `port`; `report` hears each
    finding."""
    fits = True
    for finding in _findings(settings, port):
        report(str(finding))
        fits &= finding.fits
    return check(settings, report) and fits


def _findings(settings: Settings, port: int) -> Iterator[Finding]:
    yield Finding("python", f"{platform.python_version()}, consilium {_installed('consilium')}")
    if servers := len(engines(settings)):
        on_cpu = is_cpu_build() or not (_installed("vllm") or shutil.which("nvidia-smi"))
        yield from _versions("cpu" if on_cpu else "gpu")
        yield from _gpus(on_cpu)
        if on_cpu:
            yield _ram(servers)
    yield _disk(settings)
    yield from _ports({**local_urls(settings), "gateway": f"http://127.0.0.1:{port}"})
    yield _store(settings)
    yield from _keys(settings)


def _installed(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _versions(build: str) -> Iterator[Finding]:
    """Of what is pinned in pyproject.toml because the code stands on it."""
    pins = [each for each in metadata.requires("consilium") or () if f'extra == "{build}"' in each]
    for name, wanted in re.findall(r"^([\w-]+)==([\w.]+)", "\n".join(pins), re.MULTILINE):
        found, mend = _installed(name), f"pip install 'consilium[{build}]'"
        if found is None:
            yield Finding(name, "not installed", mend, fits=False)
        elif found.partition("+")[0] != wanted:
            yield Finding(name, f"{found}, where {wanted} is meant", mend, fits=False)
        else:
            yield Finding(name, found)


def _gpus(on_cpu: bool) -> Iterator[Finding]:
    command = ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except FileNotFoundError:
        mend = "install NVIDIA's driver, or the CPU build (make clean, then make)"
        yield Finding("gpu", "no nvidia-smi, so none", "" if on_cpu else mend, fits=on_cpu)
        return
    except subprocess.TimeoutExpired:
        yield Finding("gpu", "nvidia-smi hangs", "restart the machine", fits=on_cpu)
        return
    if done.returncode:
        why = (done.stdout + done.stderr).strip().splitlines() or ["no word"]
        yield Finding("gpu", f"nvidia-smi: {why[0]}", "reinstall NVIDIA's driver", fits=on_cpu)
        return
    for number, line in enumerate(done.stdout.strip().splitlines()):
        yield _gpu(f"gpu {number}", line, on_cpu)


def _gpu(what: str, line: str, on_cpu: bool) -> Finding:
    """Of one line of nvidia-smi's; a GPU that is divided, or shares the machine's memory, does not
    tell its own."""
    if on_cpu:
        return Finding(what, line, "the CPU build leaves it idle: make clean, then make")
    told = re.fullmatch(r"(.*), ((\d+)[\d.]*), (\d+), (\d+)", line)
    if not told:
        return Finding(
            what, line, "its memory is not told: write memory_gb into panel.toml's seats"
        )
    total, free = int(told[4]) / 1024, int(told[5]) / 1024
    said = f"{told[1]}, {free:.0f} of {total:.0f} GB free, driver {told[2]}"
    cuda = int((_installed("nvidia-cuda-runtime") or "0").partition(".")[0])
    if int(told[3]) < (oldest := DRIVERS.get(cuda, 0)):
        return Finding(what, said, f"CUDA {cuda} wants driver {oldest} or newer", fits=False)
    if free < SHARE_OF_GPU * total:
        return Finding(what, said, "end what else runs there (nvidia-smi names it)", fits=False)
    return Finding(what, f"{said}; consilium plan --gpus 1x{total:.0f} says what fits on it")


def _ram(servers: int) -> Finding:
    found = re.search(r"^MemAvailable:\s+(\d+) kB", MEMORY.read_text("ascii"), re.MULTILINE)
    free, wanted = int(found[1]) * 1024 / GB if found else 0.0, servers * ENGINE_GB
    said = f"{free:.0f} GB free, about {wanted:.0f} for {servers} servers"
    if free < wanted:
        mend = "end what else runs, or seat fewer workers in panel.toml"
        return Finding("ram", said, mend, fits=False)
    return Finding("ram", said)


def _disk(settings: Settings) -> Finding:
    folder = cache_dir()
    there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    free = shutil.disk_usage(there).free / GB
    said = f"{free:.0f} GB free for {folder}"
    if not os.access(there, os.W_OK):
        return Finding("disk", f"{there} cannot be written to", "set CONSILIUM_CACHE", fits=False)
    if free < MODELS_GB and weights_dir() is None and _are_to_be_fetched(settings):
        mend = "make room, or set CONSILIUM_CACHE"
        return Finding("disk", f"{said}, and models are to be fetched", mend, fits=False)
    return Finding("disk", said)


def _are_to_be_fetched(settings: Settings) -> bool:
    try:
        return any(missing(settings, name) for name in local_urls(settings))
    except (AssetError, EngineError):
        return False  # a seat without a model at all: check tells of it


def _ports(urls: Mapping[str, str]) -> Iterator[Finding]:
    taken = False
    for name, url in urls.items():
        try:
            check_port(name, url)
        except StackError as error:
            taken = True
            yield Finding("ports", str(error), fits=False)
    if not taken:
        yield Finding("ports", f"free for {', '.join(urls)}")


def _store(settings: Settings) -> Finding:
    url = settings.panel.store
    if not url.startswith("redis"):
        return Finding("store", "the gateway's own memory")
    try:
        with Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2) as redis:
            redis.ping()
    # Without the client's own words: they can quote a password.
    except (RedisError, OSError) as error:
        mend = "start it, or mend CONSILIUM_STORE: until then nothing is kept"
        return Finding("store", f"Redis does not answer ({type(error).__name__})", mend)
    if settings.secret_is_random:
        mend = "set CONSILIUM_SECRET_FILE: another start finds nothing of what this one keeps"
        return Finding("store", "Redis answers, but there is no secret", mend)
    return Finding("store", "Redis answers")


def _keys(settings: Settings) -> Iterator[Finding]:
    if settings.keys is None:
        yield Finding("keys", "none are wanted; the gateway listens on this machine alone")
        return
    with suppress(keys.KeysError):  # check tells of it
        yield Finding("keys", f"{len(keys.read(settings.keys))} in {settings.keys}")
