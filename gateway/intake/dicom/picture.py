"""A DICOM file → the picture that a viewer shows of it, by PS3.3 of the standard.

Read without trust: only what is known for a picture, decoded only within the limits, and no value
of the header in any message. One frame is shown: the one that was asked for, else the one that the
header calls representative, else the first.
"""

from dataclasses import dataclass
from typing import Any

from PIL import Image

from gateway.contract import WINDOWS, AskedWindow, ImageShown, Modality
from gateway.intake.dicom.colours import palette, rgb
from gateway.intake.dicom.file import InMemory, read, told_by_tag
from gateway.intake.dicom.grey import greys
from gateway.intake.dicom.objects import made_by, modality_of
from gateway.intake.dicom.stored import GREY, decode, make_fit
from gateway.intake.dicom.values import groups, number
from gateway.intake.raster.decoding import check_pixels
from gateway.refusals import InvalidCase

SPACINGS = (
    ("PixelMeasuresSequence", "PixelSpacing"),
    ("", "ImagerPixelSpacing"),
    ("", "NominalScannedPixelSpacing"),
    ("", "PixelAspectRatio"),
)
SQUARE = 0.01  # so much longer may one side of a pixel be


@dataclass(frozen=True)
class Shown:
    """The picture (8 bits of grey, or RGB), how it was made, and what the caller is told of it."""

    picture: Image.Image
    modality: Modality | None
    told: ImageShown


def show(data: bytes, place: str, frame: int | None, window: AskedWindow | None) -> Shown:
    """`show_read` of a file.

    Raises the same, and ValueError for what is no DICOM.
    """
    with told_by_tag(place):
        header = read(InMemory(data), place)
    return show_read(header, place, frame, window)


def show_read(header: Any, place: str, frame: int | None, window: AskedWindow | None) -> Shown:
    """One frame (from 1; None: the representative one) of a file that was read, as a viewer shows
    it.

    `place` is "Image 2 of 3", for errors. A window is a preset's name or (centre, width).

    Raises:
        UnreadableImage, TooLarge: the file is not one to be shown.
        InvalidCase: it is, but not in that frame or window.
        ValueError and whatever else numpy and the codecs raise for a damaged file
    """
    with told_by_tag(place):
        make_fit(header, place)
        number_of_frames = int(header.NumberOfFrames)
        index = frame_of_file(header, frame, place) - 1
        photometric = header.PhotometricInterpretation
        if window is not None and photometric not in GREY:
            raise InvalidCase(
                f"{place} has colours, and no grey scale to window. Leave window out."
            )
        stored, space = decode(header, index, place)
        shown_in = None
        if photometric in GREY:
            asked = window_of(window, header, place)
            pixels, shown_in = greys(stored, header, index, asked)
        elif photometric == "PALETTE COLOR":
            pixels = palette(stored, header)
        else:
            pixels = rgb(stored, space, header)
        return Shown(
            square(Image.fromarray(pixels), header, index, place),
            modality_of(header),
            ImageShown(frame=index + 1, of=number_of_frames, window=shown_in, converted=True),
        )


def frame_of_file(header: Any, asked: int | None, place: str) -> int:
    """C.7.6.6, and (0028,6010) of C.7.6.6.1.4: which one, counted from 1; raises InvalidCase."""
    frames = max(1, int(number(header, "NumberOfFrames") or 1))
    if asked is not None:
        if asked > frames:
            there = f"{frames} frames: send one from 1 to {frames}" if frames > 1 else "one frame"
            raise InvalidCase(f"{place} has {there}. Leave frame out for the file's own choice.")
        return asked
    # A number beyond them is a slip.
    named = int(number(header, "RepresentativeFrameNumber") or 1)
    return named if 1 <= named <= frames else 1


def window_of(asked: AskedWindow | None, header: Any, place: str) -> tuple[float, float] | None:
    """A preset as centre and width; raises InvalidCase where it is not for such an image."""
    if not isinstance(asked, str):
        return asked
    told = made_by(header)
    if told and "CT" not in told:
        raise InvalidCase(
            f"{place} is no CT, and the named windows are in Hounsfield units. "
            "Send its window as [centre, width]."
        )
    return WINDOWS[asked]


def square(image: Image.Image, header: Any, index: int, place: str) -> Image.Image:
    """10.7.1.3, C.7.6.3.1.7: a pixel that is higher than wide becomes so many more rows, one that
    is wider than high columns: nothing is lost."""
    for macro, keyword in SPACINGS:
        for source in groups(header, index, macro):
            # Between rows, which is a pixel's height, and between columns.
            high, wide = number(source, keyword, 0), number(source, keyword, 1)
            if high and wide and high > 0 and wide > 0:
                break
        else:
            continue
        width, height = image.size
        if high > wide * (1 + SQUARE):
            height = round(height * high / wide)
        elif wide > high * (1 + SQUARE):
            width = round(width * wide / high)
        check_pixels(width, height, place)
        return image.resize((width, height), Image.Resampling.BILINEAR)
    return image
