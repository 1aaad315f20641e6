"""What comes before anybody knows whose a request is has bounds, in bytes and in time: nobody
without a key holds up the others by it."""

import contextlib
import socket
import time
from urllib.parse import urlsplit

import pytest

from gateway.door import heads

BEGUN = b"GET /health/live HTTP/1.1\r\nHost: gateway\r\n"
CHUNKED = (
    b"POST /vqa HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
MANY = b"".join(b"x-%d: y\r\n" % number for number in range(10_000))
MUCH = 1_000_000  # more than is read at a time
WHOLE = BEGUN + b"\r\n"


def line_to(url: str) -> socket.socket:
    """A connection that waits for an answer, not for ever."""
    place = urlsplit(url)
    return socket.create_connection((place.hostname, place.port), timeout=15)


def told(line: socket.socket, sent: bytes) -> bytes:
    """All that comes until the other side closes, which it may do before all is sent."""
    received = b""
    with contextlib.suppress(ConnectionError):
        line.sendall(sent)
        while piece := line.recv(65_536):
            received += piece
    return received


@pytest.mark.parametrize(
    ("sent", "status"),
    {
        "one header": (BEGUN + b"x: " + b"y" * heads.HEAD_BYTES, b" 431 "),
        "many headers": (BEGUN + MANY, b" 431 "),
        "the address": (b"GET /" + b"y" * heads.HEAD_BYTES, b" 431 "),
        "the frame of a body": (CHUNKED + b"2;" + b"y" * MUCH, b""),
        "what follows a body": (CHUNKED + b"2\r\n{}\r\n0\r\n" + MANY * 9, b""),
    }.values(),
    ids=["header", "headers", "address", "frame", "trailers"],
)
def test_what_has_no_end_is_cut_off(vllm, gateway, sent, status):
    """With a word why, where no answer is under way that it would get into."""
    with line_to(gateway([vllm()])) as line:
        received = told(line, sent)
    first, _, rest = received.partition(b"\r\n")
    assert status in first and (not status or rest.endswith(b"over 64 KB."))


def test_what_is_long_and_has_an_end_is_read(vllm, gateway):
    """And does not count for what comes after it on the same line."""
    with line_to(gateway([vllm()])) as line:
        for _ in range(3):
            line.sendall(BEGUN + b"x: " + b"y" * 60_000 + b"\r\n\r\n")
            assert b" 200 " in line.recv(65_536)


@pytest.mark.parametrize(
    ("sent", "says"), [(b"", b""), (b"\r\n", b""), (BEGUN, b" 408 ")], ids=["no", "empty", "half"]
)
@pytest.mark.parametrize("before", [0, 2])
def test_what_is_never_sent_is_not_waited_for(vllm, gateway, monkeypatch, before, sent, says):
    """Neither at first nor later; but a line that rests between two requests is left open."""
    monkeypatch.setattr(heads, "HEAD_S", 0.1)
    with line_to(gateway([vllm()])) as line:
        for _ in range(before):
            line.sendall(WHOLE)
            assert b" 200 " in line.recv(65_536)
            time.sleep(0.2)
        if before and not says:
            line.settimeout(0.2)
            with pytest.raises(TimeoutError):
                told(line, sent)
        else:
            assert says in told(line, sent)
