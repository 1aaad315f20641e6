"""What all series together may take of the memory: who finds no room waits for those before.

What was sent is bounded by how many cases are inside; what it unpacks to, or what an archive gives,
can be a hundred times that.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Room:
    def __init__(self) -> None:
        self._taken = 0
        self._waiting: list[asyncio.Future[None]] = []

    @asynccontextmanager
    async def of(self, size: int, most: int) -> AsyncIterator[None]:
        """So many bytes, once those that are taken leave room for them within `most`; more than
        that are alone. Small ones do not wait for a large one that waits."""
        size = min(size, most)
        while self._taken + size > most:
            free = asyncio.get_running_loop().create_future()
            self._waiting.append(free)
            try:
                await free
            finally:
                self._waiting.remove(free)
        self._taken += size
        try:
            yield
        finally:
            self._taken -= size
            for free in self._waiting:
                if not free.done():
                    free.set_result(None)


ROOM = Room()
