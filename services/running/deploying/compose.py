"""panel.toml → docker-compose.yml: the same programs as `consilium serve` starts, in containers.

The gateway and Redis always run; profiles say what else:
    gpu            one vLLM server per seat, each on a GPU of its own, or as many as its engine
                   spreads over, or where `plan` puts it
    one-gpu        the same on one GPU, which they share by what panel.toml's memory_gb says;
                   without those that spread over several
    cpu            the same without a GPU
    observability  Prometheus and Grafana
    tls            a reverse proxy that speaks TLS
    archive        Orthanc, which speaks DICOMweb, for a panel file whose [archive] names it
Nothing but the gateway, the proxy and the archive is published, and those on this machine only.
"""

import shlex
from collections.abc import Mapping
from itertools import count, islice
from pathlib import Path
from typing import Any

import yaml

from gateway.settings import Settings
from services.running.beforehand.plan import Place
from services.running.deploying import containers
from services.running.deploying.containers import PANEL, REDIS, US, Container, Plain, inside
from services.running.engine import (
    SHARE_OF_GPU,
    adapters,
    engines,
    gpu_shares,
    gpus_of,
    local_seats,
)

ARCHIVE_PORT = 8042
HEADER = "# Written by `consilium compose` from panel.toml; change that, and run it again.\n"

# Nobody needs more than a read-only system and a private /tmp.
CONFINED: dict[str, Any] = {
    "restart": "unless-stopped",
    "read_only": True,
    "tmpfs": ["/tmp"],
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges:true"],
}


def compose(
    settings: Settings, panel: str = "panel.toml", places: Mapping[str, Place] | None = None
) -> str:
    """The compose file for the panel file `panel` (its path from the compose file), as text.

    Seats that the panel places elsewhere are left out. `places` says who is on which GPU in profile
    gpu; without it each has one of its own.

    Raises:
        EngineError: something is to be kept where the gateway's container cannot write, or a
            seat's `engine` cannot be read.
    """
    gateway, names = containers.gateway(settings), tuple(local_seats(settings))
    files = [_read_only(panel, PANEL), *_folders(settings)]
    on_gpus = engines(settings)
    spread = {name: gpus_of(name, seat) for name, seat in on_gpus.items()}
    numbers = count()
    each = {name: Place(tuple(islice(numbers, n)), SHARE_OF_GPU) for name, n in spread.items()}
    on_one = {name: seat for name, seat in on_gpus.items() if spread[name] == 1}
    one = {name: Place((0,), share) for name, share in gpu_shares(on_one).items()}
    servers = {
        **_on_gpus("gpu", files, places or each),
        **_on_gpus("one-gpu", files, one),
        **{
            f"{server.host}-{profile}": _engine(profile, files, server)
            for profile, build in (("gpu", "gpu"), ("one-gpu", "gpu"), ("cpu", "cpu"))
            for name in names
            if profile == "cpu" or name not in on_gpus
            for server in [containers.engine(name, build)]
        },
    }
    services = {
        "gateway": _gateway(gateway, panel, list(servers)),
        "redis": _redis(),
        **servers,
        "prometheus": _prometheus(),
        "grafana": _grafana(),
        "proxy": _proxy(),
        "archive": _archive(),
    }
    document = {
        "name": "consilium",
        "services": services,
        "volumes": {
            name: {} for name in ("models", *gateway.keeps, "prometheus", "grafana", "archive")
        },
        "secrets": {
            "cache_key": {"file": "./deploy/secrets/cache_key"},
            "metrics_key": {"file": "./deploy/secrets/metrics_key"},
            "grafana_password": {"file": "./deploy/secrets/grafana_password"},
            "archive_password": {"file": "./deploy/secrets/archive_password"},
            "certificate": {"file": "./deploy/tls/certificate.pem"},
            "certificate_key": {"file": "./deploy/tls/certificate.key"},
        },
    }
    return HEADER + yaml.dump(document, Dumper=Plain, sort_keys=False, width=100)


def write(
    settings: Settings, panel: Path, path: Path, places: Mapping[str, Place] | None = None
) -> None:
    path.write_text(compose(settings, _from_here(panel, path), places), encoding="utf-8")


def _from_here(panel: Path, path: Path) -> str:
    try:
        return str(panel.resolve().relative_to(path.resolve().parent))
    except ValueError:  # somewhere else on this machine: then only the whole path finds it
        return str(panel.resolve())


def _gateway(gateway: Container, panel: str, servers: list[str]) -> dict[str, Any]:
    environment = {
        **gateway.environment,
        "CONSILIUM_SECRET_FILE": "/run/secrets/cache_key",
        # Such as /run/keys/keys.json; empty means that nobody needs a key.
        "CONSILIUM_KEYS": "${CONSILIUM_KEYS:-}",
        "CONSILIUM_ARCHIVE_AUTHORIZATION": "${CONSILIUM_ARCHIVE_AUTHORIZATION:-}",
    }
    volumes = [_read_only(panel, PANEL)]
    beside = Path(panel).parent
    volumes += [_read_only(str(beside / each), path) for each, path in gateway.reads.items()]
    volumes += _volumes(gateway)
    return {
        "image": gateway.image,
        "build": {
            "context": ".",
            "target": "gateway",
            "args": {"EXTRAS": "${CONSILIUM_EXTRAS:-}"},
        },
        "user": US,
        "environment": environment,
        "volumes": [*volumes, _read_only("deploy/keys", "/run/keys")],
        "secrets": ["cache_key"],
        "ports": [f"127.0.0.1:{gateway.port}:{gateway.port}"],
        "stop_grace_period": f"{gateway.ends_within_s}s",
        # Waited for where their profile runs, but not needed: one sick worker costs its vote, not
        # the panel.
        "depends_on": {name: _healthy() for name in (REDIS.host, *servers)},
        "healthcheck": _answers(gateway, "1m"),
        **CONFINED,
    }


def _redis() -> dict[str, Any]:
    return {
        "image": REDIS.image,
        "command": shlex.join(REDIS.command),
        "user": "redis",
        "healthcheck": _healthcheck(["CMD", "redis-cli", "ping"], "10s"),
        **CONFINED,
    }


def _on_gpus(profile: str, files: list[str], places: Mapping[str, Place]) -> dict[str, Any]:
    services: dict[str, Any] = {}
    last: dict[int, str] = {}  # by GPU
    for name, place in places.items():
        # One after another: vLLM measures a GPU while it starts, and takes what another server
        # allocates meanwhile for its own.
        waits = {last[gpu]: _healthy() for gpu in place.gpus if gpu in last}
        numbers = [str(gpu) for gpu in place.gpus]
        device = {"driver": "nvidia", "device_ids": numbers, "capabilities": ["gpu"]}
        server = containers.engine(name, "gpu", place.share)
        service = f"{server.host}-{profile}"
        last |= dict.fromkeys(place.gpus, service)
        services[service] = {
            **_engine(profile, files, server),
            "depends_on": waits,
            "deploy": {"resources": {"reservations": {"devices": [device]}}},
        }
    return services


def _engine(profile: str, files: list[str], server: Container) -> dict[str, Any]:
    build = "cpu" if profile == "cpu" else "gpu"
    torch = (
        {"TORCH_INDEX": "${CONSILIUM_TORCH_INDEX:-https://download.pytorch.org/whl/cpu}"}
        if build == "cpu"
        else {}
    )
    return {
        "profiles": [profile],
        "image": server.image,
        "build": {"context": ".", "target": "engine", "args": {"BUILD": build, **torch}},
        "user": US,
        "command": server.command,
        "environment": {
            **server.environment,
            "CONSILIUM_WEIGHTS": "${CONSILIUM_WEIGHTS:+/weights}",
        },
        "volumes": [
            *files,
            *_volumes(server),
            # What `consilium fetch` gathered, for a machine without a network.
            "${CONSILIUM_WEIGHTS:-./deploy/weights}:/weights:ro",
        ],
        # Prometheus finds every engine by the second name.
        "networks": {"default": {"aliases": [server.host, "engines"]}},
        "shm_size": "1gb",
        "healthcheck": _answers(server, "15m"),
        **CONFINED,
    }


def _prometheus() -> dict[str, Any]:
    return {
        "profiles": ["observability"],
        "image": "prom/prometheus:v3.5.0",
        "user": "nobody",
        "volumes": [
            _read_only("deploy/prometheus.yml", "/etc/prometheus/prometheus.yml"),
            "prometheus:/prometheus",
        ],
        "secrets": ["metrics_key"],
        "healthcheck": _fetches("http://127.0.0.1:9090/-/healthy"),
        **CONFINED,
    }


def _grafana() -> dict[str, Any]:
    return {
        "profiles": ["observability"],
        "image": "grafana/grafana:12.1.1",
        "user": "472",
        "environment": {
            "GF_SECURITY_ADMIN_PASSWORD__FILE": "/run/secrets/grafana_password",
            "GF_SERVER_ROOT_URL": "%(protocol)s://%(domain)s/grafana/",
            "GF_SERVER_SERVE_FROM_SUB_PATH": "true",
            # It asks nobody outside for anything.
            "GF_ANALYTICS_REPORTING_ENABLED": "false",
            "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
            "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES": "false",
            "GF_PLUGINS_PREINSTALL_DISABLED": "true",
        },
        "volumes": [
            _read_only("deploy/grafana/provisioning", "/etc/grafana/provisioning"),
            _read_only("deploy/grafana", "/etc/grafana/dashboards"),
            "grafana:/var/lib/grafana",
        ],
        "secrets": ["grafana_password"],
        "depends_on": {"prometheus": _healthy()},
        "healthcheck": _fetches("http://127.0.0.1:3000/api/health"),
        **CONFINED,
    }


def _proxy() -> dict[str, Any]:
    return {
        "profiles": ["tls"],
        "image": "nginxinc/nginx-unprivileged:1.28-alpine",
        "user": "101",
        "volumes": [_read_only("deploy/nginx.conf", "/etc/nginx/nginx.conf")],
        "secrets": ["certificate", "certificate_key"],
        # Set it to an address of this machine, and others reach the panel: then with keys.
        "ports": ["${CONSILIUM_BIND:-127.0.0.1}:8443:8443"],
        "depends_on": {"gateway": _healthy()},
        "healthcheck": _fetches("http://127.0.0.1:8080/"),
        **CONFINED,
    }


def _archive() -> dict[str, Any]:
    # It asks for a password, whatever is asked: that it listens is as much as can be told.
    program = f"import socket; socket.create_connection(('127.0.0.1', {ARCHIVE_PORT}), 5)"
    return {
        "profiles": ["archive"],
        "image": "consilium-archive",
        "build": {"context": ".", "target": "archive"},
        "user": US,
        "volumes": [_read_only("deploy/orthanc.json", "/etc/archive.json"), "archive:/archive"],
        "secrets": ["archive_password"],
        # Studies come in here.
        "ports": [f"127.0.0.1:{ARCHIVE_PORT}:{ARCHIVE_PORT}"],
        "healthcheck": _healthcheck(["CMD", "python", "-c", program], "1m"),
        **CONFINED,
    }


def _folders(settings: Settings) -> list[str]:
    """Models and adapters that panel.toml names by a folder: the image holds only the zoo."""
    named = set()
    for name, seat in local_seats(settings).items():
        named |= {str(folder) for folder in adapters(seat, name).values()}
        named |= {seat.model} if Path(seat.model).is_dir() else set()
    return [_read_only(folder, inside(folder)) for folder in sorted(named)]


def _read_only(here: str, there: str) -> str:
    return f"{here if Path(here).is_absolute() else f'./{here}'}:{there}:ro"


def _volumes(server: Container) -> list[str]:
    return [f"{volume}:{path}" for volume, path in server.keeps.items()]


def _healthy() -> dict[str, Any]:
    return {"condition": "service_healthy", "required": False}


def _answers(server: Container, start_period: str) -> dict[str, Any]:
    """Healthy once it answers 200. The slim images have no curl."""
    url = f"http://127.0.0.1:{server.port}{server.healthy}"
    program = f"import urllib.request as r; r.urlopen('{url}', timeout=5)"
    return _healthcheck(["CMD", "python", "-c", program], start_period)


def _fetches(url: str) -> dict[str, Any]:
    return _healthcheck(["CMD", "wget", "--quiet", "--output-document=/dev/null", url], "1m")


def _healthcheck(test: list[str], start_period: str) -> dict[str, Any]:
    return {
        "test": test,
        "interval": "10s",
        "timeout": "10s",
        "retries": 3,
        "start_period": start_period,
    }
