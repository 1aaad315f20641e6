"""`python -m gateway`: the gateway of $CONSILIUM_PANEL on a port, until SIGTERM; on SIGHUP it takes
up panel.toml as it is now.
"""

import argparse
import socket
import sys
from ipaddress import ip_address

from gateway.app import create_app
from gateway.door.keys import KeysError
from gateway.processes import Processes
from gateway.server import Server, keep_freed_memory, leave_what_stays, serve
from gateway.settings import Settings, SettingsError, load_settings
from gateway.store.readers import ReadersError
from gateway.watch import log as watch_log
from gateway.watch.audit import AuditError


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m gateway", description=__doc__)
    arguments.add_argument("--host", default="127.0.0.1")
    arguments.add_argument("--port", type=int, default=8000)
    arguments.add_argument(
        "--without-keys",
        action="store_true",
        help="listen beyond this machine though nobody needs a key",
    )
    arguments.add_argument(
        "--workers", type=int, default=1, metavar="N", help="so many processes, through one Redis"
    )
    options = arguments.parse_args()
    if options.workers < 1:
        arguments.error("--workers: at least 1")
    if not 0 <= options.port < 2**16:
        arguments.error("--port: 0 to 65535")
    try:
        settings = load_settings()
        if not (is_loopback(options.host) or settings.keys or options.without_keys):
            raise SettingsError(
                f"Without keys the gateway listens on 127.0.0.1 only, not on {options.host}: make "
                "a key (consilium key add) and name the file with CONSILIUM_KEYS, or say "
                "--without-keys where only who may ask can reach it"
            )
        if options.workers > 1:
            _check_several(options.workers, settings)
        else:
            keep_freed_memory()
            app = create_app(settings)
            leave_what_stays()
    except (SettingsError, KeysError, AuditError, ReadersError) as error:
        sys.exit(str(error))

    with _listener(options.host, options.port) as listener:
        if options.workers > 1:
            watch_log.start()
            listener.listen(2048)  # whichever process is there first
            sys.exit(Processes(options.workers, settings, serve, listener).run())
        Server(app, settings.load.drain_s).run([listener])


def _check_several(workers: int, settings: Settings) -> None:
    if settings.panel.store == "memory://":
        raise SettingsError(
            f"--workers {workers}: several processes share limits and verdicts through a Redis; "
            "set panel.store, or CONSILIUM_STORE, to redis://HOST:PORT/DB"
        )
    if workers > settings.load.max_at_work:
        raise SettingsError(
            f"--workers {workers}: each takes its part of load.max_at_work, which is "
            f"{settings.load.max_at_work}; raise that, or start fewer"
        )


def _listener(host: str, port: int) -> socket.socket:
    """Bound, and not listening yet: who comes before the gateway is ready is turned away, and its
    signals would still end it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        sys.exit(f"{host}:{port}: {error.strerror}; choose another --port")
    return bound


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


if __name__ == "__main__":
    main()
