"""panel.toml → Kubernetes manifests: the same containers as `consilium compose` describes, spread
over a cluster.

One Deployment for each seat, whose pod has its GPUs to itself, and gateways that come and go with
the cases inside them; or, for KubeRay, a RayService in their place. Beside them Redis. Every pod
runs as an ordinary user on a read-only system without capabilities and without a token of the
cluster's, and only the gateways are reachable. Secrets are named and never held. Not run on a
cluster by us: held to the schemas of the API.
"""

import re
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from consilium.wire import shown
from gateway.settings import Settings
from gateway.tables import WorkerSettings
from models.assets import is_hub_id
from services.running.deploying import containers, ray_service
from services.running.deploying.containers import (
    ENGINE_CPUS,
    ENGINE_GIB,
    ENGINE_PORT,
    GATEWAY_CPUS,
    GATEWAY_GIB,
    PANEL,
    REDIS,
    STORE,
    Container,
    Plain,
)
from services.running.deploying.objects import (
    NAMESPACE,
    Furnished,
    KubernetesError,
    an_object,
    asks,
    chosen,
    config_map,
    deployment,
    environment,
    from_secret,
    image,
    mounted,
    named,
    one_file,
    pod,
    policy,
    ports,
    resources,
    service,
)
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
REDIS_USER = "999"  # of its image
REGISTRY = re.compile(r"([\w.-]+(:\d+)?(/[a-z0-9._-]+)*/?)?", re.ASCII)
DNS_LABEL_CHARACTERS = 63  # RFC 1123
GATEWAYS = (2, 4)  # at least, at most
START_S = 15 * 60  # an engine fetches, merges and compiles before it answers


def write(
    settings: Settings, path: Path, registry: str, gpus: int | None, on_ray: bool = False
) -> None:
    """One file for `kubectl apply`; raises as `manifests` does."""
    documents = manifests(settings, registry, gpus, on_ray)
    text = yaml.dump_all(documents, Dumper=Plain, sort_keys=False, width=100)
    path.write_text(HEADER + text, encoding="utf-8")


def manifests(
    settings: Settings, registry: str = "", gpus: int | None = None, on_ray: bool = False
) -> list[dict[str, Any]]:
    """Everything that the panel is in a cluster, with a RayService or without.

    `registry` is where nodes pull our images from, `gpus` how many the cluster has, if that is to
    be checked.

    Raises:
        KubernetesError, EngineError, ClusterError: there is something in the panel that a cluster
            cannot run.
    """
    if not REGISTRY.fullmatch(registry):
        raise KubernetesError(
            f"--registry {registry}: images are named by a host and a path in small letters, "
            "such as registry.example/ward."
        )
    gateway = containers.gateway(settings)
    if on_ray:  # which leads the gateway to its engines
        gateway = replace(gateway, environment=STORE)
    _check(settings, gateway, local_seats(settings), on_ray)
    panel = config_map("panel", {"panel.toml": settings.file})
    folder = settings.file.parent
    files = {f"learned-{n}.json": folder / each for n, each in enumerate(gateway.reads)}
    told = config_map("learned", files)
    furnished = _furnished(settings, gateway, panel["metadata"]["name"], told["metadata"]["name"])
    if on_ray:
        own = ray_service.objects(settings, gateway, furnished, registry, gpus)
        callers = ray_service.NODES
    else:
        own = _deployments(settings, gateway, furnished, panel["metadata"]["name"], registry, gpus)
        callers = chosen(gateway.host)
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
        *_claims(gateway),
        *_redis(),
        *own,
        policy("nobody", {}, []),
        policy(
            REDIS.host,
            chosen(REDIS.host),
            [{"from": [{"podSelector": callers}], "ports": ports(REDIS.port)}],
        ),
    ]


def _check(settings: Settings, gateway: Container, seats: dict[str, Seat], on_ray: bool) -> None:
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
            mend = (
                "leave it out: on Ray each seat has an engine of its own, and none an address."
                if on_ray
                else "write the address of the seat that serves it, such as "
                f"{containers.engine('NAME').url}."
            )
            raise KubernetesError(
                f"panel file: {name}: url: {shown(own[0])} would be the gateway's own pod; {mend}"
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


def _is_everywhere(model: str) -> bool:
    """Whether a node has it in the engine's image, or can fetch it."""
    is_named = model.startswith(("zoo:", "base:")) or is_hub_id(model)
    return is_named and not Path(model).is_dir()


def _is_loopback(host: str) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return host == "localhost"
    return address.is_loopback or address.is_unspecified


def _furnished(settings: Settings, gateway: Container, panel: str, told: str) -> Furnished:
    """What a gateway finds in its pod."""
    own = gateway.environment | {
        "CONSILIUM_SECRET_FILE": "/run/secrets/cache/cache_key",
        "CONSILIUM_KEYS": "/run/secrets/keys/keys.json",
    }
    archive = [from_secret("CONSILIUM_ARCHIVE_AUTHORIZATION", "archive")]
    return Furnished(
        [*environment(own), *(archive if settings.archive else [])],
        {
            "panel": {"configMap": {"name": panel}},
            "learned": {"configMap": {"name": told}},
            "cache": {"secret": {"secretName": "cache-key", "defaultMode": 0o440}},
            "keys": {"secret": {"secretName": "keys", "defaultMode": 0o440}},
            "tmp": {"emptyDir": {}},
            **{what: {"persistentVolumeClaim": {"claimName": what}} for what in gateway.keeps},
        },
        [
            one_file("panel", "panel.toml", PANEL),
            *(
                one_file("learned", f"learned-{number}.json", path)
                for number, path in enumerate(gateway.reads.values())
            ),
            *(
                {"name": secret, "mountPath": f"/run/secrets/{secret}", "readOnly": True}
                for secret in ("cache", "keys")
            ),
            {"name": "tmp", "mountPath": "/tmp"},
            *mounted(gateway),
        ],
    )


def _claims(gateway: Container) -> list[dict[str, Any]]:
    spec = {
        "accessModes": ["ReadWriteMany"],  # a file for each gateway
        "resources": {"requests": {"storage": "10Gi"}},
    }
    return [an_object("v1", "PersistentVolumeClaim", what, spec=spec) for what in gateway.keeps]


def _deployments(
    settings: Settings,
    gateway: Container,
    furnished: Furnished,
    panel: str,
    registry: str,
    gpus: int | None,
) -> list[dict[str, Any]]:
    """Gateways and engines; nobody reaches anybody, but everybody the gateways, and these the
    engines."""
    seats = local_seats(settings)
    wanted = {name: gpus_of(name, seat) for name, seat in seats.items()}
    if gpus is not None and sum(wanted.values()) > gpus:
        raise KubernetesError(
            f"{', '.join(name for name, count in wanted.items() if count)} want "
            f"{sum(wanted.values())} GPUs and there are {gpus}: Kubernetes gives one to one pod "
            "alone. Give more, or seat adapters of one base on one engine."
        )
    engines = {"matchLabels": {"consilium/engine": "yes"}}
    from_gateways = [{"podSelector": chosen(gateway.host)}]
    return [
        *_gateway(settings, gateway, furnished, registry),
        *(each for name, seat in seats.items() for each in _engine(name, seat, panel, registry)),
        policy("gateway", chosen(gateway.host), [{"ports": ports(gateway.port)}]),
        policy("engines", engines, [{"from": from_gateways, "ports": ports(ENGINE_PORT)}]),
    ]


def _gateway(
    settings: Settings, gateway: Container, furnished: Furnished, registry: str
) -> list[dict[str, Any]]:
    container = {
        "name": gateway.host,
        "image": image(gateway, registry),
        # Others reach it, so it needs keys: unlike in its image, not --without-keys.
        "command": ["python", "-m", "gateway", "--host", "0.0.0.0"],
        "env": furnished.environment,
        "ports": [{"name": "http", "containerPort": gateway.port}],
        "readinessProbe": asks(gateway.healthy, gateway.port),
        "livenessProbe": asks("/health/live", gateway.port),
        "volumeMounts": furnished.mounts,
        "resources": resources(cpu=GATEWAY_CPUS, memory=f"{GATEWAY_GIB}Gi"),
    }
    template = pod(named(gateway.host), container, furnished.volumes)
    template["spec"]["terminationGracePeriodSeconds"] = gateway.ends_within_s
    least, most = GATEWAYS
    return [
        deployment(gateway.host, template, "RollingUpdate"),
        service(gateway),
        an_object(
            "policy/v1",
            "PodDisruptionBudget",
            "gateway",
            spec={"minAvailable": 1, "selector": chosen("gateway")},
        ),
        an_object(
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
        "resources": resources(cpu=1, memory="384Mi"),
    }
    template = pod(named(REDIS.host), container, {"data": {"emptyDir": {}}}, REDIS_USER)
    return [deployment(REDIS.host, template, "Recreate"), service(REDIS)]


def _engine(name: str, seat: Seat, panel: str, registry: str) -> list[dict[str, Any]]:
    gpus = gpus_of(name, seat)
    server = containers.engine(name, share=SHARE_OF_GPU if gpus else None)
    probe = asks(server.healthy, server.port)
    container = {
        "name": "engine",
        "image": image(server, registry),
        "command": server.command,
        "env": [
            *environment(server.environment),
            *([from_secret("HF_TOKEN", "hub", optional=True)] if is_hub_id(seat.model) else []),
        ],
        "ports": [{"name": "http", "containerPort": server.port}],
        "startupProbe": probe | {"failureThreshold": START_S // probe["periodSeconds"]},
        "readinessProbe": probe,
        "livenessProbe": probe,
        "volumeMounts": [
            one_file("panel", "panel.toml", PANEL),
            *mounted(server),
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "shm", "mountPath": "/dev/shm"},
        ],
        "resources": resources(cpu=ENGINE_CPUS, memory=f"{ENGINE_GIB}Gi", gpus=gpus),
    }
    volumes = {
        "panel": {"configMap": {"name": panel}},
        **{volume: {"emptyDir": {}} for volume in server.keeps},
        "tmp": {"emptyDir": {}},
        "shm": {"emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}},
    }
    labels = named(server.host) | {"consilium/engine": "yes"}
    # Recreate: another beside it would want another GPU.
    return [
        deployment(server.host, pod(labels, container, volumes), "Recreate"),
        service(server),
    ]
