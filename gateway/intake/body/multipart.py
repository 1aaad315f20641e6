"""A body of multipart/form-data → its parts: RFC 7578, by the grammar of RFC 2046 section 5.1.1.

The body is there whole, so two searches find a part, and it is copied once. A reader of streams
looks out for ends that are still to come, and has one sentence for all that may be wrong.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from gateway.refusals import MalformedRequest, TooLarge, UnsupportedMedia

# Of a header, and a folded line of it (RFC 5322 section 2.2.3).
PARAMETER = re.compile(r';\s*([^\s=;]+)\s*=\s*("(?:\\.|[^"\\])*"|[^;]*)')
FOLD = re.compile(r"\r\n(?=[ \t])")
# What may stand behind a boundary: RFC 2046 lets a mail server pad the line.
REST_OF_LINE = re.compile(rb"[ \t]*\r\n")
CLOSES = re.compile(rb"--[ \t]*(?:\r?\n|\Z)")
MAX_HEAD = 8_192  # the longest name of a file, written twice, is a quarter of it
CRLF, MAX_BOUNDARY = b"\r\n", 70  # RFC 2046
UTF_8, LIKE_ASCII = ("utf-8", "utf8"), re.compile(r"us-ascii|ascii|iso-8859-\d+|windows-125\d")
AS_IT_IS = ("", "binary", "8bit", "7bit")


class Part(NamedTuple):
    name: str
    filename: str | None  # None: it is no file
    data: bytes
    charset: str

    @property
    def text(self) -> str:
        """Lines end as in JSON: a form has CRLF for each (RFC 7578 section 4.4). Raises
        UnsupportedMedia for another text than one in UTF-8."""
        # Java's libraries say Latin-1 of every text, and of most it makes no difference.
        is_ascii = LIKE_ASCII.fullmatch(self.charset) and self.data.isascii()
        if self.charset not in UTF_8 and not is_ascii:
            raise _not_utf_8()
        try:
            return self.data.decode("utf-8-sig").replace("\r\n", "\n")
        except UnicodeDecodeError as error:
            raise _not_utf_8() from error


def parts_of(kind: str, body: bytes) -> Iterator[Part]:
    """The parts of a body whose Content-Type is `kind`, in their order; what stands before the
    first boundary and behind the last is none. Raises a `Refused`."""
    said = _parameters(kind)
    # RFC 7578 knows no other, and some that Python knows decode to no text at all.
    if said.get("charset", "utf-8").lower() not in UTF_8:
        raise _not_utf_8()
    line = b"--" + said.get("boundary", "").encode("latin-1")
    if not 2 < len(line) <= 2 + MAX_BOUNDARY:
        raise _broken(f"The Content-Type names no boundary of 1 to {MAX_BOUNDARY} characters.")
    first = body.find(line)
    if first < 0:
        raise _broken("The boundary that the Content-Type names is not in the body.")
    if body[max(first - 2, 0) : first] not in (b"", CRLF):
        raise _broken("The first boundary of the form stands not behind CR LF, nor first of all.")
    # Behind LF alone it is no boundary (RFC 2046), but was meant as one: what follows would be
    # taken for a piece of the part before it.
    at, delimiter = first + len(line), b"\n" + line
    while not CLOSES.match(body, at):
        begins = REST_OF_LINE.match(body, at)
        if begins is None and body[at : at + 1] == b"\n":
            raise _ends_in_lf()
        if begins is None and at + 2 <= len(body):
            raise _broken("A line of the form begins as its boundary does, and goes on.")
        end = body.find(delimiter, at) - 1
        if begins is None or end < 0:
            raise MalformedRequest(
                "The form is cut short: its last boundary is missing. Send all of it."
            )
        if not body.startswith(CRLF, end):
            raise _ends_in_lf()
        # A part of no bytes may have no line of its own.
        head_ends = body.find(CRLF + CRLF, begins.end() - 2, end + 2)
        if head_ends < 0:
            raise _broken("A part of the form has no empty line (CR LF CR LF) behind its headers.")
        if head_ends - begins.end() > MAX_HEAD:  # taken apart, a megabyte of it is hundreds
            raise TooLarge(f"The headers of a part of the form are over {MAX_HEAD} bytes.")
        yield _part(body[begins.end() : head_ends], body[head_ends + 4 : end])
        at = end + 1 + len(delimiter)


def _part(head: bytes, data: bytes) -> Part:
    try:
        text = FOLD.sub(" ", head.decode())
    except UnicodeDecodeError as error:
        raise _not_utf_8() from error
    lines = text.split("\r\n")
    if any("\n" in each for each in lines):
        raise _ends_in_lf()
    pairs = (each.partition(":") for each in lines)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    if headers.get("content-transfer-encoding", "").lower() not in AS_IT_IS:
        raise UnsupportedMedia(
            "Send each part of the form as it is, without Content-Transfer-Encoding."
        )
    said = _parameters(headers.get("content-disposition", ""))
    if not said.get("name"):
        raise _broken('A part of the form has no Content-Disposition: form-data; name="…".')
    charset = _parameters(headers.get("content-type", "")).get("charset", "utf-8").lower()
    # Written after RFC 5987 (filename*), or in pieces, it is a file name too.
    called = (value for each, value in said.items() if each.partition("*")[0] == "filename")
    return Part(said["name"], next(called, None), data, charset)


def _parameters(header: str) -> dict[str, str]:
    """What a header says behind its first semicolon."""
    found: dict[str, str] = {}
    for name, value in PARAMETER.findall(header):
        if value.startswith('"'):
            value = re.sub(r"\\(.)", r"\1", value[1:].removesuffix('"'))
        found.setdefault(name.lower(), value.strip())
    return found


def _not_utf_8() -> UnsupportedMedia:
    return UnsupportedMedia("Send the form in UTF-8, without another charset.")


def _ends_in_lf() -> MalformedRequest:
    return _broken("A line of the form ends in LF alone, where it must end in CR LF.")


def _broken(what: str) -> MalformedRequest:
    return MalformedRequest(f"{what} Let an HTTP library build the form and its header.")
