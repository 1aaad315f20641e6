"""A model server for timing and faults: those endpoints of vLLM that we ask, on loopback."""

import asyncio
import math
import threading
from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import web

Reply = str | Callable[[dict[str, Any]], str]


class MockVllm:
    """Says one thing (or what `says` makes of the request) to every question.

    `root` is the folder of the model that it claims to have loaded, `adapters` those of LoRA
    adapters by their names.
    `raw` replaces the whole reply body, `status` its code; `delay_s` (or what it returns) passes
    before it is sent. With `only` these three are for questions that hold this word.
    `requests` holds what was asked, `headers` how, `dropped` counts callers that hung up while
    waiting, `probed` those that asked for its health. Where it `dribbles` a reply comes byte by
    byte.
    """

    def __init__(
        self,
        says: Reply = "yes",
        *,
        confidence: float | None = 0.9,
        delay_s: float | Callable[[], float] = 0,
        status: int = 200,
        raw: bytes | None = None,
        only: str = "",
        finish_reason: str = "stop",
        root: str = "/cache/served/0123abcd",
        adapters: Mapping[str, str] | None = None,
    ):
        self.root, self.adapters = root, adapters or {}
        self.says, self.confidence, self.finish_reason = says, confidence, finish_reason
        self.delay_s, self.status, self.raw, self.only = delay_s, status, raw, only
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.dropped = self.probed = 0
        self.dribbles = False
        self.url = ""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def start(self) -> "MockVllm":
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(timeout=10)
        return self

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(timeout=10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)
        self._loop.close()

    async def _listen(self) -> None:
        app = web.Application(client_max_size=200_000_000)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/health", self._health)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def _health(self, request: web.Request) -> web.Response:
        self.probed += 1
        return web.Response(status=200)

    async def _models(self, request: web.Request) -> web.Response:
        listed = [
            {"id": name, "object": "model", "root": root}
            for name, root in {"mock": self.root, **self.adapters}.items()
        ]
        return web.json_response({"object": "list", "data": listed})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.requests.append(body)
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        meant = self.only in str(body["messages"][0]["content"][-1])
        delay_s = self.delay_s() if callable(self.delay_s) else self.delay_s
        try:
            await asyncio.sleep(delay_s if meant else 0)
        except asyncio.CancelledError:
            self.dropped += 1
            raise
        if self.raw is not None and meant:
            return web.Response(body=self.raw, status=self.status)
        text = self.says(body) if callable(self.says) else self.says
        logprobs = None
        if self.confidence is not None:
            # Two tokens, whose product is the answer's.
            logprobs = {"content": [{"token": "t", "logprob": math.log(self.confidence) / 2}] * 2}
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text},
            "logprobs": logprobs,
            "finish_reason": self.finish_reason,
        }
        reply = web.json_response({"object": "chat.completion", "choices": [choice]})
        return await self._dribbled(request, reply) if self.dribbles else reply

    async def _dribbled(self, request: web.Request, reply: web.Response) -> web.StreamResponse:
        assert isinstance(reply.body, bytes)
        slow = web.StreamResponse(headers={"content-type": "application/json"})
        await slow.prepare(request)
        for byte in reply.body:
            await slow.write(bytes([byte]))
            await asyncio.sleep(0.2)
        return slow
