"""Where a request ends, the gateway and whatever stands before it agree; what looks like a second
one within its body is none. And what is one is read whole, though it would rather be spoken to in
another protocol."""

import base64
import contextlib
import json
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from gateway.app import create_app
from gateway.settings import load_settings
from tests.conftest import listening, picture

HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: gateway\r\n\r\n"
LAST = b"GET /health/live HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n"
POST = b"POST /vqa HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
LENGTH = b"Content-Length: %d\r\n"
CHUNKS = b"2\r\n{}\r\n0\r\n\r\n" + HIDDEN
TO_ITS_END = LENGTH % (len(CHUNKS))  # so long that what is hidden is body
SENT = {
    "length, then chunks": TO_ITS_END + CHUNKED + b"\r\n" + CHUNKS,
    "chunks, then length": CHUNKED + LENGTH % 4 + b"\r\n%x\r\n%b\r\n0\r\n\r\n" % (40, HIDDEN),
    "two lengths": LENGTH % 2 + LENGTH % (2 + len(HIDDEN)) + b"\r\n{}" + HIDDEN,
    "a list of lengths": b"Content-Length: 2, %d\r\n\r\n{}" % (2 + len(HIDDEN)) + HIDDEN,
    "a signed length": b"Content-Length: +2\r\n\r\n{}" + HIDDEN,
    "a length below zero": b"Content-Length: -1\r\n\r\n" + HIDDEN,
    "a length in hex": b"Content-Length: 0x2\r\n\r\n{}" + HIDDEN,
    "a blank before the colon": b"Transfer-Encoding : chunked\r\n" + TO_ITS_END + b"\r\n" + CHUNKS,
    "an unknown coding": b"Transfer-Encoding: xchunked\r\n\r\n" + CHUNKS,
    "chunks within": b"Transfer-Encoding: chunked, identity\r\n" + TO_ITS_END + b"\r\n" + CHUNKS,
    "two codings": CHUNKED + b"Transfer-Encoding: identity\r\n" + TO_ITS_END + b"\r\n" + CHUNKS,
    "a vertical tab": b"Transfer-Encoding:\x0bchunked\r\n" + TO_ITS_END + b"\r\n" + CHUNKS,
    "a folded line": b"Transfer-Encoding:\r\n chunked\r\n" + TO_ITS_END + b"\r\n" + CHUNKS,
    "a bare line feed": b"X: y\n" + CHUNKED + TO_ITS_END + b"\r\n" + CHUNKS,
    "a bare carriage return": b"X: y\r" + CHUNKED + TO_ITS_END + b"\r\n" + CHUNKS,
    "a chunk beyond 64 bits": CHUNKED + b"\r\n1" + b"0" * 15 + CHUNKS,
    "a chunk in 0x": CHUNKED + b"\r\n0x" + CHUNKS,
    "a line feed in a chunk's frame": CHUNKED + b"\r\n2;\n{}\r\n0\r\n\r\n" + HIDDEN,
    "a chunk without its end": CHUNKED + b"\r\n2\r\n{}XX0\r\n\r\n" + HIDDEN,
}


@pytest.fixture
def seen() -> list[str]:
    """The paths for which the gateway was asked."""
    return []


@pytest.fixture
def url(panel_file, dead_url, seen) -> Iterator[str]:
    """Of a gateway that tells them."""
    app = create_app(load_settings(panel_file([dead_url]), environ={}))

    async def telling(scope, receive, send):
        if scope["type"] == "http":
            seen.append(scope["path"])
        await app(scope, receive, send)

    with listening(telling) as address:
        yield address


def put(url: str, sent: bytes) -> bytes:
    """Sends it on a line of its own; what comes back until that is closed."""
    place, received = urlsplit(url), b""
    with (
        contextlib.suppress(ConnectionError),
        socket.create_connection((place.hostname, place.port), timeout=15) as line,
    ):
        line.sendall(sent)
        while piece := line.recv(65_536):
            received += piece
    return received


@pytest.mark.parametrize("behind", ["nothing", "nginx"])
def test_what_is_hidden_in_a_body_is_never_asked_for(url, nginx, seen, behind):
    """The proxy keeps its line to the gateway, and passes bodies on as they come."""
    keeps = 'proxy_set_header Connection ""; proxy_request_buffering off; client_max_body_size 0;'
    at = url if behind == "nothing" else nginx([url], keeps)
    for name, body in SENT.items():
        seen.clear()
        received = put(at, POST + body + LAST)
        assert "/hidden" not in seen and received.startswith(b"HTTP/1.1 "), name
        assert b" 40" in received[:13] or b" 501 " in received[:13], name


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_nor_in_the_body_of_what_has_none(url, seen, method):
    head = b"%b /health/live HTTP/1.1\r\nHost: gateway\r\n" % method
    put(url, head + LENGTH % len(HIDDEN) + b"\r\n" + HIDDEN + LAST)
    assert seen == ["/health/live"] * 2


@pytest.mark.parametrize("protocol", ["h2c", "websocket", "TLS/1.3"])
def test_a_wish_for_another_protocol_is_ignored(vllm, gateway, protocol):
    """Java's own client has it in the first request of every line: its body is read, and what comes
    after it on the line."""
    case = {"question": "Is it?", "images": [base64.b64encode(picture()).decode()]}
    body = json.dumps(case).encode()
    wish = f"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: {protocol}\r\nHTTP2-Settings: AAMA\r\n"
    received = put(
        gateway([vllm("yes")]),
        POST + wish.encode() + LENGTH % len(body) + b"\r\n" + body + HIDDEN + LAST,
    )
    statuses = [part[:3] for part in received.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [b"200", b"404", b"200"] and b'"answer":"yes"' in received


def test_however_many_wishes_come_at_once(url):
    """Each is read on its own."""
    wish = HIDDEN.replace(b"/hidden", b"/health/live").replace(
        b"\r\n\r\n", b"\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    )
    received = put(url, wish * 800 + LAST)
    assert received.count(b"HTTP/1.1 200 ") == 801


HEAD = b"GET /health/live HTTP/1.1\r\n"
HOST = b"Host: gateway\r\n"


@pytest.mark.parametrize(
    ("head", "says"),
    [
        (HEAD, b"The header Host is there 0 times"),
        (HEAD + HOST * 2, b"The header Host is there 2 times"),
        (HEAD + HOST + b"Host: other\r\n", b"The header Host is there 2 times"),
        (HEAD.replace(b"1.1", b"1.0") + HOST * 2, b"The header Host is there 2 times"),
        (HEAD + b"Host: gateway, other\r\n", b"no name and no address"),
        (HEAD + b"Host: gateway/vqa\r\n", b"no name and no address"),
        (HEAD + b"Host: user@gateway\r\n", b"no name and no address"),
        (HEAD + b"Host: gateway:80a\r\n", b"no name and no address"),
        (
            HEAD + HOST + b"Authorization: a\r\nauthorization: b\r\n",
            b"authorization is there twice",
        ),
        (HEAD + HOST + b"Content-Type: a\r\nX: y\r\nContent-Type: b\r\n", b"content-type is there"),
        (HEAD + HOST + b"Origin: http://a\r\nOrigin: null\r\n", b"origin is there twice"),
        (HEAD + HOST + b"X-Api-Key: a\r\nX-API-KEY: b\r\n", b"x-api-key is there twice"),
        (HEAD.replace(b"1.1", b"2.0") + HOST, b"Send HTTP/1.1"),
        (HEAD.replace(b"1.1", b"0.9") + HOST, b"Send HTTP/1.1"),
    ],
)
def test_a_head_says_each_thing_once(url, seen, head, says):
    """Else the gateway and a proxy may each go by another of them. With a wish for another protocol
    as well, which has a head read twice."""
    for wish in (b"", b"Connection: Upgrade\r\nUpgrade: h2c\r\n"):
        received = put(url, head + wish + b"\r\n" + LAST)
        assert received.startswith(b"HTTP/1.1 400 ") and says in received and not seen


@pytest.mark.parametrize(
    "head",
    [
        HEAD.replace(b"1.1", b"1.0"),
        HEAD + b"Host: \r\n",
        HEAD + b"Host: [::1]:8000\r\n",
        HEAD + b"Host: ward_7.example.:80\r\n",
        HEAD + HOST + b"Accept: a/b\r\nAccept: c/d\r\nVia: 1.1 a\r\nVia: 1.1 b\r\n",
        HEAD + HOST + b"Content-Type: a/b\r\nContent-Type: a/b\r\n",
    ],
)
def test_what_may_be_there_again_or_not_at_all_is_taken(url, head):
    assert put(url, head + b"Connection: close\r\n\r\n").startswith(b"HTTP/1.1 200 ")


def test_it_is_no_proxy(url):
    assert b" 400 " in put(url, b"CONNECT gateway:80 HTTP/1.1\r\nHost: gateway\r\n\r\n")
