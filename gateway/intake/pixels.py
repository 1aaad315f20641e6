"""One image file → what the workers get of it.

That is an 8-bit JPEG or PNG (grey or colour) without anything else: no DICOM header, no EXIF, no
text. Such a file is passed on undecoded (`raster/stripping.py`), every other one is decoded (in
`raster/`, a DICOM in `dicom/`) and becomes a PNG. Text burned into the pixels stays. An image's
identity is the SHA-256 of what the workers get.
"""

import hashlib
import io
import struct
import warnings
import zlib
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

from gateway.case import CaseImage
from gateway.contract import AskedWindow, ImageShown, Modality
from gateway.intake.counted import MAX_PARTS, counted
from gateway.intake.raster import decoding, tiff, wholeness
from gateway.intake.raster.decoding import check_pixels
from gateway.intake.raster.stripping import strip_jpeg, strip_png
from gateway.refusals import InvalidCase, UnreadableImage
from gateway.refusals import Refused as Refused  # for those who read images and know no case

# Pillow, pydicom and numpy promise no common error for a broken file; these are theirs.
_CODEC_ERRORS = (
    ArithmeticError,
    AssertionError,
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

# Those last found to be whole: an image is asked about more than once, and is read to its last bit
# but the first time.
_whole: deque[str] = deque(maxlen=2_000)


def only_pixels(
    data: bytes, place: str, frame: int | None = None, window: AskedWindow | None = None
) -> CaseImage:
    """One image file → what the workers get of it. `place` is "Image 2 of 3", for errors; `frame`
    (from 1) and `window` say what of a DICOM is shown.

    Raises a `Refused` that says what to send instead.
    """
    if frame is None and window is None and (found := undecoded(data, place)):
        return found
    image, modality, told = _decoded(data, place, frame, window)
    return of_picture(image, modality, told)


def undecoded(data: bytes, place: str) -> CaseImage | None:
    """The same without decoding, where the file is plainly a picture."""
    image = stripped(data, place)
    if image:
        check_whole(image, place)
    return image


def stripped(
    data: bytes, place: str, most: int = MAX_PARTS, most_pixels: int = decoding.MAX_PIXELS
) -> CaseImage | None:
    """The same of a file of `most` parts, in a millisecond for a megabyte or a thousand of them:
    that a JPEG's pixels are all there is still for `check_whole` to say. A PNG that is not known
    is inflated, since else nobody knows what stands behind its pixels: that takes ten times as
    long, and one of over `most_pixels` gives None."""
    kind = decoding.kind_of(data)
    strip = {"PNG": strip_png, "JPEG": strip_jpeg}.get(kind or "")
    with codec_errors_told(place):
        found = strip(data, most) if strip else None
    if found is None:
        return None
    picture, width, height = found
    check_pixels(width, height, place)
    image = _of(picture, (width, height), None, ImageShown())
    if kind == "PNG" and not is_known_whole(image):
        if width * height > most_pixels:
            return None
        with codec_errors_told(place):
            _, is_all = wholeness.png_rows(picture)
        if not is_all:
            return None
        _whole.append(image.identity)
    return image


def is_known_whole(image: CaseImage) -> bool:
    return image.shown.converted or image.identity in _whole


def check_whole(image: CaseImage, place: str) -> None:
    """Raises UnreadableImage where pixels are missing: of what was stripped every bit is read,
    which takes ten times as long."""
    if is_known_whole(image):
        return
    is_png = decoding.kind_of(image.data) == "PNG"
    with codec_errors_told(place):
        (wholeness.png_rows if is_png else wholeness.check_jpeg)(image.data)
    _whole.append(image.identity)


def of_picture(image: Image.Image, modality: Modality | None, told: ImageShown) -> CaseImage:
    """What the workers get of a picture that was decoded."""
    return _of(_as_png(image), image.size, modality, told)


def shown(data: bytes, place: str) -> Image.Image:
    """What an image file shows, 8 bits of grey or RGB: the picture that the workers get of it."""
    return _decoded(data, place)[0]


def is_dicom(data: bytes) -> bool:
    """By PS3.10 7.1, or, as some archives hand it out, without the preamble: then it begins with an
    element of group 2 or 8, whose value representation is written out or whose value is short."""
    if data[128:132] == b"DICM":
        return True
    if len(data) < 8 or (data[:2] not in (b"\2\0", b"\x08\0") and data[:3] != b"\0\x08\0"):
        return False
    explicit = data[4:6].isalpha() and data[4:6].isupper()
    return explicit or (data[3] == 0 and data[6:8] == b"\0\0")


def _decoded(
    data: bytes, place: str, frame: int | None = None, window: AskedWindow | None = None
) -> tuple[Image.Image, Modality | None, ImageShown]:
    """What a file shows, how it was made, and what the caller is told of it."""
    with codec_errors_told(place):
        if is_dicom(data):
            # Imported at the first DICOM: it would double the gateway's start-up.
            from gateway.intake.dicom.picture import show

            shown = show(data, place, frame, window)
            return shown.picture, shown.modality, shown.told
        if window is not None:
            raise InvalidCase(f"{place} is no DICOM, and has no window. Leave window out.")
        if frame is not None:
            raise InvalidCase(f"{place} is no DICOM, and has no frames. Leave frame out.")
        picture = decoding.picture(data, place)
        return picture, None, ImageShown(of=_pages(data), converted=True)


def _pages(data: bytes) -> int:
    """How many pictures a file holds, as far as it tells: it is the first that was asked about."""
    kind = decoding.kind_of(data)
    if kind == "TIFF":
        return tiff.pages(data)
    if kind == "JPEG":
        return 1
    try:
        with Image.open(counted(io.BytesIO(data)), formats=["PNG", "WEBP"]) as image:
            return int(getattr(image, "n_frames", 1))
    except _CODEC_ERRORS:
        return 1


@contextmanager
def codec_errors_told(place: str) -> Iterator[None]:
    """Whatever a codec raises is said in one sentence."""
    try:
        yield
    except _CODEC_ERRORS as error:
        raise UnreadableImage(
            f"{place} cannot be decoded: it is damaged, cut short or of a rare kind. "
            "Export it again, best as an 8-bit PNG."
        ) from error


def _of(
    picture: bytes, size: tuple[int, int], modality: Modality | None, shown: ImageShown
) -> CaseImage:
    return CaseImage(picture, hashlib.sha256(picture).hexdigest(), size, modality, shown)


def _as_png(image: Image.Image) -> bytes:
    # A fresh image carries no metadata that an encoder could copy.
    bare = Image.new(image.mode, image.size)
    bare.paste(image)
    png = io.BytesIO()
    bare.save(png, "PNG", compress_level=1)
    return png.getvalue()


# Both libraries warn about odd files in words that can hold the file's own values.
warnings.filterwarnings("ignore", module=r"(pydicom|PIL)\b")
