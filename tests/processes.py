"""Which of some processes still run."""

import time
from collections.abc import Sequence

import psutil

GRACE_S = 30.0  # a helper process ends once it notices that its parent has


def still_running(processes: Sequence[psutil.Process]) -> list[psutil.Process]:
    """Those that hold memory or a port after some grace.

    Not an ended one that init has yet to collect: in a container without an init nobody ever
    collects the child of a parent that went first.
    """
    deadline = time.monotonic() + GRACE_S
    while (left := [each for each in processes if _runs(each)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
