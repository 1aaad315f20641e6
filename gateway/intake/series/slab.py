"""Slices that lie behind each other → one picture: of each ray the greatest value, or the average.

It is made one slice at a time, and windowed at the end.
"""

from typing import Any

from PIL import Image

from gateway.case import CaseImage
from gateway.contract import AskedWindow, ImageShown
from gateway.intake.dicom.file import told_by_tag
from gateway.intake.dicom.grey import greys_of_measured
from gateway.intake.dicom.objects import PIXELS, modality_of
from gateway.intake.dicom.picture import frame_of_file, square, window_of
from gateway.intake.dicom.stored import GREY, decode, make_fit
from gateway.intake.dicom.values import groups, number
from gateway.intake.pixels import codec_errors_told, of_picture
from gateway.intake.series.order import Projection
from gateway.intake.series.rays import RAYS
from gateway.refusals import InvalidCase

ALIKE = 0.01  # by so much may the size of pixels differ


class Slab:
    """Slices are added one by one, each [rows, columns] of the same size."""

    def __init__(self, projection: Projection):
        self._projection = projection
        self._rays = RAYS[projection]()
        self._header: Any = None
        self._spacing: tuple[float, float] | None = None

    def add(self, header: Any, place: str, frame: int) -> None:
        """A frame (from 1) of a file that was read; raises a `Refused` that says what to send
        instead."""
        with codec_errors_told(place), told_by_tag(place):
            if header is not self._header:  # or else another frame of it
                make_fit(header, place)
                self._header = header
            if header.PhotometricInterpretation not in GREY:
                raise InvalidCase(
                    f"{place} has colours, of which there is no {self._projection}. Send even."
                )
            self._index = frame_of_file(header, frame, place) - 1
            spacing = _spacing(header, self._index)
            self._spacing = self._spacing or spacing
            if any(
                abs(mm - first) > ALIKE * first
                for mm, first in zip(spacing, self._spacing, strict=True)
            ):
                raise InvalidCase(
                    f"{place} has pixels of another size (in mm) than the slices before, and there "
                    f"is no {self._projection} of such. Send even."
                )
            stored, _ = decode(header, self._index, place)
            self._rays.add(stored, header, self._index)

    def picture(self, place: str, window: AskedWindow | None) -> CaseImage:
        """What the workers get, as the last slice's header says to show it; raises as `add`."""
        header, index = self._header, self._index
        values = self._rays.values()
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
