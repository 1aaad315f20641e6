"""A call to an address of this machine → the same call, made on the machine where its engine is."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus

import aiohttp
from aiohttp import web
from yarl import URL

from gateway.asking.model_server import Http

MAX_CALL_BYTES = 200_000_000
# Of one connection (RFC 9110 7.6.1), or written anew for the next.
OF_A_CONNECTION = {
    "accept-encoding",
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "te",
    "transfer-encoding",
    "upgrade",
}


@dataclass(frozen=True)
class Call:
    """A request as it came; `path` has its query, as it was written, and no slash before it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Reply:
    """What the engine says; without a body where there is none."""

    status: int
    kind: str = "application/json"
    body: bytes = b""


NO_REPLY = Reply(HTTPStatus.BAD_GATEWAY)


def relay(ask: Callable[[str, Call], Awaitable[Reply]]) -> web.Application:
    """/NAME/… is the address of the seat NAME, of which `ask` brings the reply."""

    async def relayed(request: web.Request) -> web.Response:
        seat, _, path = request.raw_path.removeprefix("/").partition("/")
        kept = {n: v for n, v in request.headers.items() if n.lower() not in OF_A_CONNECTION}
        reply = await ask(seat, Call(request.method, path, kept, await request.read()))
        headers = {"content-type": reply.kind}
        return web.Response(status=reply.status, body=reply.body, headers=headers)

    app = web.Application(client_max_size=MAX_CALL_BYTES)
    app.router.add_route("*", "/{seat}/{path:.*}", relayed)
    return app


async def forwarded(http: Http, engine: str, call: Call) -> Reply:
    """The reply of the engine at that address; 502 where there is none."""
    url = URL(f"{engine}/{call.path}", encoded=True)
    try:
        async with http.request(
            call.method, url, data=call.body or None, headers=call.headers, allow_redirects=False
        ) as reply:
            return Reply(reply.status, reply.headers.get("content-type", ""), await reply.read())
    except aiohttp.ClientError:
        return NO_REPLY
