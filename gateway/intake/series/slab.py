"""Slices that lie behind each other → one picture: of each ray the greatest value, or the average.

It is made of what the pixels mean (of a CT: HU), one slice at a time, and windowed at the end.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gateway.case import CaseImage
from gateway.contract import AskedWindow, ImageShown
from gateway.intake.dicom.file import told_by_tag
from gateway.intake.dicom.grey import greys_of_measured, measured
from gateway.intake.dicom.objects import PIXELS, modality_of
from gateway.intake.dicom.picture import frame_of_file, square, window_of
from gateway.intake.dicom.stored import GREY, decode, opened
from gateway.intake.dicom.values import groups, number
from gateway.intake.pixels import codec_errors_told, of_picture
from gateway.intake.series.order import Projection
from gateway.refusals import InvalidCase

ALIKE = 0.01  # by so much may the size of pixels differ


class Slab:
    """Slices are added one by one, each [rows, columns] of the same size."""

    def __init__(self, projection: Projection):
        self._projection = projection
        self._file = b""
        self._values: NDArray[np.float64] | None = None  # the greatest so far, or the sum

    def add(self, data: bytes, place: str, frame: int) -> None:
        """Raises a `Refused` that says what to send instead."""
        with codec_errors_told(place), told_by_tag(place):
            if data is not self._file:  # or else another frame of it
                self._file, self._header = data, opened(data, place)
            header = self._header
            if header.PhotometricInterpretation not in GREY:
                raise InvalidCase(
                    f"{place} has colours, of which there is no {self._projection}. Send even."
                )
            self._index = frame_of_file(header, frame, place) - 1
            values = measured(decode(header, self._index, place), header, self._index)
            spacing = _spacing(header, self._index)
            there = np.isfinite(values)
            if self._values is None:
                self._values, self._counts = values, there.astype(np.uint16)
                self._spacing = spacing
            elif any(
                abs(mm - first) > ALIKE * first
                for mm, first in zip(spacing, self._spacing, strict=True)
            ):
                raise InvalidCase(
                    f"{place} has pixels of another size (in mm) than the slices before, and there "
                    f"is no {self._projection} of such. Send even."
                )
            elif self._projection == "max":
                np.fmax(self._values, values, out=self._values)
            else:
                # What is padding in one slice may be seen in another.
                summed = self._values + np.nan_to_num(values)
                self._values = np.where(np.isnan(self._values), values, summed)
                self._counts += there

    def picture(self, place: str, window: AskedWindow | None) -> CaseImage:
        """What the workers get, as the last slice's header says to show it; raises as `add`."""
        header, index = self._header, self._index
        values = self._values
        assert values is not None
        if self._projection == "average":
            values = values / np.maximum(self._counts, 1)
        for keyword in PIXELS:  # what is said of them holds for none of these values
            header.pop(keyword, None)
        with codec_errors_told(place), told_by_tag(place):
            asked = window_of(window, header, place)
            pixels, shown_in = greys_of_measured(values, header, index, asked)
            image = square(Image.fromarray(pixels), header, index, place)
        return of_picture(image, modality_of(header), ImageShown(window=shown_in, converted=True))


def _spacing(header: Any, index: int) -> tuple[float, float]:
    """Of a frame's rows and columns, in mm (C.7.6.3.1.7, C.7.6.16.2.1); 0 where it is not said."""
    for source in groups(header, index, "PixelMeasuresSequence"):
        rows, columns = (number(source, "PixelSpacing", position) for position in (0, 1))
        if rows and columns:
            return rows, columns
    return 0.0, 0.0
