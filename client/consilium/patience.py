"""How long to wait for what may pass, and when to give up."""

import time
from typing import Any, Callable, Optional

from consilium.errors import GatewayError

FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 30.0


def seconds(name: str, given: Any) -> float:
    """`given` as a number of seconds; raises GatewayError where it is none, or below 0."""
    try:
        found = float(given)
    except (TypeError, ValueError):
        found = -1.0
    if not found >= 0:  # nan is not, and would wait for ever
        raise GatewayError(f"{name} is {given!r}: write how many seconds, 0 or more.")
    return found


class Patience:
    """Decides how long to wait after a failure, and when to give up: once nothing has got through
    for `patience_s`. One for all the calls of a run: where one is told to wait, all wait.

    `tell` hears of each wait. Raises GatewayError for a `patience_s` that is no number of seconds.
    """

    def __init__(self, patience_s: float, tell: Callable[[str], None] = lambda line: None):
        self._patience_s, self._tell = seconds("patience_s", patience_s), tell
        self._failing_since: Optional[float] = None
        self._waits = 0  # since something got through
        self._go_on_at = 0.0

    @property
    def wait_s(self) -> float:
        """How long no call is to be made."""
        return max(0.0, self._go_on_at - time.monotonic())

    def got_through(self) -> None:
        self._failing_since, self._waits = None, 0

    def goes_on(self, error: GatewayError, asked_at: float) -> bool:
        """Whether to make the call again that was made at `asked_at` and failed so, after
        `wait_s`. Waits grow, and are never shorter than the gateway asks for."""
        if not error.may_pass:
            return False
        now = time.monotonic()
        self._failing_since = now if self._failing_since is None else self._failing_since
        others_wait = asked_at < self._go_on_at  # this call was under way when they were told to
        grown = 0.0 if others_wait else min(FIRST_WAIT_S * 2**self._waits, LONGEST_WAIT_S)
        go_on_at = max(self._go_on_at, now + max(grown, error.retry_after_s or 0))
        if go_on_at > self._failing_since + self._patience_s:
            return False
        if not others_wait:
            self._waits += 1
        if go_on_at > self._go_on_at:
            self._go_on_at = go_on_at
            self._tell(f"waiting {go_on_at - now:.0f} s: {error}")
        return True
