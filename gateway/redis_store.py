"""Verdicts shared by gateways. A Redis that is down or slow costs the cache, never the case."""

import json
import logging

from pydantic import ValidationError
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from gateway.contract import Verdict

# A cache that is slower than this is worth less than nothing.
TIMEOUT_S = 0.25

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
        self._redis: Redis = Redis.from_url(
            url,
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
            retry=Retry(NoBackoff(), retries=0),
        )

    async def get(self, key: str) -> Verdict | None:
        try:
            found = await self._redis.get(f"consilium:verdict:{key}")
            return None if found is None else Verdict.model_validate_json(found)
        except (RedisError, OSError) as error:
            self._warn(error)
        except ValidationError:
            log.warning(json.dumps({"event": "stored_verdict_unreadable"}))
        return None

    async def put(self, key: str, verdict: Verdict) -> None:
        try:
            await self._redis.set(
                f"consilium:verdict:{key}", verdict.model_dump_json(), ex=self._keep_s
            )
        except (RedisError, OSError) as error:
            self._warn(error)

    async def close(self) -> None:
        await self._redis.aclose()

    def _warn(self, error: Exception) -> None:
        log.warning(json.dumps({"event": "redis_unavailable", "error": type(error).__name__}))
