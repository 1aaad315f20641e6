"""panel.toml → docker-compose.yml: the panel on one GPU box.

The same programs as `consilium serve` starts, one container each. Nothing but the gateway is
published, and that on this machine only.
"""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from gateway.settings import Settings
from services.engine import SUMMARISER, local_urls

HEADER = "# Written by `consilium compose` from panel.toml; change that, and run it again.\n"
GATEWAY_PORT = 8000

# Nobody needs more than a read-only system, a private /tmp and the shared cache of models.
CONFINED: dict[str, Any] = {
    "restart": "unless-stopped",
    "read_only": True,
    "tmpfs": ["/tmp"],
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges:true"],
}
ONE_GPU = {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}


class _Plain(yaml.SafeDumper):
    """Writes what services share in full each time: an anchor spares lines, not readers."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def compose(settings: Settings) -> str:
    """The compose file, as text. Seats that panel.toml places elsewhere are left out."""
    urls = local_urls(settings)
    files = ["panel.toml", *filter(None, [settings.panel.competence])]
    services: dict[str, Any] = {"gateway": _gateway(urls, files), "redis": _redis()}
    services |= {host_of(name): _engine(name, url) for name, url in urls.items()}
    document = {"name": "consilium", "services": services, "volumes": {"models": {}}}
    return HEADER + yaml.dump(document, Dumper=_Plain, sort_keys=False, width=100)


def host_of(name: str) -> str:
    """What a server's container is called."""
    return name if name == SUMMARISER else f"worker-{name}"


def command_of(name: str) -> list[str]:
    """The `consilium` command line of a server's container."""
    verb = [SUMMARISER] if name == SUMMARISER else ["worker", name]
    return ["consilium", *verb, "--host", "0.0.0.0"]


def write(settings: Settings, path: Path) -> None:
    path.write_text(compose(settings), encoding="utf-8")


def _gateway(urls: dict[str, str], files: list[str]) -> dict[str, Any]:
    environment = {
        "CONSILIUM_STORE": "redis://redis:6379/0",
        # Set it to share the cache with gateways elsewhere; empty means one of its own per start.
        "CONSILIUM_SECRET": "${CONSILIUM_SECRET:-}",
    }
    for name, url in urls.items():
        seat = name if name == SUMMARISER else f"worker_{name}"
        variable = f"CONSILIUM_{seat}_URL".upper().replace("-", "_")
        environment[variable] = f"http://{host_of(name)}:{urlsplit(url).port}"
    awaited = ["redis", *map(host_of, urls)]
    return {
        "image": "consilium-gateway",
        "build": {"context": ".", "target": "gateway"},
        "environment": environment,
        "volumes": [_mounted(file) for file in files],
        "ports": [f"127.0.0.1:{GATEWAY_PORT}:{GATEWAY_PORT}"],
        # Waited for, but not needed: one sick worker costs its vote, not the panel.
        "depends_on": {
            name: {"condition": "service_healthy", "required": False} for name in awaited
        },
        "healthcheck": _answers(f"http://127.0.0.1:{GATEWAY_PORT}/health/ready", "1m"),
        **CONFINED,
    }


def _mounted(file: str) -> str:
    return f"./{file}:/app/{file}:ro"


def _redis() -> dict[str, Any]:
    return {
        "image": "redis:7.4-bookworm",
        # A cache and nothing else: bounded, and gone with the container.
        "command": "redis-server --save '' --maxmemory 256mb --maxmemory-policy allkeys-lru",
        "user": "redis",
        "healthcheck": {"test": ["CMD", "redis-cli", "ping"], "interval": "10s", "retries": 3},
        **CONFINED,
    }


def _engine(name: str, url: str) -> dict[str, Any]:
    return {
        "image": "consilium-engine",
        "build": {"context": ".", "target": "engine"},
        "command": command_of(name),
        "volumes": [_mounted("panel.toml"), "models:/cache"],
        "shm_size": "1gb",
        "deploy": {"resources": {"reservations": {"devices": [dict(ONE_GPU)]}}},
        "healthcheck": _answers(f"http://127.0.0.1:{urlsplit(url).port}/health", "15m"),
        **CONFINED,
    }


def _answers(url: str, start_period: str) -> dict[str, Any]:
    """Healthy once `url` answers 200. The slim images have no curl."""
    program = f"import urllib.request as r; r.urlopen('{url}', timeout=5)"
    return {
        "test": ["CMD", "python", "-c", program],
        "interval": "10s",
        "timeout": "10s",
        "retries": 3,
        "start_period": start_period,
    }
