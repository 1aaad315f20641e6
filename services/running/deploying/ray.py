"""The panel on a Ray cluster: an engine for each seat, and gateways, where Ray finds room for them.

Nothing here schedules, restarts or counts calls: Ray Serve does. An engine is what
`consilium worker` becomes on its node; not Ray's own LLM serving, which knows neither vLLM's CPU
build nor a memory. The gateway is asked at every node, and is the one that any
other machine runs: it finds a seat at an address of its own node's loopback, from where a call goes
to the engine that has the fewest. So no engine can be reached from beyond its node.
"""

import asyncio
import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from aiohttp import web
from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from gateway.__main__ import is_loopback
from gateway.app import create_app
from gateway.asking.model_server import Http, new_http_client
from gateway.server import KEEP_ALIVE_S
from gateway.settings import Settings, SettingsError, load_settings, url_variable
from models.assets import cache_dir
from services.running.beforehand.check import check
from services.running.deploying.relay import NO_REPLY, Call, Reply, forwarded, relay
from services.running.deploying.room import (
    ClusterError,
    Node,
    check_address,
    check_room,
    comes_free,
    is_free,
    needs,
)
from services.running.engine import (
    SAFE_PATH,
    SHARE_OF_GPU,
    Launch,
    Seat,
    is_cpu_build,
    local_seats,
)
from services.running.stack import StackError, running

APPLICATION = "consilium"
CALLS_OF_AN_ENGINE = 16  # open ones, on an average: beyond it another engine is started
MOST_CALLS_OF_AN_ENGINE = 256
START_S = 3600.0  # weights may have to be fetched first
# A dead engine is told from a living one in so many seconds; whether it answers, the gateway sees.
LOOK_S = 2.0


@contextmanager
def running_on(
    address: str,
    settings: Settings,
    panel_file: Path,
    host: str,
    port: int,
    report: Callable[[str], None],
) -> Iterator[None]:
    """The panel runs on the cluster at `address` inside the block, the gateway at `port` of every
    node, and is gone from there after it.

    Raises:
        ClusterError: it finds no room, a node has not what it takes, or it did not come up.
    """
    if not (is_loopback(host) or settings.keys):
        raise ClusterError(
            f"Without keys the gateway listens on 127.0.0.1 only, not on {host}: make a key "
            "(consilium key add) and name the file with CONSILIUM_KEYS on every node."
        )
    panel = panel_file.resolve()
    check_address(address)
    try:
        ray.init(address, log_to_driver=False, logging_level="warning")
    except ConnectionError as error:
        raise ClusterError(f"No Ray cluster answers at {address}; ray start makes one.") from error
    with ExitStack() as stack:
        stack.callback(ray.shutdown)
        nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
        # What a memory:// store keeps is one gateway's own: limits, and who asks the same just now.
        gateways = 1 if settings.panel.store == "memory://" else len(nodes)
        check_room(settings, [_as_node(node) for node in nodes], gateways)
        if not comes_free(lambda: is_free(settings, gateways, ray.available_resources())):
            free = ray.available_resources()
            raise ClusterError(
                f"Others hold too much of the cluster: {free.get('CPU', 0):g} CPU and "
                f"{free.get('GPU', 0):g} GPU of it are free. End what runs there, or add a node."
            )
        _check_nodes(nodes, panel, settings, host, port)
        names = ", ".join(local_seats(settings))
        report(f"placing {names} and {gateways} gateway(s) on {len(nodes)} node(s)")
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        stack.callback(serve.shutdown)
        try:
            serve.start(
                proxy_location="EveryNode",
                http_options={"host": host, "port": port, "keep_alive_timeout_s": KEEP_ALIVE_S},
                logging_config={"enable_access_log": False},
            )
            gateway = serve.run(application(settings, panel, gateways), name=APPLICATION)
            gateway.reach.remote().result(timeout_s=START_S)
        except (RuntimeError, TimeoutError, RayError) as error:
            raise ClusterError(
                "The panel did not come up; logs/ray in the cache folder of its nodes, and ray "
                "logs, say why."
            ) from error
        yield


def application(settings: Settings, panel: Path, gateways: int) -> serve.Application:
    """A deployment for each seat, and the gateway in front of them."""
    engine_of = {
        name: serve.deployment(Engine)
        .options(
            name=name,
            **_as_many(seat),
            max_ongoing_requests=MOST_CALLS_OF_AN_ENGINE,
            health_check_period_s=LOOK_S,
            graceful_shutdown_timeout_s=settings.panel.deadline_s,
            ray_actor_options={"num_cpus": 1, "num_gpus": need.of_gpus},
        )
        .bind(panel, name, need.of_each * SHARE_OF_GPU if need.gpus else None)
        for (name, seat), need in zip(
            local_seats(settings).items(),
            needs(settings, not is_cpu_build()).values(),
            strict=True,
        )
    }
    gateway = serve.deployment(serve.ingress()(Gateway)).options(
        name="gateway",
        num_replicas=gateways,
        max_replicas_per_node=1,
        max_ongoing_requests=2 * (settings.load.max_at_work + settings.load.max_waiting),
        health_check_period_s=LOOK_S,
        graceful_shutdown_timeout_s=settings.panel.deadline_s,
        ray_actor_options={"num_cpus": 1},
    )
    return gateway.bind(panel, engine_of)


def from_panel(arguments: dict[str, Any]) -> serve.Application:
    """The same, as a RayService names it: `panel` is a path on every node, `gateways` how many."""
    panel = Path(arguments["panel"])
    return application(load_settings(panel), panel, arguments["gateways"])


def _as_many(seat: Seat) -> dict[str, Any]:
    least, most = seat.replicas
    if least == most:
        return {"num_replicas": least}
    return {
        "autoscaling_config": {
            "min_replicas": least,
            "max_replicas": most,
            "target_ongoing_requests": CALLS_OF_AN_ENGINE,
        }
    }


class Engine:
    """One engine of a seat, on the node where Ray has put it, and the calls to it."""

    def __init__(self, panel: Path, name: str, gpu_share: float | None):
        self._url = f"http://127.0.0.1:{_free_port()}"
        command = [sys.executable, "-m", "services.cli", "worker", name, "--panel", str(panel)]
        if gpu_share:
            command += ["--gpu-share", f"{gpu_share:g}"]
        environment = dict(os.environ) | SAFE_PATH | {url_variable(name): self._url}
        server = Launch(name, tuple(command), environment, self._url, "/health")
        logs = cache_dir() / "logs" / "ray" / serve.get_replica_context().replica_tag
        self._until_gone = ExitStack()
        stack = self._until_gone.enter_context(running([server], logs, print, START_S))
        self._engine = stack.services[0]
        self._http: Http | None = None

    def check_health(self) -> None:
        """What Ray Serve asks; where it raises, another engine takes this one's place."""
        process = self._engine.process
        if process is None or process.poll() is not None:
            raise StackError(f"{self._engine.name} has ended; see {self._engine.log}")

    async def ask(self, call: Call) -> Reply:
        """As `forwarded`."""
        if self._http is None:  # only a running event loop can make one
            self._http = new_http_client()
        return await forwarded(self._http, self._url, call)

    async def __del__(self) -> None:
        if self._http:
            await self._http.close()
        self._until_gone.close()


class Gateway:
    """The gateway, and on its loopback an address for each seat, behind which the engines are."""

    def __init__(self, panel: Path, engine_of: dict[str, DeploymentHandle]):
        self._panel, self._engine_of = panel, engine_of

    async def __serve_build_asgi_app__(self) -> FastAPI:
        # A caller who hangs up is not answered by an engine either.
        self._relaying = web.AppRunner(relay(self._ask), handler_cancellation=True, access_log=None)
        await self._relaying.setup()
        await web.TCPSite(self._relaying, "127.0.0.1", 0).start()
        own = f"http://127.0.0.1:{self._relaying.addresses[0][1]}"
        os.environ |= {url_variable(name): f"{own}/{name}" for name in self._engine_of}
        os.environ["CONSILIUM_PANEL"] = str(self._panel)
        return create_app()

    async def reach(self) -> None:
        """Until an engine of every seat has answered. A first call looks for its way, for longer
        than a gateway waits for who is well."""
        health = Call("GET", "health", {}, b"")
        await asyncio.gather(*(engine.ask.remote(health) for engine in self._engine_of.values()))

    async def _ask(self, seat: str, call: Call) -> Reply:
        asked = self._engine_of[seat].ask.remote(call)
        try:
            reply: Reply = await asked
        except asyncio.CancelledError:
            asked.cancel()
            raise
        except (RayError, RayServeException):  # its node died, or none is up
            return NO_REPLY
        return reply

    async def __del__(self) -> None:
        await self._relaying.cleanup()


@dataclass(frozen=True)
class Seen:
    """What a node makes of the panel file."""

    panel_hash: str = ""
    has_keys: bool = False
    wrong: tuple[str, ...] = ()


def look(panel: Path, host: str, port: int) -> Seen:
    """Run on each node: whether this one could serve every seat, how the file reads here, and
    whether nobody has the gateway's port."""
    try:
        settings = load_settings(panel)
    except SettingsError as error:
        return Seen(wrong=(str(error),))
    lines: list[str] = []
    wrong = [] if check(settings, lines.append) else [line for line in lines if ": no: " in line]
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        wrong.append(f"port {port}: {error.strerror}; choose another --port")
    return Seen(settings.panel_hash, settings.keys is not None, tuple(wrong))


def _check_nodes(
    nodes: Sequence[dict[str, Any]], panel: Path, settings: Settings, host: str, port: int
) -> None:
    """Raises ClusterError where one could not serve a seat, or has another panel file or no keys.
    All are asked at once."""
    asked = [
        ray.remote(look)
        .options(
            num_cpus=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
        )
        .remote(panel, host, port)
        for node in nodes
    ]
    for node, each in zip(nodes, asked, strict=True):
        try:
            seen: Seen = ray.get(each)
        except RayError as error:
            raise ClusterError(
                f"Node {node['NodeManagerAddress']} cannot say what it has: install the same "
                "consilium[ray] there as here, or see ray logs."
            ) from error
        wrong = list(seen.wrong)
        if not wrong and seen.panel_hash != settings.panel_hash:
            wrong = [f"{panel} is another there than here; copy it"]
        if not wrong and settings.keys and not seen.has_keys:
            wrong = ["it knows no keys; set CONSILIUM_KEYS there"]
        if wrong:
            raise ClusterError(f"Node {node['NodeManagerAddress']}: {'; '.join(wrong)}")


def _as_node(node: dict[str, Any]) -> Node:
    resources = node["Resources"]
    gpus = [1.0] * int(resources.get("GPU", 0))
    return Node(node["NodeManagerAddress"], resources["CPU"], gpus)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
