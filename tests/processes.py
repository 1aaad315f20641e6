"""Which of some processes still run."""

from collections.abc import Iterable

import psutil


def still_running(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Those that hold memory or a port; not an ended one that init has yet to collect.

    In a container without an init nobody ever collects the child of a parent that went first.
    """
    return [each for each in processes if _runs(each)]


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
