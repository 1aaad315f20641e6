"""Stored values → greys, as a viewer shows them: PS3.3 C.11, step by step.

Modality LUT (C.11.1), padding (C.7.5.1.1.2), VOI (C.11.2), presentation (C.11.6). All of it is a
function of the stored value alone, so it is worked out once for each value that a frame may hold.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Window = tuple[float, float]  # centre and width, in the values that the modality LUT gives

TABLE = 65_536  # of so many values a table is quicker than the distinct ones sorted
SET_ASIDE = 1_000  # at either end one pixel of so many takes no part in a range
STRAY = 100  # nor does one of so many that lies further off than all others reach
FEWEST = 4  # pixels of which that can be said
FEWEST_WITHIN = 0.95  # of the pixels, where a header's range is to be believed
WIDEST = 2.0  # times the range that was found


def greys(
    stored: NDArray[Any], header: Any, index: int, asked: Window | None
) -> tuple[NDArray[np.uint8], Window | None]:
    """Frame `index` (from 0) of one sample a pixel, and the window that it is shown in.

    `stored` has the values as they are stored, [rows, columns]; the window is the one `asked` for,
    else the file's first, else the range that was found; None under a VOI LUT.
    """
    levels, counts, where = levels_of(stored)
    values, background = _measured(levels, header, index)
    shown, window = _as_shown(values, background, levels, counts, header, index, asked)
    return shown[where], window


def measured(stored: NDArray[Any], header: Any, index: int) -> NDArray[np.float32]:
    """What the pixels of frame `index` mean (C.11.1), [rows, columns]; NaN is padding."""
    levels, _, where = levels_of(stored)
    values, background = _measured(levels, header, index)
    return np.where(background, np.nan, values).astype(np.float32)[where]


def greys_of_measured(
    values: NDArray[np.float32], header: Any, index: int, asked: Window | None
) -> tuple[NDArray[np.uint8], Window | None]:
    """`greys` of what was measured: a header without its pixels says how they are shown."""
    levels, counts, where = levels_of(values)
    background = ~np.isfinite(levels)
    shown, window = _as_shown(
        levels.astype(np.float64), background, levels, counts, header, index, asked
    )
    return shown[where], window


def _measured(levels: NDArray[Any], header: Any, index: int) -> tuple[Floats, NDArray[np.bool_]]:
    """What each stored value means, and whether it is none."""
    values = _modality(levels.astype(np.float64), header, index)
    return values, _padding(levels, header) | ~np.isfinite(values)


def _as_shown(
    values: Floats,
    background: NDArray[np.bool_],
    levels: NDArray[Any],
    counts: NDArray[np.int64],
    header: Any,
    index: int,
    asked: Window | None,
) -> tuple[NDArray[np.uint8], Window | None]:
    counts = np.where(background, 0, counts)
    values = np.where(background, 0, values)
    shown, window = _voi(values, levels, counts, header, index, asked)
    shown = _presentation(np.clip(shown, 0, 255).round(), header)
    shown[background] = 0
    return shown.round().astype(np.uint8), window


def groups(header: Any, index: int, macro: str) -> list[Any]:
    """Where an attribute of a frame may stand, the nearest first: the frame's functional group, the
    shared one (C.7.6.16.1), the data set itself."""
    own = (header.get("PerFrameFunctionalGroupsSequence") or [])[index : index + 1]
    shared = (header.get("SharedFunctionalGroupsSequence") or [])[:1]
    return [item for group in [*own, *shared] for item in (group.get(macro) or [])[:1]] + [header]


class NoNumber(ValueError):
    """A tag that should hold a number holds something else."""

    def __init__(self, keyword: str) -> None:
        super().__init__(keyword)
        self.keyword = keyword


def number(source: Any, keyword: str, position: int = 0) -> float | None:
    """The value at a position of a tag, None where there is none. In text a comma is read as the
    point that PS3.5 6.2 asks for.

    Raises:
        NoNumber: there is a value, but none that could be meant.
    """
    try:
        value = source.get(keyword)
    except (TypeError, ValueError, OverflowError):  # pydicom reads all of its values or none
        value = source.get_item(keyword).value
    if isinstance(value, bytes):
        value = value.decode("latin-1").split("\\")
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = value[position] if position < len(value) else None
    elif position:
        value = None
    if isinstance(value, str):
        value = value.strip(" \0").replace(",", ".")
    if value is None or value == "":
        return None
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise NoNumber(keyword) from error
    if math.isfinite(found):
        return found
    if type(value) is float:  # in binary, where it is how none is written
        return None
    raise NoNumber(keyword)


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


def read_lut(descriptor: Any, data: Any, little_endian: bool, signed: bool = False) -> Lut:
    """A table as descriptor and data tell it; `signed`: it is looked up by values below 0 too.

    Raises:
        ValueError: it has no entries.
    """
    count, first, bits = (int(value) for value in descriptor)
    count = count & 0xFFFF or 65_536
    if signed and first > 32_767:
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


def _table(source: Any, keyword: str) -> Any:
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


def _modality(levels: Floats, header: Any, index: int) -> Floats:
    """C.11.1, and C.7.6.16.2.9 for functional groups: stored values → what they mean."""
    if item := _table(header, "ModalityLUTSequence"):
        little = is_little_endian(header)
        return read_lut(item.LUTDescriptor, item.LUTData, little, bool(levels[0] < 0))(levels)
    for source in groups(header, index, "PixelValueTransformationSequence"):
        slope, intercept = number(source, "RescaleSlope"), number(source, "RescaleIntercept")
        if slope is not None or intercept is not None:
            return levels * (slope or 1) + (intercept or 0)
    return levels


def _padding(levels: NDArray[Any], header: Any) -> NDArray[np.bool_]:
    """C.7.5.1.1.2, C.7.6.24: what only fills the rectangle."""
    for kind in ("Float", "DoubleFloat", ""):
        one = _stored(header, f"{kind}PixelPaddingValue", is_float=bool(kind))
        other = _stored(header, f"{kind}PixelPaddingRangeLimit", is_float=bool(kind))
        if one is not None:
            other = one if other is None else other
            return (levels >= min(one, other)) & (levels <= max(one, other))
    return np.zeros(levels.shape, bool)


def _stored(header: Any, keyword: str, is_float: bool = False) -> float | None:
    """A tag's value as the pixels have it: it may be written as if they were of the other sign.
    None where no pixel can have it (PS3.5 8.1.1)."""
    value = number(header, keyword)
    if value is None or is_float:
        return value
    allocated, stored = int(header.BitsAllocated), int(header.BitsStored)
    signed = bool(header.PixelRepresentation)
    low, high = (-(2 ** (stored - 1)), 2 ** (stored - 1)) if signed else (0, 2**stored)
    read = (value, value - 2**allocated if signed else value + 2**allocated)
    return next((found for found in read if low <= found < high), None)


def _voi(
    values: Floats,
    levels: NDArray[Any],
    counts: NDArray[np.int64],
    header: Any,
    index: int,
    asked: Window | None,
) -> tuple[Floats, Window | None]:
    """C.11.2, and C.7.6.16.2.10 for functional groups: values → 0 to 255."""
    if asked:
        return _windowed(values, asked, "LINEAR"), asked
    for source in groups(header, index, "FrameVOILUTSequence"):
        if item := _table(source, "VOILUTSequence"):
            little, signed = is_little_endian(header), bool(values.min() < 0)
            table = read_lut(item.LUTDescriptor, item.LUTData, little, signed)
            return table.scaled(values), None
        if window := _window(source):
            function = str(source.get("VOILUTFunction") or "").strip().upper()
            return _windowed(values, window, function), window
    low, high = _range(values, levels, counts, header)
    if high <= low:
        return np.zeros_like(values), None
    window = ((low + high) / 2, high - low)
    return _windowed(values, window, "LINEAR_EXACT"), window


def _window(source: Any) -> Window | None:
    """The first of its windows that is one (C.11.2.1.2.1)."""
    for position in itertools.count():
        centre = number(source, "WindowCenter", position)
        width = number(source, "WindowWidth", position)
        if centre is None or width is None:
            return None
        if width > 0:
            return centre, width
    return None


def _windowed(values: Floats, window: Window, function: str) -> Floats:
    """C.11.2.1.2.1, C.11.2.1.3: any other function is taken for LINEAR, the default."""
    centre, width = window
    if function == "SIGMOID":
        return 255 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700)))
    # LINEAR is for widths of 1 and more; narrower ones come with small slopes, and mean what
    # LINEAR_EXACT does.
    if function != "LINEAR_EXACT" and width >= 1:
        centre, width = centre - 0.5, width - 1
    if width == 0:
        return np.where(values > centre, 255.0, 0.0)
    return ((values - centre) / width + 0.5) * 255


def _range(values: Floats, levels: NDArray[Any], counts: NDArray[np.int64], header: Any) -> Window:
    """The darkest and the brightest value that are told apart where no window is given: what the
    header states (C.7.6.3, informative), where the pixels bear it out, else what they show."""
    low, high = _found_range(values, counts)
    smallest = _stored(header, "SmallestImagePixelValue")
    largest = _stored(header, "LargestImagePixelValue")
    if "PixelData" not in header or smallest is None or largest is None:
        return low, high
    within = (levels >= smallest) & (levels <= largest) & (counts > 0)
    if not within.any() or counts[within].sum() < FEWEST_WITHIN * counts.sum():
        return low, high
    stated = float(values[within].min()), float(values[within].max())
    return stated if stated[1] - stated[0] <= WIDEST * (high - low) else (low, high)


def _found_range(values: Floats, counts: NDArray[np.int64]) -> Window:
    """One absurd pixel changes nothing; nor does a background, the one value of more than half of
    the pixels: the range holds it, and is else found from what stands before it."""
    order = np.argsort(values, kind="stable")
    order = order[counts[order] > 0]
    values, counts = values[order], counts[order]
    if len(values) < 2:
        return 0.0, 0.0
    ends = []
    before = counts * 2 <= counts.sum()
    if not before.all():
        ends = [float(values[~before][0])]
    dark = -_brightest(-values[before][::-1], counts[before][::-1])
    ends += [dark, _brightest(values[before], counts[before])]
    if min(ends) == max(ends):
        return float(values[0]), float(values[-1])
    return min(ends), max(ends)


def _brightest(values: Floats, counts: NDArray[np.int64]) -> float:
    """Of ascending values the last one without the few that are set aside: the outermost, and
    strays, which lie further off than all others reach."""
    total = int(counts.sum())
    brighter = total - np.cumsum(counts)
    last = int(np.argmax(brighter <= total // SET_ASIDE))
    if total < FEWEST:
        return float(values[last])
    strays = max(1, total // STRAY)
    # The other end may have strays too.
    darkest = values[np.searchsorted(np.cumsum(counts), strays, side="right")]
    for at in range(int(np.argmax(brighter <= strays)), last):
        if values[at + 1] - values[at] > values[at] - darkest:
            return float(values[at])
    return float(values[last])


def _presentation(shown: Floats, header: Any) -> Floats:
    """C.11.6, C.7.6.3.1.2: a table gives what is shown; else the lowest value is white where either
    tag says so. Where both do they mean the same (C.8.11.3.1.2)."""
    if item := _table(header, "PresentationLUTSequence"):
        table = read_lut(item.LUTDescriptor, item.LUTData, is_little_endian(header))
        return table.scaled(table.first + shown * ((len(table.entries) - 1) / 255))
    inverse = str(header.get("PresentationLUTShape") or "").strip().upper() == "INVERSE"
    return 255 - shown if inverse or header.PhotometricInterpretation == "MONOCHROME1" else shown


def is_little_endian(header: Any) -> bool:
    return bool(header.original_encoding[1])
