"""A DICOM file → its header, read without trust (PS3.10 7.1)."""

import io
import logging
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

import pydicom
from pydicom.errors import BytesLengthException
from pydicom.filereader import data_element_generator, read_preamble
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from gateway.intake.dicom.codecs import UNCOMPRESSED, NoFrame
from gateway.intake.dicom.values import NoNumber, tag_and_name
from gateway.refusals import TooLarge, UnreadableImage

# pydicom quotes the header's values when it warns, and headers name patients.
logging.getLogger("pydicom").setLevel(logging.CRITICAL)
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE

# What an item begins with (PS3.5 7.5), in either order of bytes.
ITEMS = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")
ELEMENT = 8  # bytes that every one begins with: its tag, and kind or length
# (7FE0,0008), (7FE0,0009) and (7FE0,0010), the pixels: megabytes, and no items if plain.
PIXEL_TAGS = {
    tag
    for last in (8, 9, 16)
    for tag in (bytes((0xE0, 0x7F, last, 0)), bytes((0x7F, 0xE0, 0, last)))
}
MAX_PIECES = 300_000  # two thousand frames of an enhanced object take a third of it
PIECES_OF_AN_ITEM = 5
MAX_INFLATED = 200_000_000  # bytes of a deflated data set


@contextmanager
def told_by_tag(place: str) -> Iterator[None]:
    """Names the tag of a header that cannot be made sense of."""
    try:
        yield
    except BytesLengthException as error:  # the one of pydicom's that is no ValueError
        raise ValueError("a value of another length than its kind has") from error
    except NoNumber as error:
        raise UnreadableImage(
            f"{place}: {tag_and_name(error.keyword)} is no number. Export it again, best as PNG."
        ) from error
    except NoFrame as error:
        raise UnreadableImage(
            f"{place}: the frame is not there: (0028,0008) Number of Frames says more than "
            "(7FE0,0010) Pixel Data holds. Ask for an earlier one."
        ) from error


class InMemory:
    """A file of bytes that are in memory already: what is read is a view of them, no copy."""

    def __init__(self, data: bytes | memoryview):
        self._data, self._at = memoryview(data), 0

    def read(self, size: int = -1) -> memoryview:
        found = self._data[self._at : None if size < 0 else self._at + size]
        self._at += len(found)
        return found

    def seek(self, at: int, whence: int = io.SEEK_SET) -> int:
        self._at = min(max(0, (0, self._at, len(self._data))[whence] + at), len(self._data))
        return self._at

    def tell(self) -> int:
        return self._at


def read(file: BinaryIO | InMemory, place: str, **how: Any) -> Any:
    """PS3.10 7.1: the header, with the transfer syntax that its (0002,0010) names and no other;
    `how` is for pydicom.dcmread. The file is read from its beginning, and can seek. Of one that is
    in memory the plain pixels stay where they are."""
    with _in_pieces(file, place) as pieces:
        syntax = _syntax_of(cast(BinaryIO, pieces))
        if syntax != DeflatedExplicitVRLittleEndian:
            return _header(pieces, syntax, how)
        # pydicom would inflate it to any size.
        inflated = InMemory(_inflated(cast(BinaryIO, pieces), place))
    with _in_pieces(inflated, place) as pieces:
        return _header(pieces, "", how)


def _syntax_of(file: BinaryIO) -> str:
    """What the meta information says, behind whose end the file then is; "" where it is silent."""
    read_preamble(file, force=True)
    meta = data_element_generator(file, False, True, lambda tag, *_: tag.group != 2)
    named = [element.value for element in meta if element.tag == 0x00020010]
    return (named[0] if named else b"").rstrip(b"\0 ").decode("ascii")


def _header(file: "_Pieces", syntax: str, how: dict[str, Any]) -> Any:
    file.seek(0)
    file.are_pixels_plain = syntax in UNCOMPRESSED
    header = pydicom.dcmread(cast(BinaryIO, file), force=True, **how)
    header.buffer = None  # what it was read from, which would stay in memory beside it
    if not syntax:  # the first element tells
        implicit, little = header.original_encoding
        plain = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        header.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else plain
    return header


def _inflated(file: BinaryIO, place: str) -> bytes:
    """PS3.5 A.5: the data set behind the meta information; raises TooLarge, ValueError."""
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    data = inflate.decompress(file.read(), MAX_INFLATED)
    if inflate.unconsumed_tail:
        raise TooLarge(
            f"{place} inflates to over {MAX_INFLATED // 1_000_000} MB. Send fewer frames, or PNG."
        )
    if not inflate.eof:
        raise ValueError("a deflated data set without its end")
    return data


@contextmanager
def _in_pieces(file: BinaryIO | InMemory, place: str) -> Iterator["_Pieces"]:
    """A file, of which no more pieces are read than any header has: of a million empty items, which
    a zip packs into nothing, each would become an object."""
    pieces = _Pieces(file)
    try:
        yield pieces
    except OSError as error:  # which pydicom makes of any error within an item
        if pieces.left >= 0:
            raise
        raise TooLarge(
            f"{place} has a header of too many parts. Send fewer frames, or PNG."
        ) from error


class _Pieces:
    def __init__(self, file: BinaryIO | InMemory):
        self._file, self.left = file, MAX_PIECES
        self.are_pixels_plain, self._in_pixels = False, False

    def read(self, size: int = -1) -> bytes | memoryview:
        found: bytes | memoryview = self._file.read(size)
        self.left -= 1
        if len(found) <= ELEMENT:
            found = bytes(found)
        if size == ELEMENT:
            self._in_pixels = found[:4] in PIXEL_TAGS and found[4:6] != b"SQ"
        if len(found) >= ELEMENT and not (self._in_pixels and self.are_pixels_plain):
            found = bytes(found)
            # The items of a sequence of known length come at once, and are taken apart later.
            self.left -= PIECES_OF_AN_ITEM * (found.count(ITEMS[0]) + found.count(ITEMS[1]))
        if self.left < 0:
            raise OSError("too many parts")
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
