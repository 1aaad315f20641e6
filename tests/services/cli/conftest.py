"""The command line in the test's own process: a new one costs seconds."""

import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from services.cli.__main__ import main


@dataclass(frozen=True)
class Done:
    """As a shell sees it."""

    status: int
    out: str
    err: str


@pytest.fixture
def consilium(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Done]]:
    """Runs `consilium …`."""
    ends = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in ends}

    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["consilium", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        said, status = capsys.readouterr(), left.value.code
        if isinstance(status, str):  # which Python prints
            return Done(1, said.out, f"{said.err}{status}\n")
        return Done(status or 0, said.out, said.err)

    yield run
    for number, handler in before.items():
        signal.signal(number, handler)
