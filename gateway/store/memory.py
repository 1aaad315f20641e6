"""What was said before, and what is being worked on: `memory://` or `redis://`.

Whole verdicts are kept, each worker's answers, and what a model says of two claims: `service.py`
sees to it that no worker failed and that the summariser did not fall back, `panel.py` that an
answer is one. A key is an HMAC, so the store learns nothing from it, and nobody without the secret
can ask it whether a case was seen.
"""

import hashlib
import hmac
import json
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel, ValidationError

from gateway.case import Case

log = logging.getLogger("consilium.gateway")

KEEP_S = 3600
MEMORY_ENTRIES = 5_000  # of a kilobyte or two

Kept = TypeVar("Kept", bound=BaseModel)


class Store(Protocol):
    async def get(self, key: str) -> bytes | None: ...

    async def put(self, key: str, value: bytes) -> None: ...

    def alone(self, key: str) -> AbstractAsyncContextManager[None]:
        """Keeps other gateways that share this store from working on the same case meanwhile."""
        ...

    async def warn(self, server: str) -> None:
        """Tells other gateways that share this store that a server answers nobody: its mark."""
        ...

    def warnings(self) -> AsyncGenerator[str, None]:
        """What they tell, this one's own words included."""
        ...

    async def reachable(self) -> bool: ...

    async def close(self) -> None: ...


def open_store(url: str) -> Store:
    """The store that `url` names; nothing is connected before it is needed."""
    if url == "memory://":
        return MemoryStore()
    # Imported where it is used: its client would add a fifth to every other gateway's start.
    from gateway.store.redis import RedisStore

    return RedisStore(url, KEEP_S)


async def recall(store: Store, key: str, kind: type[Kept]) -> Kept | None:
    """What was kept under `key`; None where that is nothing, or nothing that is understood."""
    found = await store.get(key)
    if found is None:
        return None
    try:
        return kind.model_validate_json(found)
    except ValidationError:
        log.warning(json.dumps({"event": "stored_entry_unreadable", "kind": kind.__name__}))
        return None


async def keep(store: Store, key: str, what: BaseModel) -> None:
    await store.put(key, what.model_dump_json().encode())


def key_of(case: Case, panel_hash: str, secret: bytes) -> str:
    """Everything that a verdict depends on, under the gateway's secret."""
    options = case.options.model_dump(exclude={"store"})
    return _hmac(secret, ["verdict", *_told(case), case.modality, options, panel_hash])


def answer_key(case: Case, seat: str, secret: bytes) -> str:
    """Everything that a worker's answer depends on; `seat` is all that is set of the worker."""
    return _hmac(secret, ["answer", *_told(case), case.others, seat])


def asked_of(case: Case, secret: bytes) -> str:
    """What was asked, whoever answers it: for the audit."""
    return _hmac(secret, ["case", *_told(case)])


def salt_of(tenant: str, secret: bytes) -> str:
    """What keeps a model server's own cache from serving one tenant with another's prompts."""
    return _hmac(secret, ["salt", tenant])


def mark_of(what: str, parts: list[Any], secret: bytes) -> str:
    """Tells that two of a kind are the same, and nothing else."""
    return _hmac(secret, [what, *parts])


def _told(case: Case) -> list[Any]:
    """Who asks, and what workers are told. Of several slices, a place in the question is one's."""
    identities = [image.identity for image in case.images]
    told = [case.tenant, identities, case.question, case.context, case.choices, case.language]
    slices = [image.shown.series for image in case.images] if len(case.images) > 1 else []
    places = [[of.first, of.last, of.of] for of in slices if of]
    return [*told, case.views, places] if case.views or places else told


def _hmac(secret: bytes, parts: list[Any]) -> str:
    return hmac.new(secret, json.dumps(parts).encode(), hashlib.sha256).hexdigest()


class MemoryStore:
    """The most recently used entries of this process."""

    def __init__(self) -> None:
        self._entries: OrderedDict[str, tuple[float, bytes]] = OrderedDict()

    async def get(self, key: str) -> bytes | None:
        expires, value = self._entries.get(key, (0.0, None))
        if value is None or expires <= time.monotonic():
            self._entries.pop(key, None)
            return None
        self._entries.move_to_end(key)
        return value

    async def put(self, key: str, value: bytes) -> None:
        self._entries[key] = (time.monotonic() + KEEP_S, value)
        self._entries.move_to_end(key)
        while len(self._entries) > MEMORY_ENTRIES:
            self._entries.popitem(last=False)

    @asynccontextmanager
    async def alone(self, key: str) -> AsyncGenerator[None, None]:
        yield  # no other gateway has this memory

    async def warn(self, server: str) -> None:
        pass

    async def warnings(self) -> AsyncGenerator[str, None]:
        nobody: tuple[str, ...] = ()  # has this memory but its own gateway
        for warning in nobody:
            yield warning

    async def reachable(self) -> bool:
        return True

    async def close(self) -> None:
        self._entries.clear()
