"""Stored values → colours: PS3.3 C.7.6.3.1.2, C.7.6.3.1.5, C.7.9."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.intake.dicom.tables import levels_of, read_lut
from gateway.intake.dicom.values import is_little_endian, stored_range

# C.7.6.3.1.2. Of each space the luma that is black, and by how much luma and chroma are stretched:
# those of video leave room at either end.
YBR = {
    "YBR_FULL": (0, 1.0, 1.0),
    "YBR_FULL_422": (0, 1.0, 1.0),
    "YBR_PARTIAL_422": (16, 255 / 219, 255 / 224),
}
FROM_YBR = ((0, -0.344136, 1.772), (1.402, -0.714136, 0))  # of blue and red chroma, in R, G and B


def rgb(stored: NDArray[Any], space: str, header: Any) -> NDArray[np.uint8]:
    """C.7.6.3.1.2: three samples a pixel, [rows, columns, 3], of the space that is named."""
    colours = _to_8_bits(stored, int(header.BitsStored))
    scales = YBR.get(space)
    if scales is None:
        return colours
    black, luma, chroma = scales
    by_chroma = chroma * np.array(FROM_YBR, np.float32)
    out = np.empty_like(colours)
    for row in range(0, len(colours), 256):  # not all of it in wide numbers
        block = colours[row : row + 256].astype(np.float32)
        found = luma * (block[..., :1] - black) + (block[..., 1:] - 128) @ by_chroma
        out[row : row + 256] = found.round().clip(0, 255)
    return out


def _to_8_bits(colours: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """A colour is a value: it is scaled by the bits that it has, whatever else there is."""
    if bits >= 8:
        scaled = colours >> (bits - 8) if bits > 8 else colours
    else:
        scaled = colours.astype(np.uint16) * 255 // (2**bits - 1)
    return scaled.astype(np.uint8, copy=False)


def _count_bits(header: Any) -> None:
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


def palette(stored: NDArray[Any], header: Any) -> NDArray[np.uint8]:
    """C.7.6.3.1.5, C.7.9: each stored value's colour, [rows, columns, 3]."""
    _count_bits(header)
    levels, _, where = levels_of(stored)
    channels = []
    for colour in ("Red", "Green", "Blue"):
        descriptor = header[f"{colour}PaletteColorLookupTableDescriptor"].value
        data = header.get(f"{colour}PaletteColorLookupTableData")
        if data is None:
            segmented = header[f"Segmented{colour}PaletteColorLookupTableData"].value
            data = _unsegmented(segmented, descriptor, is_little_endian(header))
        table = read_lut(descriptor, data, is_little_endian(header), stored_range(header))
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
            if not length:  # any number of such could be repeated any number of times
                raise ValueError("a segment without entries")
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
