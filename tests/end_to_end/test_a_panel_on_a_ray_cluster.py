"""A panel of real servers on a real cluster, one of whose nodes dies: `make test-ray` runs it."""

import importlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from gateway.settings import load_settings
from models.exported import ZOO
from models.serving.export import served_folder
from models.serving.memory import Memory
from models.serving.memory_server import create_app
from services.evaluation.stored_run import read_outcomes
from services.running.deploying.kubernetes import manifests
from tests.conftest import listening
from tests.ports import free_port
from tests.services.evaluation.runs import write_set

pytest.importorskip("ray", reason="needs consilium[ray]; make test-ray installs it")

SEATS, CASES = ("one", "two", "three"), 60
SEAT = """
[[worker]]
name = "{name}"
family = "{name}"
model = "zoo:memory"
one_token = true
prompt = "{{question}}"
"""
ASKED = ("Which plane is this image?", "Is this a CT?", "What organ is shown?")
PATIENCE_S = 300.0  # of this test, with a machine that is busy


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a panel file, and a set of questions."""
    folder = tmp_path_factory.mktemp("ray")
    seats = "".join(SEAT.format(name=name) for name in SEATS)
    (folder / "panel.toml").write_text("[panel]\nquorum = 2\ngrounding = false\n" + seats)
    rows = [
        {"id": str(n), "images": f"{n}.png", "question": ASKED[n % len(ASKED)], "answer": "yes"}
        for n in range(CASES)
    ]
    write_set(folder, rows)
    return folder


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head for the gateway, and two nodes; whichever holds an engine may die."""
    from ray.cluster_utils import Cluster

    # All nodes are this machine: the head's proxy keeps the port for itself.
    monkeypatch.setenv("SERVE_SOCKET_REUSE_PORT_ENABLED", "0")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=len(SEATS))
        yield cluster
    finally:
        cluster.shutdown()


@pytest.fixture
def on_ray(cluster: Any, folder: Path) -> Iterator[str]:
    """The panel on the cluster; its address."""
    port = free_port()
    command = ["serve", "--ray", cluster.address, "--port", str(port)]
    log = folder / "serve.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "services.cli", *command, "--panel", folder / "panel.toml"],
            stdout=output,
            stderr=output,
        )
    try:
        until(lambda: "ready at" in log.read_text() or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(120)


def until(true: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < give_up_at
        time.sleep(0.2)


def evaluating(folder: Path, out: str, url: str, *more: str) -> subprocess.Popen[bytes]:
    where = ["--dataset", folder / "own.jsonl", "--out", folder / out, "--gateway", url]
    command = [sys.executable, "-m", "services.cli", "evaluate", *where, *more]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def answers(run: Path) -> dict[str, str | None]:
    return {case: outcome.answer for case, outcome in read_outcomes(run).items()}


def lines(run: Path) -> list[str]:
    file = run / "verdicts.jsonl"
    return file.read_text().splitlines() if file.exists() else []


def test_no_case_is_lost_with_a_node(
    cluster: Any, on_ray: str, folder: Path, serve: Callable[..., str]
) -> None:
    """All are asked from the cluster and answered by it while a node dies that asks, and holds an
    engine: each has one verdict, the same as without Ray, and the engine is back by itself."""
    served = served_folder(ZOO / "memory")
    with listening(create_app(Memory(served), "memory", served)) as memory:
        here = {f"CONSILIUM_WORKER_{name.upper()}_URL": memory for name in SEATS}
        plain = serve(load_settings(folder / "panel.toml", environ=here))
        assert evaluating(folder, "plain", plain).wait(PATIENCE_S) == 0

    asking = evaluating(folder, "ray", on_ray, "--ray", cluster.address, "--concurrency", "1")
    until(lambda: len(lines(folder / "ray")) > 0 or asking.poll() is not None)
    assert asking.poll() is None
    cluster.remove_node(cluster.worker_nodes.copy().pop(), allow_graceful=False)
    assert asking.wait(PATIENCE_S) == 0

    assert answers(folder / "ray") == answers(folder / "plain")
    assert None not in answers(folder / "ray").values()
    assert len(lines(folder / "ray")) == len(lines(folder / "plain")) == CASES
    until(lambda: all(seat["reachable"] for seat in httpx.get(f"{on_ray}/panel").json()["workers"]))


def test_a_ray_service_names_what_ray_can_build(folder: Path) -> None:
    """KubeRay hands its configuration to Ray Serve, which reads it and calls what it names: a
    deployment for each seat, and the gateway in front."""
    from ray.serve.schema import ServeDeploySchema

    documents = manifests(load_settings(folder / "panel.toml", environ={}), on_ray=True)
    (service,) = (each["spec"] for each in documents if each["kind"] == "RayService")
    read = ServeDeploySchema.model_validate(yaml.safe_load(service["serveConfigV2"]))
    (told,) = read.applications
    module, _, builder = told.import_path.partition(":")

    built = getattr(importlib.import_module(module), builder)(
        told.args | {"panel": str(folder / "panel.toml")}
    )

    deployment = built._bound_deployment
    assert (deployment.name, deployment.num_replicas) == ("gateway", told.args["gateways"])
    assert list(deployment.init_args[1]) == list(SEATS)
