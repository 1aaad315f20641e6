"""Start it, and what comes before: demo, serve, worker, summariser, check, doctor, plan, fetch,
compose, kubernetes."""

import importlib.util
import os
import signal
import time
from pathlib import Path
from typing import Annotated

import typer

from gateway.settings import Settings
from services.cli.shared import (
    PANEL_FILE,
    GpuShare,
    Host,
    Panel,
    Port,
    console,
    failures,
    settings_of,
)

app = typer.Typer()


@app.command()
def demo(panel: Panel = PANEL_FILE, port: Port = 8000) -> None:
    """Start everything here, ask about a real DICOM image, show the verdict, stop everything."""
    from services.running import demo as program

    with failures():
        settings = settings_of(panel)
        _require_vllm(settings)
        program.run(settings, panel, port, console)


@app.command()
def serve(
    panel: Panel = PANEL_FILE,
    port: Port = 8000,
    ray: Annotated[
        str | None, typer.Option(help="On the Ray cluster there, not here: auto, or HOST:PORT.")
    ] = None,
    host: Host = "127.0.0.1",
) -> None:
    """Start everything here and keep it up until Ctrl-C; a service that dies is restarted."""
    from models.assets import cache_dir
    from services.running.stack import POLL_S, gateway_url, running, whole_panel

    if ray is not None:
        _serve_on_cluster(ray, panel, host, port)
        return
    if host != "127.0.0.1":
        raise typer.BadParameter("--host goes with --ray; here a proxy stands before 127.0.0.1")
    with failures():
        logs = cache_dir() / "logs"
        settings = settings_of(panel)
        _require_vllm(settings)
        launches = whole_panel(settings, panel, port, logs, console.print)
        with running(launches, logs, console.print) as stack:
            console.print(f"ready at {gateway_url(port)}/docs; Ctrl-C stops everything")
            while True:
                stack.tend()
                time.sleep(POLL_S)


@app.command()
def worker(
    name: str,
    panel: Panel = PANEL_FILE,
    host: Host = "127.0.0.1",
    gpu_share: GpuShare = None,
) -> None:
    """Become the vLLM server of one worker."""
    _become_engine(name, panel, host, gpu_share)


@app.command()
def summariser(
    panel: Panel = PANEL_FILE, host: Host = "127.0.0.1", gpu_share: GpuShare = None
) -> None:
    """Become the vLLM server of the summariser."""
    _become_engine("summariser", panel, host, gpu_share)


@app.command()
def check(
    panel: Annotated[Path, typer.Argument(help="Who sits on the panel.")] = PANEL_FILE,
) -> None:
    """Say whether a panel file can be served, seat by seat; nothing is fetched or started."""
    from services.running.beforehand.check import check as program

    with failures():
        if not program(settings_of(panel), console.print):
            raise SystemExit(1)


@app.command()
def doctor(panel: Panel = PANEL_FILE, port: Port = 8000) -> None:
    """Say what of this machine fits the panel, and how to mend what does not."""
    from services.running.beforehand.doctor import examine

    with failures():
        if not examine(settings_of(panel), port, console.print):
            raise SystemExit(1)


@app.command()
def plan(
    gpus: Annotated[
        str | None, typer.Option(help="How many and their GB: 1x80, or 2x80,1x24.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(min=0.001, max=100_000, help="Cases that come in a second.")
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="With --rate: what consilium evaluate left, with its times.")
    ] = None,
    at_once: Annotated[
        int, typer.Option(min=1, help="With --rate: evaluate's --concurrency in that run.")
    ] = 4,
    repeats: Annotated[
        float, typer.Option(min=0, max=1, help="With --rate: the share that was asked before.")
    ] = 0,
    one_machine: Annotated[
        bool, typer.Option("--one-machine", help="With --rate: all servers share it, or one GPU.")
    ] = False,
    panel: Panel = PANEL_FILE,
) -> None:
    """Say which seat fits on which GPU, and how long verdicts take at a rate of cases."""
    from services.evaluation.forecast import Demand, foretell
    from services.evaluation.stored_run import EvaluationError
    from services.running.beforehand.plan import PlanError, read_gpus
    from services.running.beforehand.plan import plan as program

    with failures(PlanError, EvaluationError):
        if gpus is None and rate is None:
            raise PlanError("Say --gpus 1x80 for what fits, or --rate 20 --run RUN for how long.")
        if (rate is None) != (run is None):
            raise PlanError(
                "--rate and --run RUN go together: how long each worker takes is known from RUN, "
                "a folder that consilium evaluate filled."
            )
        settings = settings_of(panel, {}, with_competence=False)
        if gpus is not None:
            for line in program(settings, read_gpus(gpus)):
                console.print(line)
        if rate is not None and run is not None:
            foretell(settings, run, Demand(rate, at_once, repeats, one_machine), console.print)


@app.command()
def fetch(
    to: Annotated[Path, typer.Option(help="The folder to fill.")], panel: Panel = PANEL_FILE
) -> None:
    """Gather what the panel needs from a network, for a machine without one."""
    from services.running.beforehand.fetch import fetch as program

    with failures():
        size = program(settings_of(panel, {}, with_competence=False), to, console.print)
        console.print(f"{to}: {size / 1e6:,.0f} MB; there, set CONSILIUM_WEIGHTS to this folder")


@app.command()
def compose(
    panel: Panel = PANEL_FILE,
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("docker-compose.yml"),
    gpus: Annotated[
        str | None, typer.Option(help="For profile gpu: place seats on these, such as 2x80.")
    ] = None,
) -> None:
    """Write docker-compose.yml from the panel file: with GPUs, with one, or without."""
    from services.running.beforehand.plan import PlanError, needs, place, read_gpus
    from services.running.deploying.compose import write

    with failures(PlanError):
        # The file alone decides: where servers are reached from this machine is no matter here.
        settings = settings_of(panel, {})
        places = place(needs(settings), read_gpus(gpus)) if gpus else None
        write(settings, panel, out, places)
        console.print(f"written: {out}")


@app.command()
def kubernetes(
    panel: Panel = PANEL_FILE,
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("kubernetes.yaml"),
    registry: Annotated[
        str, typer.Option(help="Where nodes pull our images from, such as registry.example/ward.")
    ] = "",
    gpus: Annotated[
        int | None, typer.Option(min=0, help="How many the cluster has: too few is said here.")
    ] = None,
    ray: Annotated[
        bool, typer.Option("--ray", help="A RayService for KubeRay, whose seats may share GPUs.")
    ] = False,
) -> None:
    """Write Kubernetes manifests from the panel file: a pod for each seat, and what is around."""
    from services.running.deploying.kubernetes import write
    from services.running.deploying.objects import KubernetesError
    from services.running.deploying.room import ClusterError

    with failures(KubernetesError, ClusterError):
        write(settings_of(panel, {}), out, registry, gpus, on_ray=ray)
        console.print(f"written: {out}")


def _serve_on_cluster(address: str, panel: Path, host: str, port: int) -> None:
    from services.running.deploying.ray import running_on
    from services.running.deploying.room import ClusterError

    with (
        failures(ClusterError),
        running_on(address, settings_of(panel), panel, host, port, console.print),
    ):
        console.print(f"ready at port {port} of every node; Ctrl-C stops everything")
        signal.pause()


def _become_engine(name: str, panel: Path, host: str, gpu_share: float | None) -> None:
    from filelock import FileLock

    from models.assets import cache_dir
    from services.running.engine import launch, model_folder

    with failures():
        settings = settings_of(panel, with_competence=False)
        _require_vllm(settings)
        cache_dir().mkdir(parents=True, exist_ok=True)
        # Of engines that start at once on a machine, one fetches and merges what they share.
        with FileLock(cache_dir() / ".models.lock"):
            folder = model_folder(settings, name)
        server = launch(settings, name, folder, host, gpu_share)
        # Replaced, not started: whoever stops this process stops the server.
        os.execve(server.command[0], server.command, server.environment)


def _require_vllm(settings: Settings) -> None:
    """Raises ModuleNotFoundError where somebody is to be served here, and nothing can: first of
    all, since fetching the models takes minutes."""
    from services.running.engine import engines

    if engines(settings) and importlib.util.find_spec("vllm") is None:
        raise ModuleNotFoundError("No module named 'vllm'", name="vllm")
