"""Shadow seats: candidates who are asked, behind a verdict, what the panel was asked. They are
compared with the verdict and with what readers say of it; they count for nothing, and no case
waits for them.
"""

import asyncio
from collections import Counter, deque
from contextvars import Context

from gateway.asking.panel import Panel
from gateway.case import Case
from gateway.contract import Answer, Verdict
from gateway.store.readers import Readers
from gateway.verdict.weigh import Judge
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
            judge, secret = panel.judge(case), panel.settings.secret_bytes
            for seat, answer in enumerate(await panel.ask_shadows(case), 1):
                if answer.text is not None:
                    told = _place(answer, verdict, judge)
                    # What nobody else says is of that shadow alone.
                    place = len(verdict.dissent) + seat if told is None else told
                    self._compared(answer.worker, place == 0)
                    self._readers.shadowed(case, verdict, answer, place, secret)

    def _compared(self, shadow: str, agrees: bool) -> None:
        self.agreed[shadow, agrees] += 1
        self._metrics.shadow.labels(shadow, "yes" if agrees else "no").inc()


def _place(answer: Answer, verdict: Verdict, judge: Judge) -> int | None:
    """Of those who claim what it claims, as `stands` has it; None where nobody does."""
    voices = [voice for voice in verdict.answers if voice.weight is not None]
    dissent = {other.text: at for at, other in enumerate(verdict.dissent, 1)}
    shared = []
    for backings in judge.grouped([*voices, answer]).values():
        if len(backings) > 1 and backings[-1].answer is answer:
            shared.append(max(dissent.get(backing.text, 0) for backing in backings[:-1]))
    return min(shared, default=None)
