"""The manifests are panel.toml in other words, and shut everybody in but the gateway."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate
import pytest
import yaml

from gateway.settings import Settings, load_settings
from services.running.deploying.kubernetes import manifests, write
from services.running.deploying.objects import KubernetesError
from services.running.engine import EngineError, local_seats, remembers
from tests.services.running.deploying.test_compose_describes_the_panel import settings_with

ROOT = Path(__file__).parents[4]
ADAPTER = 'engine = { lora-modules = ["mobilenet=adapters/a"] }'
LONG = "a" * 57


@pytest.fixture(scope="module")
def settings() -> Settings:
    return load_settings(ROOT / "panel.toml", {})


@pytest.fixture(scope="module")
def documents(settings: Settings) -> list[dict[str, Any]]:
    return manifests(settings, "registry.example/ward")


@pytest.fixture
def changed(tmp_path: Path) -> Callable[..., Settings]:
    """panel.toml without competence, with passages replaced."""
    nothing_learned = ('competence = "models/zoo/competence.json"', "")

    def change(*pairs: tuple[str, str], more: str = "") -> Settings:
        return settings_with(tmp_path, nothing_learned, *pairs, more=more)

    return change


def of_kind(documents: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    return {each["metadata"]["name"]: each for each in documents if each["kind"] == kind}


def pods(documents: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    found = of_kind(documents, "Deployment")
    return {name: each["spec"]["template"]["spec"] for name, each in found.items()}


def test_the_cluster_takes_every_document(documents: list[dict[str, Any]]) -> None:
    """By the published schemas of its API, and none has a field that they do not know."""
    for each in documents:
        kubernetes_validate.validate(each, kubernetes_validate.latest_version(), strict=True)


def test_every_seat_has_a_pod_and_its_gpus_to_itself(
    documents: list[dict[str, Any]], settings: Settings
) -> None:
    """What remembers takes none; a pod that takes one is gone before the next comes."""
    found = pods(documents)
    gpus = {
        name: spec["containers"][0]["resources"]["limits"].get("nvidia.com/gpu")
        for name, spec in found.items()
    }

    seats = local_seats(settings)
    expected = {
        name if name == "summariser" else f"worker-{name}": None if remembers(seat) else 1
        for name, seat in seats.items()
    }
    assert gpus == {"gateway": None, "redis": None, **expected}
    for name in expected:
        assert of_kind(documents, "Deployment")[name]["spec"]["strategy"] == {"type": "Recreate"}


def test_a_model_that_is_spread_over_gpus_is_given_them_all(
    changed: Callable[..., Settings],
) -> None:
    own = "max-model-len = 4096, tensor-parallel-size = 2, pipeline_parallel_size = 2"
    settings = changed(("max-model-len = 4096", own))

    spec = pods(manifests(settings, gpus=8))["worker-mobilenet"]

    assert spec["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 4


def test_every_pod_is_confined(documents: list[dict[str, Any]]) -> None:
    """An ordinary user on a read-only system without capabilities and a token, within limits."""
    for name, spec in pods(documents).items():
        own = spec["securityContext"]
        assert own["runAsNonRoot"] is True and own["runAsUser"] > 0, name
        assert own["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert spec["automountServiceAccountToken"] is False, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys(), name
        assert not any("hostPath" in volume for volume in spec["volumes"]), name
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            limits = container["resources"]["limits"]
            assert {"cpu", "memory"} <= limits.keys(), name
            assert container["readinessProbe"] and container["livenessProbe"], name
    (namespace,) = of_kind(documents, "Namespace").values()
    labels = namespace["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def reached(documents: list[dict[str, Any]], pod: dict[str, str]) -> list[dict[str, Any]]:
    """The rules by which somebody may reach a pod with these labels; a pod that a policy chooses is
    reached by what its policies say and by nobody else."""
    policies = of_kind(documents, "NetworkPolicy").values()
    chosen = [
        each["spec"]
        for each in policies
        if each["spec"]["podSelector"].get("matchLabels", {}).items() <= pod.items()
    ]
    assert any("Ingress" in spec["policyTypes"] for spec in chosen)
    return [rule for spec in chosen for rule in spec["ingress"]]


def test_only_the_gateway_is_reachable(documents: list[dict[str, Any]]) -> None:
    """By others than gateways: vLLM's port has no key, and Redis has none either. No Service has an
    address outside the cluster."""
    deployments = of_kind(documents, "Deployment")
    (front,) = reached(documents, deployments["gateway"]["spec"]["template"]["metadata"]["labels"])
    assert front == {"ports": [{"protocol": "TCP", "port": 8000}]}
    gateway = {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "gateway"}}}
    for name, each in deployments.items():
        template = each["spec"]["template"]
        if name != "gateway":
            (rule,) = reached(documents, template["metadata"]["labels"])
            port = template["spec"]["containers"][0]["ports"][0]["containerPort"]
            assert rule == {"from": [gateway], "ports": [{"protocol": "TCP", "port": port}]}
    assert not any("type" in each["spec"] for each in of_kind(documents, "Service").values())


def test_secrets_are_named_and_none_is_held(documents: list[dict[str, Any]]) -> None:
    """The gateway listens to all, so it has keys: without their Secret it does not start."""
    assert not of_kind(documents, "Secret")
    spec = pods(documents)["gateway"]
    secrets = {v["secret"]["secretName"] for v in spec["volumes"] if "secret" in v}
    assert secrets == {"cache-key", "keys"}
    (container,) = spec["containers"]
    told = {each["name"]: each["value"] for each in container["env"]}
    assert told["CONSILIUM_KEYS"].startswith("/run/secrets/keys/")
    assert "CONSILIUM_SECRET" not in told and "--without-keys" not in container["command"]


def test_keys_of_the_archive_and_of_the_hub_come_from_secrets(
    changed: Callable[..., Settings],
) -> None:
    """Only where the panel asks one or the other."""
    more = '\n[archive]\nurl = "http://pacs:8042/dicom-web"\n'
    settings = changed(("zoo:mobilenet", "owner/model"), more=more)

    found = pods(manifests(settings))

    secrets = {
        (name, each["name"]): each["valueFrom"]["secretKeyRef"]["name"]
        for name, spec in found.items()
        for each in spec["containers"][0].get("env", ())
        if "valueFrom" in each
    }
    assert secrets == {
        ("gateway", "CONSILIUM_ARCHIVE_AUTHORIZATION"): "archive",
        ("worker-mobilenet", "HF_TOKEN"): "hub",
    }


def test_the_gateway_finds_every_server(
    documents: list[dict[str, Any]], settings: Settings
) -> None:
    """By a Service of that name, which leads to the pod that serves the seat."""
    (container,) = pods(documents)["gateway"]["containers"]
    told = {each["name"]: each["value"] for each in container["env"]}
    services, deployments = of_kind(documents, "Service"), of_kind(documents, "Deployment")

    addresses = [urlsplit(value) for name, value in told.items() if "://" in value]
    assert len(addresses) == len(local_seats(settings)) + 1  # and Redis
    for address in addresses:
        service = services[str(address.hostname)]["spec"]
        template = deployments[str(address.hostname)]["spec"]["template"]
        assert service["selector"].items() <= template["metadata"]["labels"].items()
        (port,) = template["spec"]["containers"][0]["ports"]
        assert service["ports"][0]["port"] == port["containerPort"] == address.port


def test_gateways_come_with_cases_and_one_stays(documents: list[dict[str, Any]]) -> None:
    """By what they say of themselves; one that stops has the time to end its cases."""
    (scaler,) = of_kind(documents, "HorizontalPodAutoscaler").values()
    (budget,) = of_kind(documents, "PodDisruptionBudget").values()
    (metric,) = scaler["spec"]["metrics"]

    assert metric["pods"]["metric"]["name"] == "consilium_cases_inside"
    assert metric["pods"]["target"]["averageValue"] == "48"
    assert scaler["spec"]["minReplicas"] >= 2 and budget["spec"]["minAvailable"] == 1
    assert "replicas" not in of_kind(documents, "Deployment")["gateway"]["spec"]
    assert pods(documents)["gateway"]["terminationGracePeriodSeconds"] == 605


def test_another_panel_is_another_config_map(tmp_path: Path) -> None:
    """So what reads it is started anew; and what voices learned starts no engine anew."""
    (tmp_path / "models/zoo").mkdir(parents=True)
    learned = tmp_path / "models/zoo/competence.json"
    names = []
    for quorum, text in (("2", "{}"), ("1", "{}"), ("1", "[]")):
        learned.write_text(text)
        settings = settings_with(tmp_path, ("quorum = 2", f"quorum = {quorum}"))
        documents = manifests(settings)
        names.append(tuple(of_kind(documents, "ConfigMap")))
        mounted = {v["configMap"]["name"] for v in pods(documents)["gateway"]["volumes"][:2]}
        assert mounted == set(names[-1])

    assert names[0][0] != names[1][0] == names[2][0]
    assert names[0][1] == names[1][1] != names[2][1]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('name = "mobilenet"', f'name = "{LONG}"', "at most 63.*rename it"),
        ("zoo:mobilenet", str(ROOT), "lies on this machine and on no node"),
        ("zoo:mobilenet", "/not/here/yet", "lies on this machine and on no node"),
        (
            'name = "mobilenet"',
            'name = "mobilenet"\nurl = ["http://worker-polyglot:8100", "http://[::1]:8102"]',
            r"\[::1\]:8102 would be the gateway's own pod",
        ),
        ("engine = { max-model-len = 4096 }", ADAPTER, "adapters/a lies on this machine"),
        (
            'name = "mobilenet"',
            'name = "mobilenet"\nurl = "http://127.0.0.1:8102"',
            "the gateway's own pod; write .* http://worker-NAME:8100",
        ),
        ("memory://", "redis://:word@far:6379/0", "an address holds a password"),
        ("max-model-len = 4096", 'hf_token = "word"', "a key would stand in a ConfigMap"),
        ("\n[limits]", "\n[feedback]\n[limits]", r"gateways on several nodes; remove \[feedback\]"),
    ],
)
def test_what_no_cluster_can_run_is_told(
    old: str, new: str, said: str, changed: Callable[..., Settings]
) -> None:
    """In one line, which quotes no secret."""
    settings = changed((old, new))

    with pytest.raises(KubernetesError, match=said) as told:
        manifests(settings)

    assert "word@" not in str(told.value) and "\n" not in str(told.value)


@pytest.mark.parametrize("registry", ["https://registry.example", "registry.example/Ward", "a b"])
def test_a_registry_that_no_node_pulls_from_is_told(settings: Settings, registry: str) -> None:
    with pytest.raises(KubernetesError, match=f"--registry {registry}: images are named by"):
        manifests(settings, registry)


def test_seats_that_would_share_a_gpu_are_told(settings: Settings) -> None:
    with pytest.raises(KubernetesError, match="chooser-efficientnet, summariser want 5 GPUs"):
        manifests(settings, gpus=4)


def test_what_spreads_over_no_number_of_gpus_is_told(changed: Callable[..., Settings]) -> None:
    settings = changed(("max-model-len = 4096", 'tensor-parallel-size = "all"'))

    with pytest.raises(EngineError, match="mobilenet: engine: tensor-parallel-size"):
        manifests(settings)


def test_more_than_a_config_map_holds_is_told(tmp_path: Path) -> None:
    (tmp_path / "models/zoo").mkdir(parents=True)
    (tmp_path / "models/zoo/competence.json").write_text("x" * (2**20 + 1))

    with pytest.raises(KubernetesError, match="1048577 bytes"):
        manifests(settings_with(tmp_path))


def test_the_file_says_all_of_it_in_full(changed: Callable[..., Settings], tmp_path: Path) -> None:
    settings = changed()

    write(settings, tmp_path / "kubernetes.yaml", "", None)

    text = (tmp_path / "kubernetes.yaml").read_text("utf-8")
    assert list(yaml.safe_load_all(text)) == manifests(settings)
    assert "&id" not in text


def test_an_audit_is_kept_where_every_gateway_may_write(changed: Callable[..., Settings]) -> None:
    settings = changed(more='\n[audit]\nfolder = "audit"\n')

    documents = manifests(settings)

    assert of_kind(documents, "PersistentVolumeClaim")["audit"]["spec"]["accessModes"] == [
        "ReadWriteMany"
    ]
    (container,) = pods(documents)["gateway"]["containers"]
    assert {"name": "audit", "mountPath": "/app/audit"} in container["volumeMounts"]
