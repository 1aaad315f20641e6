"""Callers with the same case share one verdict while it is worked on (single-flight)."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from gateway.contract import Answer, Verdict

Tell = Callable[[Answer], None]  # called for each answer as it comes in; must not block


class Flights:
    """What is being worked on just now, by key."""

    def __init__(self) -> None:
        self._open: dict[str, _Flight] = {}

    async def join(
        self, key: str, work: Callable[[Tell], Coroutine[Any, Any, Verdict]], tell: Tell
    ) -> tuple[Verdict, bool]:
        """The verdict, and whether this caller's own work made it. What that raises, all raise.

        Every caller is told every answer that the work tells of, those before he came included. Who
        leaves does not disturb the others; when the last one has left, the work is dropped.
        """
        flight = self._open.get(key)
        own = flight is None
        if flight is None:
            flight = self._open[key] = _Flight(work)
            flight.task.add_done_callback(lambda done: self._land(key, done))
        flight.callers.append(tell)
        for answer in flight.heard:
            tell(answer)
        try:
            return await asyncio.shield(flight.task), own
        finally:
            flight.callers.remove(tell)
            if not flight.callers and not flight.task.done():
                flight.task.cancel()
                self._land(key, flight.task)  # whoever comes now starts anew

    def _land(self, key: str, task: asyncio.Task[Verdict]) -> None:
        if key in self._open and self._open[key].task is task:
            del self._open[key]


class _Flight:
    def __init__(self, work: Callable[[Tell], Coroutine[Any, Any, Verdict]]) -> None:
        self.callers, self.heard = list[Tell](), list[Answer]()
        self.task = asyncio.create_task(work(self._tell))

    def _tell(self, answer: Answer) -> None:
        self.heard.append(answer)
        for tell in self.callers:
            tell(answer)
