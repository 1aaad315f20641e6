"""Samples as a file holds them, where Pillow cuts them to 8 bits or reads none: PNGs of 16 bits,
and JPEGs of over 8 (TIFFs: `tiff.py`).

A PNG is taken apart into files of 8 bits that any decoder reads, and put together again. Sources:
the W3C PNG specification, third edition; ITU-T T.81 annex B.
"""

import io
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gateway.intake.raster import wholeness

PALETTE, GREY_ALPHA, RGBA = 3, 4, 6  # of PNG's colour types
EXIF, ORIENTATION = 0xE1, 0x0112  # a mark of JPEG, and a tag in what it holds


@dataclass(frozen=True)
class Samples:
    """`values` is [rows, columns, 1 or 3]; `opacity` [rows, columns] from 0 to 1, null where the
    values need none; `seen` is where it is not 0."""

    values: NDArray[Any]
    opacity: NDArray[np.float32] | None = None
    seen: NDArray[np.bool_] | None = None
    white_is_zero: bool = False


def depth_of_png(data: bytes) -> int:
    """Bits of a sample."""
    return data[24]


def is_palette_png(data: bytes) -> bool:
    return data[25] == PALETTE


def size_of_png(data: bytes) -> tuple[int, int]:
    """Width and height."""
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def decoded_bytes_of_png(data: bytes) -> int:
    """Of all the samples of one of 16 bits."""
    width, height = size_of_png(data)
    return 2 * wholeness.SAMPLES[data[25]] * width * height


def of_png(data: bytes) -> Samples:
    """The samples of a PNG of 16 bits whose size was checked; raises as `png_rows`.

    A PNG's filters work on each byte of a pixel apart. So the high bytes alone are a picture of 8
    bits, and the low bytes are another.
    """
    colours = data[25]
    (rows, _), at, halves = wholeness.png_rows(data), 0, (bytearray(), bytearray())
    for stride, count in wholeness.png_passes(data):
        block = np.frombuffer(rows, np.uint8, stride * count, at).reshape(count, stride)
        for half, first in zip(halves, (1, 2), strict=True):
            half += np.hstack([block[:, :1], block[:, first::2]]).tobytes()
        at += stride * count
    high, low = (_png_of_8_bits(data, bytes(half)) for half in halves)
    values = high.astype(np.uint16) << 8 | low
    key = next((chunk[8:-4] for name, chunk in wholeness.png_chunks(data) if name == b"tRNS"), b"")
    if colours in (GREY_ALPHA, RGBA):
        opacity = values[..., -1].astype(np.float32) / np.float32(65535)
        return Samples(values[..., :-1], opacity, opacity > 0)
    if len(key) == 2 * values.shape[-1]:
        seen = (values != np.frombuffer(key, ">u2")).any(axis=-1)
        return Samples(values, seen.astype(np.float32), seen)
    return Samples(values)


def _png_of_8_bits(data: bytes, rows: bytes) -> NDArray[np.uint8]:
    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    head = data[16:24] + b"\x08" + data[25:29]
    packed = chunk(b"IDAT", zlib.compress(rows, 0))
    png = wholeness.PNG_SIGNATURE + chunk(b"IHDR", head) + packed + chunk(b"IEND", b"")
    pixels = np.asarray(Image.open(io.BytesIO(png), formats=["PNG"]))
    return pixels.reshape(*pixels.shape[:2], -1)


def depth_of_jpeg(data: bytes) -> int:
    """Bits of a sample; 0 where none are told."""
    _, header = wholeness.jpeg_frame(data)
    return header[4] if len(header) >= 10 else 0


def size_of_jpeg(data: bytes) -> tuple[int, int, int]:
    """Width, height and samples of a pixel."""
    _, header = wholeness.jpeg_frame(data)
    height, width, colours = struct.unpack_from(">HHB", header, 5)
    return width, height, colours


def of_jpeg(data: bytes) -> Samples:
    """The samples of a JPEG of over 8 bits whose size was checked; raises as `check_scans` and
    `decoded_jpeg`."""
    wholeness.check_scans(data)
    is_grey = size_of_jpeg(data)[2] == 1
    values = wholeness.decoded_jpeg(data, None, None if is_grey else "RGB")
    return Samples(values.reshape(*values.shape[:2], -1))


def orientation_of_jpeg(data: bytes) -> int:
    """How it was held, by its EXIF."""
    exif = Image.Exif()
    for mark, segment in wholeness.jpeg_segments(data):
        if mark == EXIF and segment.startswith(b"Exif", 4):
            exif.load(segment[4:])
    return int(exif.get(ORIENTATION, 1))
