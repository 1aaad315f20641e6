"""A stack of one service, run as a program that the tests can signal and kill.

python stack_program.py PORT LOGS
"""

import signal
import sys
import time
from pathlib import Path

from services.running.engine import Launch
from services.running.stack import POLL_S, running

port, logs = int(sys.argv[1]), Path(sys.argv[2])
service = str(Path(__file__).with_name("slow_service.py"))
launch = Launch(
    "slow", (sys.executable, service, str(port), "--child"), {}, f"http://127.0.0.1:{port}", "/"
)
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
with running([launch], logs, report=lambda line: print(line, flush=True)) as stack:
    print("up", flush=True)
    while True:
        stack.tend()
        time.sleep(POLL_S)
