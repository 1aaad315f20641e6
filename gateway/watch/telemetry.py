"""What is seen of every request: its time, its trace, and which gateway and panel answered it."""

import time
from importlib import metadata

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.model_server import Stopwatch, stopwatch
from gateway.service import Service
from gateway.watch.tracing import span

VERSION = metadata.version("consilium")


def marks(scope: Scope, service: Service) -> dict[str, str]:
    """The headers that name the gateway and the panel which the case was brought to."""
    panel = scope.get("state", {}).get("panel") or service.settings.panel_hash
    return {"consilium-version": VERSION, "consilium-panel": panel}


class Telemetry:
    """ASGI middleware around the whole gateway."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, waited = time.perf_counter(), Stopwatch()
        stopwatch.set(waited)
        service: Service = scope["app"].state.service
        status = 499  # the caller left before there was a response

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).update(marks(scope, service))
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
                service.metrics.requests.labels(route, status).observe(seconds)
                if scope.get("state", {}).get("asked"):
                    service.metrics.overhead.observe(seconds - waited.seconds)
