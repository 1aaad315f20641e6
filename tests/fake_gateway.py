"""A gateway that answers every case at once, or fails as it is told to, on loopback."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from gateway.contract import Answer, PanelReport, Seat, Summary, Verdict
from gateway.refusals import Problem
from gateway.tables import Limits

Failure = tuple[int, dict[str, str], bytes]  # status, headers, body
DROPPED: Failure = (0, {}, b"")


def problem(status: int, detail: str = "No.", **headers: str) -> Failure:
    """A refusal as the gateway words it."""
    body = Problem.of(status, "Refused", detail).model_dump_json().encode()
    return status, {name.replace("_", "-"): value for name, value in headers.items()}, body


class FakeGateway:
    """Seats w0, who says "Yes". `fails` are done first, one for each case that comes; `requests`
    holds the bodies, `keys` the Authorization headers that came with them."""

    def __init__(self, *fails: Failure):
        self.fails, self.requests = list(fails), list[dict[str, Any]]()
        self.keys: list[str | None] = []
        self.verdict_of: Callable[[dict[str, Any]], Verdict] = lambda request: VERDICT
        self._lock = threading.Lock()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._send(200, {}, PANEL.model_dump_json().encode())

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                request = json.loads(body)
                with fake._lock:
                    failure = fake.fails.pop(0) if fake.fails else None
                    fake.requests.append(request)
                    fake.keys.append(self.headers["authorization"])
                if failure is DROPPED:
                    self.close_connection = True
                    return
                said = fake.verdict_of(request).model_dump_json().encode()
                self._send(*(failure or (200, {}, said)))

            def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


PANEL = PanelReport(
    panel="0123abcd",
    quorum=1,
    deadline_s=60,
    workers=(
        Seat(
            name="w0", family="mock", languages=("en",), max_images=4, reachable=True, model="mock"
        ),
    ),
    summariser=None,
    learned_from=None,
    store_reachable=True,
    **Limits().model_dump(),
)
VERDICT = Verdict(
    id="x",
    answer="Yes",
    language="en",
    agreement=None,
    answers=(Answer(worker="w0", text="Yes", confidence=0.9, weight=1, seconds=0.1),),
    dissent=(),
    summary=Summary(by="unanimous", faithful=None, seconds=0),
    panel="0123abcd",
    seconds=0.1,
)
