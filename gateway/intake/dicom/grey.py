"""Stored values → greys, as a viewer shows them: PS3.3 C.11, step by step.

Modality LUT (C.11.1), padding (C.7.5.1.1.2), VOI (C.11.2), presentation (C.11.6). All of it is a
function of the stored value alone, so it is worked out once for each value that a frame may hold.
"""

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.intake.dicom.found_range import range_of
from gateway.intake.dicom.tables import Floats, first_table, levels_of, read_lut
from gateway.intake.dicom.values import (
    groups,
    is_little_endian,
    number,
    stored_number,
    stored_range,
)

MOST_STORED = 2.0**64  # no integer that is stored is greater
Window = tuple[float, float]  # centre and width, in the values that the modality LUT gives


def greys(
    stored: NDArray[Any], header: Any, index: int, asked: Window | None
) -> tuple[NDArray[np.uint8], Window | None]:
    """Frame `index` (from 0) of one sample a pixel, and the window that it is shown in.

    `stored` has the values as they are stored, [rows, columns]; the window is the one `asked` for,
    else the file's first, else the range that was found; None under a VOI LUT.
    """
    levels, counts, where = levels_of(stored)
    values, background = measured(levels, header, index)
    shown, window = _as_shown(values, background, levels, counts, header, index, asked)
    return shown[where], window


# What becomes no number, as that which is too great for one, is none of the values.
NO_NUMBERS = np.errstate(over="ignore", invalid="ignore")


@NO_NUMBERS
def measured(stored: NDArray[Any], header: Any, index: int) -> tuple[Floats, NDArray[np.bool_]]:
    """What stored values of frame `index` mean (C.11.1), and which of them are none: padding, and
    what no number can say."""
    values = _modality(stored.astype(np.float64), header, index)
    return values, _padding(stored, header) | ~np.isfinite(values)


def rising(stored: NDArray[Any], header: Any, index: int) -> tuple[float, ...] | None:
    """By which line stored values of frame `index` mean the more, the greater they are, with
    padding below all others: of any that say the same, the greatest means the greatest. None where
    it is not so."""
    if stored.dtype.kind not in "iu" or first_table(header, "ModalityLUTSequence"):
        return None
    slope, intercept = _line(header, index)
    padding = _padding_range(header) or ()
    is_line = slope > 0 and np.isfinite(slope * MOST_STORED + abs(intercept))
    if not is_line or (padding and stored.min() < padding[0]):
        return None
    return slope, intercept, *padding


def greys_of_measured(
    values: Floats, header: Any, index: int, asked: Window | None
) -> tuple[NDArray[np.uint8], Window | None]:
    """`greys` of what was measured: a header without its pixels says how they are shown."""
    levels, counts, where = levels_of(values)
    background = ~np.isfinite(levels)
    shown, window = _as_shown(levels, background, levels, counts, header, index, asked)
    return shown[where], window


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


def _modality(levels: Floats, header: Any, index: int) -> Floats:
    """C.11.1: stored values → what they mean, in their place."""
    if item := first_table(header, "ModalityLUTSequence"):
        little, reach = is_little_endian(header), stored_range(header)
        return read_lut(item.LUTDescriptor, item.LUTData, little, reach)(levels)
    slope, intercept = _line(header, index)
    levels *= slope
    levels += intercept
    return levels


def _line(header: Any, index: int) -> tuple[float, float]:
    """C.11.1.1.2, and C.7.6.16.2.9 for functional groups: slope and intercept."""
    for source in groups(header, index, "PixelValueTransformationSequence"):
        slope, intercept = number(source, "RescaleSlope"), number(source, "RescaleIntercept")
        if slope is not None or intercept is not None:
            return slope or 1.0, intercept or 0.0
    return 1.0, 0.0


def _padding(levels: NDArray[Any], header: Any) -> NDArray[np.bool_]:
    """What only fills the rectangle."""
    if found := _padding_range(header):
        return (levels >= found[0]) & (levels <= found[1])
    return np.zeros(levels.shape, bool)


def _padding_range(header: Any) -> tuple[float, float] | None:
    """C.7.5.1.1.2, C.7.6.24: the least and the greatest stored value of padding."""
    for kind in ("Float", "DoubleFloat", ""):
        one = stored_number(header, f"{kind}PixelPaddingValue", is_float=bool(kind))
        other = stored_number(header, f"{kind}PixelPaddingRangeLimit", is_float=bool(kind))
        if one is not None:
            other = one if other is None else other
            return min(one, other), max(one, other)
    return None


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
        if item := first_table(source, "VOILUTSequence"):
            little, reach = is_little_endian(header), _measured_range(values, header, index)
            table = read_lut(item.LUTDescriptor, item.LUTData, little, reach)
            return table.scaled(values), None
        if window := _window(source):
            function = str(source.get("VOILUTFunction") or "").strip().upper()
            return _windowed(values, window, function), window
    low, high = range_of(values, levels, counts, header)
    if high <= low:
        return np.zeros_like(values), None
    window = ((low + high) / 2, high - low)
    return _windowed(values, window, "LINEAR_EXACT"), window


def _measured_range(values: Floats, header: Any, index: int) -> tuple[float, float]:
    """The least and the greatest that a pixel can mean: of floats, that it does here."""
    ends = _modality(np.array(stored_range(header), np.float64), header, index)
    return float(min(ends.min(), values.min())), float(max(ends.max(), values.max()))


def _window(source: Any) -> Window | None:
    """The first of its windows that is one (C.11.2.1.2.1)."""
    for position in itertools.count():
        centre = number(source, "WindowCenter", position)
        width = number(source, "WindowWidth", position)
        if centre is not None and width is not None and width > 0:
            return centre, width
        if position and centre is None and width is None:  # the first alone may be left empty
            return None
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


def _presentation(shown: Floats, header: Any) -> Floats:
    """C.11.6, C.7.6.3.1.2: a table gives what is shown; else the lowest value is white where either
    tag says so. Where both do they mean the same (C.8.11.3.1.2)."""
    if item := first_table(header, "PresentationLUTSequence"):
        table = read_lut(item.LUTDescriptor, item.LUTData, is_little_endian(header))
        return table.scaled(table.first + shown * ((len(table.entries) - 1) / 255))
    inverse = str(header.get("PresentationLUTShape") or "").strip().upper() == "INVERSE"
    return 255 - shown if inverse or header.PhotometricInterpretation == "MONOCHROME1" else shown
