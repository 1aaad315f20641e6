"""What is seen of every request: its time, its trace, and which gateway and panel answered it."""

import time
from collections.abc import Callable
from contextvars import ContextVar
from importlib import metadata

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.watch.metrics import Metrics
from gateway.watch.tracing import span

VERSION = metadata.version("consilium")


class Stopwatch:
    """How long at least one model server was at work on a request of ours."""

    def __init__(self) -> None:
        self.seconds, self.calls, self._open, self._since = 0.0, 0, 0, 0.0

    def __enter__(self) -> None:
        if self._open == 0:
            self._since = time.perf_counter()
        self._open += 1
        self.calls += 1

    def __exit__(self, *_: object) -> None:
        self._open -= 1
        if self._open == 0:
            self.seconds += time.perf_counter() - self._since


# Of the request that the running task belongs to.
stopwatch = ContextVar("stopwatch", default=Stopwatch())  # noqa: B039


def marks(scope: Scope, panel_now: str) -> dict[str, str]:
    """The headers that name the gateway and the panel which the case was brought to; a request that
    brings none is told the panel that is at work."""
    panel = scope.get("state", {}).get("panel") or panel_now
    return {"consilium-version": VERSION, "consilium-panel": panel}


class Telemetry:
    """ASGI middleware around the whole gateway; `panel_now` gives the hash of the panel at work."""

    def __init__(self, app: ASGIApp, metrics: Metrics, panel_now: Callable[[], str]):
        self.app, self.metrics, self.panel_now = app, metrics, panel_now

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, waited = time.perf_counter(), Stopwatch()
        stopwatch.set(waited)
        status = 499  # the caller left before there was a response

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).update(marks(scope, self.panel_now()))
            await send(message)

        with span("request", caller=Headers(scope=scope)) as request:
            try:
                await self.app(scope, receive, send_marked)
            except Exception:
                status = 500  # what answers it stands around us
                raise
            finally:
                # The path as it was declared, never as it was sent.
                route = getattr(scope.get("route"), "path", "unknown")
                seconds = time.perf_counter() - began
                request.update_name(route)
                request.set_attribute("http.response.status_code", status)
                self.metrics.requests.labels(route, status).observe(seconds)
                if scope.get("state", {}).get("asked"):
                    self.metrics.overhead.observe(seconds - waited.seconds)
