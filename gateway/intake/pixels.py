"""One image file → what the workers get of it.

That is an 8-bit JPEG or PNG (grey or colour) without anything else: no DICOM header, no EXIF, no
text. Such a file is passed on undecoded (`stripping.py`), every other one is decoded, a DICOM as
`dicom.py` says, and becomes a PNG. Text burned into the pixels stays. An image's identity is the
SHA-256 of what the workers get. Of several pages the first is taken.
"""

import hashlib
import io
import struct
import warnings
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from gateway.case import CaseImage
from gateway.contract import (
    AskedWindow,
    ImageShown,
    InvalidCase,
    Modality,
    TooLarge,
    UnreadableImage,
    UnsupportedMedia,
)
from gateway.intake.stripping import strip_jpeg, strip_png

# Far above any radiograph (a mammogram has 28 million), far below what would exhaust memory.
MAX_PIXELS = 50_000_000
FORMATS = "PNG, JPEG, WebP, TIFF or DICOM"

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


def only_pixels(
    data: bytes, place: str, frame: int | None = None, window: AskedWindow | None = None
) -> CaseImage:
    """One image file → what the workers get of it. `place` is "Image 2 of 3", for errors; `frame`
    (from 1) and `window` say what of a DICOM is shown.

    Raises a `Refused` that says what to send instead.
    """
    if frame is None and window is None and (found := undecoded(data, place)):
        return found
    try:
        if is_dicom(data):
            # Imported at the first DICOM: it would double the gateway's start-up.
            from gateway.intake.dicom import show

            shown = show(data, place, frame, window)
            return _of(_as_png(shown.picture), shown.modality, shown.told)
        if window is not None:
            raise InvalidCase(f"{place} is no DICOM, and has no window. Leave window out.")
        if frame is not None:
            raise InvalidCase(f"{place} is no DICOM, and has no frames. Leave frame out.")
        picture = _as_png(_picture(data, place))
        return _of(picture, None, ImageShown(of=_pages(data), converted=True))
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
    check_pixels(width, height, place)
    return _of(picture, None, ImageShown())


def is_dicom(data: bytes) -> bool:
    """By PS3.10 7.1, or, as some archives hand it out, without the preamble: then it begins with an
    element of group 2 or 8, whose value representation is written out or whose value is short."""
    if data[128:132] == b"DICM":
        return True
    if len(data) < 8 or (data[:2] not in (b"\2\0", b"\x08\0") and data[:3] != b"\0\x08\0"):
        return False
    explicit = data[4:6].isalpha() and data[4:6].isupper()
    return explicit or (data[3] == 0 and data[6:8] == b"\0\0")


def _of(picture: bytes, modality: Modality | None, shown: ImageShown) -> CaseImage:
    return CaseImage(picture, hashlib.sha256(picture).hexdigest(), modality, shown)


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
    check_pixels(*image.size, place)
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_to_8_bits(np.asarray(image, dtype=np.float64)))
    if image.has_transparency_data:
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, image.convert("RGBA")).convert("RGB")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _pages(data: bytes) -> int:
    with Image.open(io.BytesIO(data)) as image:
        return int(getattr(image, "n_frames", 1)) if image.format in ("TIFF", "WEBP", "PNG") else 1


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


def check_pixels(width: int, height: int, place: str) -> None:
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
