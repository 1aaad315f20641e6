"""Frames that lie behind each other → the greatest value of each ray, or its average: of what the
pixels mean (of a CT: HU), NaN where all of them are padding.

Frames come one by one, stored as [rows, columns] of one size, and so do the values.
"""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gateway.intake.dicom.grey import NO_NUMBERS, measured, rising
from gateway.intake.dicom.tables import Floats
from gateway.intake.series.order import Projection


class Rays(Protocol):
    def add(self, stored: NDArray[Any], header: Any, index: int) -> None:
        """Frame `index` (from 0) of a file; raises ValueError where it has another size."""

    def values(self) -> Floats:
        """Of those that were added, which are one at least."""


class Greatest:
    """What means the same in frame after frame, as in one series nearly all does, is compared as it
    is stored: that takes a tenth of the time."""

    def __init__(self) -> None:
        self._found: Floats | None = None
        self._run: tuple[NDArray[Any], Any, int] | None = None
        self._means: tuple[Any, ...] | None = None  # the stored values of the run

    def add(self, stored: NDArray[Any], header: Any, index: int) -> None:
        line = rising(stored, header, index)
        means: tuple[Any, ...] | None = line and (stored.dtype, *line)
        if self._run and means and means == self._means:
            greatest, *_ = self._run
            np.maximum(greatest, stored, out=greatest)
            return
        self._end_run()
        self._run, self._means = (stored.copy(), header, index), means

    def values(self) -> Floats:
        self._end_run()
        assert self._found is not None
        return self._found

    def _end_run(self) -> None:
        if not self._run:
            return
        values, is_none = measured(*self._run)
        values[is_none] = np.nan
        self._found = values if self._found is None else np.fmax(self._found, values)
        self._run = None


class Average:
    """What means the same in frame after frame is added up as it is stored. What is padding in one
    frame may be seen in another."""

    def __init__(self) -> None:
        self._sum: Floats | None = None
        self._run: Floats | None = None  # the sum of what is stored, while its line is the same
        self._line = 1.0, 0.0

    @NO_NUMBERS
    def add(self, stored: NDArray[Any], header: Any, index: int) -> None:
        seen: Any = True
        if line := rising(stored, header, index):
            slope, intercept, *padding = line
            if padding:
                seen = stored > padding[1]
        else:
            slope, intercept = 1.0, 0.0
            stored, is_none = measured(stored, header, index)
            seen = ~is_none
        if self._run is None or self._line != (slope, intercept):
            self._end_run()
            self._run, self._count = np.zeros(stored.shape), np.zeros(stored.shape, np.uint16)
            self._line = slope, intercept
        np.add(self._run, stored, out=self._run, where=seen)
        self._count += seen

    def values(self) -> Floats:
        self._end_run()
        assert self._sum is not None
        return np.where(self._seen, self._sum / np.maximum(self._seen, 1), np.nan)

    @NO_NUMBERS
    def _end_run(self) -> None:
        if self._run is None:
            return
        slope, intercept = self._line
        values = slope * self._run + intercept * self._count
        if self._sum is None:
            self._sum, self._seen = values, self._count
        else:
            self._sum += values
            self._seen += self._count
        self._run = None


RAYS: dict[Projection, type[Greatest] | type[Average]] = {"max": Greatest, "average": Average}
