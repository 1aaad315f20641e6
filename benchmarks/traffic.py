"""Workers and callers that cost next to nothing, so that what stands between them is measured.

python -m benchmarks.traffic [--delay-ms MS] serves three workers that answer "Yes", in a process of
its own: `workers` starts it. A caller is a connection that sends bodies which are there already.
"""

import argparse
import asyncio
import contextlib
import io
import json
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from urllib.parse import urlsplit

import httptools
import numpy as np
import pybase64
import uvloop
from PIL import Image

SEATS = 3
NUMBER = b"000000000000"  # stands in a question; each request has its own there
QUESTION = f"Case {NUMBER.decode()}?"
BOUNDARY = "b0undary"
MULTIPART = f"multipart/form-data; boundary={BOUNDARY}"
JSON = "application/json"


def photograph(kilobytes: int, seed: int = 0) -> bytes:
    """A JPEG of about that size, of noise: what a camera makes of a detailed scene. With 0 it is 16
    pixels a side, the smallest that is taken."""
    side = max(16, round(67 * kilobytes**0.5))
    noise = np.random.default_rng(seed).integers(0, 256, (side // 2, side // 2), dtype=np.uint8)
    picture = Image.fromarray(noise).resize((side, side * 3 // 4 if kilobytes else side))
    for quality in range(50, 100):
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=quality)
        if file.tell() >= 1000 * kilobytes:
            break
    return file.getvalue()


def case(image: bytes) -> bytes:
    """What the gateway is asked, as JSON."""
    return json.dumps(
        {"question": QUESTION, "images": [pybase64.b64encode(image).decode()]}
    ).encode()


def form(image: bytes) -> bytes:
    """The same as a form."""
    head = 'Content-Disposition: form-data; name="{}"{}\r\n\r\n'
    question = head.format("question", "") + QUESTION
    picture = head.format("images", '; filename="a.jpg"').encode() + image
    line = f"--{BOUNDARY}".encode()
    return b"\r\n".join([line, question.encode(), line, picture, line + b"--", b""])


def chat(image: bytes, model: str = "mock", *, logprobs: bool = True) -> bytes:
    """What a worker is asked, or any gateway that speaks OpenAI's protocol."""
    uri = f"data:image/jpeg;base64,{pybase64.b64encode(image).decode()}"
    picture = {"type": "image_url", "image_url": {"url": uri}}
    content = [picture, {"type": "text", "text": QUESTION}]
    asked = {"model": model, "messages": [{"role": "user", "content": content}], "max_tokens": 128}
    told = {"logprobs": True, "top_logprobs": 10} if logprobs else {}
    return json.dumps(asked | {"temperature": 0} | told).encode()


class Request:
    """A POST that is there already, but for the number in its question."""

    def __init__(self, url: str, body: bytes, kind: str = JSON, key: str | None = None):
        where = urlsplit(url)
        self.host, self.port = str(where.hostname), where.port or 80
        lines = [f"POST {where.path} HTTP/1.1", f"host: {self.host}", f"content-type: {kind}"]
        lines += [f"content-length: {len(body)}"] + ([f"authorization: Bearer {key}"] * bool(key))
        whole = "\r\n".join([*lines, "", ""]).encode() + body
        self._before, _, self._after = whole.partition(NUMBER)

    def parts(self, number: int) -> list[bytes]:
        return [self._before, b"%012d" % number, self._after]


class Line(asyncio.Protocol):
    """A caller's connection: one request at a time."""

    async def ask(self, request: Request, number: int) -> tuple[int, bytes]:
        """Status and body; raises OSError where the connection breaks."""
        loop = asyncio.get_running_loop()
        self._reply: asyncio.Future[tuple[int, bytes]] = loop.create_future()
        self._parser, self._body = httptools.HttpResponseParser(self), list[bytes]()
        self._transport.writelines(request.parts(number))
        return await self._reply

    def close(self) -> None:
        self._transport.close()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, error: Exception | None) -> None:
        if not self._reply.done():
            self._reply.set_exception(error or ConnectionResetError("closed before it answered"))

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        self._reply.set_result((self._parser.get_status_code(), b"".join(self._body)))


@contextlib.asynccontextmanager
async def lines(requests: Sequence[Request]) -> AsyncGenerator[list[Line], None]:
    """A connection for each of them."""
    loop = asyncio.get_running_loop()
    opened = [await loop.create_connection(Line, each.host, each.port) for each in requests]
    try:
        yield [line for _, line in opened]
    finally:
        for _, line in opened:
            line.close()


Asked = Callable[[list[Line], int], Awaitable[None]]


async def load(requests: Sequence[Request], ask: Asked, callers: int, seconds: float) -> list[float]:
    """So many callers, each of whom asks again when it was answered; the seconds that each answer
    took. `ask` is given a caller's own lines, one for each of `requests`, and a number."""
    taken: list[float] = []
    until = time.perf_counter() + seconds

    async def caller() -> None:
        async with lines(requests) as own:
            while (began := time.perf_counter()) < until:
                await ask(own, time.monotonic_ns() // 1000 % 10**12)
                taken.append(time.perf_counter() - began)

    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(caller())
    return taken


class Worker(asyncio.Protocol):
    """A model server's side of a connection. It reads a body and looks at none of it."""

    def __init__(self, delay_s: float):
        self._delay_s, self._parser = delay_s, httptools.HttpRequestParser(self)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._reply = MODELS if url.endswith(b"/models") else REPLY

    def on_message_complete(self) -> None:
        if self._delay_s:
            loop = asyncio.get_running_loop()
            loop.call_later(self._delay_s, self._transport.write, self._reply)
        else:
            self._transport.write(self._reply)


def _http(content: object) -> bytes:
    body = json.dumps(content).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {JSON}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _token(text: str) -> dict[str, object]:
    others = [{"token": other, "logprob": -3.0 - at} for at, other in enumerate("abcdefghi")]
    return {
        "token": text,
        "logprob": -0.1,
        "top_logprobs": [{"token": text, "logprob": -0.1}, *others],
    }


# As long as a trained worker's: a word, the end of it, and ten alternatives to both.
REPLY = _http(
    {
        "id": "chatcmpl-0",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "mock",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Yes"},
                "finish_reason": "stop",
                "logprobs": {"content": [_token("Yes"), _token("<eos>")]},
            }
        ],
        "usage": {"prompt_tokens": 64, "completion_tokens": 2, "total_tokens": 66},
    }
)
MODELS = _http({"object": "list", "data": [{"id": "mock", "object": "model", "root": "/mock"}]})


@contextlib.contextmanager
def workers(delay_ms: float = 0) -> Iterator[list[str]]:
    """Three of them in a process of their own; gives their addresses."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.traffic", f"--delay-ms={delay_ms}"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())
    finally:
        process.terminate()
        process.wait()


async def serve(delay_s: float) -> None:
    loop = asyncio.get_running_loop()
    servers = [
        await loop.create_server(lambda: Worker(delay_s), "127.0.0.1", 0) for _ in range(SEATS)
    ]
    ports = [server.sockets[0].getsockname()[1] for server in servers]
    print(json.dumps([f"http://127.0.0.1:{port}" for port in ports]), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--delay-ms", type=float, default=0)
    uvloop.run(serve(arguments.parse_args().delay_ms / 1000))
