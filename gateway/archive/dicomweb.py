"""The one DICOMweb archive (PS3.18) that the gateway knows: what a study holds, its files, and what
goes back to it.

Only UIDs get into an address, whoever named them, and these are numbers and dots. It goes over
the gateway's own HTTP client: dicomweb-client is synchronous, and reads answers of any size.
"""

import asyncio
import io
import json
import re
import secrets
from collections.abc import Iterator
from email.message import Message
from typing import Any

import aiohttp

from gateway.contract import uid
from gateway.refusals import ArchiveFailed, NotInArchive, TooLarge
from gateway.tables import ArchiveSettings, Limits

JSON = "application/dicom+json"
# As it is stored: what is compressed is decoded here, not there.
FILE = 'multipart/related; type="application/dicom"; transfer-syntax=*'
FILES = 'multipart/related; type="application/dicom"; boundary='
# Of what is answered to STOW-RS (PS3.18 I.2): Referenced and Failed SOP Sequence.
STORED, FAILED = "00081199", "00081198"
STORED_INSTANCE, FAILURE_REASON = "00081155", "00081197"
DUPLICATE = 0x0111  # PS3.7 C.5.6: such an instance is there already
SPACE = re.compile(r"\s*")
# PS3.18 10.5.3: all is stored; with a warning, or not all; nothing is. The answer says which.
STORE_ANSWERED = (200, 202, 409)
MAX_JSON_MB = 50  # the headers of some thousand slices
MAX_TOLD_MB = 1  # of one file that was stored
NOT_THERE = "The archive holds no such study, series or instances for this key."


class Archive:
    """As one tenant sees it."""

    def __init__(
        self, http: aiohttp.ClientSession, settings: ArchiveSettings, tenant: str, limits: Limits
    ):
        self._http, self._settings = http, settings
        self._tenant, self._limits = tenant, limits
        self.timeout_s = settings.timeout_s

    async def series_of(self, study: str) -> list[dict[str, Any]]:
        """A study's series, as QIDO-RS tells of them (PS3.18 10.6)."""
        return await self._list(study, "/series")

    async def metadata(self, study: str, series: str) -> list[dict[str, Any]]:
        """The header of each instance, in the DICOM JSON model (PS3.18 10.4, annex F)."""
        _check(series)
        return await self._list(study, f"/series/{series}/metadata")

    async def instance(self, study: str, series: str, instance: str) -> memoryview:
        """A file of it, as it lies in the answer."""
        _check(series, instance)
        path = f"/series/{series}/instances/{instance}"
        kind, body = await self._get(study, path, FILE, self._limits.max_series_mb)
        return _only_part(kind, body)

    async def store(self, study: str, instance: str, file: bytes) -> None:
        """Puts a file beside those of the study (STOW-RS, PS3.18 10.5), if it is not there yet."""
        # The file holds a caller's words, which would end it, and begin another, if they knew this.
        boundary = secrets.token_hex()
        part = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        body = part + file + f"\r\n--{boundary}--\r\n".encode()
        headers = {"Accept": JSON, "Content-Type": FILES + boundary}
        _, told = await self._asked("POST", study, "", headers, MAX_TOLD_MB, body)
        try:
            there = set(_there(json.loads(told)))
        except (ValueError, AttributeError, LookupError, TypeError, RecursionError) as error:
            raise ArchiveFailed("The archive does not say in DICOM JSON what it stored.") from error
        if instance not in there:
            raise ArchiveFailed("The archive did not take what was to be stored.")

    async def _list(self, study: str, path: str) -> list[dict[str, Any]]:
        _, body = await self._get(study, path, JSON, MAX_JSON_MB)
        try:
            found = await asyncio.to_thread(lambda: list(_objects(body)))
        except (ValueError, LookupError, RecursionError) as error:
            raise ArchiveFailed("The archive's answer is no DICOM JSON.") from error
        if not all(isinstance(each, dict) for each in found):
            raise ArchiveFailed("The archive's answer is no DICOM JSON.")
        if not found:
            raise NotInArchive(NOT_THERE)
        return found

    async def _get(self, study: str, path: str, accept: str, max_mb: float) -> tuple[str, bytes]:
        return await self._asked("GET", study, path, {"Accept": accept}, max_mb)

    async def _asked(
        self,
        method: str,
        study: str,
        path: str,
        headers: dict[str, str],
        max_mb: float,
        body: bytes | None = None,
    ) -> tuple[str, bytes]:
        """The Content-Type and the body of the answer.

        Raises:
            NotInArchive: it is not there, or not for this tenant, who is not told which.
            TooLarge, ArchiveFailed
        """
        if not self._settings.shows(study, self._tenant):
            raise NotInArchive(NOT_THERE)
        if self._settings.authorization:
            headers |= {"Authorization": self._settings.authorization.get_secret_value()}
        url = f"{self._settings.url}/studies/{study}{path}"
        try:
            async with (
                asyncio.timeout(self.timeout_s),
                self._http.request(
                    method, url, headers=headers, data=body, allow_redirects=False
                ) as response,
            ):
                if response.status in (204, 404):
                    raise NotInArchive(NOT_THERE)
                if response.status in (401, 403):
                    raise ArchiveFailed("The archive does not take the gateway's own credentials.")
                if response.status not in (STORE_ANSWERED if method == "POST" else (200,)):
                    raise ArchiveFailed(f"The archive answers with HTTP {response.status}.")
                return response.headers.get("Content-Type", ""), await _body(response, max_mb)
        except TimeoutError as error:
            raise ArchiveFailed(
                f"The archive did not answer within {self.timeout_s:g} s."
            ) from error
        except aiohttp.ClientError as error:
            raise ArchiveFailed("The archive cannot be reached.") from error


def _there(answer: dict[str, Any]) -> Iterator[str]:
    """The instances that the archive has, by its answer to STOW-RS."""
    for each in answer.get(STORED, {}).get("Value", ()):
        yield each[STORED_INSTANCE]["Value"][0]
    for each in answer.get(FAILED, {}).get("Value", ()):
        if each.get(FAILURE_REASON, {}).get("Value") == [DUPLICATE]:
            yield each[STORED_INSTANCE]["Value"][0]


def _objects(body: bytes) -> Iterator[Any]:
    """What a JSON list holds, one by one: read at once it would keep the event loop waiting, in
    whatever thread. Raises ValueError, LookupError, RecursionError."""
    text, decoder = body.decode("utf-8-sig").strip(), json.JSONDecoder()
    if not text.startswith("["):
        raise ValueError("no list")
    at = _behind_space(text, 1)
    while text[at] != "]":
        found, at = decoder.raw_decode(text, at)
        yield found
        at = _behind_space(text, at)
        if text[at] == ",":
            at = _behind_space(text, at + 1)
    if at != len(text) - 1:
        raise ValueError("more than a list")


def _behind_space(text: str, at: int) -> int:
    return SPACE.match(text, at).end()  # type: ignore[union-attr]


def _check(*named: str) -> None:
    """Of what the archive named itself."""
    try:
        for each in named:
            uid(each)
    except ValueError as error:
        raise ArchiveFailed("The archive names a series or an instance by no UID.") from error


async def _body(response: aiohttp.ClientResponse, max_mb: float) -> bytes:
    body = io.BytesIO()  # pieces to be joined would be there twice
    async for chunk in response.content.iter_any():
        body.write(chunk)
        if body.tell() > max_mb * 1_000_000:
            raise TooLarge(f"What the archive gives is over {max_mb:g} MB. Name another series.")
    return body.getvalue()


def _only_part(kind: str, body: bytes) -> memoryview:
    """RFC 2387: the one part of a multipart/related body, or the body itself where it is none."""
    message = Message()
    message["Content-Type"] = kind
    boundary = message.get_boundary()
    if boundary is None:
        return memoryview(body)
    mark = b"--" + boundary.encode()
    head = body.find(b"\r\n\r\n", body.find(mark))
    end = body.rfind(b"\r\n" + mark)
    if head < 0 or end < head + 4 or body.find(b"\r\n" + mark, head, end) >= 0:
        raise ArchiveFailed("The archive gave another number of files than the one asked for.")
    return memoryview(body)[head + 4 : end]
