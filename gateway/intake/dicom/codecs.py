"""Compressed DICOM pixels: one frame, checked before it is decoded, decoded within its size.

pydicom takes frames apart and puts them together; what it knows no safe decoder for is decoded by
imagecodecs (libjpeg-turbo, CharLS, OpenJPEG), which came through random damage without a crash, as
GDCM did not, and is under a permissive licence, as pylibjpeg-libjpeg is not. PS3.5 A.4, 8.2.
"""

import io
import struct
from typing import Any

from pydicom.encaps import get_frame, parse_basic_offsets, parse_fragments
from pydicom.pixels import get_decoder
from pydicom.uid import (
    HTJ2K,
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)
from pydicom.uid import JPEG2000 as JPEG2000Lossy

from gateway.intake.raster import wholeness

OURS = "imagecodecs"
JPEG = {JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1}
JPEG_LS = {JPEGLSLossless, JPEGLSNearLossless}
JPEG_2000 = {JPEG2000Lossless, JPEG2000Lossy, HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K}
UNCOMPRESSED = {ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian}
COMPRESSED = JPEG | JPEG_LS | JPEG_2000 | {RLELossless}

_CODESTREAM = b"\xff\x4f\xff\x51"  # ITU-T T.800 A.4, A.5: SOC, SIZ
_CODING_STYLE = b"\xff\x52"  # COD
_BOXES = b"\0\0\0\x0cjP  "  # ITU-T T.800 I.5.1: a file's, in which some put the codestream
_MAX_BOXES = 100
_NO_OFFSETS = b"\xfe\xff\0\xe0\0\0\0\0"  # the item of an empty table
_END = b"\xff\xd9"  # EOI, of which no decoder notices that it is missing


class NoFrame(ValueError):
    """The header counts more frames than there are."""


class WrongSize(ValueError):
    """A frame has another size or other components than the header says, or ends early."""


def plugin_for(syntax: UID, header: Any, index: int) -> str:
    """Which of pydicom's plugins decodes a frame: ours; "" for uncompressed pixels.

    Raises:
        WrongSize: before anything is decoded, since it could be of any size.
        NoFrame: it is not there.
    """
    if syntax not in COMPRESSED:
        return ""
    frame = frame_of(header, index)
    if syntax == RLELossless:
        return OURS
    if syntax in JPEG_2000:
        size = _size_of_jpeg_2000(frame)
    else:
        wholeness.check_scans(frame)
        if not frame.rstrip(b"\0\xff").endswith(_END):
            raise WrongSize("no end of image")
        size = _size_of_jpeg(frame)
    if size != (header.Rows, header.Columns, header.SamplesPerPixel):
        raise WrongSize("another size than in the header")
    _check_scans(frame)
    return OURS


def frame_of(header: Any, index: int) -> bytes:
    """The compressed bytes of a frame (from 0); raises NoFrame."""
    try:
        frame: bytes = get_frame(
            header.PixelData,
            index,
            number_of_frames=int(header.NumberOfFrames),
            extended_offsets=_offsets(header),
        )
        return frame
    except (ValueError, IndexError) as error:
        raise NoFrame("fewer frames than in the header") from error


def precision(frame: bytes) -> tuple[int, bool]:
    """Of a JPEG 2000: how many bits a sample has (T.800 A.5.1), and whether it was compressed
    without loss (A.6.1)."""
    at = frame.find(_CODESTREAM)
    style = frame.find(_CODING_STYLE, at)
    return (frame[at + 42] & 0x7F) + 1, frame[style + 13] == 1


def drop_wrong_offsets(header: Any) -> None:
    """A table of offsets (PS3.5 A.4, PS3.3 C.7.6.3.1.8) of which one leads to no item is emptied:
    where a frame begins is then told by the items themselves."""
    pixels = io.BytesIO(header.PixelData)
    basic = parse_basic_offsets(pixels)
    begin = pixels.tell()
    items = {at - begin for at in parse_fragments(pixels)[1]}
    if not items.issuperset(basic):
        header.PixelData = _NO_OFFSETS + header.PixelData[begin:]
    extended = header.get("ExtendedOffsetTable") or b""
    lengths = header.get("ExtendedOffsetTableLengths") or b""
    is_table = len(extended) == len(lengths) == 8 * int(header.NumberOfFrames)
    if not is_table or not items.issuperset(at for (at,) in struct.iter_unpack("<Q", extended)):
        for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
            header.pop(keyword, None)


def _offsets(header: Any) -> tuple[bytes, bytes] | None:
    if "ExtendedOffsetTable" not in header:
        return None
    return header.ExtendedOffsetTable, header.ExtendedOffsetTableLengths


def _size_of_jpeg(frame: bytes) -> tuple[int, int, int] | None:
    """Rows, columns and components in the frame header of a JPEG or JPEG-LS; None without one."""
    _, header = wholeness.jpeg_frame(frame)
    return struct.unpack_from(">HHB", header, 5) if len(header) >= 10 else None


def _size_of_jpeg_2000(frame: bytes) -> tuple[int, int, int] | None:
    at = frame.find(_CODESTREAM)
    if at < 0 or at + 42 > len(frame) or not _boxes_lead_to_it(frame):
        return None
    # What stands between is of the tiles.
    width, height, left, top, components = struct.unpack_from(">IIII16xH", frame, at + 8)
    return height - top, width - left, components


def _boxes_lead_to_it(frame: bytes) -> bool:
    """Whether what stands before a codestream, if anything, has an end (T.800 I.4): pydicom goes
    from box to box, and on one without a length for ever."""
    if not frame.startswith(_BOXES):
        return True
    at = 0
    for _ in range(_MAX_BOXES):
        if at + 8 > len(frame):
            break
        length, kind = struct.unpack_from(">I4s", frame, at)
        if kind == b"jp2c":
            return True
        if length < 8:
            break
        at += length
    return False


def _check_scans(frame: bytes) -> None:
    """Raises WrongSize where a JPEG of 8 bits by cosines, which alone can be read so, is not whole;
    anything else passes."""
    if wholeness.is_plain_jpeg(frame):
        try:
            wholeness.check_jpeg(frame)
        except ValueError as error:
            raise WrongSize("scans are missing or cut short") from error


def _decode_frame(source: bytes, runner: Any) -> bytes | bytearray:
    """What pydicom calls; `runner` knows the header, and is told what came out."""
    import imagecodecs  # it takes half a second, and few need it

    syntax = runner.transfer_syntax
    if syntax == RLELossless:
        planes = bytearray(runner.frame_length())  # no byte more comes out
        dtype = f"<u{runner.bits_allocated // 8}"
        if len(imagecodecs.dicomrle_decode(source, dtype, out=planes)) < len(planes):
            raise WrongSize("fewer pixels than in the header")
        runner.set_option("planar_configuration", 1)
        return planes
    if syntax in JPEG_2000:
        pixels = imagecodecs.jpeg2k_decode(source[source.find(_CODESTREAM) :])
        if runner.photometric_interpretation in ("YBR_ICT", "YBR_RCT"):
            runner.set_option("photometric_interpretation", "RGB")  # T.800 annex G was undone
    elif syntax in JPEG_LS:
        pixels = imagecodecs.jpegls_decode(source)
    else:
        # Colours as they are stored. What they are the header says, which pydicom holds against a
        # JFIF and an Adobe mark; or the components' names do.
        space = "RGB" if runner.samples_per_pixel == 3 else None
        if wholeness.jpeg_frame(source)[1][10::3] == b"RGB":
            runner.set_option("photometric_interpretation", "RGB")
        pixels = wholeness.decoded_jpeg(source, space, space)
    runner.set_option("planar_configuration", 0)
    runner.set_option("bits_allocated", 8 * pixels.itemsize)
    return bytes(pixels.tobytes())


def is_available(uid: str) -> bool:
    """What pydicom asks of a plugin's module."""
    return uid in COMPRESSED


for _syntax in COMPRESSED:
    get_decoder(_syntax).add_plugin(OURS, (__name__, _decode_frame.__name__))
