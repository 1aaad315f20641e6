"""Ask the workers of a case, in parallel: the one place that knows who is asked, deadlines, the
quorum, when enough has been heard, and the second round.

A worker's failure is a typed value in its answer. It never reads like an answer, and it never
fails the case by itself.
"""

import asyncio
import json
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial

from gateway.asking.each_image import as_one, in_its_own_words, one_by_one
from gateway.asking.grey import GREY, OverGrey
from gateway.asking.model_server import (
    UNREADABLE,
    CallFailed,
    Completion,
    Http,
    ServerFailed,
    TooLong,
    answer_bounds,
    as_answer,
    complete,
)
from gateway.asking.replicas import Replicas
from gateway.case import Case
from gateway.contract import Answer, AnswerError, ErrorKind, Language, Options
from gateway.refusals import InvalidCase, TooFewAnswers, UnreadableImage
from gateway.settings import Settings
from gateway.store.memory import Store, answer_key, keep, mark_of, recall, salt_of
from gateway.tables import WorkerSettings
from gateway.verdict.competence import Cell
from gateway.verdict.weigh import Judge, in_case_order
from gateway.watch.metrics import Metrics
from gateway.watch.tracing import span

OTHERS_SAID: dict[Language, str] = {
    "en": " Other readers said: {others}.",
    "es": " Otros lectores dijeron: {others}.",
    "zh": " 其他医生的回答：{others}。",
}
# What an image is, of several by its number.
VIEW: dict[Language, tuple[str, str]] = {
    "en": ("Image: {view}.", "Image {number}: {view}."),
    "es": ("Imagen: {view}.", "Imagen {number}: {view}."),
    "zh": ("图像：{view}。", "图像{number}：{view}。"),
}
MAX_ANSWER_TOKENS = 128  # some sentences: an answer that is cut short is none
TOP_LOGPROBS = 10
GRACE_S = 0.05  # for those who are about to answer when the others have decided
ONE_BY_ONE = "It sees one image at a time, and the question is about several or about none of them."
NONE_OF_THEM = AnswerError(
    kind="refused", detail="It knows none of the choices, or failed (HTTP 500)."
)
DOUBTED_AFTER = 0.4  # of a case's time; and as much again for the gateway's own question
LOOK_S = 10.0  # at most
TRY_AGAIN_S = 2  # where nobody rests: a case takes about as long

# What a worker is asked in order to know whether it answers.
OWN_CASE = Case(
    id="own",
    question="Is this a picture?",
    images=(GREY,),
    language="en",
    context=None,
    choices=None,
    options=Options(),
    tenant="",
)


class Panel:
    """The workers of `settings`, and who of them rests; `resting` rest already, of each worker the
    servers at these urls."""

    def __init__(
        self,
        settings: Settings,
        http: Http,
        store: Store,
        metrics: Metrics,
        resting: Mapping[str, Collection[str]],
    ):
        self.settings, self.http, self.store, self.metrics = settings, http, store, metrics
        self.servers = {
            worker.name: Replicas(
                worker,
                http,
                metrics,
                partial(self._is_well, worker),
                self._own_s(worker),
                partial(self._warn, worker.name),
                resting.get(worker.name, ()),
            )
            for worker in settings.seats
        }
        self._warnings = set[asyncio.Task[None]]()
        self._seats = {worker.name: worker.model_dump_json() for worker in settings.seats}
        ask_anew = partial(self._ask_anew, left_s=None)
        self._over_grey = OverGrey(settings, store, ask_anew, self._key)

    def resting(self) -> dict[str, float]:
        """Who rests, and in how many seconds it is looked at again."""
        rests = {name: servers.rests_s for name, servers in self.servers.items()}
        return {name: seconds for name, seconds in rests.items() if seconds is not None}

    def rest(self, mark: str) -> None:
        """Another gateway has found that the server of that mark answers nobody."""
        for worker in self.settings.seats:
            for url in worker.urls:
                if self._mark(worker.name, url) == mark:
                    self.servers[worker.name].rest(url)

    def _warn(self, name: str, url: str) -> None:
        warning = asyncio.create_task(self.store.warn(self._mark(name, url)))
        self._warnings.add(warning)  # the loop itself would not keep it
        warning.add_done_callback(self._warnings.discard)

    def _mark(self, name: str, url: str) -> str:
        return mark_of("server", [name, url], self.settings.secret_bytes)

    def doubt_the_silent(self) -> None:
        """Somebody wants to know how they are: who has not been heard for a while is asked."""
        for servers in self.servers.values():
            servers.doubt_the_silent()

    def close(self) -> None:
        """Another panel takes its place; open cases are still answered."""
        for servers in self.servers.values():
            servers.close()
        self._over_grey.close()

    def judge(self, case: Case) -> Judge:
        """Who weighs the answers to a case of this kind."""
        known = self.settings.competence
        chosen = case.choices is not None
        about = in_its_own_words(case)
        return Judge(self.settings.families, Cell.of(about), known, about.question, chosen)

    async def consult(self, case: Case, tell: Callable[[Answer], None]) -> tuple[Answer, ...]:
        """One answer or failure from every chosen worker, in the panel's order, and then those of
        the second round, if there was one; `tell` is called with each as it comes in.

        Raises InvalidCase when nobody on the panel can take the case, or it is too long for all,
        UnreadableImage when all who were asked say so, TooFewAnswers below the quorum.
        """
        began = time.monotonic()
        asked, left_out = self._eligible(case)
        for answer in left_out:
            tell(answer)
        needed = min(self.settings.panel.quorum, len(asked))
        answers = self._in_order([*left_out, *await self._first_round(case, asked, needed, tell)])
        self._check_quorum(case, answers, needed)
        said = [answer for answer in answers if answer.text is not None]
        if case.options.rounds == 2 and not self.judge(case).weigh(said).unanimous:
            left_s = self._deadline_s(case) - (time.monotonic() - began)
            answers += await self._second_round(case, said, left_s, tell)
        return answers

    async def ask_shadows(self, case: Case) -> Sequence[Answer]:
        """What the shadows who can take the case say to it, or why they do not."""
        settings = self.settings
        able = [worker for worker in settings.shadows if _why_not(worker, case, settings) is None]
        deadline_s = settings.panel.deadline_s  # whatever a caller gives his own
        return await asyncio.gather(*(self._ask(worker, case, deadline_s) for worker in able))

    async def grounding(
        self, case: Case, answers: Sequence[Answer], asked_at: float
    ) -> float | None:
        """How far the answers depend on the case's images, 0 to 1; None where that is not known.
        A case that wants to wait for it has its deadline from `asked_at`, a time.monotonic()."""
        left_s = self._deadline_s(case) - (time.monotonic() - asked_at)
        return await self._over_grey.grounding(case, answers, left_s)

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
            discussed = replace(case, others=tuple(others))
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
        settings = self.settings
        reasons = {w.name: reason for w in chosen if (reason := _why_not(w, case, settings))}
        able = [worker for worker in chosen if worker.name not in reasons]
        if not able:
            raise _nobody_takes(case, chosen, settings)
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
        key = self._key(worker, case)
        began = time.perf_counter()
        known = await recall(self.store, key, Answer)
        if known is not None:
            self.metrics.recalled.labels("answer").inc()
            return known.model_copy(update={"seconds": time.perf_counter() - began})
        with self._over_grey.waited_for(worker.name), span("ask", worker=worker.name) as asking:
            answer = await self._ask_anew(worker, case, left_s)
            asking.set_attribute("outcome", answer.error.kind if answer.error else "answered")
        self.metrics.heard(answer)
        if answer.error is None:
            self.judge(case).read(answer)
            await keep(self.store, key, answer)
        return answer

    def _key(self, worker: WorkerSettings, case: Case) -> str:
        return answer_key(case, self._seats[worker.name], self.settings.secret_bytes)

    async def _ask_anew(self, worker: WorkerSettings, case: Case, left_s: float | None) -> Answer:
        if not worker.each_image or len(case.images) == 1:
            return await self._ask_together(worker, case, left_s)
        alone = one_by_one(case) or []
        said = await asyncio.gather(*(self._ask_together(worker, one, left_s) for _, one in alone))
        by_image = [(n, answer) for (n, _), answer in zip(alone, said, strict=True)]
        return as_one(by_image, alone[0][1])

    async def _ask_together(
        self, worker: WorkerSettings, case: Case, left_s: float | None
    ) -> Answer:
        servers = self.servers[worker.name]
        if (seconds := servers.rests_s) is not None:
            detail = f"It answers nobody, and rests for {seconds:.0f} s."
            return _failure(worker, "unreachable", detail)
        body = _request(worker, case, self.settings.secret_bytes)
        whole_s = max(self._deadline_s(case) if left_s is None else left_s, 0.0)
        deadline_s = min(whole_s, worker.deadline_s or whole_s)
        began = time.perf_counter()
        give_up_at = asyncio.get_running_loop().time() + deadline_s

        async def ask(url: str) -> Completion:
            try:
                async with asyncio.timeout_at(give_up_at):
                    said = await complete(self.http, url, *body, one_token=worker.one_token)
            except ServerFailed as failure:
                if failure.status == 500 and worker.one_token and case.choices:
                    # vLLM has no other word for choices of which no token of the model is the
                    # start. So would any server of the seat say, and none of them is ill.
                    raise CallFailed(NONE_OF_THEM) from failure
                raise
            return as_answer(said, case)

        try:
            completion = await servers.first_good(case.images[0].identity, ask)
        except TimeoutError:
            error = AnswerError(kind="timeout", detail=f"No answer within {deadline_s:g} s.")
        except TooLong as failure:
            fits = _chars_that_fit(case, failure.tokens)
            error = failure.error.model_copy(update={"max_chars": fits})
        except CallFailed as failure:
            error = failure.error
        else:
            return Answer(
                worker=worker.name,
                text=completion.text,
                confidence=completion.confidence,
                alternatives=completion.alternatives,
                remembers=completion.remembers,
                likeness=completion.likeness,
                seconds=time.perf_counter() - began,
                tokens=completion.tokens,
            )
        return Answer(worker=worker.name, seconds=time.perf_counter() - began, error=error)

    async def _is_well(self, worker: WorkerSettings, url: str) -> bool:
        """Whether its server there says a word to the gateway's own question, whichever, in the
        time that the panel gives it."""
        body = _request(worker, OWN_CASE, self.settings.secret_bytes, max_tokens=1)
        try:
            async with asyncio.timeout(self._own_s(worker)):
                await complete(self.http, url, *body)
        except TimeoutError:
            return False
        except CallFailed as failure:
            return failure.error.kind != "unreachable"
        return True

    def _own_s(self, worker: WorkerSettings) -> float:
        """The time until it is doubted, and for its own question: of what cases get, whatever a
        caller gives his, so much that who hangs rests before anybody waits for it twice."""
        case_s = min(self.settings.panel.deadline_s, worker.deadline_s or math.inf)
        return min(DOUBTED_AFTER * case_s, LOOK_S)

    def _check_quorum(self, case: Case, answers: Sequence[Answer], needed: int) -> None:
        """Who could not hold the case does not count for the quorum: it could not take it."""
        failures = {
            a.worker: a.error for a in answers if a.error and a.error.kind != "not_eligible"
        }
        answered = sum(answer.text is not None for answer in answers)
        if not answered and all(error == UNREADABLE for error in failures.values()):
            raise UnreadableImage("No worker could read the image. Send it as an 8-bit PNG.")
        fits = [error.max_chars for error in failures.values() if error.max_chars is not None]
        if not answered and len(fits) == len(failures):
            raise _too_long(case, min(fits))
        needed = min(needed, answered + len(failures) - len(fits))
        if answered < needed:
            reasons = " ".join(f"{worker}: {error.detail}" for worker, error in failures.items())
            remedy = "Try again later."
            if all(error.kind == "refused" for error in failures.values()):
                remedy = "A shorter question or context may be taken."
            detail = f"{answered} of the {needed} answers that are needed. {reasons} {remedy}"
            rests = [seconds for name, seconds in self.resting().items() if name in failures]
            wait_s = max(math.ceil(min(rests, default=TRY_AGAIN_S)), 1)
            raise TooFewAnswers(detail, tuple(answers), wait_s)


def _failure(worker: WorkerSettings, kind: ErrorKind, detail: str) -> Answer:
    return Answer(worker=worker.name, seconds=0, error=AnswerError(kind=kind, detail=detail))


def _chosen(case: Case, settings: Settings) -> list[WorkerSettings]:
    wanted = case.options.workers
    if wanted is None:
        return list(settings.workers)
    seated = [worker.name for worker in settings.workers]
    if not set(wanted) <= set(seated):
        raise InvalidCase(f"options.workers: only these workers are seated: {', '.join(seated)}.")
    return [worker for worker in settings.workers if worker.name in wanted]


def _why_not(worker: WorkerSettings, case: Case, settings: Settings) -> str | None:
    if case.language not in worker.languages:
        return f"It answers in {', '.join(worker.languages)}."
    if len(case.images) > settings.takes(worker):
        return f"It takes {settings.takes(worker)} image(s) at most."
    if worker.each_image and len(case.images) > 1 and one_by_one(case) is None:
        return ONE_BY_ONE
    return None


def _outranked(case: Case, able: Sequence[WorkerSettings], settings: Settings) -> dict[str, str]:
    """Of more than `k`, those who are right less often in such cases than the best `k`; never the
    generalist, who sits beside them (routed and shared experts: DeepSeekMoE, arXiv 2401.06066)."""
    competence, k = settings.competence, settings.panel.k
    if competence is None or k == "all":
        return {}
    cell = Cell.of(in_its_own_words(case))
    routed = [worker for worker in able if worker.name != settings.panel.generalist]
    accuracy = {w.name: competence.skill(w.name, cell).accuracy for w in routed}
    ranked = sorted(accuracy, key=lambda name: -accuracy[name])
    return {
        name: f"In such cases it is right in {accuracy[name]:.0%}, and {k} others "
        f"in {accuracy[ranked[k - 1]]:.0%} or more."
        for name in ranked[k:]
    }


def _nobody_takes(case: Case, chosen: list[WorkerSettings], settings: Settings) -> InvalidCase:
    if any(_why_not(worker, case, settings) == ONE_BY_ONE for worker in chosen):
        return InvalidCase(
            "question, choices: they are about several images together, or name one that was not "
            "sent, and who takes them sees one at a time. Ask about one image, or the same of "
            "each.",
            code="one_image_at_a_time",
        )
    serves = "; ".join(
        f"{worker.name}: {', '.join(worker.languages)}, up to {settings.takes(worker)} image(s)"
        for worker in chosen
    )
    is_spoken = any(case.language in worker.languages for worker in chosen)
    return InvalidCase(
        f"No worker takes {len(case.images)} image(s) in {case.language}. Served: {serves}.",
        code="images_not_taken" if is_spoken else "language_not_spoken",
    )


def _question(case: Case) -> str:
    text = "\n".join(filter(None, [_views(case), case.context, case.question]))
    others = "; ".join(" ".join(other.split()) for other in case.others)
    return text + OTHERS_SAID[case.language].format(others=others) if others else text


def _views(case: Case) -> str:
    told = VIEW[case.language][len(case.images) > 1]
    return " ".join(
        told.format(number=n, view=view) for n, view in enumerate(case.views, 1) if view
    )


def _chars_that_fit(case: Case, tokens: int) -> int:
    """How much of question and context a worker of so many tokens takes, whatever is in them: no
    token is shorter than a byte. A quarter is left to its prompt and the images."""
    text = _question(case)
    room: int = tokens * 3 // 4 - answer_bounds(case, MAX_ANSWER_TOKENS)["max_tokens"]
    return max(room, 0) * len(text) // len(text.encode())


def _too_long(case: Case, fits: int) -> InvalidCase:
    chars = len(_question(case))
    if 0 < fits < chars:
        return InvalidCase(
            f"question, context: {chars} characters are too many for all; send at most {fits}.",
            code="too_long",
        )
    return InvalidCase("images, choices: too many or too long for all workers; send less of them.")


def _request(
    worker: WorkerSettings, case: Case, secret: bytes, max_tokens: int = MAX_ANSWER_TOKENS
) -> tuple[bytes, ...]:
    """The body in parts. An encoder would read, and a join copy, each image for each worker."""
    text = {"type": "text", "text": worker.prompt.format(question=_question(case))}
    fields = {
        "model": worker.name,
        "temperature": 0,
        "logprobs": True,
        "top_logprobs": TOP_LOGPROBS,
        "cache_salt": salt_of(case.tenant, secret),
        **answer_bounds(case, max_tokens),
    }
    head = json.dumps(fields)[:-1] + ', "messages": [{"role": "user", "content": ['
    images = [piece for image in case.images for piece in (b", ", image.part)][1:]
    return head.encode(), *images, f", {json.dumps(text)}]}}]}}".encode()
