"""Tables of a header, by which a value becomes another: PS3.3 C.11.1.1, C.11.2.1.1, C.7.6.3.1.5."""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
TABLE = 65_536  # of so many values a table is quicker than the distinct ones sorted


class Lut(NamedTuple):
    """C.11.1.1.1, C.11.2.1.1, C.7.6.3.1.5."""

    entries: NDArray[np.uint16]
    first: int  # the value that the first entry is for
    bits: int  # of an entry

    def __call__(self, values: NDArray[Any]) -> Floats:
        # What lies before the first entry takes it, what lies behind the last one that.
        at = np.clip(np.rint(values) - self.first, 0, len(self.entries) - 1)
        found: Floats = self.entries[at.astype(np.int64)].astype(np.float64)
        return found

    def scaled(self, values: NDArray[Any]) -> Floats:
        """0 to 255: an entry is a value, and what is brightest is said by its bits."""
        scaled: Floats = self(values) * (255 / (2**self.bits - 1))
        return scaled


def read_lut(
    descriptor: Any, data: Any, little_endian: bool, values: tuple[float, float] = (0, math.inf)
) -> Lut:
    """A table as descriptor and data tell it, for `values` from the least to the greatest that
    there can be, whatever there is in this picture.

    Raises:
        ValueError: it has no entries.
    """
    count, first, bits = (int(value) for value in descriptor)
    count = count & 0xFFFF or 65_536
    least, most = values
    if first > 32_767 and least < 0 and (first > most or first - 65_536 >= least):
        first -= 65_536  # written, or read, as the unsigned of two possible representations
    if isinstance(data, bytes):
        words = np.frombuffer(data + b"\0" * (len(data) % 2), "<u2" if little_endian else ">u2")
    else:
        words = np.atleast_1d(np.asarray(data, np.int64)).astype(np.uint16)
    words = words.astype("<u2")
    # Entries of 8 bits stand two in a word, or each in one of its own.
    packed = bits <= 8 and len(words) == (count + 1) // 2
    entries = (words.view(np.uint8).astype(np.uint16) if packed else words)[:count]
    # A descriptor may say less than there is: no entry is brighter than the brightest.
    return Lut(entries, first, max(bits, int(entries.max()).bit_length(), 1))


def first_table(source: Any, keyword: str) -> Any:
    """The first item of a sequence of tables that is not empty; None where there is none."""
    items = source.get(keyword) or []
    return next((item for item in items if item.get("LUTDescriptor") or item.get("LUTData")), None)


def levels_of(stored: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int64]]:
    """Each value that there may be, ascending; how many pixels have it; which one a pixel has."""
    if stored.dtype.kind in "iu":
        low, high = int(stored.min()), int(stored.max())
        if high - low < TABLE:
            where = stored.astype(np.int64) - low
            return np.arange(low, high + 1), np.bincount(where.ravel()), where
    levels, where, counts = np.unique(stored, return_inverse=True, return_counts=True)
    return levels, counts, where.reshape(stored.shape)
