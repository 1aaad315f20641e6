"""A DICOM file → the picture that a viewer shows of it, by PS3.3 of the standard.

Read without trust: only what is known for a picture, decoded only within the limits, and no value
of the header in any message. One frame is shown: the one that was asked for, else the one that the
header calls representative, else the first.
"""

import io
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image
from pydicom.errors import BytesLengthException
from pydicom.filereader import data_element_generator, read_preamble
from pydicom.pixels import get_decoder
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from gateway.contract import WINDOWS, AskedWindow, ImageShown, Modality
from gateway.intake.dicom.codecs import (
    COMPRESSED,
    JPEG_2000,
    NoFrame,
    WrongSize,
    frame_of,
    plugin_for,
    precision,
)
from gateway.intake.dicom.grey import (
    NoNumber,
    greys,
    groups,
    is_little_endian,
    levels_of,
    number,
    read_lut,
)
from gateway.intake.raster import check_bytes, check_pixels
from gateway.refusals import InvalidCase, TooLarge, UnreadableImage

# pydicom quotes the header's values when it warns, and headers name patients.
logging.getLogger("pydicom").setLevel(logging.CRITICAL)
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE

# The defined terms of (0008,0060), C.7.3.1.1.1, that say enough.
MODALITIES: dict[str, Modality] = {
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

# SOP classes (PS3.4 B.5) whose pixels, where they have any, are no picture of a patient: what was
# outlined, planned, measured or written about one.
STORAGE = "1.2.840.10008.5.1.4.1.1."
NO_PICTURES = tuple(STORAGE + part for part in ("9.", "11.", "66.", "88.", "104.", "481."))
RT_IMAGES = {STORAGE + part for part in ("481.1", "481.23", "481.24")}
# By C.7.3.1.1.1 these are none either; it is asked where the SOP class is none that is known.
MADE_FROM_PICTURES = {
    "ANN", "AR", "ASMT", "AU", "CTPROTOCOL", "DOC", "ECG", "EEG", "EMG", "EOG", "EPS", "FID",
    "HD", "IOL", "KER", "KO", "LEN", "M3D", "OAM", "OPV", "OSS", "PLAN", "POS", "PR", "REG",
    "RESP", "RTDOSE", "RTINTENT", "RTPLAN", "RTRAD", "RTRECORD", "RTSEGANN", "RTSTRUCT", "RWV",
    "SEG", "SMR", "SR", "SRF", "STAIN", "TEXTUREMAP", "VA", "XAPROTOCOL",
}  # fmt: skip
OF_ITS_OWN = "DICOM of a kind of its own"
# Of a slide's tiles (C.8.12.4), or of a pyramid's, no single one is the picture.
TILED = {STORAGE + "77.1.6", STORAGE + "77.1.9"}

# What an item begins with (PS3.5 7.5), in either order of bytes.
ITEMS = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")
MAX_PIECES = 300_000  # two thousand frames of an enhanced object take a third of it
PIECES_OF_AN_ITEM = 5

PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
UNCOMPRESSED = {ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian}
GREY = {"MONOCHROME1", "MONOCHROME2"}
COLOURS = {"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"}
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
    """One frame (from 1; None: the representative one) as a viewer shows it.

    `place` is "Image 2 of 3", for errors. A window is a preset's name or (centre, width).

    Raises:
        UnreadableImage, TooLarge: the file is not one to be shown.
        InvalidCase: it is, but not in that frame or window.
        ValueError and whatever else numpy and the codecs raise for a damaged file
    """
    with told_by_tag(place):
        header = opened(data, place)
        number_of_frames = int(header.NumberOfFrames)
        index = frame_of_file(header, frame, place) - 1
        photometric = header.PhotometricInterpretation
        if window is not None and photometric not in GREY:
            raise InvalidCase(
                f"{place} has colours, and no grey scale to window. Leave window out."
            )
        stored = decode(header, index, place)
        shown_in = None
        if photometric in GREY:
            asked = window_of(window, header, place)
            pixels, shown_in = greys(stored, header, index, asked)
        elif photometric == "PALETTE COLOR":
            _count_palettes_bits(header)
            pixels = _palette(stored, header)
        else:
            pixels = _to_8_bits(stored, int(header.BitsStored))
        return Shown(
            square(Image.fromarray(pixels), header, index, place),
            modality_of(header),
            ImageShown(frame=index + 1, of=number_of_frames, window=shown_in, converted=True),
        )


def opened(data: bytes, place: str) -> Any:
    """A header, with its pixels, that is fit to be decoded."""
    header = read(io.BytesIO(data), place)
    _check_object(header, place)
    _complete(header, place)
    return header


def patient_of(data: bytes, place: str) -> str:
    """(0010,0020) Patient ID, and nothing where there is none."""
    how = {"stop_before_pixels": True, "specific_tags": ["PatientID"]}
    return str(read(io.BytesIO(data), place, **how).get("PatientID") or "").strip()


@contextmanager
def told_by_tag(place: str) -> Iterator[None]:
    """Names the tag of a header that cannot be made sense of."""
    try:
        yield
    except BytesLengthException as error:  # the one of pydicom's that is no ValueError
        raise ValueError("a value of another length than its kind has") from error
    except NoNumber as error:
        raise UnreadableImage(
            f"{place}: {_tag(error.keyword)} is no number. Export it again, best as PNG."
        ) from error
    except NoFrame as error:
        raise UnreadableImage(
            f"{place}: the frame is not there: (0028,0008) Number of Frames says more than "
            "(7FE0,0010) Pixel Data holds. Ask for an earlier one."
        ) from error


def modality_of(header: Any) -> Modality | None:
    return MODALITIES.get(str(header.get("Modality")))


def read(file: BinaryIO, place: str, **how: Any) -> Any:
    """PS3.10 7.1: the header, with the transfer syntax that its (0002,0010) names and no other;
    `how` is for pydicom.dcmread. The file is read from its beginning, and can seek."""
    file = cast(BinaryIO, _InPieces(file, place))
    read_preamble(file, force=True)
    meta = data_element_generator(file, False, True, lambda tag, *_: tag.group != 2)
    named = next((element.value for element in meta if element.tag == 0x00020010), None)
    syntax = (named or b"").rstrip(b"\0 ").decode("ascii")
    if syntax == DeflatedExplicitVRLittleEndian:
        # It is inflated as a whole before anything can be checked, to any size.
        raise UnreadableImage(f"{place} is a deflated DICOM. Send it uncompressed, or as PNG.")
    file.seek(0)
    header = pydicom.dcmread(file, force=True, **how)
    if not syntax:  # where there is none the first element tells
        implicit, little = header.original_encoding
        plain = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        header.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else plain
    return header


class _InPieces:
    """A file, of which no more pieces are read than any header has: of a million empty items, which
    a zip packs into nothing, each would become an object."""

    def __init__(self, file: BinaryIO, place: str):
        self._file, self._place, self._pieces = file, place, 0

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        # The items of a sequence of known length come at once, and are taken apart later.
        self._pieces += 1 + PIECES_OF_AN_ITEM * sum(map(data.count, ITEMS))
        if self._pieces > MAX_PIECES:
            raise TooLarge(
                f"{self._place} has a header of too many parts. Send fewer frames, or PNG."
            )
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _check_object(header: Any, place: str) -> None:
    """PS3.4 B.5: whether it is a picture, and PS3.5 10: whether it can be decoded."""
    kind, name = _kind(header)
    if not any(header.get(keyword) for keyword in PIXELS):
        raise UnreadableImage(
            f"{place} is a DICOM without pixels: (0008,0016) SOP Class UID is {name}. "
            "Send one that holds an image."
        )
    check_is_picture(header, place)
    if kind in TILED or _is_tiled(header):
        raise UnreadableImage(
            f"{place} is cut into tiles: (0008,0016) SOP Class UID is {name}. "
            "Send the region that you ask about as one picture, best as PNG."
        )
    syntax = header.file_meta.TransferSyntaxUID
    if syntax not in COMPRESSED | UNCOMPRESSED:
        named = syntax.name if syntax.is_transfer_syntax else "not a standard one"
        raise UnreadableImage(
            f"{place}: (0002,0010) Transfer Syntax UID is {named}, which is not decoded here. "
            "Send it uncompressed, or as PNG."
        )


def check_is_picture(header: Any, place: str) -> None:
    """PS3.4 B.5; raises UnreadableImage."""
    kind, name = _kind(header)
    if kind.startswith(NO_PICTURES) and kind not in RT_IMAGES:
        raise UnreadableImage(
            f"{place} is no picture of a patient: (0008,0016) SOP Class UID is {name}. "
            "Send the image that it was made from."
        )
    modality = str(header.get("Modality") or "").strip().upper()
    if name == OF_ITS_OWN and modality in MADE_FROM_PICTURES:
        raise UnreadableImage(
            f"{place} is no picture of a patient: (0008,0060) Modality is {modality}. "
            "Send the image that it was made from."
        )


def _kind(header: Any) -> tuple[UID, str]:
    """Its SOP class, and what that is called."""
    kind = UID(
        str(header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID", ""))
    )
    # Only a name from the standard: an unknown value is the sender's own text.
    return kind, kind.name if kind.is_valid and kind.name != kind else OF_ITS_OWN


def _is_tiled(header: Any) -> bool:
    """C.7.6.17.3, or by C.8.12.4 a whole that is larger than one frame of it."""
    if str(header.get("DimensionOrganizationType")).startswith("TILED"):
        return True
    return any(
        (number(header, f"TotalPixelMatrix{side}") or 0) > (number(header, side) or math.inf)
        for side in ("Rows", "Columns")
    )


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
            f"{place}: {_tag(keyword)} is missing or no number. Export it again, best as PNG."
        )
    setattr(header, keyword, value)


def _tag(keyword: str) -> str:
    tag = pydicom.datadict.tag_for_keyword(keyword)
    name = pydicom.datadict.dictionary_description(tag)
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X}) {name}"


def frame_of_file(header: Any, asked: int | None, place: str) -> int:
    """C.7.6.6, and (0028,6010) of C.7.6.6.1.4: which one, counted from 1; raises InvalidCase."""
    frames = int(header.NumberOfFrames)
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
    if header.get("Modality") not in (None, "", "CT"):
        raise InvalidCase(
            f"{place} is no CT, and the named windows are in Hounsfield units. "
            "Send its window as [centre, width]."
        )
    return WINDOWS[asked]


def decode(header: Any, index: int, place: str) -> NDArray[Any]:
    """PS3.5 8: the frame as it is stored, [rows, columns], or [rows, columns, 3] in RGB."""
    syntax = header.file_meta.TransferSyntaxUID
    try:
        if syntax in UNCOMPRESSED:
            _pad(header, index)
        plugin = plugin_for(syntax, header, index)
    except WrongSize as error:
        raise UnreadableImage(
            f"{place}: (7FE0,0010) Pixel Data is cut short, or of another size than (0028,0010) "
            "Rows, (0028,0011) Columns and (0028,0002) Samples per Pixel say. Export it again."
        ) from error
    pixels: NDArray[Any]
    pixels, _ = get_decoder(syntax).as_array(
        header, index=index, decoding_plugin=plugin, correct_unused_bits=False
    )
    if syntax in JPEG_2000:
        bits, without_loss = precision(frame_of(header, index))
        if bits <= header.BitsStored:  # they are what was compressed
            return pixels
        if not without_loss:  # values may overshoot their bits by a little
            return pixels >> (_high_bit(pixels, header) + 1 - int(header.BitsStored))
    return _used_bits(pixels, header)


def _pad(header: Any, index: int) -> None:
    """Pixels of which the very last is not quite there are read, as viewers do; frames that are not
    there are not counted.

    Raises:
        WrongSize: more of this frame is missing.
    """
    element = header[next(keyword for keyword in PIXELS if keyword in header)]
    if header.PhotometricInterpretation == "YBR_FULL_422":
        whole_bits = 3 * header.Rows * header.Columns * header.BitsAllocated
        if len(element.value) >= whole_bits * header.NumberOfFrames // 8:
            header.PhotometricInterpretation = "YBR_FULL"  # each pixel has its own after all
    # C.7.6.3.1.2: of YBR_FULL_422 two pixels share their colours.
    samples = 2 if header.PhotometricInterpretation == "YBR_FULL_422" else header.SamplesPerPixel
    pixel_bits = samples * header.BitsAllocated
    frame_bits = header.Rows * header.Columns * pixel_bits
    there = len(element.value)
    if math.ceil(frame_bits * header.NumberOfFrames / 8) <= there:
        return
    header.NumberOfFrames = whole = (there + max(2, pixel_bits // 8)) * 8 // frame_bits
    if index >= whole:
        raise WrongSize("the frame is not all there")
    element.value += b"\0" * max(0, math.ceil(frame_bits * whole / 8) - there)


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


def _to_8_bits(colours: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """A colour is a value: it is scaled by the bits that it has, whatever else there is."""
    if bits >= 8:
        scaled = colours >> (bits - 8) if bits > 8 else colours
    else:
        scaled = colours.astype(np.uint16) * 255 // (2**bits - 1)
    return scaled.astype(np.uint8, copy=False)


def _count_palettes_bits(header: Any) -> None:
    """Where 16 bits are stated and none of the entries uses the upper 8, there are 8."""
    names = [f"{colour}PaletteColorLookupTable" for colour in ("Red", "Green", "Blue")]
    tables = [header.get(f"{name}Data") for name in names]
    if not all(isinstance(table, bytes) and table for table in tables):
        return  # they are segmented, or not all there
    order = "<u2" if is_little_endian(header) else ">u2"
    if all(np.frombuffer(table[: len(table) // 2 * 2], order).max() < 256 for table in tables):
        for name in names:
            descriptor = header[f"{name}Descriptor"]
            descriptor.value = [*descriptor.value[:2], 8]


def _palette(stored: NDArray[Any], header: Any) -> NDArray[np.uint8]:
    """C.7.6.3.1.5, C.7.9: each stored value's colour, [rows, columns, 3]."""
    levels, _, where = levels_of(stored)
    channels = []
    for colour in ("Red", "Green", "Blue"):
        descriptor = header[f"{colour}PaletteColorLookupTableDescriptor"].value
        data = header.get(f"{colour}PaletteColorLookupTableData")
        if data is None:
            segmented = header[f"Segmented{colour}PaletteColorLookupTableData"].value
            data = _unsegmented(segmented, descriptor, is_little_endian(header))
        table = read_lut(descriptor, data, is_little_endian(header), bool(levels[0] < 0))
        found = table(levels).astype(np.uint16)
        channels.append(_to_8_bits(found, table.bits)[where])
    return np.stack(channels, axis=-1)


def _unsegmented(data: bytes, descriptor: Any, little_endian: bool) -> list[int]:
    """C.7.9.2: a palette of which only some entries are written out.

    Raises:
        ValueError: it is not built as the standard says.
    """
    count = int(descriptor[0]) & 0xFFFF or 65_536
    words = np.frombuffer(data, "<u2" if little_endian else ">u2").astype("<u2")
    # Segments of 8-bit palettes are made of bytes, an offset of four of them.
    segments = words.view(np.uint8) if int(descriptor[2]) <= 8 else words
    parts = segments.tolist()
    entries: list[int] = []

    def expand(at: int, segments_left: int, nested: bool) -> None:
        while at + 2 < len(parts) and segments_left and len(entries) < count:
            kind, length = parts[at : at + 2]
            at, segments_left = at + 2, segments_left - 1
            if kind == 0:
                entries.extend(parts[at : at + length])
                at += length
            elif kind == 1 and entries:
                line = np.linspace(entries[-1], parts[at], length + 1)[1:]
                entries.extend(line.round().astype(int).tolist())
                at += 1
            elif kind == 2 and not nested:
                size = 4 // segments.itemsize
                offset = int.from_bytes(segments[at : at + size].tobytes(), "little")
                expand(offset // segments.itemsize, length, nested=True)
                at += size
            else:
                raise ValueError("a palette of unknown segments")

    expand(0, len(parts), nested=False)
    return entries


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
