"""What runs in which container, and finds whom by which name: the same for every file that starts
some, of Docker Compose or of Kubernetes."""

import math
import os
from pathlib import Path
from typing import Any

import yaml

from gateway.settings import SUMMARISER, Settings
from gateway.verdict.grey_answers import beside
from services.running.engine import EngineError, compiled_at, local_seats

GATEWAY_PORT = 8000
ARCHIVE_PORT = 8042
ENGINE_PORT = 8100  # of every engine: each has an address of its own
US = "10001"  # the Dockerfile's user
KEPT = ("audit", "feedback")  # what the Dockerfile lets that user write to, beside the cache
CACHE = "/cache"
LONGEST_CASE_S = 600  # the most that a caller may give a case
REDIS_IMAGE = "redis:7.4-bookworm"
# A cache and nothing else: bounded, and gone with the container.
REDIS = (
    "redis-server",
    *("--save", ""),
    *("--maxmemory", "256mb"),
    *("--maxmemory-policy", "allkeys-lru"),
)


class Plain(yaml.SafeDumper):
    """Writes what containers share in full each time: an anchor spares lines, not readers."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def host_of(name: str) -> str:
    """What a server is called in the network, whichever profile it runs in."""
    return name if name == SUMMARISER else f"worker-{name}"


def command_of(name: str) -> list[str]:
    """The `consilium` command line of a server's container."""
    verb = [SUMMARISER] if name == SUMMARISER else ["worker", name]
    return ["consilium", *verb, "--host", "0.0.0.0"]


def gateway_environment(settings: Settings) -> dict[str, str]:
    """Where the gateway finds Redis and every server that is started beside it."""
    servers = {
        url_variable(name): f"http://{host_of(name)}:{ENGINE_PORT}"
        for name in local_seats(settings)
    }
    return {"CONSILIUM_STORE": "redis://redis:6379/0", **servers}


def engine_environment(name: str) -> dict[str, str]:
    """Where a server listens, and where it keeps models and what it compiles."""
    return {
        url_variable(name): f"http://127.0.0.1:{ENGINE_PORT}",
        "CONSILIUM_CACHE": CACHE,
        **compiled_at(Path(CACHE)),  # nothing may run from this /tmp
    }


def learned(settings: Settings) -> list[str]:
    """The competence file, and the grey answers beside it where there are some: paths from the
    panel file's folder."""
    if not (competence := settings.panel.competence):
        return []
    grey = beside(Path(competence))
    return [competence, *([str(grey)] if (settings.file.parent / grey).is_file() else [])]


def kept(settings: Settings) -> list[str]:
    """Those of KEPT that the panel keeps.

    Raises:
        EngineError: in a folder where the gateway's container cannot write.
    """
    tables = {what: getattr(settings, what) for what in KEPT}
    found = {what: table.folder for what, table in tables.items() if table and table.folder}
    for what, folder in found.items():
        if inside(folder) != inside(what):
            raise EngineError(
                f'panel.toml: {what}.folder: in a container only "{what}" can be written to; write '
                f'folder = "{what}".'
            )
    return list(found)


def stops_within_s(settings: Settings) -> int:
    """The gateway ends by itself, with its last open case."""
    return math.ceil(settings.load.drain_s + LONGEST_CASE_S)


def url_variable(name: str) -> str:
    """Where settings.py looks for the address of a seat."""
    seat = name if name == SUMMARISER else f"worker_{name}"
    return f"CONSILIUM_{seat}_URL".upper().replace("-", "_")


def inside(path: str) -> str:
    """Where a program in the folder of the panel file, /app, looks for what that calls `path`."""
    return os.path.normpath(os.path.join("/app", path))
