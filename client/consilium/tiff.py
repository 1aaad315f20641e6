"""An array of pixels → a TIFF of them as they are (TIFF 6.0: baseline, and section 19's sample
formats). The gateway shows wide, signed and floating samples from the darkest to the brightest."""

import struct
import sys
from typing import Any

KINDS = {"u": 1, "i": 2, "f": 3}  # unsigned, signed, floating: numpy's letters, TIFF's numbers
GREY, RGB = 1, 2
# The header is followed by what each of three colours has: bits, and kind of number.
BITS_AT, KINDS_AT, TAGS_AT, PIXELS_AT = 8, 14, 20, 146


def as_tiff(array: Any) -> bytes:
    """`array` is [rows, columns] or [rows, columns, 1] of greys, or [rows, columns, 3] of RGB.

    Raises TypeError for any other shape, and for what is no array of numbers.
    """
    if not hasattr(array, "__array__"):
        raise TypeError(
            f"an image is a path, bytes, an open file or an array, not a {type(array).__name__}"
        )
    pixels = array.__array__()
    rows, columns, colours = (*pixels.shape, 1)[:3] if pixels.ndim in (2, 3) else (0, 0, 0)
    kind = KINDS.get(pixels.dtype.kind)
    if colours not in (1, 3) or kind is None or pixels.dtype.itemsize > 8 or not pixels.size:
        raise TypeError(
            f"an array of shape {pixels.shape} of {pixels.dtype} is no picture; send "
            "[rows, columns] or [rows, columns, 3] of numbers, and of several pictures a list"
        )
    order = pixels.dtype.byteorder
    mark = order if order in "<>" else {"big": ">", "little": "<"}[sys.byteorder]
    bits = 8 * pixels.dtype.itemsize

    def short(tag: int, value: int) -> bytes:
        return struct.pack(mark + "HHIHH", tag, 3, 1, value, 0)

    def long(tag: int, value: int) -> bytes:
        return struct.pack(mark + "HHII", tag, 4, 1, value)

    def of_each(tag: int, value: int, place: int) -> bytes:
        return short(tag, value) if colours == 1 else struct.pack(mark + "HHII", tag, 3, 3, place)

    tags = [
        long(256, columns),
        long(257, rows),
        of_each(258, bits, BITS_AT),
        short(259, 1),  # not compressed
        short(262, GREY if colours == 1 else RGB),
        long(273, PIXELS_AT),
        short(277, colours),
        long(278, rows),  # all in one strip
        long(279, pixels.nbytes),
        of_each(339, kind, KINDS_AT),
    ]
    head = {"<": b"II", ">": b"MM"}[mark] + struct.pack(mark + "HI", 42, TAGS_AT)
    head += struct.pack(mark + "6H", bits, bits, bits, kind, kind, kind)
    head += struct.pack(mark + "H", len(tags)) + b"".join(tags) + bytes(4)  # no second picture
    return head + bytes(pixels.tobytes())
