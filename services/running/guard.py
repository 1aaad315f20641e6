"""Kills what the stack started when the stack itself is killed and can no longer do so.

Run by services/running/stack.py as a bare script. Its standard input is a pipe from the stack:
"+ID" is a process group that was started, "-ID" one that is gone. The pipe ends when the stack
does, however that came about; the groups that are left then get SIGKILL.
"""

import os
import signal
import sys
from contextlib import suppress


def main() -> None:
    # It ends when the stack does, whoever else is told to stop.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        change = groups.add if line[0] == "+" else groups.discard
        change(int(line[1:]))
    for group in groups:
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main()
