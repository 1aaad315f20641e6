"""HTTP request → Case: read within limits, checked, and of every image its pixels alone."""

import asyncio
import json
import os
import uuid
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn, TypeVar

import pybase64
from pydantic import ValidationError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from gateway.case import Case, CaseImage
from gateway.contract import (
    CaseFields,
    CaseRequest,
    InvalidCase,
    Language,
    MalformedRequest,
    TooLarge,
    TooSlow,
    UnreadableImage,
    UnsupportedMedia,
)
from gateway.intake.language import asked_in
from gateway.intake.pixels import only_pixels, undecoded
from gateway.settings import Limits, Settings
from gateway.verdict.meaning import meaning

T = TypeVar("T")
MEGABYTE = 1_000_000
# Brackets and commas in a JSON body: base64 has none of them, a long chat some thousands.
MAX_MARKS = 20_000
HERE_BYTES = MEGABYTE  # a file of so much is stripped sooner than handed to a thread
SINGLE_FIELDS = {"question", "language", "context", "modality", "options"}

# As many images at a time as there are cores: more would only take memory.
_DECODERS = ThreadPoolExecutor(max_workers=os.cpu_count() or 1, thread_name_prefix="intake")


async def read(request: Request, settings: Settings, tenant: str) -> Case:
    """The case that a request asks; raises a `Refused` that says what to send instead."""
    limits = settings.limits
    kind = _kind_of(request)
    if kind == "application/json":
        body = await _in_time(request, settings)
        fields, images = await _off_loop(lambda: _from_json(_json_object(body, "The body"), limits))
        return await _case(fields, images, limits, tenant)
    if kind != "multipart/form-data":
        raise UnsupportedMedia("Send Content-Type application/json or multipart/form-data.")
    fields, images = await _from_multipart(request, await _in_time(request, settings), limits)
    return await _case(fields, images, limits, tenant)


async def case_of(content: dict[str, Any], limits: Limits, tenant: str) -> Case:
    """The case in a JSON object like `CaseRequest`; raises a `Refused`."""
    fields, images = await _off_loop(lambda: _from_json(content, limits))
    return await _case(fields, images, limits, tenant)


async def _case(fields: CaseFields, images: list[bytes], limits: Limits, tenant: str) -> Case:
    language = asked_in(fields.question, fields.language)
    _check_fields(fields, language, limits)
    places = [_place(position, len(images)) for position in range(len(images))]
    pictures = await asyncio.gather(*map(_pixels_of, images, places))
    return Case(
        id=uuid.uuid4().hex,
        question=fields.question.strip(),
        images=tuple(pictures),
        language=language,
        context=(fields.context or "").strip() or None,
        choices=fields.choices,
        options=fields.options,
        modality=fields.modality or next((p.modality for p in pictures if p.modality), None),
        tenant=tenant,
    )


async def _pixels_of(data: bytes, place: str) -> CaseImage:
    if len(data) <= HERE_BYTES and (found := undecoded(data, place)):
        return found
    return await _off_loop(lambda: only_pixels(data, place))


async def _off_loop(work: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(_DECODERS, work)


async def json_of(request: Request, settings: Settings) -> dict[str, Any]:
    """The JSON object in a request's body; raises a `Refused`."""
    if _kind_of(request) != "application/json":  # what no other site's page can send unasked
        raise UnsupportedMedia("Send Content-Type application/json.")
    body = await _in_time(request, settings)
    return await _off_loop(lambda: _json_object(body, "The body"))


def _kind_of(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _in_time(request: Request, settings: Settings) -> bytes:
    try:
        async with asyncio.timeout(settings.load.body_s):
            return await _body(request, settings.limits)
    except TimeoutError as error:
        raise TooSlow(
            f"The body was not there within {settings.load.body_s:g} s. Send smaller images."
        ) from error


async def _body(request: Request, limits: Limits) -> bytes:
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMedia("Send the body uncompressed, without Content-Encoding.")
    allowed = int(limits.max_body_mb * MEGABYTE)
    too_large = TooLarge(
        f"The body is over {limits.max_body_mb:g} MB. Send smaller or fewer images."
    )
    stated = request.headers.get("content-length", "")
    if stated.isdecimal() and int(stated) > allowed:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > allowed:
            raise too_large
    if not body:
        raise MalformedRequest("The body is empty. Send a question and at least one image.")
    return bytes(body)


def _from_json(content: dict[str, Any], limits: Limits) -> tuple[CaseFields, list[bytes]]:
    try:
        case = CaseRequest.model_validate(content)
    except ValidationError as error:
        refuse_fields(error)
    _check_number(len(case.images), limits)
    images = [
        _from_base64(image, _place(position, len(case.images)), limits)
        for position, image in enumerate(case.images)
    ]
    return case, images


async def _from_multipart(
    request: Request, body: bytes, limits: Limits
) -> tuple[CaseFields, list[bytes]]:
    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    _, parameters = parse_options_header(request.headers["content-type"])
    # RFC 7578 knows no other, and some that Python knows decode to no text at all.
    if parameters.get(b"charset", b"utf-8").lower() != b"utf-8":
        raise UnsupportedMedia("Send the form in UTF-8, without another charset.")
    parser = MultiPartParser(
        request.headers, stream(), max_part_size=int(limits.max_body_mb * MEGABYTE)
    )
    # Never spill to disk: a patient's image must not be left in a temporary folder.
    parser.spool_max_size = len(body) + 1
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError) as error:
        raise MalformedRequest(
            "The body is not multipart/form-data as its Content-Type describes it. "
            "Let an HTTP library build the body and the header."
        ) from error
    content: dict[str, Any] = {}
    images: list[bytes] = []
    for name, value in form.multi_items():
        if name == "images":
            if not isinstance(value, UploadFile):
                raise InvalidCase("images: send each image as a file, with a file name.")
            images.append(await value.read())
        elif isinstance(value, UploadFile):
            raise InvalidCase(f"{_shown(name)}: only images are sent as files.")
        elif name == "choices":
            content.setdefault("choices", []).append(value)
        elif name in content:
            raise InvalidCase(f"{_shown(name)}: send it once.")
        elif name == "options":
            content["options"] = _json_object(value.encode(), "options")
        elif name in SINGLE_FIELDS:
            content[name] = value
        else:
            raise InvalidCase(f"{_shown(name)}: not a known field; see /docs.")
    await form.close()
    try:
        fields = CaseFields.model_validate(content)
    except ValidationError as error:
        refuse_fields(error)
    _check_number(len(images), limits)
    for position, image in enumerate(images):
        _check_size(len(image), _place(position, len(images)), limits)
    return fields, images


def _json_object(body: bytes, what: str) -> dict[str, Any]:
    # Millions of small things would keep everybody waiting while they are read.
    if sum(map(body.count, (b",", b"[", b"{"))) > MAX_MARKS:
        raise TooLarge(f"{what} holds over {MAX_MARKS} items. Send a question and its images.")

    def refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) < len(pairs):
            raise MalformedRequest(f"{what}: a field is there twice. Send each once.")
        return content

    def refuse_constant(name: str) -> NoReturn:
        raise MalformedRequest(f"{what}: {name} is not JSON. Send a number or null.")

    try:
        content = json.loads(
            body, object_pairs_hook=refuse_duplicates, parse_constant=refuse_constant
        )
    except (ValueError, RecursionError) as error:
        raise MalformedRequest(f"{what} is not valid JSON in UTF-8.") from error
    if not isinstance(content, dict):
        raise MalformedRequest(f"{what} is not a JSON object.")
    return content


def refuse_fields(error: ValidationError) -> NoReturn:
    """Raises InvalidCase: names the first wrong field, and never what was in it."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    field = ".".join(_shown(str(part)) for part in first["loc"])
    reason = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        reason = "not a known field; see /docs"
    raise InvalidCase(f"{field}: {reason}.") from error


def _shown(name: str) -> str:
    """A field's name, unless what the caller sent in its place could be anything."""
    return name if len(name) <= 40 and name.replace("_", "a").isalnum() else "a field"


def _check_fields(fields: CaseFields, language: Language, limits: Limits) -> None:
    texts = [("question", fields.question, limits.max_question_chars)]
    texts += [("context", fields.context or "", limits.max_context_chars)]
    texts += [("choices", choice, limits.max_question_chars) for choice in fields.choices or ()]
    workers = fields.options.workers or ()
    texts += [("options.workers", worker, limits.max_question_chars) for worker in workers]
    for name, text, max_chars in texts:
        if len(text) > max_chars:
            raise InvalidCase(f"{name}: {len(text)} characters; send at most {max_chars}.")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidCase(f"{name}: it holds half a character. Send whole ones.") from error
    if not fields.question.strip():
        raise InvalidCase("question: it is blank; ask something.")
    meanings = [meaning(c, language, fields.question) for c in fields.choices or ()]
    if () in meanings or len(set(meanings)) < len(meanings):
        raise InvalidCase("choices: each must say something, and something else than the others.")


def _check_number(images: int, limits: Limits) -> None:
    if images == 0:
        raise InvalidCase("images: there is none; send at least one.")
    if images > limits.max_images:
        raise TooLarge(f"{images} images; send at most {limits.max_images}.")


def _check_size(size: int, place: str, limits: Limits) -> None:
    if size > limits.max_image_mb * MEGABYTE:
        raise TooLarge(f"{place} is over {limits.max_image_mb:g} MB. Send a smaller one.")


def _place(position: int, count: int) -> str:
    return f"Image {position + 1} of {count}"


def _from_base64(text: str, place: str, limits: Limits) -> bytes:
    if text[:5].lower() == "data:":
        header, _, text = text.partition(",")
        if not header.lower().endswith(";base64"):
            raise UnreadableImage(f"{place} is a data URI without base64. Encode it in base64.")
    elif "://" in text[:20]:
        raise InvalidCase(f"{place} is a link, and nothing is fetched. Send its bytes in base64.")
    if any(blank in text for blank in " \n\r\t"):  # some encoders write lines
        text = "".join(text.split())
    _check_size(len(text) * 3 // 4 - 2, place, limits)
    try:
        return pybase64.b64decode(text, validate=True)
    except ValueError as error:
        raise UnreadableImage(f"{place} is not valid base64. Encode its bytes again.") from error
