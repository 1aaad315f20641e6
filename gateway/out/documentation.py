"""/docs, and what it says of routes that read their body themselves, within limits."""

import base64
import hashlib
from pathlib import Path
from typing import Any

import fastapi_offline
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.responses import FileResponse, HTMLResponse
from pydantic.json_schema import models_json_schema

from gateway.contract import AskedImage, CaseFields, CaseRequest, ReadersWord
from gateway.intake.body.form import LISTS, SHOWN_FIELDS, SINGLE_FIELDS
from gateway.out.openai_api import ChatRequest
from gateway.refusals import Forbidden, Problem, Refused, UnknownModel, UnknownVerdict

# The page takes nothing from another host: it is the same without a network. All its addresses are
# relative, so it is found under any path.
SWAGGER = Path(fastapi_offline.__file__).parent / "static"
START = """SwaggerUIBundle({url: "openapi.json", dom_id: "#swagger-ui"})"""
PAGE = f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Consilium</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script>{START}</script>
</html>
"""
START_DIGEST = base64.b64encode(hashlib.sha256(START.encode()).digest()).decode()
POLICY = (
    f"default-src 'none'; script-src 'self' 'sha256-{START_DIGEST}'; connect-src 'self'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

FILE = {"type": "string", "format": "binary"}


def add_pages(app: FastAPI) -> None:
    """`/docs`, and the files that it needs."""

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(PAGE, headers={"content-security-policy": POLICY})

    @app.get("/docs/swagger-ui.css", include_in_schema=False)
    async def style() -> FileResponse:
        return FileResponse(SWAGGER / "swagger-ui.css")

    @app.get("/docs/swagger-ui-bundle.js", include_in_schema=False)
    async def script() -> FileResponse:
        return FileResponse(SWAGGER / "swagger-ui-bundle.js")


def case_body() -> dict[str, Any]:
    """Both ways to send a case."""
    form = {
        name: schema
        for name, schema in CaseFields.model_json_schema()["properties"].items()
        if name in SINGLE_FIELDS | LISTS
    }
    form["options"] = {"type": "string", "description": "Options as a JSON object."}
    form["dicomweb"] = {"type": "string", "description": "In place of images; a JSON object."}
    form["images"] = {"type": "array", "items": FILE}
    for name, told in _shown():
        told = f"One for each image, or none. {told}"
        form[name] = {"type": "array", "items": {"type": "string"}, "description": told}
    form_schema = {"type": "object", "properties": form, "required": ["question"]}
    return _body(
        {
            "application/json": {"schema": {"$ref": "#/components/schemas/CaseRequest"}},
            "multipart/form-data": {"schema": form_schema},
        }
    )


def preview_body() -> dict[str, Any]:
    """One image, and what of it is to be shown."""
    shown = {name: {"type": "string", "description": told} for name, told in _shown()}
    schema = {"type": "object", "properties": {"images": FILE} | shown, "required": ["images"]}
    return _body({"multipart/form-data": {"schema": schema}})


def word_body() -> dict[str, Any]:
    """What a reader says of a verdict."""
    return _body({"application/json": {"schema": {"$ref": "#/components/schemas/ReadersWord"}}})


def chat_body() -> dict[str, Any]:
    """A case as a chat."""
    return _body({"application/json": {"schema": {"$ref": "#/components/schemas/ChatRequest"}}})


def refusals() -> dict[int | str, dict[str, Any]]:
    """What a route says that takes images, in place of what was asked for."""
    titles: dict[int, list[str]] = {}
    for error in Refused.__subclasses__():
        if error in (Forbidden, UnknownModel, UnknownVerdict):
            continue  # other routes say these
        titles.setdefault(error.status, []).append(error.title)
    return {status: problem(" or ".join(names)) for status, names in titles.items()}


def replies() -> dict[int | str, dict[str, Any]]:
    """What `POST /vqa` says beside the verdict as JSON."""
    events = "As events, where they are accepted: answer, failure, provisional; verdict or problem."
    return refusals() | {200: {"content": {"text/event-stream": {}}, "description": events}}


def chat_replies() -> dict[int | str, dict[str, Any]]:
    """What `POST /v1/chat/completions` says beside the completion: OpenAI's form of an error."""
    error = openai_error("An error")
    statuses = {error.status for error in Refused.__subclasses__() if error is not Forbidden}
    found: dict[int | str, dict[str, Any]] = {status: error for status in sorted(statuses)}
    events = "chat.completion, or chat.completion.chunk where it is streamed."
    return found | {200: {"content": {"text/event-stream": {}}, "description": events}}


def openai_error(description: str) -> dict[str, Any]:
    """A reply that is an error as OpenAI's clients read it."""
    schema = {"type": "object", "required": ["error"]}
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def problem(description: str) -> dict[str, Any]:
    """A reply that is a problem."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": description, "content": {"application/problem+json": {"schema": schema}}}


def openapi(app: FastAPI) -> dict[str, Any]:
    """The schema of the whole gateway."""
    schema = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    _, models = models_json_schema(
        [
            (CaseRequest, "validation"),
            (ChatRequest, "validation"),
            (ReadersWord, "validation"),
            (Problem, "serialization"),
        ],
        ref_template="#/components/schemas/{model}",
    )
    schema["components"]["schemas"] |= models["$defs"]
    return schema


def _shown() -> list[tuple[str, str]]:
    """What a form has beside its images, and what that says."""
    properties = AskedImage.model_json_schema()["properties"]
    return [(name, properties[name]["description"]) for name in SHOWN_FIELDS]


def _body(content: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": content}}
