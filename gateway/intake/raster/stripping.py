"""An image that needs no decoding: the bytes of its pixels, without what could name a patient.

A file is walked from its first byte to its last mark; only what a decoder needs for the pixels is
copied. Whatever is not plainly an upright 8-bit grey or colour picture, or has room for more than
that, gives None, and is decoded. That its pixels are all there, and nothing behind them, is
`wholeness`'s to say; but for what stands behind the last pixel of a JPEG's scan: only who decodes
it knows where that is, and workers are asked before.
Sources: ITU-T T.81 annex B (JPEG), the W3C PNG specification, third edition.
"""

import struct

from PIL import Image

from gateway.intake.counted import MAX_PARTS
from gateway.intake.raster import wholeness
from gateway.intake.raster.wholeness import PNG_SIGNATURE

# What a PNG may hold besides pixels without its pixels meaning something else for it.
SKIPPED_CHUNKS = {b"tEXt", b"zTXt", b"iTXt", b"tIME", b"pHYs", b"gAMA", b"cHRM", b"sRGB", b"iCCP"}
SKIPPED_CHUNKS |= {b"bKGD", b"hIST", b"sPLT", b"sBIT", b"PLTE"}
BODIES = {b"IHDR": 13, b"IEND": 0}  # bytes
HOLD_EXIF = (b"Raw profile type", b"XML:com.adobe.xmp")  # texts that may say how it was held

BASELINE, EXTENDED, PROGRESSIVE = 0xC0, 0xC1, 0xC2
HUFFMAN, QUANTISATION, RESTARTS = 0xC4, 0xDB, 0xDD
TABLES = {HUFFMAN, QUANTISATION, RESTARTS}
Table = tuple[int, int]  # its mark, and which of such it is
EXIF, ADOBE, COMMENT = 0xE1, 0xEE, 0xFE
APPLICATION = range(0xE0, 0xF0)
MAX_SCANS = 64  # workers decode what is passed on, and each scan costs them the whole picture


def strip_png(data: bytes, most: int = MAX_PARTS) -> tuple[bytes, int, int] | None:
    """The file without what is not pixels, its width and its height; raises ValueError where it has
    over `most` parts."""
    kept, size = [PNG_SIGNATURE], None
    for name, chunk in wholeness.png_chunks(data, most):
        if (size is None) != (name == b"IHDR"):
            return None
        if name in SKIPPED_CHUNKS and not chunk[8:].startswith(HOLD_EXIF):
            continue
        kept.append(chunk)
        if name in BODIES and len(chunk) != BODIES[name] + 12:
            return None
        if name == b"IHDR":
            width, height, depth, colours, *_ = struct.unpack_from(">IIBBBBB", chunk, 8)
            if depth != 8 or colours not in (0, 2):
                return None
            size = width, height
        elif name == b"IEND" and size:
            return b"".join(kept), *size
        elif name != b"IDAT":
            return None  # transparency, how it was held, an animation
    return None


def strip_jpeg(data: bytes, most: int = MAX_PARTS) -> tuple[bytes, int, int] | None:
    """As `strip_png`. A missing last mark is put there: pixels have none."""
    kept, size, scans = [data[:2]], None, 0
    unread: set[Table] = set()
    for mark, segment in wholeness.jpeg_segments(data, most):
        if mark in (BASELINE, EXTENDED, PROGRESSIVE):
            size = _plain_frame(segment[4:]) if size is None else None
            if size is None:
                return None
            is_progressive = mark == PROGRESSIVE
            quantised_by = dict(zip(segment[10::3], segment[12::3], strict=True))
        elif mark == wholeness.SCAN and size and scans < MAX_SCANS:
            scans += 1
            read = _tables_read(segment, quantised_by, is_progressive)
            if read is None:
                return None
            unread -= read
        elif mark in APPLICATION or mark == COMMENT:
            if mark == EXIF and not _is_upright(segment[4:]):
                return None
            if mark == ADOBE and segment.startswith(b"Adobe", 4):
                return None  # it can mean that the colours are others
            continue
        elif mark not in TABLES:
            return None
        else:
            tables = _tables_told(mark, segment[4:])
            if tables is None or unread.intersection(tables):
                return None
            unread.update(tables)
        kept.append(segment)
    if not size or not scans or unread:
        return None
    return b"".join([*kept, wholeness.END_OF_JPEG]), *size


def _tables_told(mark: int, body: bytes) -> list[Table] | None:
    """Those in a segment (B.2.4); None where that holds anything else, or one twice."""
    if mark == RESTARTS:
        return [(mark, 0)] if len(body) == 2 else None
    found, at = list[Table](), 0
    while at < len(body):
        if mark == HUFFMAN:
            table, length = body[at], 17 + sum(body[at + 1 : at + 17])
        else:
            wide, table = divmod(body[at], 16)
            length = 1 + 64 * (2 if wide else 1)
        if (mark, table) in found:
            return None
        found.append((mark, table))
        at += length
    return found if at == len(body) else None


def _tables_read(
    scan: bytes, quantised_by: dict[int, int], is_progressive: bool
) -> set[Table] | None:
    """By a scan (B.2.3, G.1.1.1.1); the first of a component takes it out of `quantised_by`, since
    decoders keep that table for it. None where a scan's header is of another length."""
    count = int.from_bytes(scan[4:5])
    if int.from_bytes(scan[2:4]) != 6 + 2 * count:
        return None
    end = 5 + 2 * count
    first, _, precision = scan[end : end + 3]
    read = {(RESTARTS, 0)}
    for component, coded_by in zip(scan[5:end:2], scan[6:end:2], strict=True):
        if component in quantised_by:
            read.add((QUANTISATION, quantised_by.pop(component)))
        if not is_progressive or (first == 0 and precision >> 4 == 0):
            read.add((HUFFMAN, coded_by >> 4))
        if not is_progressive or first > 0:
            read.add((HUFFMAN, 0x10 | coded_by & 0xF))
    return read


def _plain_frame(body: bytes) -> tuple[int, int] | None:
    """Width and height of 8-bit grey, or of colours that every decoder takes for YCbCr."""
    if len(body) < 6 or len(body) != 6 + 3 * body[5]:
        return None
    depth, height, width, components = struct.unpack_from(">BHHB", body)
    plain = components == 1 or (components == 3 and body[6::3] == b"\1\2\3")
    return (width, height) if plain and depth == 8 and width and height else None


def _is_upright(metadata: bytes) -> bool:
    """Whether EXIF or XMP says nothing of a turned image."""
    if not metadata.startswith(b"Exif"):
        return b"Orientation" not in metadata
    exif = Image.Exif()
    try:
        exif.load(metadata)
        return bool(exif.get(0x0112, 1) == 1)
    except (ValueError, LookupError, TypeError, OSError, SyntaxError, struct.error):
        return False  # the decoder may make something of it
