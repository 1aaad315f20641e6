"""The range in which greys are shown where no window is given (PS3.3 C.7.6.3, informative)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.intake.dicom.tables import Floats
from gateway.intake.dicom.values import stored_number

SET_ASIDE = 1_000  # at either end one pixel of so many takes no part in a range
STRAY = 100  # nor does one of so many that lies further off than all others reach
FEWEST = 4  # pixels of which that can be said
FEWEST_WITHIN = 0.95  # of the pixels, where a header's range is to be believed
WIDEST = 2.0  # times the range that was found


def range_of(
    values: Floats, levels: NDArray[Any], counts: NDArray[np.int64], header: Any
) -> tuple[float, float]:
    """The darkest and the brightest value that are told apart where no window is given: what the
    header states (C.7.6.3, informative), where the pixels bear it out, else what they show."""
    low, high = _found_range(values, counts)
    smallest = stored_number(header, "SmallestImagePixelValue")
    largest = stored_number(header, "LargestImagePixelValue")
    if "PixelData" not in header or smallest is None or largest is None:
        return low, high
    within = (levels >= smallest) & (levels <= largest) & (counts > 0)
    if not within.any() or counts[within].sum() < FEWEST_WITHIN * counts.sum():
        return low, high
    stated = float(values[within].min()), float(values[within].max())
    return stated if stated[1] - stated[0] <= WIDEST * (high - low) else (low, high)


def _found_range(values: Floats, counts: NDArray[np.int64]) -> tuple[float, float]:
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
