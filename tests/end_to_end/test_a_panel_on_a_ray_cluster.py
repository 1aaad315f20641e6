"""A panel of real servers on a real cluster, one of whose nodes dies: `make test-ray` runs it."""

import base64
import importlib
import io
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml
from PIL import Image

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
NAMED = "--served-model-name"
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
    """A head and two nodes, with no more room than a gateway and the engines take: a node that does
    not hold the gateway holds exactly one engine."""
    from ray.cluster_utils import Cluster

    # All nodes are this machine: the head's proxy keeps the port for itself.
    monkeypatch.setenv("SERVE_SOCKET_REUSE_PORT_ENABLED", "0")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1)
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


def engines_on(node: Any) -> list[str]:
    """The seats whose engines run there."""
    (raylet,) = node.all_processes["raylet"]
    found = []
    for each in psutil.Process(raylet.process.pid).children(recursive=True):
        with suppress(psutil.Error):  # it has ended
            command = each.cmdline()
            found += command[command.index(NAMED) + 1 :][:1] if NAMED in command else []
    return found


def asked(url: str, number: int) -> tuple[int, str | None]:
    """Status and answer of one case, of an image of its own: none is known from before."""
    image = io.BytesIO()
    Image.new("L", (300, 200), 4 * number).save(image, "PNG")
    images = [base64.b64encode(image.getvalue()).decode()]
    case = {"question": ASKED[number % len(ASKED)], "images": images}
    reply = httpx.post(f"{url}/vqa", json=case, timeout=PATIENCE_S, trust_env=False)
    return reply.status_code, reply.json().get("answer")


def reachable(url: str) -> dict[str, bool]:
    seats = httpx.get(f"{url}/panel", timeout=PATIENCE_S, trust_env=False).json()["workers"]
    return {seat["name"]: seat["reachable"] for seat in seats}


def test_no_case_is_lost_with_a_node(
    cluster: Any, on_ray: str, folder: Path, serve: Callable[..., str]
) -> None:
    """A node that holds one engine dies while cases are asked: each is answered, as without Ray;
    the seat is told to be away, and is back by itself on a node that has come."""
    served = served_folder(ZOO / "memory")
    with listening(create_app(Memory(served), "memory", served)) as memory:
        here = {f"CONSILIUM_WORKER_{name.upper()}_URL": memory for name in SEATS}
        plain = serve(load_settings(folder / "panel.toml", environ=here))
        alone = [asked(plain, number) for number in range(CASES)]

    victim = next(node for node in cluster.worker_nodes if len(engines_on(node)) == 1)
    (lost,) = engines_on(victim)
    cluster.add_node(num_cpus=1)
    with ThreadPoolExecutor(1) as asking:
        cases = [asking.submit(asked, on_ray, number) for number in range(CASES)]
        until(lambda: sum(case.done() for case in cases) >= CASES // 5)
        cluster.remove_node(victim, allow_graceful=False)
        until(lambda: not reachable(on_ray)[lost])
        found = [case.result() for case in cases]

    assert [status for status, _ in found] == [200] * CASES
    assert found == alone
    until(lambda: all(reachable(on_ray).values()))


def test_a_set_is_asked_from_the_cluster(cluster: Any, on_ray: str, folder: Path) -> None:
    where = ["--dataset", folder / "own.jsonl", "--out", folder / "ray", "--gateway", on_ray]
    more = ["--ray", cluster.address, "--concurrency", "1"]
    evaluate = [sys.executable, "-m", "services.cli", "evaluate", *where, *more]
    refused = subprocess.run(evaluate, stderr=subprocess.PIPE, text=True, timeout=PATIENCE_S)
    assert refused.returncode == 1 and "is free" in refused.stderr  # the panel has all the room
    cluster.add_node(num_cpus=2)
    subprocess.run(evaluate, stdout=subprocess.DEVNULL, timeout=PATIENCE_S, check=True)
    assert len(read_outcomes(folder / "ray")) == CASES
    assert all(outcome.answer for outcome in read_outcomes(folder / "ray").values())


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
