"""A panel of real servers on a real cluster, one of whose nodes dies: `make test-ray` runs it."""

import asyncio
import base64
import importlib
import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pyarrow as pa
import pytest
import yaml
from PIL import Image

from benchmarks.faults import evaluation
from gateway.settings import load_settings
from services.evaluation.asking.over_rest import Asking
from services.evaluation.stored_run import Run, read_outcomes
from services.running.deploying.kubernetes import manifests
from tests.ports import free_port
from tests.services.evaluation.runs import write_set

pytest.importorskip("ray", reason="needs consilium[ray]; make test-ray installs it")

# One vLLM's own engine, and two of ours, which take seconds to start.
SEATS = {"one": "zoo:memory", "two": "zoo:memory", "three": "zoo:chooser"}
PROMPTS = {"zoo:memory": "{question}", "zoo:chooser": "{question} ="}
CASES, UNDISTURBED, MANY = 70, 50, 200
SEAT = """
[[worker]]
name = "{name}"
family = "{name}"
model = "{model}"
one_token = true
prompt = "{prompt}"
"""
ASKED = ("Which plane is this image?", "Is this a CT?", "What organ is shown?")
NAMED = "--served-model-name"
PATIENCE_S = 300.0  # of this test, with a machine that is busy


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a panel file, and a set of questions."""
    folder = tmp_path_factory.mktemp("ray")
    seats = "".join(
        SEAT.format(name=name, model=model, prompt=PROMPTS[model]) for name, model in SEATS.items()
    )
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
    # All nodes are this machine: the head's proxy keeps the port for itself.
    monkeypatch.setenv("SERVE_SOCKET_REUSE_PORT_ENABLED", "0")
    with two_nodes(monkeypatch, of_head=2) as made:
        yield made


@contextmanager
def two_nodes(monkeypatch: pytest.MonkeyPatch, of_head: int) -> Iterator[Any]:
    """With a processor each, and a head with so many."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": of_head})
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1)
        yield cluster
    finally:
        cluster.shutdown()


@pytest.fixture
def on_ray(cluster: Any, folder: Path) -> Iterator[str]:
    """The panel on the cluster; its address."""
    with served_by(folder, "--ray", cluster.address) as url:
        yield url


@contextmanager
def served_by(folder: Path, *where: str) -> Iterator[str]:
    port = free_port()
    command = ["serve", "--port", str(port), *where]
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


def asked(url: str, number: int) -> dict[str, Any]:
    """The verdict on one case, of an image of its own: none is known from before."""
    image = io.BytesIO()
    Image.new("L", (300, 200), 4 * number).save(image, "PNG")
    images = [base64.b64encode(image.getvalue()).decode()]
    case = {"question": ASKED[number % len(ASKED)], "images": images}
    reply = httpx.post(f"{url}/vqa", json=case, timeout=PATIENCE_S, trust_env=False)
    assert reply.status_code == 200, reply.text
    verdict: dict[str, Any] = reply.json()
    return verdict


def told(value: Any) -> Any:
    """What of a verdict does not depend on when it was made, and likelihoods to a thousandth."""
    if isinstance(value, dict):
        return {key: told(each) for key, each in value.items() if key not in ("id", "seconds")}
    if isinstance(value, list):
        return [told(each) for each in value]
    return round(value, 3) if isinstance(value, float) else value


def reachable(url: str) -> dict[str, bool]:
    seats = httpx.get(f"{url}/panel", timeout=PATIENCE_S, trust_env=False).json()["workers"]
    return {seat["name"]: seat["reachable"] for seat in seats}


def test_no_case_is_lost_with_a_node(cluster: Any, folder: Path) -> None:
    """Fifty verdicts are those that the same panel gives without Ray. Then a node that holds one
    engine dies while cases are asked: each is answered, by two of three; the seat is told to be
    away, and is back by itself on a node that has come."""
    with served_by(folder) as plain:
        alone = [asked(plain, number) for number in range(UNDISTURBED)]
    with served_by(folder, "--ray", cluster.address) as on_ray:
        found = [asked(on_ray, number) for number in range(UNDISTURBED)]
        assert [told(each) for each in found] == [told(each) for each in alone]
        found = lose_a_node(cluster, on_ray)
        assert len(found) == CASES - UNDISTURBED and all(each["answer"] for each in found)
        until(lambda: all(reachable(on_ray).values()))


def lose_a_node(cluster: Any, on_ray: str) -> list[dict[str, Any]]:
    """The verdicts on the rest of the cases meanwhile."""
    victim = next(node for node in cluster.worker_nodes if len(engines_on(node)) == 1)
    (lost,) = engines_on(victim)
    cluster.add_node(num_cpus=1)
    with ThreadPoolExecutor(1) as asking:
        cases = [asking.submit(asked, on_ray, number) for number in range(UNDISTURBED, CASES)]
        until(lambda: sum(case.done() for case in cases) >= 3)
        cluster.remove_node(victim, allow_graceful=False)
        until(lambda: not reachable(on_ray)[lost])
        return [case.result() for case in cases]


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


@pytest.mark.parametrize("dies", ["a node", "the command"])
def test_an_evaluation_loses_nothing_with_what_dies(
    dies: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A gateway that takes 100 ms is asked from two nodes; after the first answers have come one
    node is gone, or the command itself, which is then given again: each case has one verdict, and
    what was written down is not asked again."""
    from services.evaluation.asking.on_ray import TURNS

    rows = [
        {"id": str(n), "images": "x.png", "question": f"Is {n} there?", "answer": "Yes"}
        for n in range(MANY)
    ]
    own, out = write_set(tmp_path, rows), tmp_path / "out"
    lines = out / "verdicts.jsonl"
    with two_nodes(monkeypatch, of_head=0) as cluster, evaluation.mock() as url:
        asking = ("--ray", cluster.address, "--concurrency", "2")
        process = evaluation.start(url, own, out, asking)
        until(lambda: lines.exists() and lines.read_bytes().count(b"\n") >= MANY // 10)
        if dies == "a node":
            cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
            assert process.wait(PATIENCE_S) == 0
            # At most the batch that it was at, and one that it held, done, until it was fetched.
            open_ones, most_again = MANY, 2 * TURNS * 2
        else:
            process.kill()
            process.wait()
            until(lambda: is_quiet(url))  # nodes end what they were at
            open_ones, most_again = MANY - lines.read_bytes().count(b"\n"), 0
            evaluation.evaluate(url, own, out, asking)
        asked = evaluation.told(url)

    ids = [json.loads(line)["id"] for line in lines.read_text("utf-8").splitlines()]
    assert sorted(ids) == sorted(str(n) for n in range(MANY))
    assert asked["cases"] == open_ones and asked["again"] <= most_again


def test_who_was_told_to_wait_begins_the_next_batch_as_slowly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Batches are small; else each would begin with as many calls as the gateway had refused."""
    from services.evaluation.asking import on_ray

    at_a_time = list[int]()

    async def ask_each(examples: Any, asking: Any, patience: Any, pace: Any, keep: Any) -> None:
        async def call() -> None:
            async with pace.turn():
                await asyncio.sleep(0)

        at_a_time.append(pace.at_a_time)
        await asyncio.gather(*(call() for _ in range(20)))  # some wait for their turn
        pace.slow_down(time.monotonic())

    monkeypatch.setattr(on_ray, "ask_each", ask_each)
    run = Run("slake", "test", "en", None, False, None, "never", "hash", {})
    for _ in range(3):
        on_ray._ask_batch(pa.table({"example": []}), Asking(run, "", 8, 60.0))
    assert at_a_time == [8, 4, 2]


def is_quiet(url: str) -> bool:
    evaluation.told(url)
    time.sleep(0.5)
    return bool(evaluation.told(url)["cases"] == 0)


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
