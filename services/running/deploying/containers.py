"""What runs in which container, and finds whom by which name: the same for every file that starts
some, of Docker Compose or of Kubernetes."""

import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from gateway.settings import SUMMARISER, Settings, url_variable
from gateway.verdict.grey_answers import beside
from services.running.engine import EngineError, compiled_at, local_seats

ENGINE_PORT = 8100  # of every one: each has an address of its own
# What each takes of a machine: an estimate. On its way to a GPU a model goes through the memory.
ENGINE_CPUS, ENGINE_GIB = 4, 16
GATEWAY_CPUS, GATEWAY_GIB = 2, 2
US = "10001"  # the Dockerfile's user
PANEL = "/app/panel.toml"
KEPT = ("audit", "feedback")  # what the Dockerfile lets that user write to, beside the cache
CACHE = "/cache"
ENGINE_ENVIRONMENT = {
    "CONSILIUM_CACHE": CACHE,
    **compiled_at(Path(CACHE)),  # nothing may run from a container's /tmp
}
LONGEST_CASE_S = 600  # the most that a caller may give a case


@dataclass(frozen=True)
class Container:
    """What each file has to say of one, in words of its own."""

    host: str  # what others call it, whichever profile it runs in
    image: str
    port: int
    healthy: str = ""  # what answers 200 there, where it speaks HTTP
    command: list[str] = field(default_factory=list)  # none: the image's own
    environment: dict[str, str] = field(default_factory=dict)
    reads: dict[str, str] = field(default_factory=dict)  # from the panel file's folder → its path
    keeps: dict[str, str] = field(default_factory=dict)  # a volume → its path
    ends_within_s: int | None = None  # None: at once

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"


# A cache and nothing else: bounded, and gone with the container.
REDIS = Container(
    host="redis",
    image="redis:7.4-bookworm",
    port=6379,
    command=[
        "redis-server",
        *("--save", ""),
        *("--maxmemory", "256mb"),
        *("--maxmemory-policy", "allkeys-lru"),
    ],
)
STORE = {"CONSILIUM_STORE": f"redis://{REDIS.host}:{REDIS.port}/0"}

# Of a Ray cluster: engines and gateways are programs on it.
RAY_NODE = Container(host="ray", image="consilium-engine-gpu-ray", port=8000)


def gateway(settings: Settings) -> Container:
    """It finds Redis, and every server that is started beside it.

    Raises:
        EngineError: something is to be kept where it cannot write.
    """
    servers = {url_variable(name): engine(name).url for name in local_seats(settings)}
    return Container(
        host="gateway",
        image="consilium-gateway",
        port=8000,
        healthy="/health/ready",
        environment=STORE | servers,
        reads={path: inside(path) for path in _learned(settings)},
        keeps={what: inside(what) for what in _kept(settings)},
        # It ends by itself, with its last open case.
        ends_within_s=math.ceil(settings.load.drain_s + LONGEST_CASE_S),
    )


def engine(name: str, build: str = "gpu", share: float | None = None) -> Container:
    """The server of a seat, on `share` of a GPU's memory."""
    verb = [SUMMARISER] if name == SUMMARISER else ["worker", name]
    on_gpu = ["--gpu-share", f"{share:g}"] if share else []
    return Container(
        host=name if name == SUMMARISER else f"worker-{name}",
        image=f"consilium-engine-{build}",
        port=ENGINE_PORT,
        healthy="/health",
        command=["consilium", *verb, "--host", "0.0.0.0", *on_gpu],
        environment={
            url_variable(name): f"http://127.0.0.1:{ENGINE_PORT}",
            **ENGINE_ENVIRONMENT,
        },
        keeps={"models": CACHE},
    )


def inside(path: str) -> str:
    """Where a program in the folder of the panel file, /app, looks for what that calls `path`."""
    return os.path.normpath(os.path.join("/app", path))


class Plain(yaml.SafeDumper):
    """Writes what containers share in full each time: an anchor spares lines, not readers."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _learned(settings: Settings) -> list[str]:
    """The competence file, and the grey answers beside it where there are some."""
    if not (competence := settings.panel.competence):
        return []
    grey = beside(Path(competence))
    return [competence, *([str(grey)] if (settings.file.parent / grey).is_file() else [])]


def _kept(settings: Settings) -> list[str]:
    """Those of KEPT that the panel keeps."""
    tables = {what: getattr(settings, what) for what in KEPT}
    found = {what: table.folder for what, table in tables.items() if table and table.folder}
    for what, folder in found.items():
        if inside(folder) != inside(what):
            raise EngineError(
                f'panel file: {what}.folder: in a container only "{what}" can be written to; write '
                f'folder = "{what}".'
            )
    return list(found)
