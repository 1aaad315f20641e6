"""A header and its pixels → the values of one frame as they are stored: PS3.3 C.7.6.3, PS3.5 8."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.pixels import get_decoder
from pydicom.uid import ExplicitVRBigEndian

from gateway.intake.dicom.codecs import (
    COMPRESSED,
    JPEG_2000,
    UNCOMPRESSED,
    WrongSize,
    drop_wrong_offsets,
    frame_of,
    plugin_for,
    precision,
)
from gateway.intake.dicom.objects import PIXELS, check_is_image
from gateway.intake.dicom.values import is_little_endian, number, tag_and_name
from gateway.intake.raster.decoding import check_bytes, check_pixels
from gateway.refusals import UnreadableImage

GREY = {"MONOCHROME1", "MONOCHROME2"}
SHARED_BY_TWO = {"YBR_FULL_422", "YBR_PARTIAL_422"}  # pixels: their colours, C.7.6.3.1.2
COLOURS = {"RGB", "YBR_FULL", "YBR_ICT", "YBR_RCT"} | SHARED_BY_TWO


def make_fit(header: Any, place: str) -> None:
    """To be decoded: a header with its pixels, as it was read; once more does no harm."""
    check_is_image(header, place)
    _complete(header, place)
    if header.file_meta.TransferSyntaxUID in COMPRESSED:
        drop_wrong_offsets(header)


def _complete(header: Any, place: str) -> None:
    """C.7.6.3 Image Pixel: what pydicom needs to decode, as viewers take it where it is missing."""
    for keyword in ("Rows", "Columns", "BitsAllocated"):
        _number_of(header, keyword, place)
    check_pixels(header.Columns, header.Rows, place)
    if header.BitsAllocated not in (1, 8, 16, 32, 64):
        raise UnreadableImage(
            f"{place}: (0028,0100) Bits Allocated is none of 1, 8, 16, 32 and 64. Send it as PNG."
        )
    header.NumberOfFrames = max(1, int(number(header, "NumberOfFrames") or 1))
    header.SamplesPerPixel = samples = int(number(header, "SamplesPerPixel") or 1)
    header.PixelRepresentation = int(number(header, "PixelRepresentation") or 0)
    header.PlanarConfiguration = int(number(header, "PlanarConfiguration") or 0)
    header.BitsStored = int(number(header, "BitsStored") or header.BitsAllocated)
    if header.BitsStored > header.BitsAllocated:
        header.BitsStored = header.BitsAllocated
    photometric = str(header.get("PhotometricInterpretation") or "").strip().upper()
    photometric = photometric or ("MONOCHROME2" if samples == 1 else "RGB")
    header.PhotometricInterpretation = photometric
    if photometric not in (GREY | {"PALETTE COLOR"} if samples == 1 else COLOURS) or samples > 3:
        raise UnreadableImage(
            f"{place}: (0028,0004) Photometric Interpretation is none that is read here with the "
            "(0028,0002) Samples per Pixel that it has. Send it as PNG."
        )
    check_bytes(header.Rows * header.Columns * samples * header.BitsAllocated // 8, place)


def _number_of(header: Any, keyword: str, place: str) -> None:
    value = int(number(header, keyword) or 0)
    if value < 1:
        raise UnreadableImage(
            f"{place}: {tag_and_name(keyword)} is missing or no number. "
            "Export it again, best as PNG."
        )
    setattr(header, keyword, value)


def decode(header: Any, index: int, place: str) -> tuple[NDArray[Any], str]:
    """PS3.5 8: a frame as it is stored, [rows, columns], or [rows, columns, 3], each pixel with its
    own colours; and what those then are, as (0028,0004) Photometric Interpretation names it."""
    stated = header.PhotometricInterpretation
    try:
        return _decoded(header, index, place)
    finally:
        header.PhotometricInterpretation = stated  # another frame is to be decoded by it


def _decoded(header: Any, index: int, place: str) -> tuple[NDArray[Any], str]:
    syntax, stated = header.file_meta.TransferSyntaxUID, header.PhotometricInterpretation
    try:
        if syntax in UNCOMPRESSED:
            _pad(header, index)
        plugin = plugin_for(syntax, header, index)
    except WrongSize as error:
        raise UnreadableImage(
            f"{place}: (7FE0,0010) Pixel Data is cut short, or of another size than (0028,0010) "
            "Rows, (0028,0011) Columns and (0028,0002) Samples per Pixel say. Export it again."
        ) from error
    if header.BitsAllocated == 1 and syntax in UNCOMPRESSED:
        return _bits(header, index), stated
    if _is_plain(header, syntax):
        return _used_bits(_where_they_lie(header, index), header), stated
    if header.PhotometricInterpretation in SHARED_BY_TWO:
        header.PhotometricInterpretation = "YBR_FULL_422"  # of the two pydicom knows this one
    pixels: NDArray[Any]
    pixels, told = get_decoder(syntax).as_array(
        header, index=index, raw=True, decoding_plugin=plugin, correct_unused_bits=False
    )
    space = str(told["photometric_interpretation"])
    if stated == "YBR_PARTIAL_422" and syntax in UNCOMPRESSED:  # in a JPEG it was never meant
        space = stated
    if syntax in JPEG_2000:
        bits, without_loss = precision(frame_of(header, index))
        if bits <= header.BitsStored:  # they are what was compressed
            return pixels, space
        if not without_loss:  # values may overshoot their bits by a little
            return pixels >> (_high_bit(pixels, header) + 1 - int(header.BitsStored)), space
    return _used_bits(pixels, header), space


def _is_plain(header: Any, syntax: str) -> bool:
    """Whether a frame is one number after the other, as this machine has them in memory."""
    is_little = syntax in UNCOMPRESSED and syntax != ExplicitVRBigEndian
    is_short = header.BitsAllocated in (8, 16) and header.SamplesPerPixel == 1
    return is_little and is_short and "PixelData" in header


def _where_they_lie(header: Any, index: int) -> NDArray[Any]:
    """A plain frame, not copied: of a slab each is looked at once."""
    kind = np.dtype(f"<{'ui'[header.PixelRepresentation]}{header.BitsAllocated // 8}")
    count = header.Rows * header.Columns
    found = np.frombuffer(header["PixelData"].value, kind, count, index * count * kind.itemsize)
    return found.reshape(header.Rows, header.Columns)


def _bits(header: Any, index: int) -> NDArray[np.uint8]:
    """PS3.5 8.1.1: a frame of single bits, without a gap from row to row, nor from frame to frame:
    it need not begin with a byte."""
    shape = (header.Rows, header.Columns, header.SamplesPerPixel)
    size = math.prod(shape)
    first, skipped = divmod(index * size, 8)
    element = header["PixelData"]
    packed = np.frombuffer(element.value, np.uint8)
    if element.VR == "OW" and not is_little_endian(header):  # A.3: in words, turned round
        packed = packed[: len(packed) // 2 * 2].view(np.uint16).byteswap().view(np.uint8)
    packed = packed[first : first + size // 8 + 2]
    bits = np.unpackbits(packed, bitorder="little")[skipped : skipped + size]
    return bits.reshape(shape[:2] if shape[2] == 1 else shape)


def _pad(header: Any, index: int) -> None:
    """Pixels of which the very last is not quite there are read, as viewers do; frames that are not
    there are not counted.

    Raises:
        WrongSize: more of this frame is missing.
    """
    element = header[next(keyword for keyword in PIXELS if keyword in header)]
    if header.PhotometricInterpretation in SHARED_BY_TWO:
        whole_bits = 3 * header.Rows * header.Columns * header.BitsAllocated
        if len(element.value) >= whole_bits * header.NumberOfFrames // 8:
            header.PhotometricInterpretation = "YBR_FULL"  # each pixel has its own after all
    samples = 2 if header.PhotometricInterpretation in SHARED_BY_TWO else header.SamplesPerPixel
    pixel_bits = samples * header.BitsAllocated
    frame_bits = header.Rows * header.Columns * pixel_bits
    there = len(element.value)
    if math.ceil(frame_bits * header.NumberOfFrames / 8) <= there:
        return
    header.NumberOfFrames = whole = (there + max(2, pixel_bits // 8)) * 8 // frame_bits
    if index >= whole:
        raise WrongSize("the frame is not all there")
    element.value = bytes(element.value) + b"\0" * (math.ceil(frame_bits * whole / 8) - there)


def _used_bits(pixels: NDArray[Any], header: Any) -> NDArray[Any]:
    """PS3.5 8.1.1: Bits Stored of them, up to High Bit. Overlays (C.9.2) may be in the others."""
    allocated, used = 8 * pixels.itemsize, int(header.BitsStored)
    if pixels.dtype.kind == "f" or used >= allocated:
        return pixels
    above = allocated - 1 - _high_bit(pixels, header)
    used_bits: NDArray[Any] = (pixels << above) >> (allocated - used)
    return used_bits


def _high_bit(pixels: NDArray[Any], header: Any) -> int:
    """PS3.5 8.1.1; where it cannot be, the bits that are used are the lowest."""
    high, lowest = int(number(header, "HighBit") or 0), int(header.BitsStored) - 1
    return high if lowest <= high < 8 * pixels.itemsize else lowest
