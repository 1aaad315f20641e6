"""Shadow seats: candidates who are asked, behind a verdict, what the panel was asked. They are
compared with the verdict and with what readers say of it; they count for nothing, and no case
waits for them.
"""

import asyncio
from collections import Counter, deque
from contextvars import Context

from gateway.case import Case
from gateway.contract import Answer, Verdict
from gateway.panel import Panel
from gateway.store.readers import Readers, stands
from gateway.verdict.meaning import meaning
from gateway.watch.metrics import Metrics

MOST = 16  # cases that wait, with their images; what is more is not brought to a shadow


class Shadows:
    """Of one gateway, whichever panel is at work. `agreed` counts by worker, and whether it agreed
    with the verdict, since the gateway started."""

    def __init__(self, metrics: Metrics, readers: Readers):
        self._metrics, self._readers = metrics, readers
        self._waiting = deque[tuple[Case, Verdict, Panel]]()
        self._working: asyncio.Task[None] | None = None
        self.agreed = Counter[tuple[str, bool]]()

    def ask(self, case: Case, verdict: Verdict, panel: Panel) -> None:
        """Later, and of a new verdict of the whole panel alone."""
        whole = case.options.workers is None and not verdict.cached
        if not panel.settings.shadows or not whole or len(self._waiting) >= MOST:
            return
        self._waiting.append((case, verdict, panel))
        if self._working is None or self._working.done():
            # Not in the context of a request: its time and trace are its own.
            self._working = asyncio.create_task(self._work_off(), context=Context())

    def close(self) -> None:
        if self._working:
            self._working.cancel()

    async def _work_off(self) -> None:
        while self._waiting:
            case, verdict, panel = self._waiting.popleft()
            for answer in await panel.ask_shadows(case):
                if answer.text is not None:
                    self._compare(case, verdict, answer, panel.settings.secret_bytes)

    def _compare(self, case: Case, verdict: Verdict, answer: Answer, secret: bytes) -> None:
        meant = meaning(answer.text or "", case.language, case.question)
        told = stands(verdict)
        same = (
            cluster
            for cluster, text in told.values()
            if meaning(text, case.language, case.question) == meant
        )
        cluster = next(same, len(verdict.dissent) + 1)
        self.agreed[answer.worker, cluster == 0] += 1
        self._metrics.shadow.labels(answer.worker, "no" if cluster else "yes").inc()
        self._readers.shadowed(case, verdict, answer, cluster, secret)
