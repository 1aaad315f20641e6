"""One image file → what the workers get of it.

That is an 8-bit JPEG or PNG (grey or colour) without anything else: no DICOM header, no EXIF, no
text. Such a file is passed on undecoded (`stripping.py`), every other one is decoded (`raster.py`)
and becomes a PNG. Text burned into the pixels stays. An image's identity is the SHA-256 of what the
workers get. Of several DICOM frames the representative one is taken.
"""

import hashlib
import io
import logging
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from PIL import Image

from gateway.case import CaseImage
from gateway.contract import Modality, UnreadableImage
from gateway.contract import Refused as Refused  # for those who read images and know no case
from gateway.intake import raster, wholeness
from gateway.intake.raster import check_pixels, stretched
from gateway.intake.stripping import strip_jpeg, strip_png

# The defined terms of (0008,0060), PS3.3 C.7.3.1.1.1, that say enough.
DICOM_MODALITIES: dict[str, Modality] = {
    "CT": "ct",
    "MR": "mri",
    **dict.fromkeys(("CR", "DX", "MG", "RF", "RG", "XA", "IO", "PX"), "xray"),
    **dict.fromkeys(("US", "IVUS"), "ultrasound"),
    **dict.fromkeys(("NM", "PT"), "nuclear"),
    **dict.fromkeys(("XC", "DMS"), "photograph"),
    **dict.fromkeys(("OP", "OPT", "OCT"), "fundus"),
    "ES": "endoscopy",
    **dict.fromkeys(("GM", "SM"), "microscopy"),
}

# Pillow, pydicom and numpy promise no common error for a broken file; these are theirs.
_CODEC_ERRORS = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def only_pixels(data: bytes, place: str) -> CaseImage:
    """One image file → what the workers get of it. `place` is "Image 2 of 3", for errors."""
    if found := undecoded(data, place):
        return found
    image, modality = _decoded(data, place)
    return _of(_as_png(image), image.size, modality)


def undecoded(data: bytes, place: str) -> CaseImage | None:
    """The same without decoding, where the file is plainly a picture."""
    kind = raster.kind_of(data)
    strip = {"PNG": strip_png, "JPEG": strip_jpeg}.get(kind or "")
    stripped = strip(data) if strip else None
    if stripped is None:
        return None
    picture, width, height = stripped
    check_pixels(width, height, place)
    with _told(place):
        (wholeness.png_rows if kind == "PNG" else wholeness.check_jpeg)(picture)
    return _of(picture, (width, height), None)


def shown(data: bytes, place: str) -> Image.Image:
    """What an image file shows, 8 bits of grey or RGB: the picture that the workers get of it."""
    return _decoded(data, place)[0]


def _decoded(data: bytes, place: str) -> tuple[Image.Image, Modality | None]:
    with _told(place):
        if data[128:132] == b"DICM":
            return _dicom(data, place)
        return raster.picture(data, place), None


@contextmanager
def _told(place: str) -> Iterator[None]:
    try:
        yield
    except _CODEC_ERRORS as error:
        raise UnreadableImage(
            f"{place} cannot be decoded: it is damaged, cut short or of a rare kind. "
            "Export it again, best as an 8-bit PNG."
        ) from error


def _of(picture: bytes, size: tuple[int, int], modality: Modality | None) -> CaseImage:
    return CaseImage(picture, hashlib.sha256(picture).hexdigest(), size, modality)


def _as_png(image: Image.Image) -> bytes:
    # A fresh image carries no metadata that an encoder could copy.
    bare = Image.new(image.mode, image.size)
    bare.paste(image)
    png = io.BytesIO()
    bare.save(png, "PNG", compress_level=1)
    return png.getvalue()


def _dicom(data: bytes, place: str) -> tuple[Image.Image, Modality | None]:
    """One frame as a viewer would show it (modality LUT, window, MONOCHROME1 inverted), and how it
    was made."""
    # Imported at the first DICOM: it would double the gateway's start-up.
    import pydicom
    from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, pixel_array

    # pydicom quotes the header's values when it warns, and headers name patients.
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE

    if b"1.2.840.10008.1.2.1.99" in data:
        # It is inflated as a whole before anything can be checked, to any size.
        raise UnreadableImage(f"{place} is a deflated DICOM. Send it uncompressed, or as PNG.")
    header = pydicom.dcmread(io.BytesIO(data))
    if not any(name in header for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise UnreadableImage(f"{place} is a DICOM without pixels. Send one that holds an image.")
    check_pixels(int(header.Columns), int(header.Rows), place)
    _check_transfer_syntax(header, place)
    # Frames are counted from 1; a number beyond them is a slip.
    frame = int(header.get("RepresentativeFrameNumber") or 1)
    there = 1 <= frame <= int(header.get("NumberOfFrames") or 1)
    pixels = pixel_array(header, index=frame - 1 if there else 0)
    photometric = header.PhotometricInterpretation
    if photometric == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, header)
    elif pixels.ndim == 2:
        pixels = apply_voi_lut(apply_modality_lut(pixels, header), header)
    if pixels.dtype != np.uint8 or pixels.ndim == 2:
        pixels = stretched(pixels, None)
    shown = Image.fromarray(255 - pixels if photometric == "MONOCHROME1" else pixels)
    return shown, DICOM_MODALITIES.get(str(header.get("Modality")))


def _check_transfer_syntax(header: Any, place: str) -> None:
    from pydicom.pixels import get_decoder

    syntax = header.file_meta.TransferSyntaxUID
    try:
        if get_decoder(syntax).is_available:
            return
    except NotImplementedError:
        pass
    # Only a name from the standard: an unknown value is the sender's own text.
    name = syntax.name if syntax.is_transfer_syntax else "not a standard one"
    raise UnreadableImage(
        f"{place}: (0002,0010) Transfer Syntax UID is {name}, which is not decoded here. "
        "Send it uncompressed, or as PNG."
    )


# Both libraries warn about odd files in words that can hold the file's own values.
warnings.filterwarnings("ignore", module=r"(pydicom|PIL)\b")
