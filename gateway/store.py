"""Verdicts that were given before: `memory://` or `redis://`, for an hour.

Only whole verdicts are kept: the caller decides (`app.py`) that no worker failed and that the
summariser did not fall back. A key is an HMAC, so the store learns nothing from it, and nobody
without the secret can ask it whether a case was seen.
"""

import hashlib
import hmac
import json
import logging
import time
from collections import OrderedDict
from typing import Protocol

import redis.asyncio as redis
from pydantic import ValidationError
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from gateway.contract import Case, Verdict
from gateway.settings import Settings

KEEP_S = 3600
MEMORY_ENTRIES = 1_000
# A cache that is slower than this is worth less than nothing.
REDIS_TIMEOUT_S = 0.25

log = logging.getLogger("consilium.gateway")


class Store(Protocol):
    async def get(self, key: str) -> Verdict | None: ...

    async def put(self, key: str, verdict: Verdict) -> None: ...

    async def close(self) -> None: ...


def open_store(url: str) -> Store:
    """The store that `url` names; nothing is connected before it is needed."""
    return MemoryStore() if url == "memory://" else RedisStore(url)


def key_of(case: Case, settings: Settings, tenant: str = "public") -> str:
    """Everything that a verdict depends on, under the gateway's secret."""
    parts = [
        tenant,
        [image.identity for image in case.images],
        case.question,
        case.context,
        case.choices,
        case.language,
        case.options.model_dump(),
        settings.panel_hash,
    ]
    secret = settings.secret.get_secret_value()
    return hmac.new(secret, json.dumps(parts).encode(), hashlib.sha256).hexdigest()


class MemoryStore:
    """The most recently used verdicts of this process."""

    def __init__(self) -> None:
        self._entries: OrderedDict[str, tuple[float, Verdict]] = OrderedDict()

    async def get(self, key: str) -> Verdict | None:
        expires, verdict = self._entries.get(key, (0.0, None))
        if verdict is None or expires <= time.monotonic():
            self._entries.pop(key, None)
            return None
        self._entries.move_to_end(key)
        return verdict

    async def put(self, key: str, verdict: Verdict) -> None:
        self._entries[key] = (time.monotonic() + KEEP_S, verdict)
        self._entries.move_to_end(key)
        while len(self._entries) > MEMORY_ENTRIES:
            self._entries.popitem(last=False)

    async def close(self) -> None:
        self._entries.clear()


class RedisStore:
    """Verdicts shared by gateways. A Redis that is down or slow costs the cache, never the case."""

    def __init__(self, url: str) -> None:
        self._redis: redis.Redis = redis.from_url(
            url,
            socket_timeout=REDIS_TIMEOUT_S,
            socket_connect_timeout=REDIS_TIMEOUT_S,
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
            await self._redis.set(f"consilium:verdict:{key}", verdict.model_dump_json(), ex=KEEP_S)
        except (RedisError, OSError) as error:
            self._warn(error)

    async def close(self) -> None:
        await self._redis.aclose()

    def _warn(self, error: Exception) -> None:
        log.warning(json.dumps({"event": "redis_unavailable", "error": type(error).__name__}))
