"""The body of a request: read within limits, and taken apart as JSON or as a form."""

import asyncio
import json
import logging
import re
from collections.abc import AsyncGenerator, Coroutine, Iterator
from itertools import chain, islice
from typing import Any, NamedTuple, NoReturn, TypeVar

from pydantic_core import from_json
from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from gateway.contract import CaseRequest
from gateway.intake.off_loop import off_loop
from gateway.intake.wrong_fields import shown_name, unknown
from gateway.refusals import (
    InvalidCase,
    MalformedRequest,
    TooLarge,
    TooSlow,
    UnsupportedMedia,
)
from gateway.settings import Settings
from gateway.tables import Limits

T = TypeVar("T")
MEGABYTE = 1_000_000
# Brackets and commas in a JSON body: base64 has none of them, a long chat some thousands.
MAX_MARKS = 20_000
OBJECTS = {"options", "dicomweb"}  # in a form, as JSON
SINGLE_FIELDS = {"question", "language", "context", "modality", "slices", *OBJECTS}
LISTS = {"choices", "views"}  # in a form, a field for each
OPTIONAL_FIELDS = SINGLE_FIELDS - {"question"} | {"choices"}
IMAGE_FIELDS = {"images", "image", "files", "file"}  # the first is ours, all mean the same
SHOWN_FIELDS = ("frame", "window")  # of an image; a form has them beside its images

UTF_8, LIKE_ASCII = (b"utf-8", b"utf8"), re.compile(rb"us-ascii|ascii|iso-8859-\d+|windows-125\d")

# It warns of what is wrong with a form, part by part; whoever sent it is told once.
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)


async def json_of(request: Request, settings: Settings) -> dict[str, Any]:
    """The JSON object in a request's body; raises a `Refused`."""
    if kind_of(request) != "application/json":  # what no other site's page can send unasked
        raise UnsupportedMedia("Send Content-Type application/json.")
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


class Form(NamedTuple):
    """A form's fields, its image files, and what of each is to be shown, all as they were sent."""

    content: dict[str, Any]
    images: list[bytes]
    shown: dict[str, list[str]]


class _Parser(MultiPartParser):
    """Of what else a part says of itself, the standard's reader knows nothing: it would take a text
    in base64 for the text (RFC 7578 section 4.7), and one in another charset for one in Latin-1."""

    def on_headers_finished(self) -> None:
        said = dict(self._current_part.item_headers)
        coding = said.get(b"content-transfer-encoding", b"binary").strip().lower()
        if coding not in (b"binary", b"8bit", b"7bit"):
            raise UnsupportedMedia(
                "Send each part of the form as it is, without Content-Transfer-Encoding."
            )
        _, parameters = parse_options_header(said.get(b"content-type"))
        self._charset_of_part = parameters.get(b"charset", b"utf-8").lower()
        super().on_headers_finished()

    def on_part_end(self) -> None:
        part = self._current_part
        if part.file is None and _field(part.field_name) not in IMAGE_FIELDS:
            # Java's libraries say Latin-1 of every text, and of most it makes no difference.
            is_ascii = LIKE_ASCII.fullmatch(self._charset_of_part) and part.data.isascii()
            if self._charset_of_part not in UTF_8 and not is_ascii:
                raise _not_utf_8()
            try:
                part.data.decode()
            except UnicodeDecodeError as error:
                raise _not_utf_8() from error
        super().on_part_end()


def _not_utf_8() -> UnsupportedMedia:
    return UnsupportedMedia("Send the form in UTF-8, without another charset.")


def _field(name: str) -> str:
    """Some libraries mark so what is there several times."""
    return name.removesuffix("[]")


def form_of(request: Request, body: bytes, most: int) -> Form:
    """The form that a request's body is; raises a `Refused`: TooLarge where it has more than `most`
    files, or fields."""
    return _at_once(_parsed(request, body, most))


async def _parsed(request: Request, body: bytes, most: int) -> Form:
    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    _, parameters = parse_options_header(request.headers["content-type"])
    # RFC 7578 knows no other, and some that Python knows decode to no text at all.
    if parameters.get(b"charset", b"utf-8").lower() not in UTF_8:
        raise _not_utf_8()
    parser = _Parser(
        request.headers,
        stream(),
        max_files=most,
        max_fields=most,
        max_part_size=len(body),
    )
    # Never spill to disk: a patient's image must not be left in a temporary folder.
    parser.spool_max_size = len(body) + 1
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError) as error:
        if isinstance(error, MultiPartException) and error.message.startswith("Too many"):
            raise TooLarge(f"The form has over {most} files, or fields. Send fewer.") from error
        raise MalformedRequest(
            "The body is not multipart/form-data as its Content-Type describes it. "
            "Let an HTTP library build the body and the header."
        ) from error
    # The parser leaves out what is cut: a case might be answered without its last image. It is
    # looked for from the end, where it is.
    if body.rfind(b"--" + parameters.get(b"boundary", b"") + b"--") < 0:
        raise MalformedRequest(
            "The form is cut short: its last boundary is missing. Send all of it."
        )
    content: dict[str, Any] = {}
    images: list[bytes] = []
    shown: dict[str, list[str]] = {name: [] for name in SHOWN_FIELDS}
    for sent_as, value in form.multi_items():
        name = _field(sent_as)
        if isinstance(value, UploadFile):
            if name not in IMAGE_FIELDS:
                raise InvalidCase(
                    f"{shown_name(name)}: only images are sent as files; call the field images."
                )
            images.append(await value.read())
        elif name in IMAGE_FIELDS:
            raise InvalidCase(f"{name}: send each image as a file, with a file name.")
        elif name == "views":  # one that tells nothing has its image all the same
            content.setdefault(name, []).append("" if value == "null" else value)
        elif name == "choices" and value:
            content.setdefault(name, []).append(value)
        elif name in shown:
            shown[name].append(value)
        elif name in OPTIONAL_FIELDS and value in ("", "null"):
            continue  # a form's way to send nothing
        elif name in content:
            raise InvalidCase(f"{shown_name(name)}: send it once.")
        elif name in OBJECTS:
            content[name] = json_object(value.encode(), name)
        elif name in SINGLE_FIELDS:
            content[name] = value
        else:
            reason = unknown(name, [*CaseRequest.model_fields, *SHOWN_FIELDS])
            raise InvalidCase(f"{shown_name(name)}: it {reason}.")
    await form.close()
    return Form(content, images, shown)


def _at_once(work: Coroutine[Any, Any, T]) -> T:
    """What it returns: the form's parser is written for a loop, and awaits nothing that is not
    here already."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    work.close()
    raise RuntimeError("the form's parser waits for something")


def json_object(body: bytes, what: str) -> dict[str, Any]:
    """The object that a JSON text is; raises a `Refused` that calls it `what`."""
    # Millions of small things would keep everybody waiting while they are read.
    if holds_marks(body, MAX_MARKS + 1):
        raise TooLarge(f"{what} holds over {MAX_MARKS} items. Send a question and its images.")
    content = _plainly(body)
    if content is None:
        content = _carefully(body, what)
    if not isinstance(content, dict):
        raise MalformedRequest(f"{what} is not a JSON object.")
    return content


def _plainly(body: bytes) -> Any:
    """What a JSON text says, nine times as fast; None where it is none, or may say something twice.

    A parser drops a field that another one of its name follows. Where nothing is escaped, every
    string is two quotation marks: those of what was dropped would be left over.
    """
    if b"\\" in body:
        return None
    try:
        content = from_json(body, allow_inf_nan=False, cache_strings="none")
    except ValueError:
        return None
    marks = sum(1 for _ in _places(body, b'"'))
    return content if marks == 2 * _strings(content) else None


def _strings(content: Any) -> int:
    if isinstance(content, dict):
        return len(content) + sum(map(_strings, content.values()))
    return sum(map(_strings, content)) if isinstance(content, list) else isinstance(content, str)


def _carefully(body: bytes, what: str) -> Any:
    """The same, or a `Refused` that says what is wrong with it."""

    def refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) < len(pairs):
            raise MalformedRequest(f"{what}: a field is there twice. Send each once.")
        return content

    def refuse_constant(name: str) -> NoReturn:
        raise MalformedRequest(f"{what}: {name} is not JSON. Send a number or null.")

    try:
        return json.loads(body, object_pairs_hook=refuse_duplicates, parse_constant=refuse_constant)
    except RecursionError as error:
        raise MalformedRequest(f"{what} is nested too deep. Send a question and images.") from error
    except ValueError as error:
        raise MalformedRequest(f"{what} is not valid JSON in UTF-8.") from error


def holds_marks(body: bytes, most: int) -> bool:
    """Whether brackets and commas are there `most` times."""
    marks = chain.from_iterable(_places(body, mark) for mark in (b",", b"[", b"{"))
    return next(islice(marks, most - 1, None), None) is not None


def _places(body: bytes, mark: bytes) -> Iterator[int]:
    """In long base64 a mark is looked for thirty times as fast as `bytes.count` counts it."""
    at = -1
    while (at := body.find(mark, at + 1)) >= 0:
        yield at
