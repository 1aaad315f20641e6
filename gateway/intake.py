"""HTTP request → Case: read within limits, checked, and every image stripped of all but pixels.

Workers get an 8-bit JPEG or PNG (grey or colour) without anything else: no DICOM header, no EXIF,
no file name. Such a file is passed on undecoded (`stripping.py`), every other one is decoded and
becomes a PNG. Text burned into the pixels stays. An image's identity is the SHA-256 of what the
workers get. Of several pages the first is taken, of several DICOM frames the representative one.
"""

import asyncio
import base64
import hashlib
import io
import json
import logging
import os
import struct
import uuid
import warnings
import zlib
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from pydantic import ValidationError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from gateway.contract import (
    Case,
    CaseFields,
    CaseImage,
    CaseRequest,
    InvalidCase,
    MalformedRequest,
    Modality,
    TooLarge,
    UnreadableImage,
    UnsupportedMedia,
)
from gateway.meaning import meaning
from gateway.settings import Limits
from gateway.stripping import strip_jpeg, strip_png

MEGABYTE = 1_000_000
# Far above any radiograph (a mammogram has 28 million), far below what would exhaust memory.
MAX_PIXELS = 50_000_000
FORMATS = "PNG, JPEG, WebP, TIFF or DICOM"
SINGLE_FIELDS = {"question", "language", "context", "modality", "options"}

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

# As many images at a time as there are cores: more would only take memory.
_DECODERS = ThreadPoolExecutor(max_workers=os.cpu_count() or 1, thread_name_prefix="intake")

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


async def read(request: Request, limits: Limits) -> Case:
    """The case that a request asks; raises a `Refused` that says what to send instead."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    loop = asyncio.get_running_loop()
    if kind == "application/json":
        body = await _body(request, limits)
        fields, images = await loop.run_in_executor(_DECODERS, _from_json, body, limits)
    elif kind == "multipart/form-data":
        fields, images = await _from_multipart(request, await _body(request, limits), limits)
    else:
        raise UnsupportedMedia("Send Content-Type application/json or multipart/form-data.")
    _check_fields(fields, limits)
    pictures = await asyncio.gather(
        *(
            loop.run_in_executor(_DECODERS, only_pixels, data, _place(position, len(images)))
            for position, data in enumerate(images)
        )
    )
    return Case(
        id=uuid.uuid4().hex,
        question=fields.question.strip(),
        images=tuple(pictures),
        language=fields.language,
        context=(fields.context or "").strip() or None,
        choices=fields.choices,
        options=fields.options,
        modality=fields.modality or next((p.modality for p in pictures if p.modality), None),
    )


def only_pixels(data: bytes, place: str) -> CaseImage:
    """One image file → what the workers get of it. `place` is "Image 2 of 3", for errors."""
    picture, modality = _undecoded(data, place), None
    try:
        if data[128:132] == b"DICM":
            image, modality = _dicom(data, place)
            picture = _as_png(image)
        elif picture is None:
            picture = _as_png(_picture(data, place))
    except _CODEC_ERRORS as error:
        raise UnreadableImage(
            f"{place} cannot be decoded: it is damaged, cut short or of a rare kind. "
            "Export it again, best as an 8-bit PNG."
        ) from error
    return CaseImage(picture, hashlib.sha256(picture).hexdigest(), modality)


def _undecoded(data: bytes, place: str) -> bytes | None:
    kind = _picture_format(data)
    strip = {"PNG": strip_png, "JPEG": strip_jpeg}.get(kind or "")
    stripped = strip(data) if strip else None
    if stripped is None:
        return None
    picture, width, height = stripped
    _check_pixels(width, height, place)
    return picture


def _as_png(image: Image.Image) -> bytes:
    # A fresh image carries no metadata that an encoder could copy.
    bare = Image.new(image.mode, image.size)
    bare.paste(image)
    png = io.BytesIO()
    bare.save(png, "PNG", compress_level=1)
    return png.getvalue()


async def _body(request: Request, limits: Limits) -> bytes:
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMedia("Send the body uncompressed, without Content-Encoding.")
    allowed = int(limits.max_body_mb * MEGABYTE)
    too_large = TooLarge(
        f"The body is over {limits.max_body_mb:g} MB. Send smaller or fewer images."
    )
    stated = request.headers.get("content-length", "")
    if stated.isdecimal() and int(stated) > allowed:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > allowed:
            raise too_large
    if not body:
        raise MalformedRequest("The body is empty. Send a question and at least one image.")
    return bytes(body)


def _from_json(body: bytes, limits: Limits) -> tuple[CaseFields, list[bytes]]:
    content = _json_object(body, "The body")
    try:
        case = CaseRequest.model_validate(content)
    except ValidationError as error:
        _refuse_fields(error)
    _check_number(len(case.images), limits)
    images = [
        _from_base64(image, _place(position, len(case.images)), limits)
        for position, image in enumerate(case.images)
    ]
    return case, images


async def _from_multipart(
    request: Request, body: bytes, limits: Limits
) -> tuple[CaseFields, list[bytes]]:
    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    _, parameters = parse_options_header(request.headers["content-type"])
    # RFC 7578 knows no other, and some that Python knows decode to no text at all.
    if parameters.get(b"charset", b"utf-8").lower() != b"utf-8":
        raise UnsupportedMedia("Send the form in UTF-8, without another charset.")
    parser = MultiPartParser(
        request.headers, stream(), max_part_size=int(limits.max_body_mb * MEGABYTE)
    )
    # Never spill to disk: a patient's image must not be left in a temporary folder.
    parser.spool_max_size = len(body) + 1
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError) as error:
        raise MalformedRequest(
            "The body is not multipart/form-data as its Content-Type describes it. "
            "Let an HTTP library build the body and the header."
        ) from error
    content: dict[str, Any] = {}
    images: list[bytes] = []
    for name, value in form.multi_items():
        if name == "images":
            if not isinstance(value, UploadFile):
                raise InvalidCase("images: send each image as a file, with a file name.")
            images.append(await value.read())
        elif isinstance(value, UploadFile):
            raise InvalidCase(f"{_shown(name)}: only images are sent as files.")
        elif name == "choices":
            content.setdefault("choices", []).append(value)
        elif name in content:
            raise InvalidCase(f"{_shown(name)}: send it once.")
        elif name == "options":
            content["options"] = _json_object(value.encode(), "options")
        elif name in SINGLE_FIELDS:
            content[name] = value
        else:
            raise InvalidCase(f"{_shown(name)}: not a known field; see /docs.")
    await form.close()
    try:
        fields = CaseFields.model_validate(content)
    except ValidationError as error:
        _refuse_fields(error)
    _check_number(len(images), limits)
    for position, image in enumerate(images):
        _check_size(len(image), _place(position, len(images)), limits)
    return fields, images


def _json_object(body: bytes, what: str) -> dict[str, Any]:
    def refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) < len(pairs):
            raise MalformedRequest(f"{what}: a field is there twice. Send each once.")
        return content

    def refuse_constant(name: str) -> NoReturn:
        raise MalformedRequest(f"{what}: {name} is not JSON. Send a number or null.")

    try:
        content = json.loads(
            body, object_pairs_hook=refuse_duplicates, parse_constant=refuse_constant
        )
    except (ValueError, RecursionError) as error:
        raise MalformedRequest(f"{what} is not valid JSON in UTF-8.") from error
    if not isinstance(content, dict):
        raise MalformedRequest(f"{what} is not a JSON object.")
    return content


def _refuse_fields(error: ValidationError) -> NoReturn:
    """Name the first wrong field, and never what was in it."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    field = ".".join(_shown(str(part)) for part in first["loc"])
    reason = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        reason = "not a known field; see /docs"
    raise InvalidCase(f"{field}: {reason}.") from error


def _shown(name: str) -> str:
    """A field's name, unless what the caller sent in its place could be anything."""
    return name if len(name) <= 40 and name.replace("_", "a").isalnum() else "a field"


def _check_fields(fields: CaseFields, limits: Limits) -> None:
    texts = [("question", fields.question, limits.max_question_chars)]
    texts += [("context", fields.context or "", limits.max_context_chars)]
    texts += [("choices", choice, limits.max_question_chars) for choice in fields.choices or ()]
    workers = fields.options.workers or ()
    texts += [("options.workers", worker, limits.max_question_chars) for worker in workers]
    for name, text, max_chars in texts:
        if len(text) > max_chars:
            raise InvalidCase(f"{name}: {len(text)} characters; send at most {max_chars}.")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidCase(f"{name}: it holds half a character. Send whole ones.") from error
    if not fields.question.strip():
        raise InvalidCase("question: it is blank; ask something.")
    meanings = [meaning(choice) for choice in fields.choices or ()]
    if () in meanings or len(set(meanings)) < len(meanings):
        raise InvalidCase("choices: each must say something, and something else than the others.")


def _check_number(images: int, limits: Limits) -> None:
    if images == 0:
        raise InvalidCase("images: there is none; send at least one.")
    if images > limits.max_images:
        raise TooLarge(f"{images} images; send at most {limits.max_images}.")


def _check_size(size: int, place: str, limits: Limits) -> None:
    if size > limits.max_image_mb * MEGABYTE:
        raise TooLarge(f"{place} is over {limits.max_image_mb:g} MB. Send a smaller one.")


def _place(position: int, count: int) -> str:
    return f"Image {position + 1} of {count}"


def _from_base64(text: str, place: str, limits: Limits) -> bytes:
    if text[:5].lower() == "data:":
        header, _, text = text.partition(",")
        if not header.lower().endswith(";base64"):
            raise UnreadableImage(f"{place} is a data URI without base64. Encode it in base64.")
    elif "://" in text[:20]:
        raise InvalidCase(f"{place} is a link, and nothing is fetched. Send its bytes in base64.")
    text = "".join(text.split())
    _check_size(len(text) * 3 // 4 - 2, place, limits)
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise UnreadableImage(f"{place} is not valid base64. Encode its bytes again.") from error


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
