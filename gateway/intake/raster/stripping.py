"""An image that needs no decoding: the bytes of its pixels, without what could name a patient.

A file is walked from its first byte to its last mark; only what a decoder needs for the pixels is
copied. Whatever is not plainly an upright 8-bit grey or colour picture gives None, and is decoded.
That its pixels are all there is `wholeness`'s to say, whichever way it goes.
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
HOLD_EXIF = (b"Raw profile type", b"XML:com.adobe.xmp")  # texts that may say how it was held

BASELINE, EXTENDED, PROGRESSIVE = 0xC0, 0xC1, 0xC2
TABLES = {0xC4, 0xDB, 0xDD}  # Huffman, quantisation, restart interval
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
    for mark, segment in wholeness.jpeg_segments(data, most):
        if mark in (BASELINE, EXTENDED, PROGRESSIVE):
            size = _plain_frame(segment[4:]) if size is None else None
            if size is None:
                return None
        elif mark == wholeness.SCAN and size and scans < MAX_SCANS:
            scans += 1
        elif mark in APPLICATION or mark == COMMENT:
            if mark == EXIF and not _is_upright(segment[4:]):
                return None
            if mark == ADOBE and segment.startswith(b"Adobe", 4):
                return None  # it can mean that the colours are others
            continue
        elif mark not in TABLES:
            return None
        kept.append(segment)
    return (b"".join([*kept, wholeness.END_OF_JPEG]), *size) if size and scans else None


def _plain_frame(body: bytes) -> tuple[int, int] | None:
    """Width and height of 8-bit grey, or of colours that every decoder takes for YCbCr."""
    if len(body) < 6:
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
