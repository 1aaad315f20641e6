"""Who may ask, how often, and how many at once: decided before a byte of the body is read.

A minute's cases are counted when their bodies were read: a front end that asks for a title, without
an image, has asked no case.
"""

import json
import logging
import math
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Literal

from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage, RedisStorage, Storage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from limits.errors import StorageError
from starlette.requests import Request

from gateway.door.inside import Inside
from gateway.door.keys import Key, Keys
from gateway.refusals import Busy, Forbidden, TooMany, Unauthorized
from gateway.tables import Load
from gateway.watch.log import caller

TRY_AGAIN_S = 2  # a case takes about as long
# So many looks at an image for each case that a key may ask: who moves through a DICOM's frames
# sends one for each.
PREVIEWS_OF_A_CASE = 20
SHARED_WITHIN_S = 0.25  # a count that takes longer is not worth waiting for
What = Literal["case", "preview", "feedback"]

log = logging.getLogger("consilium.gateway")


class Admission:
    """The door: keys, limits per minute, and no more inside than there is room for."""

    def __init__(self, keys: Keys, store_url: str, inside: Inside, tell: Callable[[int], None]):
        self._keys, self._rates, self._inside = keys, Rates(store_url), inside
        self._tell = tell  # how many of this process are inside

    def known(self, request: Request) -> Key:
        """The key that a request carries; raises Unauthorized."""
        if "authorization" not in request.headers and "x-api-key" in request.headers:
            raise Unauthorized("The key is in the wrong header. Send Authorization: Bearer KEY.")
        key = self._keys.holder(request.headers.get("authorization"))
        caller.set((key.tenant, key.id))
        return key

    def admin(self, request: Request) -> Key:
        """The same, of an admin; raises Forbidden for others."""
        key = self.known(request)
        if not key.admin:
            raise Forbidden("This takes an admin's key: consilium key add --admin.")
        return key

    @asynccontextmanager
    async def admitted(
        self, request: Request, load: Load, what: What = "case"
    ) -> AsyncGenerator[Key, None]:
        """The key's holder is inside until the block ends; raises Unauthorized, TooMany, Busy."""
        key = self.known(request)
        await self._check_rate(key, load, what, count=False)
        most = load.max_at_work + load.max_waiting
        row = self._inside.enter(key.id, most, load.max_of_a_key)
        if row is None:
            inside = self._inside.total()  # somebody may have left since
            if inside >= most or load.max_of_a_key is None:
                detail = f"{inside} cases are under way or waiting. Send it again soon."
                raise Busy(detail, TRY_AGAIN_S)
            detail = f"{load.max_of_a_key} cases of this key are under way. Send it again soon."
            raise TooMany(detail, TRY_AGAIN_S)
        self._tell(self._inside.own)
        try:
            yield key
        finally:
            self._inside.leave(row)
            self._tell(self._inside.own)

    async def count(self, key: Key, load: Load, what: What = "case") -> None:
        """One case, look at an image or word more of the key's; raises TooMany."""
        await self._check_rate(key, load, what, count=True)

    async def _check_rate(self, key: Key, load: Load, what: What, *, count: bool) -> None:
        per_minute, name = key.per_minute or load.max_per_minute, key.id
        if per_minute and what != "case":
            name = f"{name}:{what}"
            per_minute *= PREVIEWS_OF_A_CASE if what == "preview" else 1
        if per_minute and (wait_s := await self._rates.wait_s(name, per_minute, count=count)):
            detail = f"More than {per_minute} in a minute. Send it again in {wait_s} s."
            raise TooMany(detail, wait_s)


class Rates:
    """How often each key asked within the last minute, in all gateways that share a Redis; while
    that is down each counts for itself."""

    def __init__(self, store_url: str):
        self._own = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._shared = self._own
        if store_url != "memory://":
            storage: Storage = RedisStorage(
                f"async+{store_url}",
                wrap_exceptions=True,
                implementation="redispy",
                key_prefix="consilium:rate",
                socket_timeout=SHARED_WITHIN_S,
                socket_connect_timeout=SHARED_WITHIN_S,
            )
            self._shared = SlidingWindowCounterRateLimiter(storage)

    async def wait_s(self, key: str, per_minute: int, *, count: bool) -> int:
        """0 where one case more is within the limit, which is then counted if it is to be; else how
        long to wait."""
        limit = RateLimitItemPerMinute(per_minute)
        try:
            return await _wait_s(self._shared, limit, key, count)
        except (StorageError, OSError) as error:
            log.warning(json.dumps({"event": "redis_unavailable", "error": type(error).__name__}))
            return await _wait_s(self._own, limit, key, count)


async def _wait_s(
    limiter: SlidingWindowCounterRateLimiter, limit: RateLimitItemPerMinute, key: str, count: bool
) -> int:
    if await (limiter.hit if count else limiter.test)(limit, key):
        return 0
    stats = await limiter.get_window_stats(limit, key)
    # By the wall clock, which may be set in between: no wait is longer than what is counted over.
    return min(max(1, math.ceil(stats.reset_time - time.time())), limit.get_expiry())
