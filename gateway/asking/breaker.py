"""Lets a worker rest that answers nobody.

What a caller sends can make a call fail in every way there is: nothing is said, or nonsense, the
server takes too long, or gives up with a 5xx. So no call of a caller's trips a breaker: one that is
long without a reply, or three in a row that broke off, raise a doubt, and then the gateway asks a
question of its own, always the same. A worker rests only after that one, which no caller has a word
in, was left unanswered for `PATIENCE_S`. No case tries it then: it is asked that question again
until it answers. Where callers are answered while that question waits, it waits behind theirs: a
busy worker is no ill one. It is asked of a silent worker, too, when somebody wants to know how the
panel is: a model that hangs behind a server that calls itself healthy is found without a case.
"""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from contextvars import Context

BROKEN_OFF = 3  # in a row: they cost nobody any time
PATIENCE_S = 0.5  # a connection that broke, a server that was restarted behind its proxy
REST_S = 5.0
SILENT_S = 3.0

log = logging.getLogger("consilium.gateway")


class Breaker:
    """Of one worker, or the `replica` of that number. `is_well` asks it the gateway's own question,
    and gives up by itself.

    With `rests` it rests from the start, until it is found well; `tell` is told when it begins to.
    Needs a running event loop.
    """

    def __init__(
        self,
        worker: str,
        is_well: Callable[[], Awaitable[bool]],
        rests: bool = False,
        replica: int = 1,
        tell: Callable[[], None] = lambda: None,
    ):
        self._who, self._is_well, self._tell = {"worker": worker, "replica": replica}, is_well, tell
        self._resting, self._looks_at = False, 0.0
        self._looking: asyncio.Task[None] | None = None
        self._broken_off, self._answered, self._closed = 0, 0, False
        self._heard_at = time.monotonic()
        if rests:
            self.rest()

    @property
    def rests_s(self) -> float | None:
        """Seconds until it is asked again, 0 where that is under way; None: it does not rest."""
        if not self._resting or self._looking is None or self._looking.done():
            return None
        return max(self._looks_at - time.monotonic(), 0.0)

    def replied(self) -> None:
        """A call brought an answer, or nonsense: the model is at work."""
        self._answered += 1
        self._broken_off, self._heard_at = 0, time.monotonic()

    def refused(self) -> None:
        """A call brought a refusal: there is somebody, though the model behind may hang."""
        self._broken_off = 0

    def broke_off(self) -> None:
        """A call found no server, or lost it, or was told that it failed; or another replica was
        asked after it, and answered first."""
        self._broken_off += 1
        if self._broken_off >= BROKEN_OFF:
            self.doubt()

    def doubt(self) -> None:
        """A call is without a reply. However many are, one question is asked at a time."""
        if self._closed or (self._looking and not self._looking.done()):
            return
        # Not in the context of the request that raised the doubt: its time and trace are its own.
        self._looking = asyncio.create_task(self._look(), context=Context())

    def rest(self) -> None:
        """Somebody else has found that it answers nobody."""
        if not self._closed:
            self._resting = True
            self.doubt()

    def doubt_if_silent(self) -> None:
        """Somebody wants to know how it is, and nobody may have heard of it for a while."""
        if time.monotonic() - self._heard_at > SILENT_S:
            self.doubt()

    def close(self) -> None:
        """Looks no more, and lets it rest no more."""
        self._closed = True
        if self._looking:
            self._looking.cancel()

    async def _look(self) -> None:
        began, answered = time.monotonic(), self._answered
        while not await self._is_well() and self._answered == answered:
            now = time.monotonic()
            if not self._resting and now - began >= PATIENCE_S:
                self._resting = True
                log.warning(json.dumps({"event": "worker_rests"} | self._who))
                self._tell()
            pause_s = REST_S if self._resting else PATIENCE_S / 4
            self._looks_at = now + pause_s
            await asyncio.sleep(pause_s)
        if self._resting:
            log.info(json.dumps({"event": "worker_is_back"} | self._who))
        self._resting, self._broken_off, self._heard_at = False, 0, time.monotonic()
