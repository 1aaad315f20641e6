"""Workers and callers that cost next to nothing, so that what stands between them is measured.

python -m benchmarks.traffic PORT … serves workers that answer "Yes", in a process of its own, which
`workers` starts; between SIGUSR1 and SIGUSR2 they have the `--fault`. A caller is a connection that
sends bodies which are there already.
"""

import argparse
import asyncio
import contextlib
import io
import json
import signal
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

NUMBER = b"000000000000"  # stands in a question; each request has its own there
QUESTION = f"Case {NUMBER.decode()}?"
FAULTS = ("hangs", "dribbles", "rubbish", "breaks off", "is far")
FAR_S, FAR_LOSES = 0.2, 10  # who is far is heard so much later, and of so many times once not
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

    _reply: asyncio.Future[tuple[int, bytes]] | None = None

    async def ask(self, request: Request, number: int) -> tuple[int, bytes]:
        """Status and body; raises OSError where the connection breaks."""
        if self._transport.is_closing():
            raise ConnectionResetError("closed since the last answer")
        self._reply = asyncio.get_running_loop().create_future()
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
        if self._reply and not self._reply.done():
            self._reply.set_exception(error or ConnectionResetError("closed before it answered"))

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        assert self._reply
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


async def load(
    requests: Sequence[Request],
    ask: Asked,
    callers: int,
    seconds: float,
    per_s: float | None = None,
) -> list[float]:
    """So many callers, each of whom asks again when it was answered; or who ask `per_s` times a
    second in all, in turns and by the clock: whoever still waits then is late, and that counts.
    The seconds that each answer took. `ask` is given a caller's own lines, one for each of
    `requests`, and a number."""
    taken: list[float] = []
    start = time.perf_counter()
    until = start + seconds

    async def caller(place: int) -> None:
        began = start + (place / per_s if per_s else 0)
        async with lines(requests) as own:
            while began < until:
                await asyncio.sleep(max(0, began - time.perf_counter()))
                await ask(own, time.monotonic_ns() // 1000 % 10**12)
                now = time.perf_counter()
                taken.append(now - began)
                began = began + callers / per_s if per_s else now

    async with asyncio.TaskGroup() as group:
        for place in range(callers):
            group.create_task(caller(place))
    return taken


class Worker(asyncio.Protocol):
    """A model server's side of a connection. It reads a body and looks at none of it."""

    def __init__(self, delay_s: float):
        self._delay_s, self._parser = delay_s, httptools.HttpRequestParser(self)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._reply = REPLIES.get(url.rpartition(b"/")[2], HEALTH)

    def on_message_complete(self) -> None:
        if self._delay_s:
            asyncio.get_running_loop().call_later(self._delay_s, self.answer, self._reply)
        else:
            self.answer(self._reply)

    def answer(self, reply: bytes) -> None:
        if not self.transport.is_closing():  # the caller may have left
            self.transport.write(reply)


class Ill(Worker):
    """One that may have a fault. It calls itself healthy all the while."""

    fault: str | None = None
    from_afar = 0

    def answer(self, reply: bytes) -> None:
        if self.fault is None or reply is not REPLY:
            super().answer(reply)
        elif self.fault == "dribbles":
            self._dribble(reply)
        elif self.fault == "rubbish":
            super().answer(b"SSH-2.0-nonsense\r\n\r\n")
            self.transport.close()
        elif self.fault == "breaks off":
            super().answer(reply[: len(reply) // 2])
            self.transport.close()

        elif self.fault == "is far":
            asyncio.get_running_loop().call_later(FAR_S, self._come, reply)

    def _come(self, reply: bytes) -> None:
        Ill.from_afar += 1
        if Ill.from_afar % FAR_LOSES:
            super().answer(reply)
        else:
            self.transport.abort()

    def _dribble(self, reply: bytes) -> None:
        if reply and not self.transport.is_closing():
            super().answer(reply[:1])
            asyncio.get_running_loop().call_later(0.05, self._dribble, reply[1:])


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
HEALTH = _http({})
REPLIES = {b"completions": REPLY, b"models": MODELS}  # by the end of the path


@contextlib.contextmanager
def workers(count: int = 3, delay_ms: float = 0) -> Iterator[list[str]]:
    """So many of them in a process of their own; gives their addresses."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.traffic", f"--delay-ms={delay_ms}", *["0"] * count],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())
    finally:
        process.terminate()
        process.wait()


async def serve(ports: Sequence[int], worker: Callable[[], asyncio.Protocol]) -> None:
    """Until the end of the process; prints where. 0 is any port that is free."""
    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(worker, "127.0.0.1", port) for port in ports]
    at = [server.sockets[0].getsockname()[1] for server in servers]
    print(json.dumps([f"http://127.0.0.1:{port}" for port in at]), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("ports", type=int, nargs="+")
    arguments.add_argument("--delay-ms", type=float, default=0)
    arguments.add_argument("--fault", choices=FAULTS, default=FAULTS[0])
    options = arguments.parse_args()
    signal.signal(signal.SIGUSR1, lambda *_: setattr(Ill, "fault", options.fault))
    signal.signal(signal.SIGUSR2, lambda *_: setattr(Ill, "fault", None))
    uvloop.run(serve(options.ports, lambda: Ill(options.delay_ms / 1000)))
