"""A service for the stack's tests, run as a program: PORT answers 200, after a while, stubbornly.

python slow_service.py PORT [--healthy-after S] [--exit-after S] [--child]
`--child` starts a child that ignores SIGTERM, as a server's own processes may.
"""

import argparse
import os
import signal
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

arguments = argparse.ArgumentParser()
arguments.add_argument("port", type=int)
arguments.add_argument("--healthy-after", type=float, default=0.0)
arguments.add_argument("--exit-after", type=float)
arguments.add_argument("--child", action="store_true")
given = arguments.parse_args()
began = time.monotonic()

if given.child and os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(300)
if given.exit_after is not None:
    threading.Timer(given.exit_after, os._exit, [3]).start()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if time.monotonic() - began >= given.healthy_after else 503)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """The log is the service's own; the tests do not read it."""


HTTPServer(("127.0.0.1", given.port), Handler).serve_forever()
