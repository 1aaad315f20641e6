"""Ask the workers of a case, in parallel: the one place that knows deadlines, the quorum, who rests
after failing, and when enough has been heard.

A worker's failure is a typed value in its answer. It never reads like an answer, and it never
fails the case by itself.
"""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import httpx

from gateway.contract import (
    Answer,
    AnswerError,
    Case,
    ErrorKind,
    InvalidCase,
    TooFewAnswers,
    UnreadableImage,
)
from gateway.meaning import meaning
from gateway.model_server import UNREADABLE, CallFailed, answer_bounds, complete
from gateway.settings import Settings, WorkerSettings
from gateway.verdict import is_decided

MAX_ANSWER_TOKENS = 32
TOP_LOGPROBS = 10
GRACE_S = 0.05  # for those who are about to answer when the others have decided
FAILURES_BEFORE_REST = 3
REST_S = 10.0


class Panel:
    """The workers of `settings`, and how each has fared in the cases so far."""

    def __init__(self, settings: Settings, http: httpx.AsyncClient):
        self.settings, self.http = settings, http
        self._breakers = {worker.name: Breaker() for worker in settings.workers}

    async def consult(self, case: Case, tell: Callable[[Answer], None]) -> tuple[Answer, ...]:
        """One answer or failure from every chosen worker, in the panel's order; `tell` is called
        with each as it comes in.

        Raises InvalidCase when nobody on the panel can take the case, UnreadableImage when all who
        were asked say so, TooFewAnswers below the quorum.
        """
        found: dict[str, Answer] = {}
        async with aclosing(self._hear(case)) as arriving:
            async for answer in arriving:
                found[answer.worker] = answer
                tell(answer)
        answers = tuple(found[worker.name] for worker in _chosen(case, self.settings))
        _check_quorum(answers, self._needed(case))
        return answers

    async def _hear(self, case: Case) -> AsyncGenerator[Answer, None]:
        """Answers and failures as they come in; closed early, it cancels every open call."""
        eligible = self._eligible(case)
        for worker in _chosen(case, self.settings):
            if reason := _why_not(worker, case):
                yield _failure(worker, "not_eligible", reason)
        calls = {asyncio.create_task(self._ask(worker, case)): worker for worker in eligible}
        heard: list[Answer] = []
        open_calls = set(calls)
        give_up_at = math.inf
        try:
            while open_calls:
                patience = None if math.isinf(give_up_at) else give_up_at - time.monotonic()
                done, open_calls = await asyncio.wait(
                    open_calls, timeout=patience, return_when=asyncio.FIRST_COMPLETED
                )
                if not done:
                    break
                for call in done:
                    heard.append(call.result())
                    yield heard[-1]
                if self._is_enough(case, heard, len(open_calls)):
                    give_up_at = min(give_up_at, time.monotonic() + GRACE_S)
            for call in open_calls:
                yield _failure(calls[call], "not_needed", "The others had decided.")
        finally:
            for call in calls:
                call.cancel()

    def _is_enough(self, case: Case, heard: list[Answer], missing: int) -> bool:
        """Whether nobody needs to be waited for: the quorum is there, and its mind made up."""
        answered = [answer for answer in heard if answer.text is not None]
        return (
            case.options.wait == "enough"
            and len(answered) >= self._needed(case)
            and is_decided(answered, missing)
        )

    def _needed(self, case: Case) -> int:
        return min(self.settings.panel.quorum, len(self._eligible(case)))

    def _eligible(self, case: Case) -> list[WorkerSettings]:
        chosen = _chosen(case, self.settings)
        eligible = [worker for worker in chosen if _why_not(worker, case) is None]
        if not eligible:
            raise InvalidCase(_nobody_can_take_it(case, chosen))
        return eligible

    async def _ask(self, worker: WorkerSettings, case: Case) -> Answer:
        breaker = self._breakers[worker.name]
        if seconds := breaker.rests_for(time.monotonic()):
            detail = f"It kept failing, and rests for {seconds:.0f} s."
            return _failure(worker, "unreachable", detail)
        whole_s = case.options.deadline_s or self.settings.panel.deadline_s
        deadline_s = min(whole_s, worker.deadline_s or whole_s)
        began = time.perf_counter()
        try:
            async with asyncio.timeout(deadline_s):
                completion = await complete(self.http, worker.url, _request(worker, case))
            text = _allowed(completion.text, case)
        except TimeoutError:
            # A caller who gives it no time must not take it from everybody else.
            if deadline_s >= min(self.settings.panel.deadline_s, worker.deadline_s or math.inf):
                breaker.failed(time.monotonic())
            detail = f"No answer within {deadline_s:g} s."
            return _failure(worker, "timeout", detail, time.perf_counter() - began)
        except CallFailed as failure:
            kind, detail = failure.error.kind, failure.error.detail
            if kind != "refused":  # that may be the caller's doing
                breaker.failed(time.monotonic())
            return _failure(worker, kind, detail, time.perf_counter() - began)
        breaker.answered()
        return Answer(
            worker=worker.name,
            text=text,
            confidence=completion.confidence,
            alternatives=completion.alternatives,
            seconds=time.perf_counter() - began,
        )


@dataclass
class Breaker:
    """Lets a worker rest that failed again and again; then one case at a time may try it."""

    failures: int = 0
    asked_again_at: float = -math.inf

    def rests_for(self, now: float) -> float:
        """Seconds until it may be asked; 0 is now, and whoever hears that is to ask it."""
        if self.failures < FAILURES_BEFORE_REST:
            return 0.0
        if now < self.asked_again_at:
            return self.asked_again_at - now
        self.asked_again_at = now + REST_S
        return 0.0

    def failed(self, now: float) -> None:
        self.failures += 1
        self.asked_again_at = now + REST_S

    def answered(self) -> None:
        self.failures = 0


def _failure(worker: WorkerSettings, kind: ErrorKind, detail: str, seconds: float = 0) -> Answer:
    error = AnswerError(kind=kind, detail=detail)
    return Answer(worker=worker.name, seconds=seconds, error=error)


def _chosen(case: Case, settings: Settings) -> list[WorkerSettings]:
    wanted = case.options.workers
    if wanted is None:
        return list(settings.workers)
    seated = [worker.name for worker in settings.workers]
    if not set(wanted) <= set(seated):
        raise InvalidCase(f"options.workers: only these workers are seated: {', '.join(seated)}.")
    return [worker for worker in settings.workers if worker.name in wanted]


def _why_not(worker: WorkerSettings, case: Case) -> str | None:
    if case.language not in worker.languages:
        return f"It answers in {', '.join(worker.languages)}."
    if len(case.images) > worker.max_images:
        return f"It takes {worker.max_images} image(s) at most."
    return None


def _nobody_can_take_it(case: Case, chosen: list[WorkerSettings]) -> str:
    serves = "; ".join(
        f"{worker.name}: {', '.join(worker.languages)}, up to {worker.max_images} image(s)"
        for worker in chosen
    )
    return f"No worker takes {len(case.images)} image(s) in {case.language}. Served: {serves}."


def _request(worker: WorkerSettings, case: Case) -> dict[str, Any]:
    question = f"{case.context}\n{case.question}" if case.context else case.question
    parts: list[dict[str, Any]] = [
        {"type": "image_url", "image_url": {"url": image.data_uri}} for image in case.images
    ]
    parts.append({"type": "text", "text": worker.prompt.format(question=question)})
    return {
        "model": worker.name,
        "messages": [{"role": "user", "content": parts}],
        "temperature": 0,
        "logprobs": True,
        "top_logprobs": TOP_LOGPROBS,
        **answer_bounds(case, MAX_ANSWER_TOKENS),
    }


def _allowed(text: str, case: Case) -> str:
    """The answer, in the caller's own spelling where the caller named the choices."""
    if case.choices is None:
        return text
    for choice in case.choices:
        if meaning(choice) == meaning(text):
            return choice
    raise CallFailed(AnswerError(kind="garbage", detail="Its answer is not one of the choices."))


def _check_quorum(answers: tuple[Answer, ...], needed: int) -> None:
    failures = {a.worker: a.error for a in answers if a.error and a.error.kind != "not_eligible"}
    answered = sum(answer.text is not None for answer in answers)
    if not answered and all(error == UNREADABLE for error in failures.values()):
        raise UnreadableImage("No worker could read the image. Send it as an 8-bit PNG.")
    if answered < needed:
        reasons = " ".join(f"{worker}: {error.detail}" for worker, error in failures.items())
        remedy = "Try again later."
        if all(error.kind == "refused" for error in failures.values()):
            # What every server refuses is most often longer than it can hold.
            remedy = "A shorter question or context may be taken."
        detail = f"{answered} of the {needed} answers that are needed. {reasons} {remedy}"
        raise TooFewAnswers(detail, answers)
