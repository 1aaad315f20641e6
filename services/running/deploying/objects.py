"""What Kubernetes calls what a panel needs: a pod of ours may do as little as any, wherever it
runs."""

import hashlib
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from services.running.deploying.containers import US, Container

NAMESPACE = "consilium"
CONFIG_MAP_BYTES = 2**20  # the most that one holds


class KubernetesError(Exception):
    """One line: what of the panel no cluster can run, and how to mend it."""


@dataclass(frozen=True)
class Furnished:
    """What a program finds in its pod."""

    environment: list[dict[str, Any]]
    volumes: dict[str, Any]
    mounts: list[dict[str, Any]]

    def __add__(self, other: "Furnished") -> "Furnished":
        return Furnished(
            [*self.environment, *other.environment],
            self.volumes | other.volumes,
            [*self.mounts, *(each for each in other.mounts if each not in self.mounts)],
        )


def an_object(api: str, kind: str, name: str, **rest: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": api, "kind": kind, "metadata": metadata, **rest}


def config_map(name: str, files: dict[str, Path]) -> dict[str, Any]:
    """Its name holds a hash of what is in it: whoever mounts another is started anew.

    Raises:
        KubernetesError: it would hold more than one can.
    """
    data = {key: path.read_text("utf-8") for key, path in files.items()}
    if (size := sum(len(text.encode()) for text in data.values())) > CONFIG_MAP_BYTES:
        raise KubernetesError(
            f"{', '.join(path.name for path in files.values())}: {size} bytes are more than the "
            f"{CONFIG_MAP_BYTES} that a ConfigMap holds; calibrate without grey answers."
        )
    digest = hashlib.sha256(repr(sorted(data.items())).encode()).hexdigest()[:10]
    return an_object("v1", "ConfigMap", f"{name}-{digest}", data=data, immutable=True)


def pod(
    labels: dict[str, str],
    container: dict[str, Any],
    volumes: dict[str, Any],
    user: str = US,
) -> dict[str, Any]:
    """The template of one: an ordinary user on a read-only system without capabilities, and without
    a token of the cluster's."""
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
    return {"metadata": {"labels": labels}, "spec": spec}


def deployment(name: str, template: dict[str, Any], strategy: str) -> dict[str, Any]:
    spec = {"selector": chosen(name), "strategy": {"type": strategy}, "template": template}
    return an_object("apps/v1", "Deployment", name, spec=spec)


def service(server: Container) -> dict[str, Any]:
    spec = {"selector": named(server.host), "ports": ports(server.port)}
    return an_object("v1", "Service", server.host, spec=spec)


def policy(name: str, of: dict[str, Any], ingress: list[dict[str, Any]]) -> dict[str, Any]:
    spec = {"podSelector": of, "policyTypes": ["Ingress"], "ingress": ingress}
    return an_object("networking.k8s.io/v1", "NetworkPolicy", name, spec=spec)


def named(name: str) -> dict[str, str]:
    return {"app.kubernetes.io/name": name}


def chosen(name: str) -> dict[str, Any]:
    return {"matchLabels": named(name)}


def ports(port: int) -> list[dict[str, Any]]:
    return [{"protocol": "TCP", "port": port}]


def image(server: Container, registry: str) -> str:
    return f"{registry.rstrip('/')}/{server.image}:{version('consilium')}".lstrip("/")


def environment(values: dict[str, str]) -> list[dict[str, Any]]:
    return [{"name": name, "value": value} for name, value in values.items()]


def from_secret(name: str, secret: str, optional: bool = False) -> dict[str, Any]:
    reference = {"name": secret, "key": "value", "optional": optional}
    return {"name": name, "valueFrom": {"secretKeyRef": reference}}


def mounted(server: Container) -> list[dict[str, Any]]:
    return [{"name": volume, "mountPath": path} for volume, path in server.keeps.items()]


def one_file(volume: str, key: str, path: str) -> dict[str, Any]:
    return {"name": volume, "mountPath": path, "subPath": key, "readOnly": True}


def asks(path: str, port: int) -> dict[str, Any]:
    return {"httpGet": {"path": path, "port": port}, "periodSeconds": 10, "timeoutSeconds": 5}


def resources(cpu: int, memory: str, gpus: int = 0) -> dict[str, Any]:
    """As much as they may take is kept for them: who is given less falls over under load."""
    most = {"cpu": str(cpu), "memory": memory, **({"nvidia.com/gpu": gpus} if gpus else {})}
    return {"requests": dict(most), "limits": most}
