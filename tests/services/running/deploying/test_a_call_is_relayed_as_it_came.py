"""Between gateway and engine on a Ray cluster a call is carried by Ray: nothing of it is lost."""

import asyncio
import json
from collections.abc import Awaitable, Callable

import httpx
import pytest
from aiohttp import web
from fastapi import FastAPI, Request, Response

from gateway.asking.model_server import new_http_client
from services.running.deploying.relay import Call, Reply, forwarded, relay
from tests.conftest import listening

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def engine() -> FastAPI:
    """Tells what it was asked, in a kind of its own."""
    app = FastAPI()

    @app.api_route("/{path:path}", methods=["GET", "POST"])
    async def echo(path: str, request: Request) -> Response:
        heard = [request.method, request.scope["raw_path"].decode(), str(request.url.query)]
        headers = {name: request.headers.get(name) for name in ("traceparent", "content-type")}
        body = (await request.body()).decode()
        return Response(json.dumps([heard, headers, body]), 418, media_type="text/x-own")

    return app


def asked(
    ask: Callable[[str, Call], Awaitable[Reply]],
    work: Callable[[httpx.AsyncClient], Awaitable[httpx.Response]],
) -> httpx.Response:
    """Of a relay that runs meanwhile."""

    async def run() -> httpx.Response:
        runner = web.AppRunner(relay(ask))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/thorax"
        async with httpx.AsyncClient(base_url=url, trust_env=False) as http:
            reply = await work(http)
        await runner.cleanup()
        return reply

    return asyncio.run(run())


@pytest.mark.parametrize("path", ["v1/chat/completions?a=%2F&b=c+d", "v1/mod%20els"])
def test_an_engine_hears_a_call_as_it_came(path: str) -> None:
    """With the trace that it is part of, and its query; and the reply comes back as it is."""
    seats = []

    async def ask(seat: str, call: Call) -> Reply:
        seats.append(seat)
        async with new_http_client() as http:
            return await forwarded(http, url, call)

    headers = {"traceparent": TRACE, "content-type": "application/json"}
    with listening(engine()) as url:
        reply = asked(ask, lambda http: http.post(path, content=b"{}", headers=headers))

    where, _, query = path.partition("?")
    assert (seats, reply.status_code) == (["thorax"], 418)
    assert reply.headers["content-type"].startswith("text/x-own")
    assert reply.json() == [["POST", f"/{where}", query], headers, "{}"]


def test_an_engine_that_is_gone_is_a_502(dead_url: str) -> None:
    async def ask(seat: str, call: Call) -> Reply:
        async with new_http_client() as http:
            return await forwarded(http, dead_url, call)

    assert asked(ask, lambda http: http.get("health")).status_code == 502
