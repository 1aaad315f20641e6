"""panel.toml → Kubernetes manifests: the same containers as `consilium compose` describes, spread
over a cluster.

One Deployment for each seat, whose pod has its GPUs to itself; gateways that come and go with the
cases inside them; Redis. Every pod runs as an ordinary user on a read-only system without
capabilities and without a token of the cluster's, and only the gateways are reachable. Secrets are
named and never held. Not run on a cluster by us: held to the schemas of the API.
"""

import hashlib
import re
from importlib.metadata import version
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from gateway.settings import Settings
from gateway.tables import WorkerSettings
from models.assets import is_hub_id
from services.running.deploying import containers
from services.running.deploying.containers import ENGINE_PORT, PANEL, REDIS, US, Container, Plain
from services.running.engine import (
    SHARE_OF_GPU,
    Seat,
    adapters,
    every_seat,
    gpus_of,
    local_seats,
    own_arguments,
)

HEADER = "# Written by `consilium kubernetes` from panel.toml; change that, and run it again.\n"
NAMESPACE = "consilium"
REDIS_USER = "999"  # of its image
CONFIG_MAP_BYTES = 2**20  # the most that one holds
REGISTRY = re.compile(r"([\w.-]+(:\d+)?(/[a-z0-9._-]+)*/?)?", re.ASCII)
DNS_LABEL_CHARACTERS = 63  # RFC 1123
GATEWAYS = (2, 4)  # at least, at most
START_S = 15 * 60  # an engine fetches, merges and compiles before it answers

# Of an engine: an estimate. On its way to the GPU a model goes through the machine's memory.
ENGINE_GIB = 16


class KubernetesError(Exception):
    """One line: what of the panel no cluster can run, and how to mend it."""


def write(settings: Settings, path: Path, registry: str, gpus: int | None) -> None:
    """One file for `kubectl apply`; raises as `manifests` does."""
    documents = manifests(settings, registry, gpus)
    text = yaml.dump_all(documents, Dumper=Plain, sort_keys=False, width=100)
    path.write_text(HEADER + text, encoding="utf-8")


def manifests(
    settings: Settings, registry: str = "", gpus: int | None = None
) -> list[dict[str, Any]]:
    """Everything that the panel is in a cluster.

    `registry` is where nodes pull our images from, `gpus` how many the cluster has, if that is to
    be checked.

    Raises:
        KubernetesError, EngineError: there is something in the panel that a cluster cannot run.
    """
    if not REGISTRY.fullmatch(registry):
        raise KubernetesError(
            f"--registry {registry}: images are named by a host and a path in small letters, "
            "such as registry.example/ward."
        )
    seats = local_seats(settings)
    gateway = containers.gateway(settings)
    _check(settings, gateway, seats, gpus)
    panel = _config_map("panel", {"panel.toml": settings.file})
    folder = settings.file.parent
    files = {f"learned-{n}.json": folder / each for n, each in enumerate(gateway.reads)}
    told = _config_map("learned", files)
    engines = [
        each
        for name, seat in seats.items()
        for each in _engine(name, seat, panel["metadata"]["name"], registry)
    ]
    return [
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": NAMESPACE,
                # The cluster itself then refuses a pod that may do more than ours.
                "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
            },
        },
        panel,
        told,
        *_gateway(settings, gateway, panel["metadata"]["name"], told["metadata"]["name"], registry),
        *_redis(),
        *engines,
        *_network(gateway),
    ]


def _check(
    settings: Settings, gateway: Container, seats: dict[str, Seat], gpus: int | None
) -> None:
    for name in seats:
        if len(host := containers.engine(name).host) > DNS_LABEL_CHARACTERS:
            raise KubernetesError(
                f"panel file: {name}: name: {host!r} is too long for a Service's name, which is a "
                "DNS label: at most 63 characters; rename it."
            )
    for name, seat in every_seat(settings).items():
        urls = seat.urls if isinstance(seat, WorkerSettings) else (seat.url,)
        own = [url for url in urls if _is_loopback(urlsplit(url).hostname or "")]
        if own and name not in seats:
            raise KubernetesError(
                f"panel file: {name}: url: {own[0]} would be the gateway's own pod; write the "
                f"address of the seat that serves it, such as {containers.engine('NAME').url}."
            )
    for name, seat in seats.items():
        folders = [str(each) for each in adapters(seat, name).values()]
        folders += [] if _is_everywhere(seat.model) else [seat.model]
        if folders:
            raise KubernetesError(
                f"panel file: {name}: {', '.join(folders)} lies on this machine and on no node; "
                "copy it to models/zoo, build the engine's image anew, and write zoo:NAME."
            )
        if {"api-key", "hf-token"} & own_arguments(seat, name).keys():
            raise KubernetesError(
                f"panel file: {name}: engine: a key would stand in a ConfigMap for all to read; "
                "remove it. HF_TOKEN is taken from the Secret hub."
            )
    if re.search(r"://[^/\s\"']*@", settings.file.read_text("utf-8")):
        raise KubernetesError(
            "panel file: an address holds a password, which would stand in a ConfigMap for all to "
            "read; remove it."
        )
    if "feedback" in gateway.keeps:
        raise KubernetesError(
            "panel file: feedback: its one SQLite file cannot be shared by gateways on several "
            "nodes; remove [feedback]."
        )
    wanted = {name: gpus_of(name, seat) for name, seat in seats.items()}
    if gpus is not None and sum(wanted.values()) > gpus:
        raise KubernetesError(
            f"{', '.join(name for name, count in wanted.items() if count)} want "
            f"{sum(wanted.values())} GPUs and there are {gpus}: Kubernetes gives one to one pod "
            "alone. Give more, or seat adapters of one base on one engine."
        )


def _is_everywhere(model: str) -> bool:
    """Whether a node has it in the engine's image, or can fetch it."""
    named = model.startswith(("zoo:", "base:")) or is_hub_id(model)
    return named and not Path(model).is_dir()


def _is_loopback(host: str) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return host == "localhost"
    return address.is_loopback or address.is_unspecified


def _config_map(name: str, files: dict[str, Path]) -> dict[str, Any]:
    """Its name holds a hash of what is in it: whoever mounts another is started anew."""
    data = {key: path.read_text("utf-8") for key, path in files.items()}
    if (size := sum(len(text.encode()) for text in data.values())) > CONFIG_MAP_BYTES:
        raise KubernetesError(
            f"{', '.join(path.name for path in files.values())}: {size} bytes are more than the "
            f"{CONFIG_MAP_BYTES} that a ConfigMap holds; calibrate without grey answers."
        )
    digest = hashlib.sha256(repr(sorted(data.items())).encode()).hexdigest()[:10]
    return _object("v1", "ConfigMap", f"{name}-{digest}", data=data, immutable=True)


def _gateway(
    settings: Settings, gateway: Container, panel: str, told: str, registry: str
) -> list[dict[str, Any]]:
    environment = [
        *_environment(
            gateway.environment
            | {
                "CONSILIUM_SECRET_FILE": "/run/secrets/cache/cache_key",
                "CONSILIUM_KEYS": "/run/secrets/keys/keys.json",
            }
        ),
        *([_from_secret("CONSILIUM_ARCHIVE_AUTHORIZATION", "archive")] if settings.archive else []),
    ]
    volumes = {
        "panel": {"configMap": {"name": panel}},
        "learned": {"configMap": {"name": told}},
        "cache": {"secret": {"secretName": "cache-key", "defaultMode": 0o440}},
        "keys": {"secret": {"secretName": "keys", "defaultMode": 0o440}},
        "tmp": {"emptyDir": {}},
        **{what: {"persistentVolumeClaim": {"claimName": what}} for what in gateway.keeps},
    }
    mounts = [
        _file("panel", "panel.toml", PANEL),
        *(
            _file("learned", f"learned-{number}.json", path)
            for number, path in enumerate(gateway.reads.values())
        ),
        *(
            {"name": secret, "mountPath": f"/run/secrets/{secret}", "readOnly": True}
            for secret in ("cache", "keys")
        ),
        {"name": "tmp", "mountPath": "/tmp"},
        *_volumes(gateway),
    ]
    container = {
        "name": gateway.host,
        "image": _image(gateway, registry),
        # Others reach it, so it needs keys: unlike in its image, not --without-keys.
        "command": ["python", "-m", "gateway", "--host", "0.0.0.0"],
        "env": environment,
        "ports": [{"name": "http", "containerPort": gateway.port}],
        "readinessProbe": _asks(gateway.healthy, gateway.port),
        "livenessProbe": _asks("/health/live", gateway.port),
        "volumeMounts": mounts,
        "resources": _resources(cpu="2", memory="2Gi"),
    }
    deployment = _deployment(gateway.host, container, volumes, {"type": "RollingUpdate"})
    pod = deployment["spec"]["template"]["spec"]
    pod["terminationGracePeriodSeconds"] = gateway.ends_within_s
    least, most = GATEWAYS
    claims = [
        _object(
            "v1",
            "PersistentVolumeClaim",
            what,
            spec={
                "accessModes": ["ReadWriteMany"],  # a file for each gateway
                "resources": {"requests": {"storage": "10Gi"}},
            },
        )
        for what in gateway.keeps
    ]
    return [
        *claims,
        deployment,
        _service(gateway),
        _object(
            "policy/v1",
            "PodDisruptionBudget",
            "gateway",
            spec={"minAvailable": 1, "selector": _chosen("gateway")},
        ),
        _object(
            "autoscaling/v2",
            "HorizontalPodAutoscaler",
            "gateway",
            spec={
                "scaleTargetRef": {
                    "apiVersion": "apps/v1",
                    "kind": "Deployment",
                    "name": "gateway",
                },
                "minReplicas": least,
                "maxReplicas": most,
                "metrics": [
                    {
                        "type": "Pods",
                        "pods": {
                            "metric": {"name": "consilium_cases_inside"},
                            # Before cases wait, not once they do.
                            "target": {
                                "type": "AverageValue",
                                "averageValue": str(max(1, settings.load.max_at_work * 3 // 4)),
                            },
                        },
                    }
                ],
            },
        ),
    ]


def _redis() -> list[dict[str, Any]]:
    ping = {"exec": {"command": ["redis-cli", "ping"]}, "timeoutSeconds": 5}
    container = {
        "name": REDIS.host,
        "image": REDIS.image,
        "args": REDIS.command,
        "ports": [{"name": "redis", "containerPort": REDIS.port}],
        "readinessProbe": ping,
        "livenessProbe": ping,
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        "resources": _resources(cpu="1", memory="384Mi"),
    }
    volumes: dict[str, Any] = {"data": {"emptyDir": {}}}
    return [
        _deployment(REDIS.host, container, volumes, {"type": "Recreate"}, REDIS_USER),
        _service(REDIS),
    ]


def _engine(name: str, seat: Seat, panel: str, registry: str) -> list[dict[str, Any]]:
    gpus = gpus_of(name, seat)
    server = containers.engine(name, share=SHARE_OF_GPU if gpus else None)
    probe = _asks(server.healthy, server.port)
    container = {
        "name": "engine",
        "image": _image(server, registry),
        "command": server.command,
        "env": [
            *_environment(server.environment),
            *([_from_secret("HF_TOKEN", "hub", optional=True)] if is_hub_id(seat.model) else []),
        ],
        "ports": [{"name": "http", "containerPort": server.port}],
        "startupProbe": probe | {"failureThreshold": START_S // probe["periodSeconds"]},
        "readinessProbe": probe,
        "livenessProbe": probe,
        "volumeMounts": [
            _file("panel", "panel.toml", PANEL),
            *_volumes(server),
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "shm", "mountPath": "/dev/shm"},
        ],
        "resources": _resources(cpu="4", memory=f"{ENGINE_GIB}Gi", gpus=gpus),
    }
    volumes = {
        "panel": {"configMap": {"name": panel}},
        **{volume: {"emptyDir": {}} for volume in server.keeps},
        "tmp": {"emptyDir": {}},
        "shm": {"emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}},
    }
    # Recreate: another beside it would want another GPU.
    deployment = _deployment(server.host, container, volumes, {"type": "Recreate"})
    deployment["spec"]["template"]["metadata"]["labels"]["consilium/engine"] = "yes"
    return [deployment, _service(server)]


def _network(gateway: Container) -> list[dict[str, Any]]:
    """Nobody reaches anybody, but everybody the gateways, and these the engines and Redis."""
    gateways, redis = _chosen(gateway.host), _chosen(REDIS.host)
    engines = {"matchLabels": {"consilium/engine": "yes"}}
    from_gateways = [{"podSelector": gateways}]
    return [
        _policy("nobody", {}, []),
        _policy("gateway", gateways, [{"ports": _ports(gateway.port)}]),
        _policy("engines", engines, [{"from": from_gateways, "ports": _ports(ENGINE_PORT)}]),
        _policy("redis", redis, [{"from": from_gateways, "ports": _ports(REDIS.port)}]),
    ]


def _policy(name: str, of: dict[str, Any], ingress: list[dict[str, Any]]) -> dict[str, Any]:
    spec = {"podSelector": of, "policyTypes": ["Ingress"], "ingress": ingress}
    return _object("networking.k8s.io/v1", "NetworkPolicy", name, spec=spec)


def _ports(port: int) -> list[dict[str, Any]]:
    return [{"protocol": "TCP", "port": port}]


def _deployment(
    name: str,
    container: dict[str, Any],
    volumes: dict[str, Any],
    strategy: dict[str, Any],
    user: str = US,
) -> dict[str, Any]:
    spec = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,  # else a Service's address comes in as VLLM_… or REDIS_…
        "securityContext": {
            "runAsNonRoot": True,
            **dict.fromkeys(("runAsUser", "runAsGroup", "fsGroup"), int(user)),
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            container
            | {
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                }
            }
        ],
        "volumes": [{"name": volume, **source} for volume, source in volumes.items()],
    }
    selector = _chosen(name)
    template = {"metadata": {"labels": dict(selector["matchLabels"])}, "spec": spec}
    return _object(
        "apps/v1",
        "Deployment",
        name,
        spec={"selector": selector, "strategy": strategy, "template": template},
    )


def _service(server: Container) -> dict[str, Any]:
    spec = {"selector": _chosen(server.host)["matchLabels"], "ports": _ports(server.port)}
    return _object("v1", "Service", server.host, spec=spec)


def _object(api: str, kind: str, name: str, **rest: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": api, "kind": kind, "metadata": metadata, **rest}


def _chosen(name: str) -> dict[str, Any]:
    return {"matchLabels": {"app.kubernetes.io/name": name}}


def _image(server: Container, registry: str) -> str:
    return f"{registry.rstrip('/')}/{server.image}:{version('consilium')}".lstrip("/")


def _environment(values: dict[str, str]) -> list[dict[str, Any]]:
    return [{"name": name, "value": value} for name, value in values.items()]


def _from_secret(name: str, secret: str, optional: bool = False) -> dict[str, Any]:
    reference = {"name": secret, "key": "value", "optional": optional}
    return {"name": name, "valueFrom": {"secretKeyRef": reference}}


def _volumes(server: Container) -> list[dict[str, Any]]:
    return [{"name": volume, "mountPath": path} for volume, path in server.keeps.items()]


def _file(volume: str, key: str, path: str) -> dict[str, Any]:
    return {"name": volume, "mountPath": path, "subPath": key, "readOnly": True}


def _asks(path: str, port: int) -> dict[str, Any]:
    return {"httpGet": {"path": path, "port": port}, "periodSeconds": 10, "timeoutSeconds": 5}


def _resources(cpu: str, memory: str, gpus: int = 0) -> dict[str, Any]:
    """As much as they may take is kept for them: who is given less falls over under load."""
    most = {"cpu": cpu, "memory": memory, **({"nvidia.com/gpu": gpus} if gpus else {})}
    return {"requests": dict(most), "limits": most}
