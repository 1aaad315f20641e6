"""What gateways share. A Redis that is down or slow costs the cache, never the case."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.lock import Lock
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

# Longer than a burst of cases holds up the gateway's own loop: a Redis that was given up then would
# have every gateway ask its workers the same.
TIMEOUT_S = 1.0
# One that hangs costs one case in so long a wait, and the others none.
REST_S = 10.0
# As long as a panel of twenty seconds and its summariser take.
ALONE_S = 30
# A gateway that dies in the middle of a case holds up the same case elsewhere for so long; one that
# lives says so three times as often.
LEASE_S = 10.0
WARNINGS = "consilium:resting"

log = logging.getLogger("consilium.gateway")


def is_redis_url(url: str) -> bool:
    """Whether a client can be made of it; nothing is connected."""
    try:
        ConnectionPool.from_url(url).make_connection()  # type: ignore[no-untyped-call]
    # redis-py has no error of its own for this: what comes is what its code stumbles over.
    except (AttributeError, TypeError, ValueError, RedisError):
        return False
    return True


class RedisStore:
    """A `store.Store`; what it keeps, it keeps for `keep_s` seconds."""

    def __init__(self, url: str, keep_s: int) -> None:
        self._keep_s = keep_s
        self._rests_until = 0.0
        self._redis: Redis = Redis.from_url(
            url,
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
            retry=Retry(NoBackoff(), retries=0),
        )

    async def get(self, key: str) -> bytes | None:
        if self._rests:
            return None
        try:
            found = await self._redis.get(f"consilium:kept:{key}")
        except (RedisError, OSError) as error:
            self._warn(error)
            return None
        return found if isinstance(found, bytes) else None

    async def put(self, key: str, value: bytes) -> None:
        if self._rests:
            return
        try:
            await self._redis.set(f"consilium:kept:{key}", value, ex=self._keep_s)
        except (RedisError, OSError) as error:
            self._warn(error)

    @asynccontextmanager
    async def alone(self, key: str) -> AsyncGenerator[None, None]:
        lock = self._redis.lock(f"consilium:alone:{key}", timeout=LEASE_S, sleep=0.05)
        held, holding = False, None
        try:
            held = not self._rests and await lock.acquire(blocking_timeout=ALONE_S)
        except (RedisError, OSError) as error:
            self._warn(error)
        if held:
            holding = asyncio.create_task(_hold(lock))
        try:
            yield
        finally:
            if holding:
                holding.cancel()
                with suppress(RedisError, OSError):  # it has run out, or Redis has gone
                    await lock.release()

    async def warn(self, server: str) -> None:
        if not self._rests:
            with suppress(RedisError, OSError):  # the others will find out by themselves
                await self._redis.publish(WARNINGS, server)

    async def warnings(self) -> AsyncGenerator[str, None]:
        while True:
            try:
                async with self._redis.pubsub() as heard:
                    await heard.subscribe(WARNINGS)
                    async for message in heard.listen():
                        if message["type"] == "message":
                            yield message["data"].decode()
            except (RedisError, OSError):
                await asyncio.sleep(REST_S)

    async def reachable(self) -> bool:
        try:
            return bool(await self._redis.ping())
        except (RedisError, OSError):
            return False

    async def close(self) -> None:
        await self._redis.aclose()

    @property
    def _rests(self) -> bool:
        return time.monotonic() < self._rests_until

    def _warn(self, error: Exception) -> None:
        if isinstance(error, RedisTimeoutError):  # a refusal costs no time
            self._rests_until = time.monotonic() + REST_S
        log.warning(json.dumps({"event": "redis_unavailable", "error": type(error).__name__}))


async def _hold(lock: Lock) -> None:
    while True:
        await asyncio.sleep(LEASE_S / 3)
        with suppress(RedisError, OSError):  # it has run out, or Redis has gone
            await lock.reacquire()
