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

from gateway.intake.dicom.codecs import NoFrame
from gateway.intake.dicom.values import NoNumber, tag_and_name
from gateway.refusals import TooLarge, UnreadableImage

# pydicom quotes the header's values when it warns, and headers name patients.
logging.getLogger("pydicom").setLevel(logging.CRITICAL)
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE

# What an item begins with (PS3.5 7.5), in either order of bytes.
ITEMS = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")
MAX_PIECES = 300_000  # two thousand frames of an enhanced object take a third of it
PIECES_OF_AN_ITEM = 5
MAX_INFLATED = 200_000_000  # bytes of a deflated data set


def patient_of(data: bytes, place: str) -> str:
    """(0010,0020) Patient ID, and nothing where there is none."""
    how = {"stop_before_pixels": True, "specific_tags": ["PatientID"]}
    return str(read(io.BytesIO(data), place, **how).get("PatientID") or "").strip()


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


def read(file: BinaryIO, place: str, **how: Any) -> Any:
    """PS3.10 7.1: the header, with the transfer syntax that its (0002,0010) names and no other;
    `how` is for pydicom.dcmread. The file is read from its beginning, and can seek."""
    file = cast(BinaryIO, _InPieces(file, place))
    read_preamble(file, force=True)
    meta = data_element_generator(file, False, True, lambda tag, *_: tag.group != 2)
    named = [element.value for element in meta if element.tag == 0x00020010]
    syntax = (named[0] if named else b"").rstrip(b"\0 ").decode("ascii")
    if syntax == DeflatedExplicitVRLittleEndian:
        # pydicom would inflate it to any size. What comes out is of the usual syntax.
        file, syntax = io.BytesIO(_inflated(file, place)), ""
        file = cast(BinaryIO, _InPieces(file, place))
    file.seek(0)
    header = pydicom.dcmread(file, force=True, **how)
    if not syntax:  # where there is none the first element tells
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


class _InPieces:
    """A file, of which no more pieces are read than any header has: of a million empty items, which
    a zip packs into nothing, each would become an object."""

    def __init__(self, file: BinaryIO, place: str):
        self._file, self._place, self._pieces = file, place, 0

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        # The items of a sequence of known length come at once, and are taken apart later.
        self._pieces += 1 + PIECES_OF_AN_ITEM * sum(map(data.count, ITEMS))
        if self._pieces > MAX_PIECES:
            raise TooLarge(
                f"{self._place} has a header of too many parts. Send fewer frames, or PNG."
            )
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
