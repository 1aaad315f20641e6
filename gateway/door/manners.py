"""What HTTP asks of every server, whatever the route.

HEAD is GET without its body (RFC 9110 section 9.3.2). A body that nobody read is read and dropped
before its line is closed (RFC 9112 section 9.6): who is still sending when the line breaks never
reads why.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.settings import Settings

DROPPED_MB = 200  # five bodies of the size that is allowed by default
MEGABYTE = 1_000_000


class Manners:
    """ASGI middleware around the whole gateway; `settings_now` gives the settings at work.

    A body that is dropped has the time of one that is read, `load.body_s` from its first byte on: a
    slow sender costs a socket for so long, and nothing else.
    """

    def __init__(self, app: ASGIApp, settings_now: Callable[[], Settings]):
        self.app, self.settings_now = app, settings_now

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif scope["method"] == "HEAD":
            # The server itself leaves the body away.
            await self.app({**scope, "method": "GET"}, receive, send)
        elif _has_body(Headers(scope=scope)):
            await self._with_body(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _with_body(self, scope: Scope, receive: Receive, send: Send) -> None:
        give_up_at = asyncio.get_running_loop().time() + self.settings_now().load.body_s
        unread, held = True, False

        async def received() -> Message:
            nonlocal unread
            message = await receive()
            unread = unread and message.get("more_body", False)
            return message

        async def sent(message: Message) -> None:
            nonlocal held
            last = message["type"] == "http.response.body" and not message.get("more_body")
            if last and unread:
                # All of it goes out, but the server closes no line yet.
                held = True
                message = {**message, "more_body": True}
            await send(message)

        try:
            await self.app(scope, received, sent)
        finally:
            if held:
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(give_up_at):
                        await _drop(receive)
                await send({"type": "http.response.body", "body": b""})


def _has_body(headers: Headers) -> bool:
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


async def _drop(receive: Receive) -> None:
    left = DROPPED_MB * MEGABYTE
    while left > 0:
        message = await receive()
        if not message.get("more_body", False):
            return
        left -= len(message["body"])
