"""A PNG, JPEG, WebP or TIFF → the picture of 8 bits that a viewer shows: grey or RGB, upright.

Of several pages, or of an animation, the first is taken. Transparency becomes black. Colour
profiles and gamma are not applied: what is passed on undecoded has none either.
"""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageOps

from gateway.intake.counted import counted
from gateway.intake.raster import samples, tiff, wholeness
from gateway.refusals import TooLarge, UnreadableImage, UnsupportedMedia

# Far above any radiograph (a mammogram has 28 million), far below what would exhaust memory.
MAX_PIXELS = 50_000_000
MAX_BYTES = 4 * MAX_PIXELS  # of samples of more than eight bits
Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit: it comes later, and in its own words
FORMATS = "PNG, JPEG, WebP, TIFF or DICOM"
ORIENTATION = 0x0112
COLOUR_MAP = 320  # of a TIFF


def kind_of(data: bytes) -> str | None:
    """By the first bytes: a name or a declared type can lie."""
    if data.startswith(wholeness.PNG_SIGNATURE):
        return "PNG"
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "TIFF"
    return None


def check_pixels(width: int, height: int, place: str) -> None:
    """Raises TooLarge, before anything is decoded."""
    if width * height > MAX_PIXELS:
        raise TooLarge(
            f"{place} has over {MAX_PIXELS // 1_000_000} million pixels. Send a smaller one."
        )


def check_bytes(count: int, place: str) -> None:
    """Raises TooLarge, before so many are decoded."""
    if count > MAX_BYTES:
        raise TooLarge(
            f"{place} holds over {MAX_BYTES // 1_000_000} MB of wide numbers when it is decoded. "
            "Send a smaller one, or 8 bits for each colour."
        )


def picture(data: bytes, place: str) -> Image.Image:
    """What the file shows; raises a Refused, or what a decoder raises for a broken file."""
    kind = kind_of(data)
    if kind is None:
        if not data:
            raise UnreadableImage(f"{place} is empty. Send the file's bytes.")
        raise UnsupportedMedia(f"{place} is not an image that is served. Send {FORMATS}.")
    reader = {"TIFF": _of_tiff, "PNG": _of_png, "JPEG": _of_jpeg, "WEBP": _by_pillow}[kind]
    return reader(data, place)


def _of_tiff(data: bytes, place: str) -> Image.Image:
    data = tiff.classic(data)
    found = tiff.page(data)
    if not found:
        return _by_pillow(data, place)
    check_pixels(found.width, found.height, place)
    check_bytes(found.decoded_bytes, place)
    return _upright(_shown(found.read()), found.orientation)


def _of_png(data: bytes, place: str) -> Image.Image:
    check_pixels(*samples.size_of_png(data), place)
    if samples.depth_of_png(data) == 16:
        check_bytes(samples.decoded_bytes_of_png(data), place)
    wholeness.png_rows(data)
    # Without what is broken, be it a remark: Pillow then reads nothing at all.
    names, chunks = zip(*wholeness.png_chunks(data), strict=True)
    if samples.is_palette_png(data) and b"PLTE" not in names:
        raise ValueError("no palette")
    return _by_pillow(wholeness.PNG_SIGNATURE + b"".join(chunks), place)


def _of_jpeg(data: bytes, place: str) -> Image.Image:
    data += wholeness.END_OF_JPEG  # cameras and browsers leave it off; twice does no harm
    if samples.depth_of_jpeg(data) <= 8:
        return _by_pillow(data, place)
    width, height, colours = samples.size_of_jpeg(data)
    check_pixels(width, height, place)
    check_bytes(2 * width * height * colours, place)
    return _upright(_shown(samples.of_jpeg(data)), samples.orientation_of_jpeg(data))


def _by_pillow(data: bytes, place: str) -> Image.Image:
    kind = kind_of(data)
    image: Image.Image = Image.open(counted(io.BytesIO(data)), formats=[str(kind)])
    check_pixels(*image.size, place)
    if kind == "JPEG":
        wholeness.check_jpeg(data)
    image.load()
    orientation = image.getexif().get(ORIENTATION, 1)
    if kind == "PNG" and samples.depth_of_png(data) == 16:
        return _upright(_shown(samples.of_png(data)), orientation)
    return _upright(_flat(image, data), orientation)


def _flat(image: Image.Image, data: bytes) -> Image.Image:
    """Grey, or RGB on black."""
    if image.mode.startswith(("I", "F")):  # compressed in a rare way
        return _shown(samples.Samples(np.asarray(image)[..., None]))
    if image.format == "JPEG" and image.mode == "CMYK" and "adobe" not in image.info:
        image = ImageChops.invert(image)  # ink is light in Adobe's alone, and Pillow takes all so
    if image.mode == "LAB":
        # Imported where it is used: nothing else here needs the colour engine.
        from PIL import ImageCms

        lab, rgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(image, lab, rgb, outputMode="RGB") or image
    if image.format == "TIFF" and image.mode == "P":
        # Its entries have 16 bits. Some programs fill the lower 8 alone, and viewers know them.
        colours = image.tag_v2[COLOUR_MAP]  # type: ignore[attr-defined]
        if max(colours) < 256:
            image.putpalette(np.reshape(colours, (3, -1)).T.astype(np.uint8).tobytes())
    if image.format == "PNG" and image.mode == "L" and "transparency" in image.info:
        # Pillow scales grey of 2 and 4 bits to 8, but not the grey that is transparent.
        image.info["transparency"] *= 255 // (2 ** samples.depth_of_png(data) - 1)
    if image.has_transparency_data and _is_transparent(image):
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, image.convert("RGBA")).convert("RGB")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _is_transparent(image: Image.Image) -> bool:
    """Whether its alpha is one: Pillow takes a TIFF's fourth sample for it without a tag, too."""
    if image.format != "TIFF":
        return True
    extra = image.tag_v2.get(tiff.EXTRA, (0,))  # type: ignore[attr-defined]
    return extra[0] in (tiff.PREMULTIPLIED, tiff.ALPHA)


def _shown(found: samples.Samples) -> Image.Image:
    """Samples of 8 bits as they are, others stretched; white is zero and alpha are heeded."""
    values = found.values if found.values.dtype == np.uint8 else stretched(found.values, found.seen)
    if found.white_is_zero:
        values = 255 - values
    if found.opacity is not None:
        values = (values * found.opacity[..., None]).round().astype(np.uint8)
    if found.values.dtype.kind == "f":
        values[np.isnan(found.values)] = 0  # nothing was measured there
    return Image.fromarray(values.squeeze(axis=-1) if values.shape[-1] == 1 else values)


@np.errstate(over="ignore", invalid="ignore")  # what is no number, or becomes none, is black
def stretched(values: NDArray[Any], seen: NDArray[np.bool_] | None) -> NDArray[np.uint8]:
    """The darkest to 0, the brightest to 255: twelve bits stored in sixteen would else look black.

    What is not `seen` takes no part in the range, nor does what is no number. Raises ValueError
    where there is none.
    """
    counted = values if seen is None or not seen.any() else values[seen]
    if values.dtype.kind == "f":
        counted = counted[np.isfinite(counted)]
    if not counted.size:
        raise ValueError("no numbers")
    # Halved, since the difference of two floats can be none.
    low, high = float(counted.min()) / 2, float(counted.max()) / 2
    out = np.zeros(values.shape, np.uint8)
    for row in range(0, len(values) if high > low else 0, 256):  # not all of it in 64 bits
        block = np.clip(values[row : row + 256].astype(np.float64) / 2, low, high)
        out[row : row + 256] = np.nan_to_num((block - low) * (255 / (high - low))).round()
    return out


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    image.getexif()[ORIENTATION] = orientation
    return ImageOps.exif_transpose(image)
