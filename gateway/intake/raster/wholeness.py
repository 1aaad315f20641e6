"""Are an image's pixels all there? Decoders go on with grey or black where they are not, and do not
say so: a panel would answer about a picture that nobody took.

Sources: ITU-T T.81 annexes B and G (JPEG), the W3C PNG specification, third edition.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from itertools import islice
from typing import Any

import simplejpeg
from numpy.typing import NDArray

from gateway.intake.counted import MAX_PARTS

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
DEPTHS = {1, 2, 4, 8, 16}
SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a pixel, by the colour type
LAST_FILTER = 4
ANCILLARY = 0x20  # a bit of the first letter: it is a small one
# First column and row, and the steps between them, of each pass of an interlaced PNG.
ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)]
ADAM7 += [(0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]

SCAN, NO_MARK = 0xDA, -1
MAX_SCANS = 500  # an encoder writes ten or so, and each costs a decoder the whole picture again
END_OF_JPEG = b"\xff\xd9"
FILL = re.compile(rb"\xff*")
OF_SCAN = re.compile(rb"\xff\xda")
AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # any mark but those within a scan
ALONE = {0x01, *range(0xD0, 0xD8)}  # marks without a length; none stands between segments
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # T.81 table B.1
LS_FRAME = 0xF7  # T.87
BY_COSINES = {0xC0, 0xC1, 0xC2}
MORE_BITS = bytes(range(0xFD, 2, -3))  # that no decoder makes up
BY_COEFFICIENTS = {0xC0, 0xC1, 0xC2, 0xC9, 0xCA}  # frames whose scans tell 64 numbers of a block
# What libjpeg warns of when it makes up pixels. It warns of harmless things too.
MADE_UP = re.compile(
    "premature end of data|bad Huffman|bad arithmetic|instead of RST|before marker 0xd[0-7]"
)


def png_chunks(data: bytes, most: int = MAX_PARTS) -> Iterator[tuple[bytes, bytes]]:
    """(name, whole chunk) up to IEND, or to the first that is cut short or whose CRC is wrong; one
    of those that a picture can do without (section 5.4) is then left out alone.

    Raises ValueError for more than `most` of them.
    """
    at, parts = len(PNG_SIGNATURE), 0
    while at + 12 <= len(data):
        parts += 1
        if parts > most:
            raise ValueError("too many parts")
        (length,) = struct.unpack_from(">I", data, at)
        name, end = data[at + 4 : at + 8], at + 12 + length
        chunk = data[at:end]
        if end > len(data):
            return
        at = end
        if zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:], "big"):
            if name[0] & ANCILLARY:
                continue
            return
        yield name, chunk
        if name == b"IEND":
            return


def png_passes(data: bytes) -> list[tuple[int, int]]:
    """(bytes in a row with its filter byte, rows) of each pass; one where it is not interlaced."""
    width, height, depth, colours, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    if depth not in DEPTHS:
        raise ValueError("no such depth")
    grids = ADAM7 if interlaced else [(0, 0, 1, 1)]
    sizes = [(-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in grids]
    bits = depth * SAMPLES[colours]
    return [(1 + (columns * bits + 7) // 8, rows) for columns, rows in sizes if min(columns, rows)]


def png_rows(data: bytes) -> tuple[bytes, bool]:
    """Every row of a PNG whose size was checked, inflated, its filter not yet undone; and whether
    nothing else is with them.

    Raises:
        ValueError, zlib.error: rows are missing, or the compressed stream is broken.
    """
    packed = b"".join(chunk[8:-4] for name, chunk in png_chunks(data) if name == b"IDAT")
    passes = png_passes(data)
    length = sum(stride * rows for stride, rows in passes)
    # One more than there should be: only then the stream is read to its end, and its checksum.
    inflate = zlib.decompressobj()
    raw = inflate.decompress(packed, length + 1)
    if len(raw) < length:
        raise ValueError("rows are missing")
    at = 0
    for stride, rows in passes:
        if max(raw[at : at + stride * rows : stride]) > LAST_FILTER:
            raise ValueError("no such filter")
        at += stride * rows
    return raw[:length], len(raw) == length and inflate.eof and not inflate.unused_data


def jpeg_segments(data: bytes, most: int = MAX_PARTS) -> Iterator[tuple[int, bytes]]:
    """(mark, segment) between the first mark and the last; a scan's holds its data. The last mark
    may be missing; where anything else is not as it must be, the last one is (NO_MARK, b"").

    Raises ValueError for more than `most` of them.
    """
    at, parts = _behind_fill(data, 2), 0
    while data[at : at + 1] == b"\xff" and data[at : at + 2] != END_OF_JPEG:
        parts += 1
        if parts > most:
            raise ValueError("too many parts")
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if end > len(data) or end < at + 4 or data[at + 1] in ALONE:
            break
        if data[at + 1] == SCAN:
            found = AFTER_SCAN.search(data, end)
            end = found.start() if found else len(data)
        yield data[at + 1], data[at:end]
        at = _behind_fill(data, end)
    if at < len(data) and data[at : at + 2] != END_OF_JPEG:
        yield NO_MARK, b""


def _behind_fill(data: bytes, at: int) -> int:
    """Before a mark may stand any number of the byte that it begins with."""
    return max(at, FILL.match(data, at).end() - 1)  # type: ignore[union-attr]


def check_scans(data: bytes) -> None:
    """Raises ValueError for a JPEG of so many scans that decoding it would take minutes.

    Their marks are counted wherever they stand: a decoder goes on where a walk over the segments
    ends. Twenty megabytes of what is no JPEG, as a phone's film behind one, hold 300 by chance.
    (`bytes.count` takes twice as long.)
    """
    if next(islice(OF_SCAN.finditer(data), MAX_SCANS, None), None):
        raise ValueError("too many scans")


def check_jpeg(data: bytes) -> None:
    """Raises ValueError where a scan is missing or cut short: by decoding it, at an eighth of its
    size where it can be, which reads every one of its bits; or as `check_scans`, before that."""
    check_scans(data)
    frame = None  # the first one, as a decoder takes it
    left: dict[int, set[int]] = {}  # of a component, the coefficients not told to their last bit
    for mark, segment in jpeg_segments(data):
        if mark in FRAMES and frame is None:
            frame = mark
        if mark in BY_COEFFICIENTS:
            left = {component: set(range(64)) for component in segment[10::3]}
        elif mark == NO_MARK:
            left = {}  # a decoder may make something of it
        elif mark == SCAN and left:
            count = segment[4]
            first, last, precision = segment[5 + 2 * count : 8 + 2 * count]
            if precision & 0xF == 0:
                for component in segment[5 : 5 + 2 * count : 2]:
                    left[component] -= set(range(first, last + 1))
    if any(left.values()):
        raise ValueError("scans are missing")
    # Asked for an eighth of a lossless frame, libjpeg-turbo writes the whole of it, and beyond.
    eighth = {"min_height": 1, "min_width": 1, "min_factor": 8} if frame in BY_COEFFICIENTS else {}
    try:
        simplejpeg.decode_jpeg(data, "GRAY", fastdct=True, fastupsample=True, **eighth)
    except ValueError as error:
        if MADE_UP.search(str(error)):
            raise


def jpeg_frame(data: bytes) -> tuple[int, bytes]:
    """The header of a JPEG's or a JPEG-LS's frame, with its mark; empty where there is none. All
    segments are walked over."""
    found = [each for each in jpeg_segments(data) if each[0] in FRAMES or each[0] == LS_FRAME]
    return found[0] if found else (NO_MARK, b"")


def is_plain_jpeg(data: bytes) -> bool:
    """Whether it is one of 8 bits by cosines and Huffman's codes, of which `check_jpeg` knows
    whether it is whole."""
    mark, header = jpeg_frame(data)
    return mark in BY_COSINES and header[4] == 8


def decoded_jpeg(data: bytes, space: str | None, out: str | None) -> NDArray[Any]:
    """A JPEG of any process, [rows, columns] or [rows, columns, 3]; `space` and `out` are for
    imagecodecs.

    No decoder says that it made pixels up of one that is not plain; but then what it makes up
    depends on what stands before the end, which it does not read of a whole one.

    Raises:
        ValueError: pixels are missing; and what imagecodecs raises.
    """
    import imagecodecs  # it takes half a second, and few need it

    pixels: NDArray[Any] = imagecodecs.jpeg8_decode(data, colorspace=space, outcolorspace=out)
    if is_plain_jpeg(data):
        return pixels
    marks, segments = zip(*jpeg_segments(data), strict=True)
    if NO_MARK in marks:
        raise ValueError("what stands before the end is not known")
    # Before a mark any number of fill bytes may stand.
    longer = data[:2] + b"".join(segments).rstrip(b"\xff") + MORE_BITS + END_OF_JPEG
    more = imagecodecs.jpeg8_decode(longer, colorspace=space, outcolorspace=out)
    if (pixels != more).any():
        raise ValueError("pixels are missing")
    return pixels
