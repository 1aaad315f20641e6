"""A compressed frame is shown as it was, or not at all: nothing is decoded beyond its size, nothing
is made up."""

import io

import numpy as np
import pytest
from PIL import Image
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from gateway.refusals import TooLarge, UnreadableImage
from tests.dicoms import FULL, RAMP, dicom_of, looks_like, sent, shown

DICE = np.random.default_rng(0)


def test_a_frame_of_another_size_than_the_header_says_is_not_decoded():
    """Its own size could be anything."""
    import imagecodecs

    frames = {
        JPEGLosslessSV1: imagecodecs.ljpeg_encode(RAMP),
        JPEGLSLossless: imagecodecs.jpegls_encode(RAMP),
        HTJ2K: imagecodecs.htj2k_encode(RAMP, reversible=True),
    }
    for syntax, frame in frames.items():
        whole = dicom_of(RAMP, syntax=syntax, PixelData=encapsulate([frame]))
        assert looks_like(shown(whole), FULL)
        for tags in ({"Rows": 32}, {"Columns": 640}):
            with pytest.raises(UnreadableImage, match=r"\(0028,0010\) Rows"):
                shown(dicom_of(RAMP, syntax=syntax, PixelData=encapsulate([frame]), **tags))
        short = encapsulate([frame[: len(frame) // 2]])
        with pytest.raises(UnreadableImage):
            shown(dicom_of(RAMP, syntax=syntax, PixelData=short))


def test_a_frame_of_other_components_than_the_header_says_is_not_decoded():
    """A kilobyte may tell of as many as 16,384, each of the size that the header says."""
    import imagecodecs

    grey = (RAMP >> 4).astype(np.uint8)
    many = np.repeat(grey[..., None], 3, axis=-1)
    frames = {
        JPEG2000Lossless: imagecodecs.jpeg2k_encode(many, reversible=True, codecformat="j2k"),
        HTJ2K: imagecodecs.htj2k_encode(many, reversible=True),
        JPEGLSLossless: imagecodecs.jpegls_encode(many),
        JPEGBaseline8Bit: imagecodecs.jpeg8_encode(many, colorspace="RGB", outcolorspace="RGB"),
    }
    for syntax, frame in frames.items():
        assert shown(dicom_of(many, syntax=syntax, PixelData=encapsulate([frame]))).shape[2] == 3
        with pytest.raises(UnreadableImage, match=r"\(0028,0002\) Samples per Pixel"):
            shown(dicom_of(grey, syntax=syntax, PixelData=encapsulate([frame])))


def test_a_jpeg_of_a_thousand_scans_is_not_decoded():
    """Each costs the decoder the whole picture again."""
    import imagecodecs

    frame = imagecodecs.jpeg8_encode((RAMP >> 4).astype(np.uint8))
    scan = frame[frame.index(b"\xff\xda") : -2]
    made = encapsulate([frame[:-2] + 1000 * scan + frame[-2:]])
    with pytest.raises(UnreadableImage) as refused:
        shown(dicom_of(RAMP.astype(np.uint8), syntax=JPEGBaseline8Bit, PixelData=made))
    assert "scans" in str(refused.value.__cause__)


def jpegs() -> dict[str, tuple[UID, np.ndarray, bytes]]:
    import imagecodecs

    deep = DICE.integers(0, 4096, (64, 64)).astype("<u2")
    flat = (deep >> 4).astype("u1")
    progressive = io.BytesIO()
    Image.fromarray(flat).save(progressive, "JPEG", progressive=True)
    return {
        "8 bits": (JPEGBaseline8Bit, flat, imagecodecs.jpeg8_encode(flat)),
        "progressive": (JPEGBaseline8Bit, flat, progressive.getvalue()),
        "8 of 12 bits": (JPEGExtended12Bit, flat, imagecodecs.jpeg8_encode(flat)),
        "12 bits": (JPEGExtended12Bit, deep, imagecodecs.jpeg8_encode(deep, bitspersample=12)),
        "lossless": (JPEGLosslessSV1, deep, imagecodecs.ljpeg_encode(deep)),
        "8 lossless": (JPEGLosslessSV1, flat, imagecodecs.jpeg8_encode(flat, lossless=True)),
        "JPEG-LS": (JPEGLSLossless, deep, imagecodecs.jpegls_encode(deep)),
    }


@pytest.mark.parametrize("name", list(jpegs()))
@pytest.mark.parametrize("part", [0.5, 0.9])
def test_a_frame_that_is_cut_short_is_refused_though_it_ends_as_it_should(name, part):
    syntax, pixels, whole = jpegs()[name]
    assert shown(dicom_of(pixels, syntax=syntax, PixelData=encapsulate([whole]))).std() > 60
    short = whole[: int(len(whole) * part)] + b"\xff\xd9"
    with pytest.raises(UnreadableImage):
        shown(dicom_of(pixels, syntax=syntax, PixelData=encapsulate([short])))


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEG2000, HTJ2K])
@pytest.mark.parametrize(("high_bit", "signed"), [(11, 0), (11, 1), (13, 0), (15, 0), (15, 1)])
def test_a_codestream_of_more_bits_than_are_stored_is_read_up_to_the_high_bit(
    high_bit, signed, syntax
):
    """And an overlay that was compressed with them is no part of the value."""
    import imagecodecs

    values = RAMP.astype(np.int32) - 2048 * signed
    words = (values & 0xFFF) << (high_bit - 11)
    words |= DICE.integers(0, 65536, words.shape) & ~(0xFFF << (high_bit - 11))
    encode = imagecodecs.htj2k_encode if syntax == HTJ2K else imagecodecs.jpeg2k_encode
    frame = encode(words.astype("<u2"), reversible=True)
    tags = {"BitsStored": 12, "HighBit": high_bit, "PixelRepresentation": signed}
    data = dicom_of(RAMP, syntax=syntax, PixelData=encapsulate([frame]), **tags)
    assert looks_like(shown(data), FULL)


@pytest.mark.parametrize("shift", [0, 4])
def test_a_value_that_overshoots_its_bits_with_loss_stays_bright(shift):
    import imagecodecs

    bars = np.where(np.arange(64) % 8 < 4, 0, 4095) * np.ones((64, 1), int)
    frame = imagecodecs.jpeg2k_encode((bars << shift).astype("<u2"), level=60, reversible=False)
    tags = {"BitsStored": 12, "HighBit": 11 + shift, "WindowCenter": 2048, "WindowWidth": 4096}
    picture = shown(dicom_of(RAMP, syntax=JPEG2000, PixelData=encapsulate([frame]), **tags))
    assert (picture[bars > 0] > 200).all() and (picture[bars == 0] < 55).all()


@pytest.mark.parametrize("has_bot", [True, False])
def test_a_compressed_frame_that_is_not_there_is_said_not_to_be(has_bot):
    import imagecodecs

    frames = encapsulate([imagecodecs.jpegls_encode(RAMP)] * 2, has_bot=has_bot)
    data = dicom_of(RAMP, syntax=JPEGLSLossless, PixelData=frames, NumberOfFrames=3)
    assert looks_like(shown(data, 2), FULL)
    with pytest.raises(UnreadableImage, match="the frame is not there"):
        shown(data, 3)


def test_a_run_that_never_ends_is_not_decoded():
    """A segment of RLE may unpack to sixty times what the header says there is."""
    header = (2).to_bytes(4, "little") + (64).to_bytes(4, "little") + (40_064).to_bytes(4, "little")
    bomb = header.ljust(64, b"\0") + b"\x81\0" * 20_000 + b"\x81\0" * 20_000
    with pytest.raises(UnreadableImage):
        shown(dicom_of(RAMP, syntax=RLELossless, PixelData=encapsulate([bomb])))


def coloured_jpeg(space: str, mark: str) -> bytes:
    """Red of components in RGB or YCbCr, named by an Adobe or a JFIF mark, by the components' own
    names, or by nothing."""
    import imagecodecs

    red = np.zeros((16, 16, 3), "u1")
    red[..., 0] = 254
    if space == "YCbCr":
        file = io.BytesIO()
        Image.fromarray(red).save(file, "JPEG", quality=100)
        frame = file.getvalue()
        return frame if mark == "JFIF" else frame[:2] + frame[20:]
    frame = imagecodecs.jpeg8_encode(red, 100, colorspace="RGB", outcolorspace="RGB")
    if mark == "Adobe":
        return frame
    frame = frame.replace(frame[2 : 4 + int.from_bytes(frame[4:6], "big")], b"", 1)
    if mark == "names":
        return frame
    header, scan = frame.index(b"\xff\xc0"), frame.index(b"\xff\xda")
    named = bytearray(frame)
    named[header + 10 : header + 19 : 3] = named[scan + 5 : scan + 11 : 2] = b"\1\2\3"
    return bytes(named)


@pytest.mark.parametrize(
    ("space", "mark", "stated"),
    [
        *(("RGB", mark, to) for mark in ("Adobe", "names") for to in ("RGB", "YBR_FULL_422")),
        ("RGB", "", "RGB"),
        *(("YCbCr", "JFIF", to) for to in ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_422")),
        *(("YCbCr", "", to) for to in ("YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_422")),
    ],
)
def test_what_a_jpeg_says_of_its_colours_goes_before_the_header(space, mark, stated):
    """And where it says nothing the header does."""
    frame, pixels = coloured_jpeg(space, mark), np.zeros((16, 16, 3), "u1")
    tags = {"PhotometricInterpretation": stated, "PixelData": encapsulate([frame])}
    picture = shown(dicom_of(pixels, syntax=JPEGBaseline8Bit, **tags))
    assert np.abs(picture.astype(int) - (254, 0, 0)).max() <= 2


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEGLosslessSV1, JPEGLSLossless])
def test_a_frame_of_fewer_bits_than_are_allocated_is_read(syntax):
    import imagecodecs

    grey = (RAMP >> 4).astype("u1")
    encode = {
        JPEGBaseline8Bit: lambda: imagecodecs.jpeg8_encode(grey, 100),
        JPEGLosslessSV1: lambda: imagecodecs.jpeg8_encode(grey, lossless=True),
        JPEGLSLossless: lambda: imagecodecs.jpegls_encode(grey),
    }
    tags = {"BitsStored": 8, "HighBit": 7, "PixelData": encapsulate([encode[syntax]()])}
    assert looks_like(shown(dicom_of(RAMP, syntax=syntax, **tags)), FULL, by=3)


def fragments(frames: list[bytes], each: int, table: list[int] | None) -> bytes:
    """Every frame in so many items, behind a table of offsets (None: the right one)."""
    items, begins = b"", []
    for frame in frames:
        begins.append(len(items))
        length = -(-len(frame) // each)
        length += length % 2
        for at in range(0, len(frame), length):
            part = frame[at : at + length]
            part += b"\0" * (len(part) % 2)
            items += b"\xfe\xff\0\xe0" + len(part).to_bytes(4, "little") + part
    basic = np.array(begins if table is None else table, "<u4").tobytes()
    return b"\xfe\xff\0\xe0" + len(basic).to_bytes(4, "little") + basic + items


@pytest.mark.parametrize("each", [1, 2, 5])
@pytest.mark.parametrize("table", [None, [], [0, 7], [4, 8], [0, 2**32 - 2]])
def test_a_frame_is_found_in_any_number_of_items_whatever_the_table_of_offsets(table, each):
    """An offset that leads to no item is a slip, and says nothing."""
    import imagecodecs

    frames = [imagecodecs.jpegls_encode(pixels) for pixels in (RAMP, RAMP[:, ::-1].copy())]
    data = dicom_of(
        np.stack([RAMP, RAMP]),
        syntax=JPEGLSLossless,
        NumberOfFrames=2,
        PixelData=fragments(frames, each, table),
    )
    assert looks_like(shown(data, 1), FULL) and looks_like(shown(data, 2), FULL[::-1])


@pytest.mark.parametrize("how", ["right", "empty", "no item", "no lengths", "odd"])
def test_an_extended_table_of_offsets_is_taken_where_it_leads_to_items(how):
    import imagecodecs

    frames = [imagecodecs.jpegls_encode(pixels) for pixels in (RAMP, RAMP[:, ::-1].copy())]
    pixels, offsets, lengths = encapsulate_extended(frames)
    offsets, lengths = {
        "right": (offsets, lengths),
        "empty": (b"", b""),
        "no item": (offsets[:8] + (9).to_bytes(8, "little"), lengths),
        "no lengths": (offsets, lengths[:8]),
        "odd": (offsets[:12], lengths[:12]),
    }[how]
    data = dicom_of(
        np.stack([RAMP, RAMP]),
        syntax=JPEGLSLossless,
        NumberOfFrames=2,
        PixelData=pixels,
        ExtendedOffsetTable=offsets,
        ExtendedOffsetTableLengths=lengths,
    )
    assert looks_like(shown(data, 1), FULL) and looks_like(shown(data, 2), FULL[::-1])


def test_a_deflated_data_set_is_inflated_within_a_limit(monkeypatch):
    data = dicom_of(RAMP, syntax=DeflatedExplicitVRLittleEndian, Modality="MR")
    assert looks_like(shown(data), FULL) and sent(data).modality == "mri"
    with pytest.raises(UnreadableImage, match="damaged"):
        shown(data[:-40])
    monkeypatch.setattr("gateway.intake.dicom.file.MAX_INFLATED", 8_000)
    with pytest.raises(TooLarge, match="inflates to over"):
        shown(data)
