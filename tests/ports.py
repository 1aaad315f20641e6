"""Ports for the servers that tests start."""

import random
import socket
from pathlib import Path

_LOWEST = 10_000
# From this one on the kernel gives a port to whoever asks for any, at any moment.
_GIVEN = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text("ascii").split()[0])


def free_port() -> int:
    """One of the loopback's where nothing listens, and that nobody is given while a test's own
    server comes up there."""
    while True:
        port = random.SystemRandom().randrange(_LOWEST, _GIVEN)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port
