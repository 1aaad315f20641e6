"""Ask the workers of a case, in parallel: the one place that knows who is asked, deadlines, the
quorum, who rests after failing, when enough has been heard, and the second round.

A worker's failure is a typed value in its answer. It never reads like an answer, and it never
fails the case by itself.
"""

import asyncio
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from gateway.case import Case
from gateway.contract import (
    Answer,
    AnswerError,
    ErrorKind,
    InvalidCase,
    Language,
    TooFewAnswers,
    UnreadableImage,
)
from gateway.model_server import UNREADABLE, CallFailed, Http, answer_bounds, complete
from gateway.settings import Settings, WorkerSettings
from gateway.store.memory import Store, answer_key, keep, recall, salt_of
from gateway.verdict.competence import Cell
from gateway.verdict.meaning import meaning
from gateway.verdict.weigh import Judge, in_case_order
from gateway.watch.metrics import Metrics
from gateway.watch.tracing import span

OTHERS_SAID: dict[Language, str] = {
    "en": "{question} Other readers said: {others}.",
    "es": "{question} Otros lectores dijeron: {others}.",
    "zh": "{question} 其他医生的回答：{others}。",
}
MAX_ANSWER_TOKENS = 32
TOP_LOGPROBS = 10
GRACE_S = 0.05  # for those who are about to answer when the others have decided
FAILURES_BEFORE_REST = 3
REST_S = 10.0


class Panel:
    """The workers of `settings`, and how each has fared in the cases so far."""

    def __init__(self, settings: Settings, http: Http, store: Store, metrics: Metrics):
        self.settings, self.http, self.store, self.metrics = settings, http, store, metrics
        self._breakers = {worker.name: Breaker() for worker in settings.workers}

    def judge(self, case: Case) -> Judge:
        """Who weighs the answers to a case of this kind."""
        return Judge(self.settings.families, Cell.of(case), self.settings.competence)

    async def consult(self, case: Case, tell: Callable[[Answer], None]) -> tuple[Answer, ...]:
        """One answer or failure from every chosen worker, in the panel's order, and then those of
        the second round, if there was one; `tell` is called with each as it comes in.

        Raises InvalidCase when nobody on the panel can take the case, UnreadableImage when all who
        were asked say so, TooFewAnswers below the quorum.
        """
        began = time.monotonic()
        asked, left_out = self._eligible(case)
        for answer in left_out:
            tell(answer)
        needed = min(self.settings.panel.quorum, len(asked))
        answers = self._in_order([*left_out, *await self._first_round(case, asked, needed, tell)])
        _check_quorum(answers, needed)
        said = [answer for answer in answers if answer.text is not None]
        if case.options.rounds == 2 and len({meaning(a.text or "") for a in said}) > 1:
            left_s = self._deadline_s(case) - (time.monotonic() - began)
            answers += await self._second_round(case, said, left_s, tell)
        return answers

    async def _first_round(
        self,
        case: Case,
        asked: Sequence[WorkerSettings],
        needed: int,
        tell: Callable[[Answer], None],
    ) -> list[Answer]:
        """Everybody at once; stops early where the case does not wait for all."""
        calls = {asyncio.create_task(self._ask(worker, case)): worker for worker in asked}
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
                    tell(heard[-1])
                missing = [calls[call].name for call in open_calls]
                if case.options.wait == "enough" and self._is_enough(case, heard, needed, missing):
                    give_up_at = min(give_up_at, time.monotonic() + GRACE_S)
            for call in open_calls:
                heard.append(_failure(calls[call], "not_needed", "The others had decided."))
                tell(heard[-1])
        finally:
            for call in calls:
                call.cancel()
        return heard

    async def _second_round(
        self,
        case: Case,
        said: Sequence[Answer],
        left_s: float,
        tell: Callable[[Answer], None],
    ) -> tuple[Answer, ...]:
        """Everybody who answered reads what the others said, and may think again (after Du et al.
        2023, arXiv 2305.14325). Who fails now is taken at the first word."""

        async def ask_again(own: Answer) -> Answer:
            others = in_case_order(case, [a.text or "" for a in said if a is not own])
            discussed = replace(case, question=_with_others(case, others))
            answer = await self._ask(seats[own.worker], discussed, left_s)
            answer = answer.model_copy(update={"round": 2})
            tell(answer)
            return answer

        seats = {worker.name: worker for worker in self.settings.workers}
        async with asyncio.TaskGroup() as group:
            calls = [group.create_task(ask_again(answer)) for answer in said]
        return tuple(call.result() for call in calls)

    def _in_order(self, answers: Sequence[Answer]) -> tuple[Answer, ...]:
        seats = [worker.name for worker in self.settings.workers]
        return tuple(sorted(answers, key=lambda answer: seats.index(answer.worker)))

    def _is_enough(
        self, case: Case, heard: list[Answer], needed: int, missing: Sequence[str]
    ) -> bool:
        """Whether nobody needs to be waited for: the quorum is there, and its mind made up."""
        answered = [answer for answer in heard if answer.text is not None]
        return len(answered) >= needed and self.judge(case).is_decided(answered, missing)

    def _eligible(self, case: Case) -> tuple[list[WorkerSettings], list[Answer]]:
        """Who is asked; and of the others that were chosen, why they are not."""
        chosen = _chosen(case, self.settings)
        reasons = {w.name: reason for w in chosen if (reason := _why_not(w, case))}
        able = [worker for worker in chosen if worker.name not in reasons]
        if not able:
            raise InvalidCase(_nobody_can_take_it(case, chosen))
        if case.options.workers is None:
            reasons |= _outranked(case, able, self.settings)
        asked = [worker for worker in chosen if worker.name not in reasons]
        left_out = [
            _failure(worker, "not_eligible", reasons[worker.name])
            for worker in chosen
            if worker.name in reasons
        ]
        return asked, left_out

    def _deadline_s(self, case: Case) -> float:
        return case.options.deadline_s or self.settings.panel.deadline_s

    async def _ask(self, worker: WorkerSettings, case: Case, left_s: float | None = None) -> Answer:
        """What the worker says, or said not long ago to the very same."""
        key = answer_key(case, worker.model_dump_json(), self.settings.secret_bytes)
        began = time.perf_counter()
        known = await recall(self.store, key, Answer)
        if known is not None:
            self.metrics.recalled.labels("answer").inc()
            return known.model_copy(update={"seconds": time.perf_counter() - began})
        with span("ask", worker=worker.name) as asking:
            answer = await self._ask_anew(worker, case, left_s)
            asking.set_attribute("outcome", answer.error.kind if answer.error else "answered")
        self.metrics.heard(answer)
        if answer.error is None:
            await keep(self.store, key, answer)
        return answer

    async def _ask_anew(self, worker: WorkerSettings, case: Case, left_s: float | None) -> Answer:
        breaker = self._breakers[worker.name]
        if seconds := breaker.rests_for(time.monotonic()):
            detail = f"It kept failing, and rests for {seconds:.0f} s."
            return _failure(worker, "unreachable", detail)
        body = _request(worker, case, self.settings.secret_bytes)
        whole_s = max(self._deadline_s(case) if left_s is None else left_s, 0.0)
        deadline_s = min(whole_s, worker.deadline_s or whole_s)
        began = time.perf_counter()
        try:
            async with asyncio.timeout(deadline_s):
                completion = await complete(self.http, worker.url, *body)
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


def _outranked(case: Case, able: Sequence[WorkerSettings], settings: Settings) -> dict[str, str]:
    """Of more than `k`, those who are right less often in such cases than the best `k`; never the
    generalist, who sits beside them (routed and shared experts: DeepSeekMoE, arXiv 2401.06066)."""
    competence, k = settings.competence, settings.panel.k
    if competence is None or k == "all":
        return {}
    cell = Cell.of(case)
    routed = [worker for worker in able if worker.name != settings.panel.generalist]
    accuracy = {w.name: competence.workers[w.name].skill(cell).accuracy for w in routed}
    ranked = sorted(accuracy, key=lambda name: -accuracy[name])
    return {
        name: f"In such cases it is right in {accuracy[name]:.0%}, and {k} others "
        f"in {accuracy[ranked[k - 1]]:.0%} or more."
        for name in ranked[k:]
    }


def _with_others(case: Case, others: Sequence[str]) -> str:
    return OTHERS_SAID[case.language].format(
        question=case.question, others="; ".join(" ".join(text.split()) for text in others)
    )


def _nobody_can_take_it(case: Case, chosen: list[WorkerSettings]) -> str:
    serves = "; ".join(
        f"{worker.name}: {', '.join(worker.languages)}, up to {worker.max_images} image(s)"
        for worker in chosen
    )
    return f"No worker takes {len(case.images)} image(s) in {case.language}. Served: {serves}."


def _request(worker: WorkerSettings, case: Case, secret: bytes) -> tuple[bytes, ...]:
    """The body in parts. An encoder would read, and a join copy, each image for each worker."""
    question = f"{case.context}\n{case.question}" if case.context else case.question
    text = {"type": "text", "text": worker.prompt.format(question=question)}
    fields = {
        "model": worker.name,
        "temperature": 0,
        "logprobs": True,
        "top_logprobs": TOP_LOGPROBS,
        "cache_salt": salt_of(case.tenant, secret),
        **answer_bounds(case, MAX_ANSWER_TOKENS),
    }
    head = json.dumps(fields)[:-1] + ', "messages": [{"role": "user", "content": ['
    images = [piece for image in case.images for piece in (image.part, b", ")]
    return head.encode(), *images, json.dumps(text).encode() + b"]}]}"


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
