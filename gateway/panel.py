"""Ask the workers of a case, in parallel: the one place that knows deadlines and the quorum.

A worker's failure is a typed value in its answer. It never reads like an answer, and it never
fails the case by itself.
"""

import asyncio
import time
from typing import Any

import httpx

from gateway.contract import (
    Answer,
    AnswerError,
    Case,
    InvalidCase,
    TooFewAnswers,
    UnreadableImage,
)
from gateway.model_server import UNREADABLE, CallFailed, answer_bounds, complete
from gateway.settings import Settings, WorkerSettings
from gateway.verdict import meaning

MAX_ANSWER_TOKENS = 32


async def consult(case: Case, settings: Settings, http: httpx.AsyncClient) -> tuple[Answer, ...]:
    """Ask every chosen worker; return one answer or failure each, in the panel's order.

    Raises InvalidCase when nobody on the panel can take the case, UnreadableImage when all who
    were asked say so, TooFewAnswers below the quorum.
    """
    chosen = _chosen(case, settings)
    eligible = [worker for worker in chosen if _why_not(worker, case) is None]
    if not eligible:
        raise InvalidCase(_nobody_can_take_it(case, chosen))
    answers = tuple(
        await asyncio.gather(*(_ask(worker, case, settings, http) for worker in chosen))
    )
    _check_quorum(answers, needed=min(settings.panel.quorum, len(eligible)))
    return answers


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


async def _ask(
    worker: WorkerSettings, case: Case, settings: Settings, http: httpx.AsyncClient
) -> Answer:
    if reason := _why_not(worker, case):
        error = AnswerError(kind="not_eligible", detail=reason)
        return Answer(worker=worker.name, seconds=0, error=error)
    deadline_s = case.options.deadline_s or settings.panel.deadline_s
    began = time.perf_counter()
    text: str | None = None
    confidence: float | None = None
    problem: AnswerError | None = None
    try:
        async with asyncio.timeout(deadline_s):
            completion = await complete(http, worker.url, _request(worker, case))
        text, confidence = _allowed(completion.text, case), completion.confidence
    except TimeoutError:
        problem = AnswerError(kind="timeout", detail=f"No answer within {deadline_s:g} s.")
    except CallFailed as failure:
        problem = failure.error
    return Answer(
        worker=worker.name,
        text=text,
        confidence=confidence,
        seconds=time.perf_counter() - began,
        error=problem,
    )


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
