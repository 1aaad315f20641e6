"""One image file → what the workers get of it.

That is an 8-bit JPEG or PNG (grey or colour) without anything else: no DICOM header, no EXIF, no
text. Such a file is passed on undecoded (`stripping.py`), every other one is decoded and becomes a
PNG. Text burned into the pixels stays. An image's identity is the SHA-256 of what the workers get.
Of several pages the first is taken, of several DICOM frames the representative one.
"""

import hashlib
import io
import logging
import struct
import warnings
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from gateway.case import CaseImage
from gateway.contract import Modality, TooLarge, UnreadableImage, UnsupportedMedia
from gateway.intake.stripping import strip_jpeg, strip_png

# Far above any radiograph (a mammogram has 28 million), far below what would exhaust memory.
MAX_PIXELS = 50_000_000
FORMATS = "PNG, JPEG, WebP, TIFF or DICOM"

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
    try:
        if data[128:132] == b"DICM":
            image, modality = _dicom(data, place)
        else:
            image, modality = _picture(data, place), None
        return _of(_as_png(image), modality)
    except _CODEC_ERRORS as error:
        raise UnreadableImage(
            f"{place} cannot be decoded: it is damaged, cut short or of a rare kind. "
            "Export it again, best as an 8-bit PNG."
        ) from error


def undecoded(data: bytes, place: str) -> CaseImage | None:
    """The same in under a millisecond per megabyte, where the file is plainly a picture."""
    kind = _picture_format(data)
    strip = {"PNG": strip_png, "JPEG": strip_jpeg}.get(kind or "")
    stripped = strip(data) if strip else None
    if stripped is None:
        return None
    picture, width, height = stripped
    _check_pixels(width, height, place)
    return _of(picture, None)


def _of(picture: bytes, modality: Modality | None) -> CaseImage:
    return CaseImage(picture, hashlib.sha256(picture).hexdigest(), modality)


def _as_png(image: Image.Image) -> bytes:
    # A fresh image carries no metadata that an encoder could copy.
    bare = Image.new(image.mode, image.size)
    bare.paste(image)
    png = io.BytesIO()
    bare.save(png, "PNG", compress_level=1)
    return png.getvalue()


def _picture(data: bytes, place: str) -> Image.Image:
    kind = _picture_format(data)
    if kind is None:
        if not data:
            raise UnreadableImage(f"{place} is empty. Send the file's bytes.")
        raise UnsupportedMedia(f"{place} is not an image that is served. Send {FORMATS}.")
    image: Image.Image = Image.open(io.BytesIO(data), formats=[kind])
    _check_pixels(*image.size, place)
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_to_8_bits(np.asarray(image, dtype=np.float64)))
    if image.has_transparency_data:
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, image.convert("RGBA")).convert("RGB")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _picture_format(data: bytes) -> str | None:
    """By the first bytes: a name or a declared type can lie."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "TIFF"
    return None


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
    _check_pixels(int(header.Columns), int(header.Rows), place)
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
        pixels = _to_8_bits(pixels.astype(np.float64))
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


def _check_pixels(width: int, height: int, place: str) -> None:
    if width * height > MAX_PIXELS:
        raise TooLarge(
            f"{place} has over {MAX_PIXELS // 1_000_000} million pixels. Send a smaller one."
        )


def _to_8_bits(pixels: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Darkest to 0, brightest to 255: twelve bits stored in sixteen would else look black."""
    low, high = float(pixels.min()), float(pixels.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError("pixels that are no numbers")
    scaled = (pixels - low) * (255 / (high - low)) if high > low else np.zeros_like(pixels)
    return scaled.round().astype(np.uint8)


# Both libraries warn about odd files in words that can hold the file's own values.
warnings.filterwarnings("ignore", module=r"(pydicom|PIL)\b")
