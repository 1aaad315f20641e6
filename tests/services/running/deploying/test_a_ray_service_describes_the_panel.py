"""For KubeRay the manifests are panel.toml as well, and the cluster that Ray makes is shut in."""

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from gateway.settings import Settings, load_settings
from services.running.deploying.kubernetes import manifests
from services.running.deploying.objects import KubernetesError
from services.running.deploying.ray_service import RAY

ROOT = Path(__file__).parents[4]
HEAD_OR_NODE = {"matchLabels": {"consilium/ray": "yes"}}


@pytest.fixture(scope="module")
def documents() -> list[dict[str, Any]]:
    return manifests(load_settings(ROOT / "panel.toml", {}), "registry.example/ward", on_ray=True)


def of_ray(documents: list[dict[str, Any]]) -> dict[str, Any]:
    (found,) = (each["spec"] for each in documents if each["kind"] == "RayService")
    return dict(found)


def nodes(documents: list[dict[str, Any]]) -> dict[str, Any]:
    (group,) = of_ray(documents)["rayClusterConfig"]["workerGroupSpecs"]
    return dict(group)


def templates(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    head = of_ray(documents)["rayClusterConfig"]["headGroupSpec"]
    return [head["template"], nodes(documents)["template"]]


def test_the_cluster_takes_every_document(documents: list[dict[str, Any]]) -> None:
    """By the schemas of Kubernetes' own API, which know pods and no RayService."""
    own = [each for each in documents if each["kind"] != "RayService"]
    pods = [
        {"apiVersion": "v1", "kind": "Pod", **each, "metadata": {"name": "a"} | each["metadata"]}
        for each in templates(documents)
    ]
    for each in own + pods:
        kubernetes_validate.validate(each, kubernetes_validate.latest_version(), strict=True)


def test_it_stands_in_the_place_of_gateways_and_engines(documents: list[dict[str, Any]]) -> None:
    """A cluster that gave GPUs to both would give them twice."""
    kinds = [(each["kind"], each["metadata"]["name"]) for each in documents]
    assert ("RayService", "consilium") in kinds
    assert [name for kind, name in kinds if kind == "Deployment"] == ["redis"]


def test_ray_is_told_the_application_of_this_panel(documents: list[dict[str, Any]]) -> None:
    """One gateway for each node, at the port that everybody reaches; no seat is elsewhere."""
    served = yaml.safe_load(of_ray(documents)["serveConfigV2"])
    (application,) = served["applications"]
    (container,) = nodes(documents)["template"]["spec"]["containers"]
    environment = {each["name"]: each.get("value") for each in container["env"]}
    files = {each["mountPath"] for each in container["volumeMounts"]}

    assert application["args"]["panel"] in files
    assert application["args"]["gateways"] == nodes(documents)["replicas"]
    assert served["http_options"] == {"host": "0.0.0.0", "port": 8000}
    assert environment["CONSILIUM_STORE"] == "redis://redis:6379/0"
    assert environment["CONSILIUM_KEYS"].startswith("/run/secrets/keys/")
    assert not any(name.endswith("_URL") for name in environment)


def test_ray_is_the_one_that_is_pinned() -> None:
    """The operator asks a node how it is in the way of that version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert f"ray[data,serve]=={RAY}" in project["project"]["optional-dependencies"]["ray"]


@pytest.mark.parametrize(
    ("seats", "count", "gpus"),
    [
        (["", ""], 2, 1),
        (["gpus = 0.4", "gpus = 0.6", "gpus = 0.5"], 2, 1),
        (["replicas = [1, 3]"], 3, 1),
        (["engine = { tensor-parallel-size = 2 }", ""], 2, 2),
    ],
)
def test_nodes_hold_the_most_engines(
    seated: Callable[..., Settings], seats: list[str], count: int, gpus: int
) -> None:
    """Those that say so share a GPU; on the head there is none."""
    documents = manifests(seated(*seats), on_ray=True)
    head, node = templates(documents)

    group = nodes(documents)
    assert (group["replicas"], group["minReplicas"], group["maxReplicas"]) == (count,) * 3
    assert node["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == gpus
    assert "nvidia.com/gpu" not in head["spec"]["containers"][0]["resources"]["limits"]
    with pytest.raises(KubernetesError, match=f"{count} nodes of {gpus} GPU .* lower gpus"):
        manifests(seated(*seats), on_ray=True, gpus=count * gpus - 1)


def test_every_pod_is_confined(documents: list[dict[str, Any]]) -> None:
    for template in templates(documents):
        spec = template["spec"]
        (container,) = spec["containers"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["automountServiceAccountToken"] is False
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"cpu", "memory"} <= container["resources"]["limits"].keys()


def test_its_image_has_what_kuberay_asks_by() -> None:
    """The probes that it puts into a pod call wget."""
    engine = (ROOT / "Dockerfile").read_text("utf-8").partition(" AS engine\n")[2]
    assert " wget " in engine


def test_an_address_of_ones_own_has_no_place_there(seated: Callable[..., Settings]) -> None:
    settings = seated('url = "http://127.0.0.1:8102"')
    with pytest.raises(KubernetesError, match="gateway's own pod; leave it out"):
        manifests(settings, on_ray=True)


def test_only_the_gateway_is_reachable(documents: list[dict[str, Any]]) -> None:
    """By others than nodes: whoever reaches the dashboard may run anything, so the operator alone
    does; and Redis, which has no key, is the nodes' own."""
    policies = {e["metadata"]["name"]: e["spec"] for e in documents if e["kind"] == "NetworkPolicy"}
    assert all(
        each["metadata"]["labels"] == HEAD_OR_NODE["matchLabels"] for each in templates(documents)
    )
    assert policies["nobody"] == {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": []}
    operator = {"matchLabels": {"app.kubernetes.io/name": "kuberay-operator"}}
    assert policies["ray"]["podSelector"] == HEAD_OR_NODE
    assert policies["ray"]["ingress"] == [
        {"from": [{"podSelector": HEAD_OR_NODE}]},
        {
            "from": [{"namespaceSelector": {}, "podSelector": operator}],
            "ports": [{"protocol": "TCP", "port": 8265}],
        },
        {"ports": [{"protocol": "TCP", "port": 8000}]},
    ]
    assert policies["redis"]["ingress"] == [
        {"from": [{"podSelector": HEAD_OR_NODE}], "ports": [{"protocol": "TCP", "port": 6379}]}
    ]
    assert set(policies) == {"nobody", "ray", "redis"}
