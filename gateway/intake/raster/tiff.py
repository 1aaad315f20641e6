"""A TIFF's samples as it holds them, where Pillow knows no such kind, or cuts them to 8 bits: wide,
odd or signed integers, floats, grey with alpha; and any BigTIFF in big-endian.

A page is taken apart into files of 8 bits that any decoder reads, and put together again. Sources:
TIFF 6.0 sections 2, 7, 14, 16, 18 and 19; Adobe's TIFF Technical Note 3 (the predictor of floats);
the BigTIFF file format proposal of 2004 (its directories).
"""

import contextlib
import io
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from gateway.intake.raster.samples import Samples

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER = 256, 257, 258, 259, 262, 266
STRIPS, ORIENTATION, SAMPLES, ROWS_PER_STRIP, STRIP_BYTES = 273, 274, 277, 278, 279
PLANAR, PREDICTOR, TILE_WIDTH, TILE_HEIGHT, TILES, TILE_BYTES = 284, 317, 322, 323, 324, 325
EXTRA, FORMAT = 338, 339
UNSIGNED, SIGNED, FLOAT = 1, 2, 3
PLAIN_GREYS = {1, 2, 4, 8}  # bits that Pillow knows
PREMULTIPLIED, ALPHA = 1, 2
RGB, INKS = 2, 5
COLOURS = {0: 1, 1: 1, RGB: 3, INKS: 4}  # samples of a pixel, by its photometric interpretation
WIDEST_INK = 32  # bits that a float of 64 is as exact as
BIG = b"MM\0+"
MAX_ENTRIES = 4096  # of a directory; real ones have dozens
# Bytes of a value by its kind, where they are several; and the kinds that tell a place or a size.
SIZES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
LONG, WIDE_KINDS = 4, (16, 18)
MAX_PAGES = 1000  # that are counted
LARGEST_MARGIN = 4096  # by which a tile may be wider or higher than the whole page
# Those that pack bytes, whatever the bytes are: none, LZW, deflate (twice), PackBits, LZMA, zstd.
PACKS_BYTES = {1, 5, 8, 32946, 32773, 34925, 50000}


def pages(data: bytes) -> int:
    """How many, at most `MAX_PAGES`: those before the first whose directory is not all there."""
    order, is_big = "<" if data.startswith(b"II") else ">", 43 in data[2:4]
    # Where the first directory's offset stands, an offset, a count of entries, an entry's bytes.
    at, offset, count, entry = (8, "Q", "Q", 20) if is_big else (4, "I", "H", 12)
    seen: set[int] = set()
    with contextlib.suppress(struct.error):
        while len(seen) < MAX_PAGES:
            (page,) = struct.unpack_from(order + offset, data, at)
            if page in seen or not 0 < page < len(data):
                break
            (entries,) = struct.unpack_from(order + count, data, page)
            at = page + struct.calcsize(count) + entries * entry
            if at > len(data):
                break
            seen.add(page)
    return max(1, len(seen))


def classic(data: bytes) -> bytes:
    """A TIFF that Pillow reads: of a BigTIFF in big-endian the first page, whose values stay where
    they are and which has a directory of the older kind behind them.

    Raises struct.error, ValueError: the directory is broken, or the file is over 4 GB.
    """
    if not data.startswith(BIG):
        return data
    (at,) = struct.unpack_from(">Q", data, 8)
    (count,) = struct.unpack_from(">Q", data, at)
    if count > MAX_ENTRIES:
        raise ValueError("too many entries")
    made, directory = bytearray(data), struct.pack(">H", count)
    for start in range(at + 8, at + 8 + 20 * count, 20):
        tag, kind, number = struct.unpack_from(">HHQ", data, start)
        size = SIZES.get(kind, 1) * number
        (place,) = (start + 12,) if size <= 8 else struct.unpack_from(">Q", data, start + 12)
        # Of what stays in its place no more than tells whether it stands in the entry itself.
        value = data[place : place + (size if kind in WIDE_KINDS else min(size, 8))]
        if kind in WIDE_KINDS:
            kind, value = LONG, np.frombuffer(value, ">u8").astype(">u4").tobytes()
            place = len(made) if len(value) > 4 else place
            made += value
        directory += struct.pack(">HHI", tag, kind, number)
        directory += value.ljust(4, b"\0") if len(value) <= 4 else struct.pack(">I", place)
        if len(made) > 2 * len(data):
            raise ValueError("entries that overlap")
    made[:8] = b"MM\0*" + struct.pack(">I", len(made))
    return bytes(made + directory + bytes(4))


def page(data: bytes) -> "Page | None":
    """The first page, where it is grey, RGB or CMYK of samples that Pillow does not read as they
    are.

    Raises ValueError for tiles that are far larger than the page, since a decoder sets memory aside
    for a whole one; and what Pillow raises for a broken directory.
    """
    file, header = io.BytesIO(data), data[: 16 if data[2:4] in (b"+\0", b"\0+") else 8]
    tags = TiffImagePlugin.ImageFileDirectory_v2(header)
    file.seek(tags.next)
    tags.load(file)
    for tile, page in ((TILE_WIDTH, WIDTH), (TILE_HEIGHT, HEIGHT)):
        if tags.get(tile, 0) > tags[page] + LARGEST_MARGIN:
            raise ValueError("tiles far larger than the page")
    bits, form = set(tags.get(BITS, (1,))), set(tags.get(FORMAT, (UNSIGNED,)))
    count, photometric = int(tags.get(SAMPLES, 1)), tags.get(PHOTOMETRIC)
    narrow = bits <= PLAIN_GREYS if count == 1 else max(bits) <= 8 and photometric in (RGB, INKS)
    plain = narrow and form == {UNSIGNED}
    if plain or photometric not in COLOURS or tags.get(COMPRESSION, 1) not in PACKS_BYTES:
        return None
    if len(bits) > 1 or len(form) > 1 or count < COLOURS[photometric]:
        raise ValueError("samples of several kinds")
    if photometric == INKS and (form != {UNSIGNED} or max(bits) > WIDEST_INK):
        raise ValueError("ink of a rare kind")
    return Page(data, tags)


class Page:
    """A page whose size is known and whose samples are not read yet."""

    def __init__(self, data: bytes, tags: TiffImagePlugin.ImageFileDirectory_v2):
        self._data, self._tags = data, tags
        self._order = "<" if data.startswith(b"II") else ">"
        self.width, self.height = int(tags[WIDTH]), int(tags[HEIGHT])
        self.orientation = int(tags.get(ORIENTATION, 1))
        self._bits, self._count = int(tags[BITS][0]), int(tags.get(SAMPLES, 1))
        self._format = int(tags.get(FORMAT, (UNSIGNED,))[0])
        self._across = int(tags[TILE_WIDTH]) if TILES in tags else self.width

    @property
    def decoded_bytes(self) -> int:
        """Of all its samples, with those that fill up the tiles at its right."""
        columns = -(-self.width // self._across) * self._across
        return columns * self.height * self._count * max(self._bits, 16) // 8

    def read(self) -> Samples:
        """Raises ValueError for samples of no known kind, and what Pillow raises."""
        if self._tags.get(PLANAR, 1) == 2:
            values = np.concatenate([self._plane(plane, 1) for plane in range(self._count)], axis=2)
        else:
            values = self._plane(0, self._count)
        colours = COLOURS[self._tags[PHOTOMETRIC]]
        shown = values[..., :colours]
        if self._tags[PHOTOMETRIC] == INKS:
            shown = _light_of(shown, 2**self._bits - 1)
        inverted = self._tags[PHOTOMETRIC] == 0
        extra = self._tags.get(EXTRA, (0,))[0] if self._count > colours else 0
        if extra not in (PREMULTIPLIED, ALPHA):
            return Samples(shown, white_is_zero=inverted)
        alpha = values[..., colours].astype(np.float32)
        if self._format != FLOAT:
            alpha /= 2 ** (self._bits - (self._format == SIGNED)) - 1
        opacity = np.nan_to_num(np.clip(alpha, 0, 1))
        # On black, what is premultiplied is what is seen.
        weight = opacity if extra == ALPHA else None
        return Samples(shown, weight, opacity > 0, inverted)

    def _plane(self, plane: int, count: int) -> NDArray[Any]:
        """[rows, columns, count]: one plane, or the only one with all its samples beside each
        other. Its bytes are read as a grey picture that is so much wider."""
        across, tiles = self._across, -(-self.width // self._across)
        stride = -(-across * count * self._bits // 8)  # bytes in a row of a tile, or of a strip
        grey = self._as_bytes(plane, stride, tiles)
        rows = np.asarray(Image.open(io.BytesIO(grey), formats=["TIFF"]))
        rows = rows.reshape(self.height, tiles, stride)
        predictor = self._tags.get(PREDICTOR, 1) if self._tags.get(COMPRESSION, 1) != 1 else 1
        values = self._numbers(rows, across, count, predictor)
        return values.reshape(self.height, tiles * across, count)[:, : self.width]

    def _as_bytes(self, plane: int, stride: int, tiles: int) -> bytes:
        tags, planes = self._tags, self._count if self._tags.get(PLANAR, 1) == 2 else 1
        places, lengths = (TILES, TILE_BYTES) if TILES in tags else (STRIPS, STRIP_BYTES)
        each = len(tags[places]) // planes
        mine = slice(plane * each, (plane + 1) * each)
        entries = {
            WIDTH: (stride * tiles,),
            HEIGHT: (self.height,),
            BITS: (8,),
            COMPRESSION: (tags.get(COMPRESSION, 1),),
            PHOTOMETRIC: (1,),
            FILL_ORDER: (tags.get(FILL_ORDER, 1),),
            places: tags[places][mine],
            SAMPLES: (1,),
            lengths: tags[lengths][mine],
        }
        if TILES in tags:
            entries |= {TILE_WIDTH: (stride,), TILE_HEIGHT: (tags[TILE_HEIGHT],)}
        else:
            entries |= {ROWS_PER_STRIP: (min(tags.get(ROWS_PER_STRIP, self.height), self.height),)}
        heap, directory = self._data[8:], b""
        for tag, values in sorted(entries.items()):
            packed = struct.pack(f"{self._order}{len(values)}I", *values)
            if len(values) > 1:
                packed = struct.pack(f"{self._order}I", 8 + len(heap))
                heap += struct.pack(f"{self._order}{len(values)}I", *values)
            directory += struct.pack(f"{self._order}HHI", tag, 4, len(values)) + packed
        head = (b"II*\0" if self._order == "<" else b"MM\0*") + struct.pack(
            f"{self._order}I", 8 + len(heap)
        )
        return head + heap + struct.pack(f"{self._order}H", len(entries)) + directory + bytes(4)

    def _numbers(
        self, rows: NDArray[np.uint8], across: int, count: int, predictor: int
    ) -> NDArray[Any]:
        """[rows, tiles, bytes] → [rows, tiles, columns, count]."""
        shape, size = (*rows.shape[:2], across, count), self._bits // 8
        kind = {UNSIGNED: "u", SIGNED: "i", FLOAT: "f"}.get(self._format, "no number")
        if self._bits in (8, 16, 32, 64):
            dtype = np.dtype(f"{self._order}{kind}{size}")
            if predictor == 3:
                # Differences of bytes, the first bytes of all samples in a row before the second.
                steps = rows.reshape(*rows.shape[:2], -1, count)
                summed = steps.cumsum(axis=2, dtype=np.uint8)
                planes = summed.reshape(*rows.shape[:2], size, across * count)
                rows, dtype = planes.swapaxes(2, 3), dtype.newbyteorder(">")
            values = np.ascontiguousarray(rows).view(
                dtype if predictor != 2 else f"{self._order}u{size}"
            )
            values = values.reshape(shape)
            if predictor == 2:
                native = values.dtype.newbyteorder("=")
                values = values.cumsum(axis=2, dtype=native).view(f"{kind}{size}")
            return values
        if self._bits == 24 and self._format != FLOAT and predictor == 1:
            # With a byte of nothing below them they are numbers of 32 bits.
            samples = rows[..., : 3 * across * count].reshape(*rows.shape[:2], -1, 3)
            below = (1, 0) if self._order == "<" else (0, 1)
            four = np.pad(samples, ((0, 0), (0, 0), (0, 0), below))
            return (four.view(f"{self._order}{kind}4") >> 8).reshape(shape)
        if self._format != UNSIGNED or self._bits > 16 or predictor != 1:
            raise ValueError("samples of a rare kind")
        # Eight samples fill as many bytes as one has bits, and each lies within three of them.
        groups = -(-across * count // 8)
        end = groups * self._bits
        padded = np.pad(rows, ((0, 0), (0, 0), (0, end + 2 - rows.shape[2])))
        numbers = np.empty((*rows.shape[:2], groups * 8), np.uint16)
        for sample in range(8):
            at, skipped = divmod(sample * self._bits, 8)
            high, middle, low = (
                padded[..., byte : byte + end : self._bits] for byte in (at, at + 1, at + 2)
            )
            three = high.astype(np.uint32) << 16 | middle.astype(np.uint32) << 8 | low
            numbers[..., sample::8] = three >> (24 - skipped - self._bits) & (2**self._bits - 1)
        return numbers[..., : across * count].reshape(shape)


def _light_of(inks: NDArray[Any], full: int) -> NDArray[Any]:
    """What cyan, magenta, yellow and black leave of white (section 16), in numbers as wide."""
    light = np.empty((*inks.shape[:2], 3), inks.dtype)
    for row in range(0, len(inks), 256):  # not all of it in 64 bits
        left = full - inks[row : row + 256].astype(np.float64)
        light[row : row + 256] = (left[..., :3] * left[..., 3:] / full).round()
    return light
