"""A run's questions, asked over REST, as many at a time as the gateway takes."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import cache
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from consilium.case import case_json
from consilium.errors import GatewayError, GatewayRefused, GatewayUnreachable
from consilium.patience import Patience
from consilium.wire import JSON, bearer, no_verdict, read_reply, shown, trusts_env
from gateway.contract import PanelReport, Verdict
from gateway.refusals import Problem
from models.data.example import Example
from services.evaluation.score import is_right, is_settled
from services.evaluation.stored_run import EvaluationError, Outcome, Run, Verdicts

# A busy machine may be slow; what is measured here is what is said, not how fast.
DEADLINE_S = 300.0

Keep = Callable[[Example, Verdict | Problem], None]


@dataclass(frozen=True)
class Asking:
    """What a run asks of each case, of which gateway, and how hard it tries."""

    run: Run
    url: str
    concurrency: int  # questions under way, at most
    patience_s: float  # in which nothing has got through


class Pace:
    """How many calls may be under way: `most` at first; half as many once one is told to wait, and
    one more again for each round that got through (Chiu and Jain 1989: this finds a fair share)."""

    def __init__(self, most: int):
        self.most, self._limit = most, float(most)
        self._under_way = 0
        self._slowed_at = float("-inf")
        self._changed = asyncio.Condition()

    @property
    def at_a_time(self) -> int:
        return int(self._limit)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Waits until one more may be under way, which the block then is."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._under_way < self.at_a_time)
            self._under_way += 1
        try:
            yield
        finally:
            async with self._changed:
                self._under_way -= 1
                self._changed.notify_all()

    def got_through(self) -> None:
        self._limit = min(self._limit + 1 / self._limit, float(self.most))

    def slow_down(self, asked_at: float) -> None:
        """A call that was made at `asked_at` is to wait. Those that were under way with it fail
        with it: that is one reason to slow down, not many."""
        if asked_at >= self._slowed_at:
            self._limit = max(self._limit / 2, 1.0)
            self._slowed_at = time.monotonic()


class Tally(ProgressColumn):
    """What has come so far, in the line that shows how it goes."""

    def __init__(
        self,
        examples: Sequence[Example],
        outcomes: Mapping[str, Outcome],
        at_a_time: Callable[[], int],
    ):
        super().__init__()
        self._at_a_time = at_a_time
        self._right = self._scored = self._failed = 0
        for example in examples:
            if example.id in outcomes and not has_failed(outcomes[example.id]):
                self.add(example, outcomes[example.id])

    def add(self, example: Example, outcome: Outcome) -> None:
        if has_failed(outcome):
            self._failed += 1
        else:
            self._scored += 1
            self._right += is_right(outcome.answer, example)

    def render(self, task: Task) -> Text:
        share = f"{self._right / self._scored:.1%}" if self._scored else "–"
        return Text(
            f"{task.speed or 0:.1f}/s, {share} right, {self._failed} failed, "
            f"{self._at_a_time()} at a time"
        )


def panel_at(url: str) -> PanelReport:
    """What the gateway tells of its panel.

    Raises:
        EvaluationError: none answers there.
        GatewayError: it does not know this caller, or the caller's key cannot be sent.
    """
    try:
        headers, elsewhere = bearer(url), trusts_env(url)
    except GatewayUnreachable as error:
        raise EvaluationError(str(error)) from error
    try:
        response = httpx.get(
            f"{url.rstrip('/')}/panel", timeout=30, trust_env=elsewhere, headers=headers
        )
        return read_reply(response, PanelReport)
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise EvaluationError(str(no_verdict(url, error))) from error
    except (httpx.HTTPError, GatewayUnreachable) as error:
        mend = "is it up?" if elsewhere else "start one: make serve."
        raise EvaluationError(f"No gateway answers at {shown(url)}; {mend}") from error


def ask_all(examples: Sequence[Example], asking: Asking, outcomes: Verdicts) -> None:
    """Asks those that are open, and writes each outcome down at once.

    Raises:
        EvaluationError: the gateway does not know this caller, nothing has got through for
            `asking.patience_s`, an image cannot be read, or an outcome not be written.
    """
    pace = Pace(asking.concurrency)
    with progress(examples, asking.run, outcomes, lambda: pace.at_a_time) as (keep, tell):
        patience = Patience(asking.patience_s, tell)
        asyncio.run(ask_each(open_ones(examples, outcomes), asking, patience, pace, keep))


def open_ones(examples: Sequence[Example], outcomes: Mapping[str, Outcome]) -> list[Example]:
    """Those that are still to be asked, or again."""
    return [e for e in examples if e.id not in outcomes or not is_settled(outcomes[e.id])]


@contextmanager
def progress(
    examples: Sequence[Example], run: Run, outcomes: Verdicts, at_a_time: Callable[[], int]
) -> Iterator[tuple[Keep, Callable[[str], None]]]:
    """Shows how it goes; gives what writes an outcome down, and what tells of a wait.

    Raises:
        EvaluationError: what broke off the block, and how many are left.
    """
    tally = Tally(examples, outcomes, at_a_time)
    columns = TextColumn("asking"), BarColumn(10), MofNCompleteColumn(), TimeRemainingColumn()
    shown = Progress(*columns, tally, console=Console(stderr=True, markup=False, highlight=False))
    settled = len(examples) - len(open_ones(examples, outcomes))
    bar = shown.add_task("", total=len(examples), completed=settled)
    shown.advance(bar, 0)  # the first answers took time too: else so few look too fast

    def keep(example: Example, said: Verdict | Problem) -> None:
        tally.add(example, outcomes.keep(example.id, said))
        shown.advance(bar)

    with shown:
        try:
            yield keep, shown.console.print
        except (GatewayError, OSError) as error:
            left = sum(has_failed(outcomes.get(each.id)) for each in examples)
            raise EvaluationError(
                f"{error} {left} questions have no verdict yet; run the same command again to go "
                "on from here."
            ) from error


async def ask_each(
    examples: Iterable[Example], asking: Asking, patience: Patience, pace: Pace, keep: Keep
) -> None:
    """Asks them all, and keeps what came of each at once.

    Raises:
        GatewayError, OSError: one could not be asked, or kept; the others are broken off.
    """
    queue = iter(examples)

    async def ask_in_turn(http: aiohttp.ClientSession) -> None:
        for example in queue:
            keep(example, await _ask(http, example, asking, patience, pace))

    # Not httpx: it takes more of a processor for a call than all the rest of this.
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=pace.most),
        timeout=aiohttp.ClientTimeout(2 * DEADLINE_S),
        headers=JSON | bearer(asking.url),
        proxy=_proxy_to(asking.url),
    ) as http:
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(pace.most):
                    group.create_task(ask_in_turn(http))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None


def has_failed(outcome: Outcome | None) -> bool:
    """Whether there is no verdict, and may be one another time."""
    return outcome is None or (outcome.verdict is None and not is_settled(outcome))


async def _ask(
    http: aiohttp.ClientSession, example: Example, asking: Asking, patience: Patience, pace: Pace
) -> Verdict | Problem:
    """What came of a case, after what may pass has passed.

    Raises:
        GatewayError: it has not, or the gateway does not know this caller, or has taken another
            panel than the run's: the next case would fare no better.
    """
    fields = {
        "language": example.language,
        "choices": example.choices or None,
        "context": example.context,
        "views": example.views or None,
        "deadline_s": DEADLINE_S,
        "workers": asking.run.workers,
        "summarise": asking.run.summarise,
        "rounds": asking.run.rounds,
    }
    try:
        body = case_json(example.images, example.question, fields)
    except OSError as error:
        raise OSError(
            f"{error.filename} cannot be read any more ({error.strerror}): put it back."
        ) from error
    while True:
        await asyncio.sleep(patience.wait_s)
        async with pace.turn():
            if patience.wait_s:
                continue  # another was told to wait, while this one waited for its turn
            asked_at = time.monotonic()
            try:
                said: Verdict | Problem = await _post(http, asking, body)
            except GatewayError as error:
                if error.may_pass:
                    pace.slow_down(asked_at)
                if patience.goes_on(error, asked_at):
                    continue
                if not isinstance(error, GatewayRefused) or error.problem.status in (401, 403):
                    raise
                said = Problem.model_validate(error.problem.model_dump())
                if error.may_pass and said.answers:  # what the others said counts
                    return said
                if error.may_pass:
                    raise
            patience.got_through()
            pace.got_through()
            return said


async def _post(http: aiohttp.ClientSession, asking: Asking, body: bytes) -> Verdict:
    url = asking.url
    try:
        # Not on to another address: a case would become a GET there, without its body.
        where = f"{url.rstrip('/')}/vqa"
        async with http.post(where, data=body, allow_redirects=False) as response:
            content = await response.read()
    except (aiohttp.ClientError, OSError) as error:
        raise no_verdict(url, error) from error
    status, headers, request = response.status, response.headers, _request_to(url)
    # Before what it says is taken for this run's, a refusal too; a proxy's page names no panel.
    if headers.get("consilium-panel", asking.run.panel) != asking.run.panel:
        raise GatewayError(
            "The gateway has another panel now than this run began with: put that panel file back, "
            "or give a new --out."
        )
    return read_reply(
        httpx.Response(status, headers=headers, content=content, request=request), Verdict
    )


def _proxy_to(url: str) -> str | None:
    """The environment's, as the client goes by it. Not aiohttp's own way, which sends what ~/.netrc
    holds as well."""
    parts, proxies = httpx.URL(url), getproxies()
    if not trusts_env(url) or proxy_bypass(parts.netloc.decode()):
        return None
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    return f"http://{proxy}" if proxy and "://" not in proxy else proxy


@cache
def _request_to(url: str) -> httpx.Request:
    """Once for all: to make one takes as long as to read a verdict."""
    return httpx.Request("POST", url)
