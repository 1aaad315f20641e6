"""The least that a fan-out costs in Python: python -m benchmarks.cost.bare PORT WORKER …

`POST /vqa` with a question and an image goes to every worker, and most voices win. It checks
nothing, strips nothing, stores nothing, survives nothing: it is what the gateway is held against.
"""

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator

import aiohttp
import uvloop
from aiohttp import web
from pydantic_core import from_json, to_json

WORKERS = sys.argv[2:]
HTTP = web.AppKey("HTTP", aiohttp.ClientSession)


async def vqa(request: web.Request) -> web.Response:
    case = from_json(await request.read())
    picture = {"url": f"data:image/jpeg;base64,{case['images'][0]}"}
    content = [
        {"type": "image_url", "image_url": picture},
        {"type": "text", "text": case["question"]},
    ]
    asked = {"model": "mock", "messages": [{"role": "user", "content": content}], "max_tokens": 128}
    body = to_json(asked)

    async def ask(worker: str) -> str:
        headers = {"content-type": "application/json"}
        url = f"{worker}/v1/chat/completions"
        async with request.app[HTTP].post(url, data=body, headers=headers) as reply:
            return str(from_json(await reply.read())["choices"][0]["message"]["content"])

    answers = await asyncio.gather(*map(ask, WORKERS))
    winner, votes = Counter(answers).most_common(1)[0]
    return web.json_response({"answer": winner, "votes": votes, "answers": answers})


async def client(app: web.Application) -> AsyncIterator[None]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as app[HTTP]:
        yield


if __name__ == "__main__":
    uvloop.install()
    app = web.Application(client_max_size=64_000_000)
    app.cleanup_ctx.append(client)
    app.router.add_post("/vqa", vqa)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)
