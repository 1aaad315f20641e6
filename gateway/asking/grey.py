"""What the workers say to a case's question over an even grey, by which it is told how far their
answers depend on the image (`verdict/grounding.py`).

It depends on no image, so it is asked once for each question and kept as every answer is; of many
questions it is shipped. What is not known yet is asked behind the verdict, one call at a time, and
of no worker that a case is waiting for.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import Context
from dataclasses import replace

import pybase64

from gateway.case import Case, CaseImage
from gateway.contract import Answer, Options
from gateway.settings import Settings
from gateway.store.memory import Store, keep, recall
from gateway.tables import WorkerSettings
from gateway.verdict.grounding import grounding
from gateway.watch.telemetry import stopwatch

MOST = 48  # calls that wait; what is more is asked when the question comes again

# 64 x 64 pixels of 128.
GREY = CaseImage(
    pybase64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAEAAAABACAAAAACPAi4CAAAAK0lEQVR42u3MMREAAAgEoNfkRjeEmwcB"
        "qMlNRyAQCAQCgUAgEAgEAsHzYAFAdAEArKmlZAAAAABJRU5ErkJggg=="
    ),
    "grey",
    (64, 64),
)


class OverGrey:
    """Of one panel; `ask` asks one of its workers, and tells a failure by the answer's error; under
    `key` the answer is kept."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        ask: Callable[[WorkerSettings, Case], Awaitable[Answer]],
        key: Callable[[WorkerSettings, Case], str],
    ):
        self._settings, self._store, self._ask, self._key = settings, store, ask, key
        self._calls: dict[str, asyncio.Task[Answer | None]] = {}  # under way, by key
        self._later: dict[str, tuple[WorkerSettings, Case]] = {}  # in line, the first one first
        self._asking_later: asyncio.Task[None] | None = None
        self._cases, self._left = Counter[str](), asyncio.Event()
        self._closed = False

    @contextmanager
    def waited_for(self, worker: str) -> Iterator[None]:
        """Inside the block a case waits for the worker."""
        self._cases[worker] += 1
        try:
            yield
        finally:
            self._cases[worker] -= 1
            self._left.set()

    async def grounding(self, case: Case, answers: Sequence[Answer], left_s: float) -> float | None:
        """How far the first round's answers depend on the case's images, 0 to 1; None where what
        their workers say over grey is not known yet. It is asked for now, for at most `left_s`,
        where the case wants to wait, and those who do not say it do not count; else later.
        """
        if not (
            case.options.grounding or self._settings.panel.grounding or self._settings.grey_answers
        ):
            return None
        # As they were shown, of which slice they are: a question may name one.
        images = tuple(replace(GREY, shown=image.shown) for image in case.images)
        over_grey = replace(case, images=images, modality=None, options=Options())
        said = {a.worker: a for a in answers if a.round == 1 and a.text is not None}
        seats = [worker for worker in self._settings.workers if worker.name in said]
        found = await asyncio.gather(*(self._known(worker, over_grey) for worker in seats))
        missing = [worker for worker, grey in zip(seats, found, strict=True) if grey is None]
        if missing and case.options.grounding:
            found += await self._asked_now(missing, over_grey, left_s)
        elif missing:
            self._ask_later(missing, over_grey)
            return None
        pairs = [(said[grey.worker], grey) for grey in found if grey is not None]
        return grounding(pairs, case.language, case.question)

    def close(self) -> None:
        """Nothing more is asked behind a verdict."""
        self._closed = True
        if self._asking_later:
            self._asking_later.cancel()

    async def _known(self, worker: WorkerSettings, over_grey: Case) -> Answer | None:
        several = len(over_grey.images) > 1
        asks_more = over_grey.context or over_grey.choices or over_grey.views or several
        if (shipped := self._settings.grey_answers) and not asks_more:
            answer = shipped.of(worker.name, over_grey.language, over_grey.question)
            if answer is not None:
                return answer
        return await recall(self._store, self._key(worker, over_grey), Answer)

    async def _asked_now(
        self, workers: Sequence[WorkerSettings], over_grey: Case, left_s: float
    ) -> list[Answer | None]:
        calls = [self._call(self._key(worker, over_grey), worker, over_grey) for worker in workers]
        with stopwatch.get():  # model servers are at work, if not in this request's own context
            done, _ = await asyncio.wait(calls, timeout=max(left_s, 0.0))
        return [call.result() for call in calls if call in done and not call.cancelled()]

    def _call(
        self, key: str, worker: WorkerSettings, over_grey: Case
    ) -> "asyncio.Task[Answer | None]":
        """One for all who want to know."""
        if (call := self._calls.get(key)) is None:
            # Not in the context of a request: its time and trace are its own.
            call = asyncio.create_task(self._said(key, worker, over_grey), context=Context())
            self._calls[key] = call
            call.add_done_callback(lambda _: self._calls.pop(key))
        return call

    async def _said(self, key: str, worker: WorkerSettings, over_grey: Case) -> Answer | None:
        if known := await self._known(worker, over_grey):  # somebody was quicker
            return known
        answer = await self._ask(worker, over_grey)
        if answer.error is not None:
            return None  # it is asked again when the question comes again
        await keep(self._store, key, answer)
        return answer

    def _ask_later(self, workers: Sequence[WorkerSettings], over_grey: Case) -> None:
        if self._closed or not self._settings.panel.grounding:
            return
        for worker in workers:
            if len(self._later) < MOST:
                self._later.setdefault(self._key(worker, over_grey), (worker, over_grey))
        if self._asking_later is None or self._asking_later.done():
            self._asking_later = asyncio.create_task(self._work_off(), context=Context())

    async def _work_off(self) -> None:
        while self._later:
            self._left.clear()
            waiting = self._later.items()
            free = next((key for key, (w, _) in waiting if not self._cases[w.name]), None)
            if free is None:
                await self._left.wait()
                continue
            worker, over_grey = self._later[free]
            try:
                # A case may wait for the same call, and close must not take it away.
                await asyncio.shield(self._call(free, worker, over_grey))
            finally:
                del self._later[free]
