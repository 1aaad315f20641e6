"""The routes: `python -m gateway` serves the panel of $CONSILIUM_PANEL."""

import asyncio
import json
import logging
import signal
import time
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any, TypeVar

from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import (
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    StreamingResponse,
)
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute, Match
from starlette.types import Scope

from gateway.asking.panel import Panel
from gateway.case import Case
from gateway.contract import OwnWord, PanelReport, Preview, Verdict, WordKept
from gateway.door.admission import Admission
from gateway.door.inside import Inside
from gateway.door.keys import Key, Keys
from gateway.door.manners import Manners
from gateway.intake import request as intake
from gateway.intake.body.whole import json_of
from gateway.out import documentation, openai_api, page, stream
from gateway.processes import Siblings
from gateway.refusals import Problem, Refused
from gateway.service import Service
from gateway.settings import Settings, SettingsError, load_settings
from gateway.store.flights import Tell
from gateway.store.memory import asked_of
from gateway.watch import log as watch_log
from gateway.watch import tracing
from gateway.watch.audit import Audit
from gateway.watch.metrics import Metrics
from gateway.watch.telemetry import VERSION, Telemetry, marks

T = TypeVar("T")
KEYED: dict[int | str, dict[str, Any]] = {401: documentation.problem("No key, or none known here")}
log = logging.getLogger("consilium.gateway")

# Said before the body was read: the rest of it may be long, and is dropped (door/manners).
BODY_UNREAD = {401, 403, 415, 429, 503}
SHORT_BODY = 1_000_000

# A proxy that gathers events, or keeps them, takes the point away.
AS_THEY_COME = {"cache-control": "no-store", "x-accel-buffering": "no"}


def create_app(settings: Settings | None = None, siblings: Siblings | None = None) -> FastAPI:
    """The gateway as an ASGI application, or one process of it; without settings it reads the panel
    file.

    Raises:
        SettingsError, KeysError, AuditError, ReadersError: a file that cannot be used.
    """
    settings = settings or load_settings()
    watch_log.start()
    tracing.start()
    metrics = Metrics(VERSION)
    inside = Inside(siblings.inside if siblings else None)
    admission = Admission(Keys(settings.keys), settings.panel.store, inside, metrics.inside.set)
    audit = Audit(settings.audit_folder, settings.audit.days)
    service = Service(settings, metrics, siblings.count if siblings else 1)
    for what in ("audit", "feedback"):
        if getattr(settings, f"{what}_folder") and settings.secret_is_random:
            why = "no line can be matched to a case after a restart: set CONSILIUM_SECRET_FILE"
            log.warning(json.dumps({"event": f"{what}_without_secret", "why": why}))

    def panel_now() -> str:
        return service.settings.panel_hash

    def take_up() -> None:
        with suppress(SettingsError):  # the log and GET /panel say why
            service.reload()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with service:
            # Where the loop is another thread's, or the system has no such signal, requests do it.
            with suppress(NotImplementedError, RuntimeError, ValueError):
                asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, take_up)
            yield

    app = FastAPI(
        title="Consilium",
        version=VERSION,
        description="A panel of visual-question-answering models reads medical images together. "
        "Research software, not a medical device.",
        lifespan=lifespan,
        redirect_slashes=False,
        root_path=settings.http.root_path,
        docs_url=None,
        redoc_url=None,
    )
    app.state.service, app.state.draining = service, False
    if settings.http.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.http.origins,
            allow_methods=("GET", "POST"),
            allow_headers=("*",),
            expose_headers=("consilium-panel", "consilium-version", "retry-after"),
        )
    app.add_middleware(Telemetry, metrics=metrics, panel_now=panel_now)
    app.add_middleware(Manners, settings_now=lambda: service.settings)

    async def admitted(request: Request) -> AsyncGenerator[Key, None]:
        async with admission.admitted(request, service.settings.load) as key:
            yield key

    async def admitted_to_look(request: Request) -> AsyncGenerator[Key, None]:
        async with admission.admitted(request, service.settings.load, "preview") as key:
            yield key

    async def admitted_to_say(request: Request) -> AsyncGenerator[Key, None]:
        async with admission.admitted(request, service.settings.load, "feedback") as key:
            yield key

    Asking = Annotated[Key, Depends(admitted)]
    Looking = Annotated[Key, Depends(admitted_to_look)]
    Saying = Annotated[Key, Depends(admitted_to_say)]

    def seated(request: Request) -> Panel:
        """The panel that this request is brought to, to its end."""
        request.state.began = time.perf_counter()
        request.state.panel = service.panel.settings.panel_hash
        return service.panel

    async def answer(
        request: Request, case: Case, panel: Panel, key: Key, tell: Tell = lambda _: None
    ) -> Verdict:
        work = service.answer(case, panel, request.state.began, tell)
        verdict = await intake.if_whole(case, work)
        request.state.asked = not verdict.cached
        metrics.decided(verdict)
        secret = panel.settings.secret_bytes
        audit.note(verdict, partial(asked_of, case, secret), key.tenant, key.id, secret)
        service.readers.given(case, verdict, secret)
        service.shadows.ask(case, verdict, panel)
        _log_case(case, verdict)
        return verdict

    @app.post(
        "/vqa",
        response_model=Verdict,
        openapi_extra=documentation.case_body(),
        responses=documentation.replies(),
    )
    async def vqa(request: Request, key: Asking) -> Response:
        """Ask the panel a question about one or more images."""
        panel = seated(request)
        draft = await intake.read(request, panel.settings)
        await admission.count(key, service.settings.load)
        case = await intake.case_of(draft, panel.settings, service.archive(key.tenant), key.tenant)
        ask = partial(answer, request, case, panel, key)
        if stream.is_preferred(",".join(request.headers.getlist("accept"))):
            await intake.check(case)  # nobody is told a word about an image that is not whole
            opening = stream.opened(case, panel, ask)
            events = stream.as_sse(await _unless_caller_leaves(request, opening))
            return StreamingResponse(events, media_type="text/event-stream", headers=AS_THEY_COME)
        verdict = await _unless_caller_leaves(request, ask())
        return Response(verdict.model_dump_json(), media_type="application/json")

    @app.post(
        "/preview",
        response_model=Preview,
        openapi_extra=documentation.preview_body(),
        responses=documentation.refusals(),
    )
    async def preview(request: Request, key: Looking) -> Response:
        """See one image as the workers will get it; nothing is asked, and nothing kept."""
        await admission.count(key, service.settings.load, "preview")
        seen = await intake.preview_of(request, service.settings)
        headers = {"cache-control": "no-store"}
        return Response(seen.model_dump_json(), media_type="application/json", headers=headers)

    @app.post(
        "/feedback",
        response_model=WordKept,
        openapi_extra=documentation.word_body(),
        responses=documentation.refusals()
        | {404: documentation.problem("No verdict of yours that waits for a word")},
    )
    async def feedback(request: Request, key: Saying) -> WordKept:
        """Say whether a verdict was right, once."""
        settings = service.settings
        word, draft = await intake.word_of(request, settings)
        await admission.count(key, settings.load, "feedback")
        archive = service.archive(key.tenant)
        case = await intake.case_of(draft, settings, archive, key.tenant) if draft else None
        if case:
            await intake.check(case)
        kept, was_right = service.readers.take(word, key.tenant, case, settings.secret_bytes)
        metrics.judged(kept.word, was_right)
        log.info(json.dumps({"event": "reader_said", "word": kept.word, "case": kept.verdict}))
        return kept

    @app.get(
        "/feedback",
        responses=KEYED | {404: documentation.problem("No readers' words are kept here")},
    )
    async def own_words(request: Request) -> list[OwnWord]:
        """What the key's tenant has said of verdicts, the latest verdict first."""
        own = service.readers.of(admission.known(request).tenant)
        return [OwnWord.model_validate(word) for word in own]

    @app.post(
        "/v1/chat/completions",
        openapi_extra=documentation.chat_body(),
        responses=documentation.chat_replies(),
    )
    async def chat_completions(request: Request, key: Asking) -> Response:
        """The same, as a chat: for OpenAI's clients, and whatever speaks to them."""
        panel = seated(request)
        content = await json_of(request, panel.settings)
        chat, fields = openai_api.read(content, panel.settings)
        draft = await intake.draft_of(fields, panel.settings.limits)
        await admission.count(key, service.settings.load)
        case = await intake.case_of(draft, panel.settings, service.archive(key.tenant), key.tenant)
        ask = partial(answer, request, case, panel, key)
        if chat.stream:
            await intake.check(case)
            opening = stream.opened(case, panel, ask)
            events = await _unless_caller_leaves(request, opening)
            told = openai_api.chunks(events, chat, case)
            return StreamingResponse(told, media_type="text/event-stream", headers=AS_THEY_COME)
        verdict = await _unless_caller_leaves(request, ask())
        return JSONResponse(openai_api.reply(verdict, chat, case))

    @app.get(
        "/v1/models",
        dependencies=[Depends(admission.known)],
        responses={401: documentation.openai_error("No key, or none known here")},
    )
    async def models() -> dict[str, Any]:
        """The names by which a chat asks the panel."""
        return openai_api.models(service.settings)

    @app.get(
        "/v1/models/{name:path}",
        dependencies=[Depends(admission.known)],
        responses={
            401: documentation.openai_error("No key, or none known here"),
            404: documentation.openai_error("No such model here"),
        },
    )
    async def model(name: str) -> dict[str, Any]:
        """One of them."""
        return openai_api.model(name, service.settings)

    @app.get("/panel", dependencies=[Depends(admission.known)], responses=KEYED)
    async def who_sits_there() -> PanelReport:
        """Who sits on the panel, how well they are, and what a case may hold."""
        return await service.report()

    @app.post(
        "/panel/reload",
        responses=KEYED
        | {
            403: documentation.problem("No admin's key"),
            409: documentation.problem("The file cannot be used; the old panel stays"),
        },
    )
    async def reload(request: Request) -> Response:
        """Seat the panel that panel.toml names now; an admin's key only."""
        admission.admin(request)
        try:
            service.reload()
        except SettingsError as error:
            return _as_response(Problem.of(409, "Panel file not taken up", str(error)))
        if siblings:
            siblings.reload()
        return JSONResponse({"panel": service.settings.panel_hash})

    @app.get(
        "/metrics",
        dependencies=[Depends(admission.known)],
        response_class=PlainTextResponse,
        responses=KEYED,
    )
    async def metrics_page() -> Response:
        """What Prometheus scrapes."""
        return Response(metrics.told(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/health/live")
    async def live() -> dict[str, bool]:
        """The gateway itself is up."""
        return {"live": True}

    @app.get("/health/ready", responses={503: documentation.problem("Below the quorum")})
    async def ready() -> Response:
        """Enough workers are up for a quorum, and the gateway is not about to stop."""
        if app.state.draining:
            return _not_ready("The gateway is about to stop.")
        report = await service.report()
        up = sum(worker.reachable for worker in report.workers)
        if up >= report.quorum:
            return JSONResponse({"ready": True, "store_reachable": report.store_reachable})
        detail = f"{up} of {len(report.workers)} workers are up; the quorum is {report.quorum}."
        return _not_ready(detail)

    @app.exception_handler(Refused)
    async def refuse(request: Request, error: Refused) -> Response:
        metrics.refused.labels(error.status).inc()
        if error.status != 401:  # a flood of wrong keys fills no disk
            line = {"event": "case_refused", "status": error.status, "why": error.title}
            log.info(json.dumps(line))
        headers = dict(error.headers)
        if error.status in BODY_UNREAD and _is_much_to_come(request):
            headers["connection"] = "close"
        return _as_response(error.problem(), request, headers)

    @app.exception_handler(ClientDisconnect)
    async def hang_up(request: Request, error: ClientDisconnect) -> Response:
        log.info(json.dumps({"event": "caller_gone"}))
        return Response(status_code=499)

    @app.exception_handler(HTTPException)
    async def wrong_address(request: Request, error: HTTPException) -> Response:
        root = settings.http.root_path
        if root and request.scope["path"] == root and request.method in ("GET", "HEAD"):
            # The page's own addresses begin behind the slash.
            return RedirectResponse(str(request.url.replace(scheme="", netloc="", path=f"{root}/")))
        title, headers = HTTPStatus(error.status_code).phrase, error.headers or {}
        detail = f"{title}. See /docs."
        if error.status_code == 405:
            # Starlette's header names those of the first route alone that fits.
            allowed = _methods_at(app.router.routes, request.scope)
            headers, detail = {"allow": allowed}, f"{title}; send {allowed}. See /docs."
        elif error.status_code == 404:
            slashless = {**request.scope, "path": request.scope["path"].rstrip("/")}
            if _methods_at(app.router.routes, slashless):
                detail = f"{title}; leave the last / away. See /docs."
            elif _is_openais(request):
                detail = f"{title}; there are /v1/chat/completions and /v1/models. See /docs."
        problem = Problem.of(error.status_code, title, detail)
        return _as_response(problem, request, headers)

    @app.exception_handler(Exception)
    async def bug(request: Request, error: Exception) -> Response:
        detail = "The gateway failed. This is a bug; its log says where."
        problem = Problem.of(500, "Internal error", detail)
        return _as_response(problem, request, marks(request.scope, panel_now()))

    # Behind the others: a request is held against each route before its own.
    documentation.add_pages(app)
    page.add_page(app)
    app.openapi = partial(documentation.openapi, app)  # type: ignore[method-assign]
    return app


def _methods_at(routes: Iterable[BaseRoute], scope: Scope) -> str:
    """What may be sent to a request's address, as the header Allow has it; "" where nothing."""
    fits = [each for each in routes if each.matches(scope)[0] != Match.NONE]
    methods = {method for each in fits for method in getattr(each, "methods", None) or ()}
    return ", ".join(sorted(methods | ({"HEAD"} if "GET" in methods else set())))


async def _unless_caller_leaves(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Finish the work, or drop it, and every call it has open, when the caller hangs up."""

    async def caller_leaves() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, leaving = asyncio.create_task(work), asyncio.create_task(caller_leaves())
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientDisconnect
    finally:
        working.cancel()
        leaving.cancel()


def _not_ready(detail: str) -> Response:
    return _as_response(Problem.of(503, "Not ready", detail), headers={"retry-after": "1"})


def _is_much_to_come(request: Request) -> bool:
    """Whether the body is long, or does not say how long."""
    stated = request.headers.get("content-length", "")
    return not stated.isdecimal() or int(stated) > SHORT_BODY


def _log_case(case: Case, verdict: Verdict) -> None:
    """One line per case, and none of its words."""
    line = {
        "event": "case_answered",
        "case": case.id,
        "language": case.language,
        "images": len(case.images),
        "answered": sum(answer.text is not None for answer in verdict.answers),
        "failed": {a.worker: a.error.kind for a in verdict.answers if a.error},
        "agreement": verdict.agreement,
        "summary": verdict.summary.by,
        "summary_s": round(verdict.summary.seconds, 3),
        "entailment_s": round(verdict.entailment.seconds, 3) if verdict.entailment else None,
        "cached": verdict.cached,
        "seconds": round(verdict.seconds, 3),
    }
    log.info(json.dumps(line))


def _is_openais(request: Request) -> bool:
    root = request.scope.get("root_path", "")
    return request.url.path.removeprefix(root).startswith("/v1/")


def _as_response(
    problem: Problem, request: Request | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    if request and _is_openais(request):
        content = openai_api.error(problem)
        return JSONResponse(content, status_code=problem.status, headers=headers)
    return Response(
        problem.model_dump_json(exclude_none=problem.answers is None),
        status_code=problem.status,
        media_type="application/problem+json",
        headers=headers,
    )
