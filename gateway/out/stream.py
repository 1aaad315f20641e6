"""One case as events: `answer` and `failure` as they come in, each followed by how the
vote stands (`provisional`), and at last `verdict`, or `problem` where there is none.

A reader's pace is his own: what he has not read yet waits here, and the panel does not.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Literal

from gateway.asking.panel import Panel
from gateway.case import Case
from gateway.contract import Answer, Provisional, Verdict
from gateway.refusals import Problem, Refused
from gateway.store.flights import Tell

QUALITY = re.compile(r"0(\.\d{0,3})?|1(\.0{0,3})?")
Ask = Callable[[Tell], Coroutine[Any, Any, Verdict]]


@dataclass(frozen=True)
class Event:
    name: Literal["answer", "failure", "provisional", "verdict", "problem"]
    content: Answer | Provisional | Verdict | Problem


def is_preferred(accept: str) -> bool:
    """Whether an Accept header would rather have events than JSON (RFC 9110 section 12.5.1): by
    quality, and where that is the same, by which of them it names. What is malformed counts for
    nothing."""
    return _wish(accept, "text/event-stream") > _wish(accept, "application/json")


def _wish(accept: str, kind: str) -> tuple[float, int]:
    """Quality of the most specific range that holds a media type, and how specific that is."""
    ranges = (kind, kind.partition("/")[0] + "/*", "*/*")
    found = (0.0, -len(ranges))
    for each in accept.lower().split(","):
        name, *parameters = (part.strip() for part in each.split(";"))
        quality = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        if name in ranges and QUALITY.fullmatch(quality):
            found = max(found, (float(quality), -ranges.index(name)), key=lambda wish: wish[1])
    return found if found[0] else (0.0, 0)


async def opened(case: Case, panel: Panel, ask: Ask) -> AsyncGenerator[Event, None]:
    """The events of `ask`, which is called at once. Its work ends with the stream.

    Raises Refused where there is nothing to stream: until the first event a refusal is a plain
    response, with its own status.
    """
    arriving: asyncio.Queue[Answer | None] = asyncio.Queue()
    asking = asyncio.create_task(ask(arriving.put_nowait))
    asking.add_done_callback(lambda _: arriving.put_nowait(None))
    try:
        first = await arriving.get()
    except asyncio.CancelledError:
        asking.cancel()
        raise
    if first is None:
        await asking  # it has ended without a word: refused, or answered out of the store
    return _events(case, panel, first, arriving, asking)


async def _events(
    case: Case,
    panel: Panel,
    first: Answer | None,
    arriving: asyncio.Queue[Answer | None],
    asking: asyncio.Task[Verdict],
) -> AsyncGenerator[Event, None]:
    judge = panel.judge(case)
    seats = [worker.name for worker in panel.settings.workers]
    heard: list[Answer] = []
    asked = len(set(case.options.workers or seats))
    answer = first
    try:
        while answer is not None:
            heard.append(answer)
            yield Event("answer" if answer.error is None else "failure", answer)
            if any(each.text is not None for each in heard):
                # In the panel's order, as the verdict will weigh them.
                ordered = sorted(heard, key=lambda each: (each.round, seats.index(each.worker)))
                opinion = judge.weigh(ordered)
                stands = Provisional(
                    answer=opinion.winner.text,
                    workers=opinion.winner.workers,
                    agreement=opinion.agreement,
                    heard=len({each.worker for each in heard}),
                    asked=asked,
                )
                yield Event("provisional", stands)
            answer = await arriving.get()
        try:
            yield Event("verdict", await asking)
        except Refused as refused:
            yield Event("problem", refused.problem())
    finally:
        asking.cancel()


async def as_sse(events: AsyncGenerator[Event, None]) -> AsyncGenerator[bytes, None]:
    """The events as `text/event-stream`."""
    async for event in events:
        yield f"event: {event.name}\ndata: {event.content.model_dump_json()}\n\n".encode()
