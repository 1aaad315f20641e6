"""The servers of one seat, which all serve the same model: which is asked, when a second one is
asked as well, who rests and who is left out.

An image's questions go to one server, which has it cached, unless another has fewer calls open (the
power of two choices: Mitzenmacher, IEEE TPDS 12(10), 2001). A call that lasts longer than 95 % of
the seat's own is hedged: a second server is asked too, the first good answer counts, and the other
call is dropped. It costs 5 % more calls at most, so that a day that is slow for all is not a busier
one as well (Dean and Barroso, The Tail at Scale, CACM 56(2), 2013). A call that breaks off goes to
a second server at once, whatever was spent: the first is at no work on it, and soon rests.
"""

import asyncio
import hashlib
import json
import logging
import random
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextvars import Context
from functools import partial
from pathlib import PurePath
from typing import Any

from gateway.asking.breaker import Breaker
from gateway.asking.model_server import CallFailed, Completion, Http, Probed, probe
from gateway.contract import Replica
from gateway.tables import WorkerSettings
from gateway.watch.metrics import Metrics, Why

HEDGED_SHARE = 0.05  # of the seat's calls, its slowest ones
WINDOW = 200  # calls by which it is known what is slow
AT_LEAST = 20  # of them
MOST_SAVED = 10.0  # hedges, for a burst after a quiet time
LOOK_EVERY_S = 5.0  # at what the servers have loaded

Ask = Callable[[str], Awaitable[Completion]]  # the server at this url
log = logging.getLogger("consilium.gateway")


class Replicas:
    """The servers of `worker`; those at `resting` urls rest already. `is_well` asks the one at a
    url the gateway's own question; a call without a reply in `patience_s` raises a doubt; `tell` is
    told the url of one that begins to rest."""

    def __init__(
        self,
        worker: WorkerSettings,
        http: Http,
        metrics: Metrics,
        is_well: Callable[[str], Awaitable[bool]],
        patience_s: float,
        tell: Callable[[str], None],
        resting: Collection[str] = (),
    ):
        self._name, self._http, self._metrics = worker.name, http, metrics
        self._model = PurePath(worker.model).name
        self._warning: str | None = None
        self._patience_s = patience_s
        self._servers = [
            _Server(
                str(number),
                url,
                Breaker(
                    worker.name, partial(is_well, url), url in resting, number, partial(tell, url)
                ),
            )
            for number, url in enumerate(worker.urls, 1)
        ]
        self._seconds = deque[float](maxlen=WINDOW)
        self._hedges = 0.0
        self._looking: asyncio.Task[None] | None = None
        self._look_again_at, self._has_looked = 0.0, False

    @property
    def rests_s(self) -> float | None:
        """Seconds until one of them is asked again; None: not all rest."""
        rests = [server.breaker.rests_s for server in self._servers if not server.left_out]
        known = [seconds for seconds in rests if seconds is not None]
        return min(known) if len(known) == len(rests) else None

    @property
    def resting(self) -> list[str]:
        """The urls of those that rest."""
        return [each.url for each in self._servers if each.breaker.rests_s is not None]

    def rest(self, url: str) -> None:
        """Another gateway has found that nobody is answered there."""
        for server in self._servers:
            if server.url == url:
                server.breaker.rest()

    def doubt_the_silent(self) -> None:
        """Somebody wants to know how they are: who has not been heard for a while is asked, but for
        those at whose address nobody was found: one that starts does not rest."""
        for server in self._servers:
            if server.reachable:
                server.breaker.doubt_if_silent()

    def close(self) -> None:
        for server in self._servers:
            server.breaker.close()

    async def first_good(self, image: str, ask: Ask) -> Completion:
        """What `ask` brings of the server, or of the two, that it is called with. `image` is the
        identity of the case's first.

        Raises:
            CallFailed, TimeoutError: as `ask` did, where it did so of every server.
        """
        if len(self._servers) == 1:
            return await self._asked(self._servers[0], ask)
        await self._know_models()
        usable = [each for each in self._servers if not each.left_out]
        usable = [each for each in usable if each.breaker.rests_s is None] or usable
        first = _chosen(image, usable)
        others = [each for each in usable if each is not first]
        call = self._begun(first, ask, "first")
        open_calls, failure = {call}, None
        self._hedges = min(self._hedges + HEDGED_SHARE, MOST_SAVED)
        patience_s = self._slow_s()
        try:
            while open_calls:
                done, open_calls = await asyncio.wait(
                    open_calls, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED
                )
                patience_s = None
                failures = [each.exception() for each in done]
                if None in failures:
                    if call in open_calls:
                        first.breaker.broke_off()
                    return next(each.result() for each in done if each.exception() is None)
                failure = failure or next(iter(failures), None)
                why: Why = "broken_off" if _broke_off(failure) else "slow"
                if others and (why == "broken_off" or (not done and self._may_hedge())):
                    open_calls.add(self._begun(_chosen(image, others), ask, why))
                    others = []
        finally:
            for each in open_calls:
                each.cancel()
        assert failure is not None
        raise failure

    async def look(self) -> None:
        """Asks each how it is and what it has loaded; of one that does not say, its last word
        holds. Who serves another model than most, or where they are even than the seat's, or than
        the first's, is left out; one that lists the seat's name is believed before those that do
        not. Where the model that they serve is not the seat's, by neither its name nor the seat's,
        that is told alone: a server may go by any name."""
        found = await asyncio.gather(
            *(probe(self._http, server.url, self._name) for server in self._servers)
        )
        for server, each in zip(self._servers, found, strict=True):
            server.reachable, server.model = each.reachable, each.model
            server.told = each if each.model is not None else server.told
        told = [server.told for server in self._servers if server.told]
        named = [each for each in told if each.by_name] or told
        times = Counter(named)
        right = max(times, key=lambda each: (times[each], each.model == self._model), default=None)
        for server in self._servers:
            left_out = None
            if right and server.told and server.told != right:
                left_out = f"It serves {server.told.model}; the seat's other servers {right.model}."
                if server.told.model == right.model:
                    left_out = "It serves the seat's model, but not by the seat's name."
            if left_out and not server.left_out:
                line = {"event": "replica_left_out", "worker": self._name, "replica": server.number}
                log.warning(json.dumps(line | {"why": left_out}))
            server.left_out = left_out
        warning = None
        if right and not right.by_name and right.model != self._model:
            warning = f"The seat's model is {self._model}, and {right.model} is served."
        if warning and not self._warning:
            line = {"event": "another_model", "worker": self._name, "why": warning}
            log.warning(json.dumps(line))
        self._warning = warning
        self._has_looked = True

    def report(self) -> dict[str, Any]:
        """How they were when they were last looked at, by the fields of contract.Seat."""
        rests_s = self.rests_s
        right = [server for server in self._servers if not server.left_out]
        return {
            "reachable": any(server.is_well for server in right),
            "resting_s": rests_s,
            "model": next((server.model for server in right if server.model), None),
            "warning": self._warning,
            "replicas": tuple(
                Replica(
                    reachable=server.is_well,
                    resting_s=server.breaker.rests_s,
                    model=server.model,
                    left_out=server.left_out,
                )
                for server in self._servers
            )
            if len(self._servers) > 1
            else (),
        }

    async def _know_models(self) -> None:
        """Waits for the first look alone; the later ones are taken beside the calls."""
        if time.monotonic() >= self._look_again_at:
            self._look_again_at = time.monotonic() + LOOK_EVERY_S
            # Not in the context of a request: its time and trace are its own.
            self._looking = asyncio.create_task(self.look(), context=Context())
        if self._looking and not self._has_looked:
            await asyncio.shield(self._looking)

    def _begun(self, server: "_Server", ask: Ask, why: Why) -> "asyncio.Task[Completion]":
        self._metrics.replica_calls.labels(self._name, server.number, why).inc()
        call = asyncio.create_task(self._asked(server, ask))
        server.open_calls += 1  # at once: the next case is brought to one before this call begins
        call.add_done_callback(server.call_ended)
        return call

    async def _asked(self, server: "_Server", ask: Ask) -> Completion:
        """One call, and what it tells of the server."""
        began, answered = time.monotonic(), False
        # However it ends: callers who leave early, or have heard enough, must not hide a hang.
        late = asyncio.get_running_loop().call_later(self._patience_s, server.breaker.doubt)
        try:
            completion = await ask(server.url)
            answered = True
        except TimeoutError:
            server.breaker.doubt()
            raise
        except CallFailed as failure:
            server.failed(failure)
            raise
        finally:
            late.cancel()
            seconds = time.monotonic() - began
            # Of a call that was given up it is known that it would have been slow, if it was.
            if answered or seconds > (self._slow_s() or seconds):
                self._seconds.append(seconds)
        server.breaker.replied()
        if len(self._servers) > 1:
            self._metrics.replica.labels(self._name, server.number).observe(seconds)
        return completion

    def _slow_s(self) -> float | None:
        """What only the slowest calls last longer than; None while that is not known."""
        if len(self._seconds) < AT_LEAST:
            return None
        return sorted(self._seconds)[int(len(self._seconds) * (1 - HEDGED_SHARE))]

    def _may_hedge(self) -> bool:
        if self._hedges < 1:
            return False
        self._hedges -= 1
        return True


class _Server:
    def __init__(self, number: str, url: str, breaker: Breaker):
        self.number, self.url, self.breaker = number, url, breaker
        self.open_calls = 0
        self.reachable = False
        self.model: str | None = None
        self.told: Probed | None = None  # when it last told its model
        self.left_out: str | None = None

    @property
    def is_well(self) -> bool:
        return self.reachable and self.breaker.rests_s is None and not self.left_out

    def call_ended(self, _: object) -> None:
        self.open_calls -= 1

    def failed(self, failure: CallFailed) -> None:
        match failure.error.kind:
            case "unreachable":
                self.breaker.broke_off()
            case "refused":
                self.breaker.refused()
            case _:
                self.breaker.replied()


def _chosen(image: str, servers: Sequence[_Server]) -> _Server:
    """The image's own (rendezvous hashing: the same in every gateway, and for most images the same
    when a server comes or goes), or any other one if that has fewer calls open."""
    own = max(servers, key=lambda each: hashlib.sha256(f"{image} {each.url}".encode()).digest())
    others = [each for each in servers if each is not own]
    other = random.choice(others) if others else own
    return other if other.open_calls < own.open_calls else own


def _broke_off(failure: BaseException | None) -> bool:
    return isinstance(failure, CallFailed) and failure.error.kind == "unreachable"
