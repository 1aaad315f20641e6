"""Every depth, colour space and encoding of PNG, JPEG, WebP and TIFF; and none of them passes for
read where pixels are missing."""

import io
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import imagecodecs
import numpy as np
import pytest
from PIL import Image, ImageCms, TiffImagePlugin

from gateway.intake.pixels import only_pixels, shown
from gateway.intake.raster import tiff as reader
from gateway.refusals import TooLarge, UnreadableImage
from tests.conftest import picture

RAMP = np.arange(0, 240, 10).reshape(4, 6)
STRETCHED = np.round((RAMP - RAMP.min()) * 255 / (RAMP.max() - RAMP.min())).astype(np.uint8)


def seen(data: bytes) -> np.ndarray:
    """What the workers get; and training sees the same."""
    sent = Image.open(io.BytesIO(only_pixels(data, "Image 1 of 1").data))
    here = shown(data, "Image 1 of 1")
    assert here.size == sent.size and here.convert("RGB").tobytes() == sent.convert("RGB").tobytes()
    return np.asarray(here)


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(
    rows: Sequence[bytes],
    width: int,
    depth: int,
    colours: int,
    extra: bytes = b"",
    packed: Callable[[bytes], bytes] = zlib.compress,
) -> bytes:
    head = struct.pack(">IIBBBBB", width, len(rows), depth, colours, 0, 0, 0)
    body = packed(b"".join(b"\0" + row for row in rows))
    chunks = png_chunk(b"IHDR", head) + extra + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def tiff(
    values: np.ndarray,
    photometric: int = 1,
    *,
    bits: int | None = None,
    data: bytes | None = None,
    is_big: bool = False,
    **tags: Any,
) -> bytes:
    """Of [rows, columns, samples]; tags by number, as `t338=(2,)`."""
    values = values if values.ndim == 3 else values[..., None]
    order = ">" if values.dtype.byteorder == ">" else "<"
    rows, columns, samples = values.shape
    data = values.tobytes() if data is None else data
    form = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    begin = 16 if is_big else 8
    entries = {
        256: (columns,), 257: (rows,), 258: (bits or values.dtype.itemsize * 8,) * samples,
        259: (1,), 262: (photometric,), 273: (begin,), 277: (samples,), 278: (rows,),
        279: (len(data),), 339: (form,) * samples,
    }  # fmt: skip
    entries |= {int(tag[1:]): tuple(value) for tag, value in tags.items()}
    heap, directory = data, b""
    offset, number, entry = ("Q", "Q", "HHQ") if is_big else ("I", "H", "HHI")
    for tag, found in sorted(entries.items()):
        kind, letter = (16, "Q") if is_big and tag in (273, 279) else (4, "I")
        packed = struct.pack(f"{order}{len(found)}{letter}", *found)
        if len(packed) > struct.calcsize(offset):
            packed, heap = struct.pack(order + offset, begin + len(heap)), heap + packed
        directory += struct.pack(order + entry, tag, kind, len(found))
        directory += packed.ljust(struct.calcsize(offset), b"\0")
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "H", 43 if is_big else 42)
    head += struct.pack(order + "HH", 8, 0) if is_big else b""
    head += struct.pack(order + offset, begin + len(heap))
    return head + heap + struct.pack(order + number, len(entries)) + directory + bytes(8)


KINDS = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8"]


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_number_in_a_tiff_is_read_and_white_is_zero_where_it_says_so(kind, order):
    values = (RAMP // 2 - (50 if kind[0] == "i" else 0)).astype(order + kind)
    expected = RAMP // 2 if kind == "u1" else STRETCHED
    assert (seen(tiff(values)) == expected).all()
    assert (seen(tiff(values, photometric=0)) == 255 - expected).all()


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", ["u4", "i4"])
def test_a_tiff_of_24_bits_shows_what_one_of_32_shows(kind, order, samples):
    values = (WIDE[..., :samples] * 999 - (2_000_000 if kind == "i4" else 0)).astype(order + kind)
    four = values.view("u1").reshape(*values.shape, 4)
    three = four[..., :3] if order == "<" else four[..., 1:]
    photometric = 1 if samples == 1 else 2
    found = tiff(values, photometric, bits=24, data=three.tobytes())
    assert (seen(found) == seen(tiff(values, photometric))).all()


@pytest.mark.parametrize("bits", [3, 5, 6, 7])
def test_a_tiff_of_a_few_bits_shows_what_one_of_8_shows(bits):
    """Rows begin with a byte (TIFF 6.0 section 2)."""
    values = (WIDE[..., :1] % 2**bits).astype("u2")
    each = np.unpackbits(values.astype("u1"), axis=2)[..., 8 - bits :]
    rows = np.packbits(each.reshape(len(values), -1), axis=1)
    found = seen(tiff(values, bits=bits, data=rows.tobytes()))
    assert (found == seen(tiff(values))).all()


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", KINDS)
def test_a_bigtiff_shows_what_a_tiff_shows(kind, order):
    """In either order of bytes, of which Pillow reads one."""
    for values in (RAMP[..., None], np.stack([RAMP, RAMP // 2, RAMP // 3], axis=-1)):
        values = (values // 2).astype(order + kind)
        photometric = 1 if values.shape[2] == 1 else 2
        found, expected = (seen(tiff(values, photometric, is_big=big)) for big in (True, False))
        assert (found == expected).all()
    index = np.full((20, 20), 3, order + "u1")
    colours = [n for part in (200, 30, 40) for n in [0, 0, 0, part * 257, *[0] * 252]]
    found = seen(tiff(index, photometric=3, is_big=True, t320=colours))
    assert (found[9, 9] == (200, 30, 40)).all()


@pytest.mark.parametrize("count", [0, 4097, 2**40])
def test_a_bigtiff_whose_directory_is_none_is_refused(count):
    whole = tiff(WIDE.astype(">u2"), 2, is_big=True)
    (at,) = struct.unpack_from(">Q", whole, 8)
    with pytest.raises(UnreadableImage):
        only_pixels(whole[:at] + struct.pack(">Q", count) + whole[at + 8 :], "Image 1 of 1")
    with pytest.raises(UnreadableImage):
        only_pixels(whole[: at + 30], "Image 1 of 1")


@pytest.mark.parametrize("kind", ["u2", "f4"])
def test_colours_are_stretched_alike(kind):
    """Each for itself they would be other colours."""
    values = np.stack([RAMP, RAMP * 4, RAMP * 17], axis=-1).astype(kind)
    found = seen(tiff(values, photometric=2))
    assert found.max() == 255 and (abs(found[..., 0] * 17.0 - found[..., 2]) <= 9).all()
    assert (seen(tiff(np.moveaxis(values, -1, 0).reshape(12, 6, 1), photometric=2, t257=(4,),
                      t258=(values.itemsize * 8,) * 3, t277=(3,), t284=(2,), t278=(4,),
                      t339=(3 if kind == "f4" else 1,) * 3,
                      t273=[8 + plane * 24 * values.itemsize for plane in range(3)],
                      t279=[24 * values.itemsize] * 3)) == found).all()  # fmt: skip


def differences(values: np.ndarray) -> bytes:
    stepped = values.copy()
    stepped[:, 1:] -= values[:, :-1]
    return stepped.tobytes()


def float_differences(values: np.ndarray) -> bytes:
    """Adobe's: the first bytes of a row's numbers before the second, each less the one before."""
    rows = values.astype(">f4").view(np.uint8).reshape(len(values), -1, 4)
    planes = np.ascontiguousarray(rows.swapaxes(1, 2)).reshape(len(values), -1, values.shape[2])
    return differences(planes)


WIDE = np.random.default_rng(0).integers(0, 4096, (40, 33, 3))


@pytest.mark.parametrize("samples", [1, 3])
def test_a_packed_tiff_is_the_same_picture(samples):
    """Deflated, by differences, in strips, in tiles, of floats by Adobe's differences."""
    values = WIDE[..., :samples].astype("<u2")
    photometric = 1 if samples == 1 else 2
    expected = seen(tiff(values, photometric))
    packed = zlib.compress(differences(values))
    assert (seen(tiff(values, photometric, data=packed, t259=(8,), t317=(2,))) == expected).all()
    parts = [zlib.compress(differences(values[row : row + 16])) for row in (0, 16, 32)]
    ends = np.cumsum([8] + [len(part) for part in parts]).tolist()
    strips = {"t273": ends[:3], "t279": [len(part) for part in parts], "t278": (16,)}
    found = tiff(values, photometric, data=b"".join(parts), t259=(8,), t317=(2,), **strips)
    assert (seen(found) == expected).all()
    padded = np.pad(values, ((0, 8), (0, 15), (0, 0)))
    parts = [
        zlib.compress(differences(padded[row : row + 16, column : column + 16]))
        for row in (0, 16, 32)
        for column in (0, 16, 32)
    ]
    ends = np.cumsum([8] + [len(part) for part in parts]).tolist()
    tiles = {"t324": ends[:9], "t325": [len(part) for part in parts], "t322": (16,), "t323": (16,)}
    found = tiff(values, photometric, data=b"".join(parts), t259=(8,), t317=(2,), **tiles)
    assert (seen(found) == expected).all()
    floats = values.astype("<f4")
    packed = zlib.compress(float_differences(floats))
    assert (seen(tiff(floats, photometric, data=packed, t259=(8,), t317=(3,))) == expected).all()


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_what_another_program_wrote_is_read(compression):
    deep = Image.fromarray(WIDE[..., 0].astype(np.uint16))
    file = io.BytesIO()
    deep.save(file, "TIFF", compression=compression)
    expected = np.round((WIDE[..., 0] - WIDE[..., 0].min()) * 255 / np.ptp(WIDE[..., 0]))
    assert (seen(file.getvalue()) == expected).all()


def packed_bits(values: np.ndarray, bits: int) -> bytes:
    """Rows of samples without a gap, each filled up to a byte."""
    rows = values.astype(">u2").view(np.uint8).reshape(*values.shape, 2)
    each = np.unpackbits(rows, axis=2)[..., 16 - bits :]
    return np.packbits(each.reshape(len(values), -1), axis=1).tobytes()


@pytest.mark.parametrize("columns", [33, 32, 3])
@pytest.mark.parametrize("bits", [9, 10, 12, 13, 15])
def test_any_number_of_bits_in_a_row_is_read(bits, columns):
    values = WIDE[:, :columns, 0] % 2**bits
    expected = seen(tiff(values.astype("<u2")))
    data = packed_bits(values, bits)
    assert (seen(tiff(values.astype("<u2"), bits=bits, data=data)) == expected).all()


def test_packed_bits_take_little_more_memory_than_the_picture():
    """Numpy tells of its memory too; a bit of each as a wide number is a hundredfold."""
    values = np.arange(250_000).reshape(500, 500) % 4096
    data = tiff(values.astype("<u2"), bits=12, data=packed_bits(values, 12))
    page = reader.page(data)
    assert page
    tracemalloc.start()
    page.read()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 12 * values.size


def test_what_is_no_number_is_black_and_takes_no_part_in_the_range():
    values = RAMP.astype("f4")
    values[0, :3] = np.nan, np.inf, -np.inf
    for photometric in (0, 1):
        found = seen(tiff(values, photometric))
        assert found[0, 0] == 0 and (found.min(), found.max()) == (0, 255)
        assert found[0, 1] == (255 if photometric else 0) == 255 - found[0, 2]
    with pytest.raises(UnreadableImage):
        only_pixels(tiff(np.full((20, 20), np.nan, "f4")), "Image 1 of 1")
    assert not seen(tiff(np.full((20, 20), 7, "u2"))).any()


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize(
    ("kind", "quiet"), [("f2", 0x7E00), ("f4", 0x7FC00000), ("f8", 0x7FF8 << 48)]
)
def test_what_is_no_number_is_black_whether_it_signals_or_not(kind, quiet):
    values = RAMP.astype(kind)
    bits = values.view(f"u{values.itemsize}")
    bits[0, 0] = quiet
    expected = seen(tiff(values))
    bits[0, 0] = quiet ^ (3 << (np.finfo(kind).nmant - 2))
    assert np.isnan(values[0, 0]) and (seen(tiff(values)) == expected).all()


@pytest.mark.parametrize(("extra", "left"), [(None, 1.0), (0, 1.0), (1, 1.0), (2, 0.5)])
@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize("kind", ["u1", "u2"])
def test_transparency_of_a_tiff_is_what_its_tag_says(kind, colours, extra, left):
    """None, though there is no tag; colours that are weighted by it already, or not yet."""
    ramp = RAMP // 2
    alpha = np.full_like(ramp, np.iinfo(kind).max // 2)
    values = np.stack([*[ramp] * colours, alpha], axis=-1).astype(kind)
    tags = {} if extra is None else {"t338": (extra,)}
    found = seen(tiff(values, 1 if colours == 1 else 2, **tags)).reshape(*ramp.shape, colours)
    expected = (ramp if kind == "u1" else STRETCHED) * left
    assert (abs(found - expected[..., None]) <= 1).all()


def test_a_fourth_sample_that_no_tag_calls_alpha_hides_nothing():
    values = np.stack([RAMP, RAMP, RAMP, np.zeros_like(RAMP)], axis=-1)
    for kind, expected in (("u1", RAMP), ("u2", STRETCHED)):
        assert (seen(tiff(values.astype(kind), 2))[..., 0] == expected).all()


def test_sixteen_bits_of_a_png_are_stretched_whatever_its_colours():
    """Pillow keeps the high byte of each colour: twelve bits stored in sixteen look black."""
    grey, colours = WIDE[..., 0].astype(">u2"), WIDE.astype(">u2")
    opaque = np.full((*grey.shape, 1), 65535, ">u2")
    low, high = WIDE.min(), WIDE.max()
    for kind, values in (
        (0, grey[..., None]),
        (2, colours),
        (4, np.concatenate([grey[..., None], opaque], axis=-1)),
        (6, np.concatenate([colours, opaque], axis=-1)),
    ):
        found = seen(png([row.astype(">u2").tobytes() for row in values], 33, 16, kind))
        shown_of = WIDE if kind in (2, 6) else grey
        low, high = float(shown_of.min()), float(shown_of.max())
        assert (found == np.round((shown_of - low) * (255 / (high - low)))).all(), kind


def test_a_deep_png_is_read_with_its_filters_its_transparency_and_how_it_was_held():
    """Paeth's filter over pixels of six bytes; a colour that is transparent; a turned picture."""
    values = WIDE.astype(">u2")
    raw = np.pad(values.view(np.uint8).reshape(40, -1).astype(int), ((1, 0), (6, 0)))
    left, up, corner = raw[1:, :-6], raw[:-1, 6:], raw[:-1, :-6]
    guess = left + up - corner
    near = np.stack([abs(guess - left), abs(guess - up), abs(guess - corner)]).argmin(axis=0)
    filtered = (raw[1:, 6:] - np.choose(near, [left, up, corner])).astype(np.uint8)
    rows = b"".join(b"\4" + row.tobytes() for row in filtered)
    plain = png([row.tobytes() for row in values], 33, 16, 2)
    assert (
        seen(png([b""] * 40, 33, 16, 2, packed=lambda _: zlib.compress(rows))) == seen(plain)
    ).all()
    key = png_chunk(b"tRNS", values[0, 0].tobytes())
    clear = seen(png([row.tobytes() for row in values], 33, 16, 2, key))
    assert not clear[0, 0].any() and (clear[1:] == seen(plain)[1:]).all()
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = png_chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    found = seen(png([row.tobytes() for row in values], 33, 16, 2, turned))
    assert (found == np.rot90(seen(plain), -1)).all()


def test_an_interlaced_deep_png_is_put_together():
    """Seven passes, each a picture of its own."""
    values = WIDE[:13, :11].astype(">u2")
    starts = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
              (0, 1, 1, 2))  # fmt: skip
    rows = b"".join(
        b"\0" + row.tobytes() for x, y, dx, dy in starts for row in values[y::dy, x::dx]
    )
    data = bytearray(png([b""] * 13, 11, 16, 2, packed=lambda _: zlib.compress(rows)))
    data[28] = 1
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    expected = seen(png([row.tobytes() for row in values], 11, 16, 2))
    assert (seen(bytes(data)) == expected).all()


@pytest.mark.parametrize(
    ("depth", "row", "grey"), [(1, b"\x50", 1), (2, b"\x1b", 3), (4, b"\x0f\xff", 15)]
)
def test_a_grey_that_is_transparent_is_found_at_every_depth(depth, row, grey):
    data = png([row] * 2, 4, depth, 0, png_chunk(b"tRNS", struct.pack(">H", grey)))
    assert seen(data).max() < 255
    assert seen(png([row] * 2, 4, depth, 0)).max() == 255


def test_colour_spaces_become_rgb():
    """Ink, luma and Lab; a palette of 16 bits and one whose writer filled the lower 8."""
    red = Image.new("RGB", (20, 20), (200, 30, 40))
    lab = ImageCms.profileToProfile(
        red, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    for image, kind in (
        (red.convert("CMYK"), "JPEG"),
        (red.convert("CMYK"), "TIFF"),
        (lab, "TIFF"),
        (red.convert("YCbCr"), "TIFF"),
        (red.quantize(), "TIFF"),
        (red, "WEBP"),
    ):
        file = io.BytesIO()
        image.save(file, kind)
        found = seen(file.getvalue())
        assert found.shape == (20, 20, 3), (image.mode, kind)
        assert (abs(found[9, 9].astype(int) - (200, 30, 40)) <= 12).all(), (image.mode, kind)
    index = np.full((20, 20), 3, np.uint8)
    for scale in (1, 257):
        colours = [n * scale for part in (200, 30, 40) for n in [0, 0, 0, part, *[0] * 252]]
        assert (seen(tiff(index, photometric=3, t320=colours))[9, 9] == (200, 30, 40)).all()


def test_wide_ink_is_stretched_as_other_wide_numbers_are():
    """Twelve bits stored in sixteen would look white."""
    ink = np.stack([RAMP, RAMP[::-1], RAMP // 2, RAMP // 3], axis=-1)
    light = (255 - ink[..., :3]) * (255 - ink[..., 3:]) / 255
    expected = (light - light.min()) * (255 / np.ptp(light))
    for bits, kind in ((16, "<u2"), (16, ">u2"), (24, ""), (32, "<u4")):
        wide = ink.astype("<u8") * ((2**bits - 1) // 255)
        if kind:
            data = tiff(wide.astype(kind), photometric=5)
        else:
            three = wide.astype("<u4").view("u1").reshape(*wide.shape, 4)[..., :3]
            data = tiff(wide.astype("<u4"), 5, bits=24, data=three.tobytes())
        assert (abs(seen(data) - expected) <= 1).all(), (bits, kind)
    low = 65535 - ink[..., :3] * 16.0 - ink[..., 3:] * 16
    expected = (low - low.min()) * (255 / np.ptp(low))
    assert (abs(seen(tiff((ink * 16).astype("u2"), photometric=5)) - expected) <= 4).all()
    for odd in ("i2", "f4", "u8"):
        with pytest.raises(UnreadableImage):
            only_pixels(tiff(ink.astype(odd), photometric=5), "Image 1 of 1")


@pytest.mark.parametrize(("space", "has_mark"), [("CMYK", True), ("YCCK", True), ("CMYK", False)])
def test_ink_is_light_in_a_jpeg_of_adobes_alone(space, has_mark):
    """Which says so by a mark; the others hold ink as it is."""
    red = Image.new("RGB", (32, 32), (200, 30, 40))
    ink = np.asarray(red.convert("CMYK"))
    data = imagecodecs.jpeg8_encode(
        255 - ink if has_mark else ink, 98, colorspace="CMYK", outcolorspace=space
    )
    if not has_mark:
        at = data.index(b"\xff\xee")
        data = data[:at] + data[at + 2 + int.from_bytes(data[at + 2 : at + 4], "big") :]
    assert np.abs(seen(data)[9, 9].astype(int) - (200, 30, 40)).max() <= 4


DEEP = np.tile(np.arange(0, 4096, 64), (64, 1)).astype("u2")


@pytest.mark.parametrize("how", [{"bitspersample": 12, "level": 98}, {"lossless": True}])
@pytest.mark.parametrize("colours", [1, 3])
def test_a_jpeg_of_more_than_eight_bits_is_stretched_and_turned_upright(how, colours):
    values = DEEP if colours == 1 else np.stack([DEEP] * 3, axis=-1)
    whole = imagecodecs.jpeg8_encode(np.ascontiguousarray(values), **how)
    found = seen(whole)
    assert found.ndim == (2 if colours == 1 else 3)
    assert np.abs(found.reshape(64, 64, -1)[..., 0] - DEEP / 4032 * 255).max() <= 3
    turned = JPEGS["turned"]["exif"]
    segment = b"\xff\xe1" + (len(turned) + 2).to_bytes(2, "big") + turned
    assert (seen(whole[:2] + segment + whole[2:]) == found[::-1, ::-1]).all()
    assert (seen(whole[:-2]) == found).all()
    for part in (0.5, 0.9):
        with pytest.raises(UnreadableImage):
            only_pixels(whole[: int(len(whole) * part)] + b"\xff\xd9", "Image 1 of 1")


def test_a_deep_jpeg_beyond_measure_is_refused_before_it_is_decoded():
    whole = imagecodecs.jpeg8_encode(np.stack([DEEP] * 3, axis=-1), 90, bitspersample=12)
    at = whole.index(b"\xff\xc1") + 5
    large = whole[:at] + struct.pack(">HH", 7_000, 7_000) + whole[at + 4 :]
    with pytest.raises(TooLarge, match="MB of wide numbers"):
        only_pixels(large, "Image 1 of 1")


@pytest.mark.parametrize("kind", ["WEBP", "PNG", "TIFF"])
def test_of_several_pages_the_first_is_shown(kind):
    pages = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    file = io.BytesIO()
    more = {"lossless": True} if kind == "WEBP" else {}
    pages[0].save(file, kind, save_all=True, append_images=pages[1:], **more)
    assert (seen(file.getvalue()) == (255, 0, 0)).all()


def pages(count: int, order: str, is_big: bool, last: int = 0) -> bytes:
    """A TIFF of so many small pages, the last of which names `last` as the next."""
    sizes = ("Q", "Q", "Q", "HHQQ") if is_big else ("I", "H", "I", "HHII")
    offset, number, after, entry = (order + size for size in sizes)
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "H", 43 if is_big else 42)
    head += struct.pack(order + "HH", 8, 0) if is_big else b""
    start = len(head) + struct.calcsize(offset)
    pixel = {256: 1, 257: 1, 258: 8, 259: 1, 262: 1, 273: 3, 277: 1, 278: 1, 279: 1}
    each = struct.calcsize(number) + 9 * struct.calcsize(entry) + struct.calcsize(after)
    body = b""
    for page in range(count):
        end = start + each * (page + 1) if page + 1 < count else last
        body += struct.pack(number, 9)
        # Of four bytes each.
        body += b"".join(struct.pack(entry, tag, 16 if is_big else 4, 1, value)
                         for tag, value in pixel.items())  # fmt: skip
        body += struct.pack(after, end)
    return head + struct.pack(offset, start) + body


@pytest.mark.parametrize("is_big", [False, True])
@pytest.mark.parametrize("order", "<>")
def test_pages_are_counted_and_none_of_them_hides_the_first(order, is_big):
    """One that leads back, out of the file, or to what is no directory is the last."""

    def told(data: bytes) -> int | None:
        return only_pixels(data, "Image 1 of 1").shown.of

    assert [told(pages(count, order, is_big)) for count in (1, 2, 3, 1500)] == [1, 2, 3, 1000]
    for last in (16 if is_big else 8, 3, 10**6, 2**32 - 1):
        assert told(pages(2, order, is_big, last)) == 2
    assert told(pages(2, order, is_big)[:-30]) == 1


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_a_file_that_does_not_tell_its_pages_is_of_one(kind, monkeypatch):
    data = picture("RGBA", kind=kind)
    expected = only_pixels(data, "Image 1 of 1")
    opened = Image.open

    def broken(file: Any, formats: list[str]) -> Image.Image:
        if len(formats) > 1:
            raise SyntaxError("a broken second page")
        return opened(file, formats=formats)

    monkeypatch.setattr(Image, "open", broken)
    assert only_pixels(data, "Image 1 of 1") == expected and expected.shown.of == 1


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_every_format_is_turned_upright(kind):
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.open(io.BytesIO(picture("RGB", (40, 20)))).save(file, kind, exif=exif)
    assert shown(file.getvalue(), "Image 1 of 1").size == (20, 40)
    deep = tiff(np.tile(RAMP, (5, 5)).astype("u2"), t274=(6,))
    assert seen(deep).shape == (30, 20)


def jpeg(**how: Any) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "JPEG", **how)
    return file.getvalue()


JPEGS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_blocks": 3},
    "turned": {"exif": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x03\0\0\0\0\0\0\0"},
}


@pytest.mark.parametrize("how", JPEGS.values(), ids=JPEGS)
def test_a_jpeg_without_its_last_mark_is_whole_and_one_without_pixels_is_not(how):
    """Programs drop the mark; decoders fill missing pixels with grey, and say nothing."""
    whole = jpeg(**how)
    expected = seen(whole)
    for same in (whole[:-2], whole[:-1], whole + b"garbage \xff\xd8 after the end"):
        assert (seen(same) == expected).all()
    scans = whole.rindex(b"\xff\xda")
    for cut in (3, 4, 10, len(whole) // 8, len(whole) - scans, len(whole) - scans - 20):
        for end in (b"", b"\xff\xd9"):
            with pytest.raises(UnreadableImage, match="cut short"):
                only_pixels(whole[:-cut] + end, "Image 1 of 1")


def test_a_jpeg_without_data_in_its_middle_is_not_whole():
    whole = jpeg(restart_marker_blocks=3)
    middle = len(whole) // 2
    with pytest.raises(UnreadableImage):
        only_pixels(whole[:middle] + whole[middle + 300 :], "Image 1 of 1")


@pytest.mark.parametrize("hidden", [b"", b"\0", b"\xff\x01\xff\xff"])
def test_a_jpeg_of_a_thousand_scans_is_refused_undecoded(hidden):
    """Each costs a decoder the whole picture again. It finds them too where they are hidden from
    who walks from mark to mark."""
    whole = jpeg(progressive=True)
    last = whole[whole.rindex(b"\xff\xda") : -2]
    assert only_pixels(whole[:-2] + hidden + last * 30 + whole[-2:], "Image 1 of 1").data
    with pytest.raises(UnreadableImage) as refused:
        only_pixels(whole[:-2] + hidden + last * 1000 + whole[-2:], "Image 1 of 1")
    assert "scans" in str(refused.value.__cause__)


BROKEN: dict[str, Callable[[bytes], bytes]] = {
    "short": lambda rows: zlib.compress(rows[: len(rows) // 2]),
    "cut": lambda rows: zlib.compress(rows)[:-9],
    "garbage within": lambda rows: zlib.compress(rows, 0)[:40] + b"\xff" * 40,
    "a wrong sum": lambda rows: zlib.compress(rows)[:-4] + b"\0\0\0\0",
    "no such filter": lambda rows: zlib.compress(b"\7" + rows[1:]),
    "nothing": lambda rows: b"",
}


@pytest.mark.parametrize("packed", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize(("depth", "colours"), [(8, 0), (8, 2), (8, 6), (16, 2), (16, 0)])
def test_a_png_whose_rows_are_not_there_is_not_passed_on(packed, depth, colours):
    """Its chunks and their sums are right; a decoder would go on with black."""
    size = 20 * {0: 1, 2: 3, 6: 4}[colours] * depth // 8
    rows = [np.random.default_rng(row).bytes(size) for row in range(20)]
    assert seen(png(rows, 20, depth, colours)).any()
    with pytest.raises(UnreadableImage, match="cut short"):
        only_pixels(png(rows, 20, depth, colours, packed=packed), "Image 1 of 1")


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("name", [b"tEXt", b"tIME", b"iCCP", b"gAMA", b"abCd"])
def test_a_chunk_that_a_png_can_do_without_may_be_broken(name, depth):
    """The others may not."""
    rows = [row.tobytes() for row in (WIDE[..., 0] * 16).astype(f">u{depth // 8}")]
    broken = png_chunk(name, b"a\0b")[:-1] + b"!"
    expected = seen(png(rows, 33, depth, 0))
    assert (seen(png(rows, 33, depth, 0, broken)) == expected).all()
    with pytest.raises(UnreadableImage):
        only_pixels(png(rows, 33, depth, 0, broken.replace(name, b"PLTE")), "Image 1 of 1")


@pytest.mark.parametrize("extra", [b"", png_chunk(b"tRNS", b"\0\1\2")])
def test_a_png_of_a_palette_that_is_not_there_is_refused(extra):
    """Its numbers are no greys."""
    rows = [bytes(range(20))] * 20
    colours = png_chunk(b"PLTE", bytes(range(60)))
    assert seen(png(rows, 20, 8, 3, colours + extra)).any()
    with pytest.raises(UnreadableImage):
        only_pixels(png(rows, 20, 8, 3, extra), "Image 1 of 1")


def test_a_png_without_its_last_chunk_is_whole():
    whole = picture("RGB")
    assert (seen(whole[:-12]) == seen(whole)).all()


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", ["WEBP", "TIFF"])
def test_no_other_format_is_read_where_it_is_cut(kind):
    whole = picture("RGB", (64, 64), kind=kind)
    for length in range(20, len(whole) - 1, 97):
        with pytest.raises(UnreadableImage):
            only_pixels(whole[:length], "Image 1 of 1")


def test_what_is_wholly_transparent_is_black():
    hidden = np.stack([RAMP, np.zeros_like(RAMP)], axis=-1).astype(">u2")
    assert not seen(png([row.tobytes() for row in hidden], 6, 16, 4)).any()
    assert not seen(tiff(hidden, t338=(2,))).any()


@pytest.mark.parametrize("side", [8_000, 60_000])
def test_a_bomb_of_any_size_is_too_large(side):
    """Beyond a size of its own Pillow refuses in its own words."""
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    for data in (
        b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", head) + png_chunk(b"IDAT", b"") + bytes(40),
        tiff(np.zeros((1, 1), "u1"), t256=(side,), t257=(side,)),
        tiff(np.zeros((1, 1), "u2"), t256=(side,), t257=(side,)),
    ):
        with pytest.raises(TooLarge, match="50 million pixels"):
            only_pixels(data, "Image 1 of 1")


def test_wide_numbers_beyond_measure_are_refused_unread():
    """A few kilobytes may unfold to gigabytes."""
    packed = zlib.compress(bytes(1000))
    bomb = tiff(np.zeros((1, 1, 3), "f8"), 2, data=packed, t259=(8,), t256=(7_000,), t257=(7_000,))
    with pytest.raises(TooLarge, match="MB of wide numbers"):
        only_pixels(bomb, "Image 1 of 1")


@pytest.mark.parametrize("side", ["t322", "t323"])
@pytest.mark.parametrize("kind", ["u1", "u2"])
def test_tiles_far_larger_than_the_page_are_refused_unread(kind, side):
    """Each is unpacked as a whole, of which next to nothing is in the file."""
    tile = {"t322": (16,), "t323": (16,), "t324": (8,), "t325": (9,), side: (2**20,)}
    with pytest.raises(UnreadableImage):
        only_pixels(tiff(np.ones((16, 16), kind), **tile), "Image 1 of 1")


def test_what_fills_up_tiles_counts_as_decoded():
    """A narrow page may be of many rows."""
    tile = {"t322": (4096,), "t323": (16,), "t324": [8] * 6250, "t325": [9] * 6250}
    page = reader.page(tiff(np.ones((1, 1), "u2"), **tile, t256=(16,), t257=(100_000,)))
    assert page and page.decoded_bytes == 4096 * 100_000 * 2
    with pytest.raises(TooLarge, match="MB of wide numbers"):
        tall = tiff(np.ones((1, 1), "u2"), **tile, t256=(16,), t257=(100_000,))
        only_pixels(tall, "Image 1 of 1")


@pytest.mark.parametrize(("colours", "refused"), [(0, False), (4, False), (2, True), (6, True)])
def test_a_deep_png_beyond_measure_is_refused_before_it_is_inflated(colours, refused):
    """By the samples that its pixels have: grey with transparency has two."""
    head = struct.pack(">IIBBBBB", 7_000, 7_000, 16, colours, 0, 0, 0)
    data = png_chunk(b"IHDR", head) + png_chunk(b"IDAT", b"no rows") + png_chunk(b"IEND", b"")
    with pytest.raises(TooLarge if refused else UnreadableImage):
        only_pixels(b"\x89PNG\r\n\x1a\n" + data, "Image 1 of 1")


def test_the_tiff_writer_of_these_tests_is_understood_elsewhere():
    page = Image.open(io.BytesIO(tiff(RAMP.astype("u1"))))
    assert isinstance(page, TiffImagePlugin.TiffImageFile) and (np.asarray(page) == RAMP).all()


LOSSLESS = np.random.default_rng(0).integers(0, 255, (256, 256)).astype("u1")


def test_a_lossless_jpeg_is_read_and_kills_nobody():
    """Nor one whose frame a walk over the segments does not find."""
    whole = imagecodecs.jpeg8_encode(LOSSLESS, lossless=True)

    assert (np.asarray(shown(whole, "Image 1 of 1")) == LOSSLESS).all()
    for before in (b"", b"\xff\x01", b"\xff\xd0", b"\xff\xff"):
        data = whole[:2] + before + whole[2:]
        with pytest.raises(UnreadableImage):
            only_pixels(data[: len(data) // 2] + b"\xff\xd9", "Image 1 of 1")
