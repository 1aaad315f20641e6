"""The routes: `uvicorn --factory gateway.app:create_app` serves the panel of $CONSILIUM_PANEL."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus
from typing import Any, TypeVar

import httpx
from fastapi import FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from gateway import intake, model_server, stream, summariser
from gateway.contract import (
    Case,
    CaseFields,
    CaseRequest,
    InvalidCase,
    PanelReport,
    Problem,
    Refused,
    Seat,
    SummariserSeat,
    TooLarge,
    Verdict,
)
from gateway.panel import Panel
from gateway.settings import Settings, load_settings
from gateway.store import Flights, Store, Tell, keep, key_of, open_store, recall
from gateway.verdict import Judge

T = TypeVar("T")
log = logging.getLogger("consilium.gateway")


def create_app(settings: Settings | None = None) -> FastAPI:
    """The gateway as an ASGI application; without settings it reads the panel file."""
    settings = settings or load_settings()
    # To stderr, unless the program around us has already said where.
    logging.basicConfig(format="%(message)s")
    log.setLevel(logging.INFO)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with model_server.new_http_client() as http:
            app.state.http, app.state.store = http, open_store(settings.panel.store)
            app.state.panel = Panel(settings, http, app.state.store)
            app.state.flights = Flights()
            yield
            await app.state.store.close()

    app = FastAPI(
        title="Consilium",
        description="A panel of visual-question-answering models reads medical images together. "
        "Research software, not a medical device.",
        lifespan=lifespan,
    )

    @app.post("/vqa", response_model=Verdict, openapi_extra=_request_body(), responses=_replies())
    async def vqa(request: Request) -> Response:
        """Ask the panel a question about one or more images."""
        began = time.perf_counter()
        case = await intake.read(request, settings.limits)
        if "text/event-stream" in request.headers.get("accept", ""):
            opening = stream.opened(case, settings, partial(_answer, app, case, began))
            events = await _unless_caller_leaves(request, opening)
            # A proxy that gathers them, or keeps them, takes the point away.
            headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
            return StreamingResponse(events, media_type="text/event-stream", headers=headers)
        verdict = await _unless_caller_leaves(request, _answer(app, case, began))
        return Response(verdict.model_dump_json(), media_type="application/json")

    @app.get("/panel")
    async def who_sits_there() -> PanelReport:
        """Who sits on the panel, how well they are, and what a case may hold."""
        return await _report(settings, app.state.http, app.state.store)

    @app.get("/health/live")
    async def live() -> dict[str, bool]:
        """The gateway itself is up."""
        return {"live": True}

    @app.get("/health/ready", responses={503: _problem_response("Below the quorum")})
    async def ready() -> Response:
        """Enough workers are up for a quorum."""
        report = await _report(settings, app.state.http, app.state.store)
        up = sum(worker.reachable for worker in report.workers)
        if up >= report.quorum:
            return JSONResponse({"ready": True, "store_reachable": report.store_reachable})
        detail = f"{up} of {len(report.workers)} workers are up; the quorum is {report.quorum}."
        return _as_response(Problem.of(503, "Not ready", detail))

    @app.exception_handler(Refused)
    async def refuse(request: Request, error: Refused) -> Response:
        log.info(json.dumps({"event": "case_refused", "status": error.status, "why": error.title}))
        response = _as_response(error.problem())
        if isinstance(error, TooLarge):
            # The rest of the body may still be coming, without end.
            response.headers["connection"] = "close"
        return response

    @app.exception_handler(ClientDisconnect)
    async def hang_up(request: Request, error: ClientDisconnect) -> Response:
        log.info(json.dumps({"event": "caller_gone"}))
        return Response(status_code=499)

    @app.exception_handler(HTTPException)
    async def wrong_address(request: Request, error: HTTPException) -> Response:
        title = HTTPStatus(error.status_code).phrase
        answer = _as_response(Problem.of(error.status_code, title, f"{title}. See /docs."))
        answer.headers.update(error.headers or {})
        return answer

    @app.exception_handler(Exception)
    async def bug(request: Request, error: Exception) -> Response:
        detail = "The gateway failed. This is a bug; its log says where."
        return _as_response(Problem.of(500, "Internal error", detail))

    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


async def _answer(app: FastAPI, case: Case, began: float, tell: Tell = lambda _: None) -> Verdict:
    """From a case to its verdict: stored, shared with who asks the same just now, or asked for."""
    panel, store, flights = app.state.panel, app.state.store, app.state.flights
    if case.options.max_risk is not None and not Judge.of(case, panel.settings).knows_risk:
        raise InvalidCase(
            f"options.max_risk: how often this panel is wrong in {case.language} has not been "
            "learned. Send null."
        )
    key = key_of(case, panel.settings)
    work = partial(_stored_or_asked, case, key, panel, store, began)
    verdict, own = await flights.join(key, work, tell)
    verdict = verdict if own else _again(verdict, case, began)
    _log_case(case, verdict)
    return verdict


async def _stored_or_asked(
    case: Case, key: str, panel: Panel, store: Store, began: float, tell: Tell
) -> Verdict:
    if known := await recall(store, key, Verdict):
        return _again(known, case, began)
    async with store.alone(key):
        # Another gateway may have been at it.
        if known := await recall(store, key, Verdict):
            return _again(known, case, began)
        verdict, whole = await _asked(case, panel, began, tell)
        if whole:
            await keep(store, key, verdict)
    return verdict


async def _asked(case: Case, panel: Panel, began: float, tell: Tell) -> tuple[Verdict, bool]:
    """A new verdict, and whether it is whole: nobody failed, nobody was left out, no fall-back."""
    settings = panel.settings
    opinion = Judge.of(case, settings).weigh(await panel.consult(case, tell))
    wording = await summariser.summarise(case, opinion, settings.summariser, panel.http)
    abstains = opinion.is_riskier_than(case.options.max_risk)
    verdict = Verdict(
        id=case.id,
        status="abstained" if abstains else "answered",
        answer=None if abstains else wording.answer,
        best_guess=wording.answer if abstains else None,
        language=case.language,
        agreement=opinion.agreement,
        confidence=opinion.confidence,
        answers=opinion.answers,
        dissent=opinion.dissent,
        summary=wording.summary,
        panel=settings.panel_hash,
        seconds=time.perf_counter() - began,
    )
    failed = any(a.error and a.error.kind != "not_eligible" for a in verdict.answers)
    return verdict, not failed and not wording.fell_back


def _again(verdict: Verdict, case: Case, began: float) -> Verdict:
    """The same verdict for another caller."""
    return verdict.model_copy(
        update={
            "id": case.id,
            "cached": True,
            "cached_from": verdict.cached_from or verdict.id,
            "seconds": time.perf_counter() - began,
        }
    )


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


async def _report(settings: Settings, http: httpx.AsyncClient, store: Store) -> PanelReport:
    urls = [worker.url for worker in settings.workers]
    if settings.summariser:
        urls.append(settings.summariser.url)
    store_reachable, found = await asyncio.gather(
        store.reachable(), asyncio.gather(*(model_server.probe(http, url) for url in urls))
    )
    return PanelReport(
        panel=settings.panel_hash,
        quorum=settings.panel.quorum,
        deadline_s=settings.panel.deadline_s,
        workers=tuple(
            Seat(
                name=worker.name,
                family=worker.family,
                languages=worker.languages,
                max_images=worker.max_images,
                reachable=reachable,
                model=model,
            )
            for worker, (reachable, model) in zip(settings.workers, found, strict=False)
        ),
        summariser=None
        if settings.summariser is None
        else SummariserSeat(
            languages=settings.summariser.languages, reachable=found[-1][0], model=found[-1][1]
        ),
        learned_from=settings.competence.learned_from if settings.competence else None,
        store_reachable=store_reachable,
        **settings.limits.model_dump(),
    )


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
        "cached": verdict.cached,
        "seconds": round(verdict.seconds, 3),
    }
    log.info(json.dumps(line))


def _as_response(problem: Problem) -> Response:
    return Response(
        problem.model_dump_json(exclude_none=problem.answers is None),
        status_code=problem.status,
        media_type="application/problem+json",
    )


def _request_body() -> dict[str, Any]:
    """Both ways to send a case, for /docs: the route reads the body itself, within limits."""
    form = {
        name: schema
        for name, schema in CaseFields.model_json_schema()["properties"].items()
        if name in intake.SINGLE_FIELDS | {"choices"}
    }
    form["options"] = {"type": "string", "description": "Options as a JSON object."}
    form["images"] = {"type": "array", "items": {"type": "string", "format": "binary"}}
    form_schema = {"type": "object", "properties": form, "required": ["question", "images"]}
    return {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"$ref": "#/components/schemas/CaseRequest"}},
                "multipart/form-data": {"schema": form_schema},
            },
        }
    }


def _replies() -> dict[int | str, dict[str, Any]]:
    """What `POST /vqa` says beside the verdict as JSON, for /docs."""
    titles: dict[int, list[str]] = {}
    for error in Refused.__subclasses__():
        titles.setdefault(error.status, []).append(error.title)
    replies: dict[int | str, dict[str, Any]] = {
        status: _problem_response(" or ".join(names)) for status, names in titles.items()
    }
    events = "As events, where they are accepted: answer, failure, provisional; verdict or problem."
    return replies | {200: {"content": {"text/event-stream": {}}, "description": events}}


def _problem_response(description: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": description, "content": {"application/problem+json": {"schema": schema}}}


def _openapi(app: FastAPI) -> dict[str, Any]:
    schema = get_openapi(
        title=app.title, version="1", description=app.description, routes=app.routes
    )
    _, models = models_json_schema(
        [(CaseRequest, "validation"), (Problem, "serialization")],
        ref_template="#/components/schemas/{model}",
    )
    schema["components"]["schemas"] |= models["$defs"]
    return schema
