"""The body of a request, read within limits."""

import asyncio
from typing import Any

from starlette.requests import Request

from gateway.intake.body.json_text import json_object
from gateway.intake.off_loop import off_loop
from gateway.refusals import MalformedRequest, TooLarge, TooSlow, UnsupportedMedia
from gateway.settings import Settings
from gateway.tables import Limits

JSON = "application/json"  # what no other site's page can send unasked
MEGABYTE = 1_000_000


async def json_of(request: Request, settings: Settings) -> dict[str, Any]:
    """The JSON object in a request's body; raises a `Refused`."""
    if kind_of(request) != JSON:
        raise UnsupportedMedia(f"Send Content-Type {JSON}.")
    body = await whole_of(request, settings)
    return await off_loop(lambda: json_object(body, "The body"))


def kind_of(request: Request) -> str:
    """What a request says that its body is."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def whole_of(request: Request, settings: Settings) -> bytes:
    """A request's body; raises a `Refused`."""
    try:
        async with asyncio.timeout(settings.load.body_s):
            return await _body(request, settings.limits)
    except TimeoutError as error:
        raise TooSlow(
            f"The body was not there within {settings.load.body_s:g} s. Send smaller images."
        ) from error


async def _body(request: Request, limits: Limits) -> bytes:
    coding = ",".join(request.headers.getlist("content-encoding"))
    if coding.strip().lower() not in ("", "identity"):
        raise UnsupportedMedia("Send the body uncompressed, without Content-Encoding.")
    allowed = int(limits.max_body_mb * MEGABYTE)
    too_large = TooLarge(
        f"The body is over {limits.max_body_mb:g} MB. Send smaller or fewer images."
    )
    stated = request.headers.get("content-length", "")
    if stated.isdecimal() and int(stated) > allowed:
        raise too_large
    chunks, size = [], 0
    async for chunk in request.stream():
        chunks.append(chunk)
        size += len(chunk)
        if size > allowed:
            raise too_large
    if not size:
        raise MalformedRequest("The body is empty. Send a question and at least one image.")
    return b"".join(chunks)
