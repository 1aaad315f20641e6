"""The panel as KubeRay's RayService: Ray places the engines of every seat, and a gateway on each
node, over pods that are all alike.

A seat's `gpus` and `replicas` hold here, which Kubernetes alone does not know: several engines may
share a GPU. There are as many pods as the most engines need; none comes and goes, since Ray's own
scaler would want a token of the cluster's. Whoever reaches Ray's dashboard may run anything on the
nodes, so only KubeRay's operator does, beside the nodes themselves.
"""

import math
from typing import Any

import yaml

from gateway.settings import Settings
from models.assets import is_hub_id
from services.running.deploying import containers
from services.running.deploying.containers import PANEL, Container, Plain
from services.running.deploying.objects import (
    Furnished,
    KubernetesError,
    an_object,
    environment,
    from_secret,
    image,
    named,
    pod,
    policy,
    ports,
    resources,
)
from services.running.deploying.room import Need, needs, nodes_for
from services.running.engine import local_seats

LABEL = {"consilium/ray": "yes"}
NODES: dict[str, Any] = {"matchLabels": LABEL}
OPERATOR = named("kuberay-operator")  # as its Helm chart labels it
DASHBOARD_PORT = 8265  # where the operator tells Ray what to serve
RAY = "2.60.0"  # as pyproject.toml pins it
APPLICATION = "services.running.deploying.ray:from_panel"


def objects(
    settings: Settings,
    gateway: Container,
    furnished: Furnished,
    registry: str,
    gpus: int | None,
) -> list[dict[str, Any]]:
    """The RayService and who reaches it; `furnished` is what a gateway finds on its node.

    Raises:
        KubernetesError: it wants more than `gpus`, where they are told.
        EngineError, ClusterError: as room.needs.
    """
    each, count, engines = _nodes(settings)
    if gpus is not None and each * count > gpus:
        raise KubernetesError(
            f"{count} nodes of {each} GPU are wanted and there are {gpus} GPUs: give more, or "
            "lower gpus or replicas in panel.toml."
        )
    seats = local_seats(settings).values()
    hub = [from_secret("HF_TOKEN", "hub", optional=True)]
    inside = furnished + Furnished(
        [
            *environment(containers.ENGINE_ENVIRONMENT),
            *(hub if any(is_hub_id(seat.model) for seat in seats) else []),
        ],
        {"models": {"emptyDir": {}}, "shm": {"emptyDir": {"medium": "Memory", "sizeLimit": "2Gi"}}},
        [
            {"name": "models", "mountPath": containers.CACHE},
            {"name": "shm", "mountPath": "/dev/shm"},
        ],
    )
    on_each = math.ceil(engines / count)
    takes = resources(
        cpu=on_each * containers.ENGINE_CPUS + containers.GATEWAY_CPUS,
        memory=f"{on_each * containers.ENGINE_GIB + containers.GATEWAY_GIB}Gi",
        gpus=each,
    )
    head = resources(cpu=containers.GATEWAY_CPUS, memory="4Gi")
    service = {
        "serveConfigV2": yaml.dump(
            _served(gateway, count), Dumper=Plain, sort_keys=False, width=100
        ),
        "rayClusterConfig": {
            "rayVersion": RAY,
            "headGroupSpec": {
                # Nothing of the panel is placed beside what the cluster stands on.
                "rayStartParams": {"num-cpus": "0"},
                "template": _pod(gateway, "ray-head", inside, head, registry),
            },
            "workerGroupSpecs": [
                {
                    "groupName": "nodes",
                    **dict.fromkeys(("replicas", "minReplicas", "maxReplicas"), count),
                    # Counted, not measured: what is short is the GPUs.
                    "rayStartParams": {"num-cpus": str(engines + 1)},
                    "template": _pod(gateway, "ray-node", inside, takes, registry),
                }
            ],
        },
    }
    anywhere: dict[str, Any] = {"namespaceSelector": {}, "podSelector": {"matchLabels": OPERATOR}}
    return [
        an_object("ray.io/v1", "RayService", "consilium", spec=service),
        policy(
            "ray",
            NODES,
            [
                {"from": [{"podSelector": NODES}]},
                {"from": [anywhere], "ports": ports(DASHBOARD_PORT)},
                {"ports": ports(gateway.port)},
            ],
        ),
    ]


def _nodes(settings: Settings) -> tuple[int, int, int]:
    """GPUs of a node, so many nodes, and the most engines that they have to hold."""
    seats = local_seats(settings)
    wanted: list[Need] = []
    for name, need in needs(settings, on_gpus=True).items():
        wanted += [need] * seats[name].replicas[1]
    gpus = max((need.gpus for need in wanted), default=0)
    return gpus, nodes_for(wanted, gpus), len(wanted)


def _served(gateway: Container, gateways: int) -> dict[str, Any]:
    """What Ray Serve is told, by the fields of its ServeDeploySchema."""
    return {
        "proxy_location": "EveryNode",
        "http_options": {"host": "0.0.0.0", "port": gateway.port},
        "logging_config": {"enable_access_log": False},
        "applications": [
            {
                "name": "consilium",
                "route_prefix": "/",
                "import_path": APPLICATION,
                "args": {"panel": PANEL, "gateways": gateways},
            }
        ],
    }


def _pod(
    gateway: Container, name: str, inside: Furnished, takes: dict[str, Any], registry: str
) -> dict[str, Any]:
    container = {
        "name": name,
        "image": image(containers.RAY_NODE, registry),
        "env": inside.environment,
        "volumeMounts": inside.mounts,
        "resources": takes,
    }
    template = pod(LABEL, container, inside.volumes)
    template["spec"]["terminationGracePeriodSeconds"] = gateway.ends_within_s
    return template
