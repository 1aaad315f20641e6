"""The head of a request, which is read before anybody knows whose it is: how long it may be, how
long it may take, that it says each thing once, and that it asks for no other protocol than this.

uvicorn bounds neither. A header of 100 MB held every other caller up for half a minute, and a line
on which no head ever ends stays open. And it loses the body of a request that would rather go on in
another protocol, as Java's own client does in the first on every line. Of two headers where there
can be but one, it takes the first and a proxy may take the last: they would speak of different
requests.
"""

import re
from asyncio import BaseTransport, TimerHandle

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES = 65_536  # nginx passes on 32 KB
HEAD_S = 30.0
# A name or an address and its port (RFC 9110 section 7.2), which may be blank.
HOST = re.compile(rb"([\w.~%!$&'()*+,;=-]*|\[[\da-fA-F:.]+\])(:\d*)?")
# Beside the host, and the length of a body, which the parser itself holds against.
SINGLE = {b"content-type", b"authorization", b"x-api-key", b"origin"}


class HeadError(ValueError):
    """What is wrong with a head; one sentence says it to who sent it."""


class Heads(HttpToolsProtocol):
    """uvicorn's protocol. Address and headers, and all else that is no body (the frame of a body in
    chunks, its trailers), have `HEAD_BYTES` and what is read with the last of them; a head has
    `HEAD_S` from its first byte on, or from the line's beginning. A wish for another protocol is
    ignored (RFC 9110 section 7.8)."""

    _late: TimerHandle | None = None
    _begun = False
    _length = 0  # of what came since the last piece of a body

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        self._await_head()

    def data_received(self, data: bytes) -> None:
        if not self._begun and not data.strip(b"\r\n"):
            return  # empty lines before a request (RFC 9112 section 2.2) keep no line open
        self._unset_keepalive_if_required()
        self._length += len(data)
        while data:
            try:
                self.parser.feed_data(data)
                break
            except HttpParserUpgrade as stopped:
                data = self._as_this_protocol(data[stopped.args[0] :])
            except HttpParserError as error:
                why = error.__context__  # what a method of ours raised
                is_ours = isinstance(why, HeadError)
                self.send_400_response(str(why) if is_ours else "This is no HTTP request.")
                break
        if self._length > HEAD_BYTES and not self.transport.is_closing():
            self._refuse(b"431 Request Header Fields Too Large", b"The headers are over 64 KB.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._begun = True
        self._await_head()

    def on_headers_complete(self) -> None:
        self._check_head()
        super().on_headers_complete()
        self._length = 0
        self._head_came()

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        self._length = 0

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._begun, self._length = False, 0

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._head_came()

    def _check_head(self) -> None:
        """Raises HeadError: RFC 9112 section 3.2 and, of two values, RFC 9110 section 5.3."""
        version = self.parser.get_http_version()
        if version not in ("1.0", "1.1"):
            raise HeadError("Send HTTP/1.1.")
        hosts = [value for name, value in self.headers if name == b"host"]
        if len(hosts) > 1 or (version == "1.1" and not hosts):
            raise HeadError(f"The header Host is there {len(hosts)} times. Send it once.")
        if hosts and not HOST.fullmatch(hosts[0]):
            raise HeadError("The header Host is no name and no address of a machine.")
        said: dict[bytes, bytes] = {}
        for name, value in self.headers:
            if name in SINGLE and said.setdefault(name, value) != value:
                raise HeadError(f"The header {name.decode()} is there twice. Send it once.")

    def _should_upgrade(self) -> bool:
        return True  # uvicorn then leaves it to us, and begins no answer

    def _as_this_protocol(self, rest: bytes) -> bytes:
        """What is to be read: the same head without the wish, and `rest`, which comes after it."""
        method = self.parser.get_method()
        if method == b"CONNECT":
            self.send_400_response("This is no proxy.")
            return b""
        version = self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (method, self.url, version)]
        lines += [b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"]
        self.parser = HttpRequestParser(self)
        return b"\r\n".join([*lines, b"", rest])

    def _await_head(self) -> None:
        if self._late is None:
            why = b"The headers did not come to an end in time."
            self._late = self.loop.call_later(HEAD_S, self._refuse, b"408 Request Timeout", why)

    def _head_came(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _refuse(self, status: bytes, why: bytes) -> None:
        if self._begun and (self.cycle is None or self.cycle.response_complete):
            head = b"content-type: text/plain\r\nconnection: close\r\ncontent-length: %d" % len(why)
            self.transport.write(b"HTTP/1.1 %b\r\n%b\r\n\r\n%b" % (status, head, why))
        self.transport.close()
