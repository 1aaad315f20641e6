"""One connection to a gateway, for as many cases as you have.

with Client("http://127.0.0.1:8000") as client:
    for path in paths:
        print(client.ask(path, "Is there a pleural effusion?").answer)
"""

import asyncio
import math
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from functools import cached_property
from typing import Any, Callable, Optional, TypeVar

import httpx
from typing_extensions import Self, Unpack

from consilium.case import Fields, Images, case_json
from consilium.errors import GatewayError
from consilium.patience import Patience, seconds
from consilium.verdict import PanelReport, Problem, Verdict
from consilium.wire import (
    EVENTS,
    JSON,
    Event,
    EventReader,
    Reply,
    bearer,
    holds_events,
    no_verdict,
    read_reply,
    trusts_env,
)

GATEWAY_URL = "http://127.0.0.1:8000"

T = TypeVar("T")


def ask(
    images: Images,
    question: str,
    *,
    url: str = GATEWAY_URL,
    key: Optional[str] = None,
    timeout_s: float = 120,
    patience_s: float = 0,
    **fields: Unpack[Fields],
) -> Verdict:
    """The panel's verdict on one case, by a connection of its own: see Client."""
    with Client(url, key, timeout_s=timeout_s, patience_s=patience_s) as client:
        return client.ask(images, question, **fields)


class _Connection:
    """What both clients are told, and how they wait."""

    def __init__(
        self,
        url: str = GATEWAY_URL,
        key: Optional[str] = None,
        *,
        timeout_s: float = 120,
        patience_s: float = 0,
        tell: Callable[[str], None] = lambda line: None,
    ):
        """`key` is an API key, where the gateway wants one; without it $CONSILIUM_KEY is sent. A
        failure that may pass (the gateway restarts, is busy, or the key has asked too often) is
        waited out for up to `patience_s`, never shorter than Retry-After says; `tell` hears of
        each wait.

        Raises GatewayError for a key that cannot be sent, alone or beside a password in the
        address, and for seconds that are no number, or below 0, GatewayUnreachable for an address
        that is none.
        """
        limit_s = seconds("timeout_s", timeout_s)
        self._how: dict[str, Any] = {
            "headers": bearer(url, key),
            "timeout": None if math.isinf(limit_s) else limit_s,
            "trust_env": trusts_env(url),
        }
        self._url, self._tell = url.rstrip("/"), tell
        self._patience_s = seconds("patience_s", patience_s)
        self._opening = threading.Lock()

    def _patience(self) -> Patience:
        return Patience(self._patience_s, self._tell)


class Client(_Connection):
    """Asks a gateway; threads may share it.

    An image is a path, what the file holds, an open file, or an array (consilium.tiff), one or a
    list of them; of a DICOM also a mapping of `data`, `frame` (from 1) and `window`. The other
    fields of a case and its options are keywords (consilium.case.Fields).

    Each call raises GatewayRefused with the gateway's own words, GatewayUnreachable, OSError for
    a file that cannot be read, or TypeError for an array that is no picture.
    """

    _opened: Optional[httpx.Client] = None

    def ask(self, images: Images, question: str, **fields: Unpack[Fields]) -> Verdict:
        """The panel's verdict."""
        body = case_json(images, question, fields)
        return self._patiently(lambda: self._reply("POST", "/vqa", Verdict, body))

    def stream(self, images: Images, question: str, **fields: Unpack[Fields]) -> Iterator[Event]:
        """Each Answer as it comes, after each how the vote stands (Provisional), and last the
        Verdict."""
        body = case_json(images, question, fields)
        response, reader = self._patiently(lambda: self._begin(body)), EventReader()
        try:
            for chunk in response.iter_bytes():
                for event in reader.read(chunk):
                    yield event
                    if isinstance(event, Verdict):
                        return
        except httpx.HTTPError as error:
            raise no_verdict(self._url, error) from error
        finally:
            response.close()
        raise reader.end()

    def panel(self) -> PanelReport:
        """Who sits there, how well they are, and what a case may hold."""
        return self._patiently(lambda: self._reply("GET", "/panel", PanelReport))

    def close(self) -> None:
        if self._opened:
            self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    @property
    def _http(self) -> httpx.Client:
        # No cached_property: that has no lock from Python 3.12 on.
        with self._opening:
            self._opened = self._opened or httpx.Client(**self._how)
            return self._opened

    def _reply(
        self, method: str, path: str, kind: type[Reply], body: Optional[bytes] = None
    ) -> Reply:
        try:
            response = self._http.request(method, self._url + path, content=body, headers=JSON)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise no_verdict(self._url, error) from error
        return read_reply(response, kind)

    def _begin(self, body: bytes) -> httpx.Response:
        """A response whose events are still to come."""
        try:
            request = self._http.build_request(
                "POST", f"{self._url}/vqa", content=body, headers={**JSON, **EVENTS}
            )
            response = self._http.send(request, stream=True)
            if not holds_events(response):
                response.read()
                read_reply(response, Problem)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise no_verdict(self._url, error) from error
        return response

    def _patiently(self, attempt: Callable[[], T]) -> T:
        patience = self._patience()
        while True:
            asked_at = time.monotonic()
            try:
                return attempt()
            except GatewayError as error:
                if not patience.goes_on(error, asked_at):
                    raise
            time.sleep(patience.wait_s)


class AsyncClient(_Connection):
    """The same for asyncio: many cases may be under way at once."""

    async def ask(self, images: Images, question: str, **fields: Unpack[Fields]) -> Verdict:
        """The panel's verdict."""
        body = await asyncio.to_thread(case_json, images, question, fields)
        return await self._patiently(lambda: self._reply("POST", "/vqa", Verdict, body))

    async def stream(
        self, images: Images, question: str, **fields: Unpack[Fields]
    ) -> AsyncIterator[Event]:
        """Each Answer as it comes, after each how the vote stands (Provisional), and last the
        Verdict."""
        body = await asyncio.to_thread(case_json, images, question, fields)
        response, reader = await self._patiently(lambda: self._begin(body)), EventReader()
        try:
            async for chunk in response.aiter_bytes():
                for event in reader.read(chunk):
                    yield event
                    if isinstance(event, Verdict):
                        return
        except httpx.HTTPError as error:
            raise no_verdict(self._url, error) from error
        finally:
            await response.aclose()
        raise reader.end()

    async def panel(self) -> PanelReport:
        """Who sits there, how well they are, and what a case may hold."""
        return await self._patiently(lambda: self._reply("GET", "/panel", PanelReport))

    async def close(self) -> None:
        if "_http" in vars(self):
            await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.close()

    @cached_property
    def _http(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(**self._how)

    async def _reply(
        self, method: str, path: str, kind: type[Reply], body: Optional[bytes] = None
    ) -> Reply:
        try:
            response = await self._http.request(
                method, self._url + path, content=body, headers=JSON
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise no_verdict(self._url, error) from error
        return read_reply(response, kind)

    async def _begin(self, body: bytes) -> httpx.Response:
        """A response whose events are still to come."""
        try:
            request = self._http.build_request(
                "POST", f"{self._url}/vqa", content=body, headers={**JSON, **EVENTS}
            )
            response = await self._http.send(request, stream=True)
            if not holds_events(response):
                await response.aread()
                read_reply(response, Problem)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise no_verdict(self._url, error) from error
        return response

    async def _patiently(self, attempt: Callable[[], Awaitable[T]]) -> T:
        patience = self._patience()
        while True:
            asked_at = time.monotonic()
            try:
                return await attempt()
            except GatewayError as error:
                if not patience.goes_on(error, asked_at):
                    raise
            await asyncio.sleep(patience.wait_s)
