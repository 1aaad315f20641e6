"""A DICOM's picture follows PS3.3 step by step: workers are sent what a viewer shows."""

import io
import struct
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.uid import (
    MPEG4HP41,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
)

from gateway.refusals import InvalidCase, TooLarge, UnreadableImage
from tests.dicoms import FULL, RAMP, dicom_of, item, looks_like, lut, sent, shown

HALF = 255 - FULL
DICE = np.random.default_rng(0)


def windowed(values: np.ndarray, centre: float, width: float) -> np.ndarray:
    """PS3.3 C.11.2.1.2.1, as it stands there."""
    inside = ((values - (centre - 0.5)) / (width - 1) + 0.5) * 255
    low, high = centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2
    return np.where(values <= low, 0, np.where(values > high, 255, inside))


def functional(**macros: Any) -> Any:
    return [item(**{name: [item(**tags)] for name, tags in macros.items()})]


# The window.


def test_a_windows_greys_do_not_depend_on_what_else_is_in_the_picture():
    """40 HU under 40/400 is one grey, beside air and bone or alone."""
    alone = np.full((64, 64), 40, "<i2")
    beside = alone.copy()
    beside[:8], beside[8:16] = -1000, 1000
    greys = {
        int(shown(dicom_of(px, WindowCenter=40, WindowWidth=400))[40, 5]) for px in (alone, beside)
    }
    assert greys == {round(float(windowed(np.array(40.0), 40, 400)))}


@pytest.mark.parametrize(
    ("tags", "row"),
    [
        ({"WindowCenter": 2000, "WindowWidth": 1000}, windowed(RAMP[0], 2000, 1000)),
        ({"WindowCenter": [2000, 9], "WindowWidth": [1000, 9]}, windowed(RAMP[0], 2000, 1000)),
        ({"WindowCenter": 2000, "WindowWidth": 1}, np.where(RAMP[0] > 1999.5, 255, 0)),
        (
            {"WindowCenter": 2000, "WindowWidth": 1000, "VOILUTFunction": "LINEAR_EXACT"},
            np.clip(((RAMP[0] - 2000.0) / 1000 + 0.5) * 255, 0, 255),
        ),
        (
            {"WindowCenter": 2000, "WindowWidth": 1000, "VOILUTFunction": "SIGMOID"},
            255 / (1 + np.exp(-4 * (RAMP[0] - 2000.0) / 1000)),
        ),
        (
            {"WindowCenter": 2000, "WindowWidth": 1000, "VOILUTFunction": "CUSTOM"},
            windowed(RAMP[0], 2000, 1000),
        ),
        (
            {"WindowCenter": "0.4", "WindowWidth": "0.91", "RescaleSlope": "0.0002"},
            np.clip(((RAMP[0] * 0.0002 - 0.4) / 0.91 + 0.5) * 255, 0, 255),
        ),
        ({"WindowCenter": 2000, "WindowWidth": 0}, FULL),
        ({"WindowCenter": 2000, "WindowWidth": -400}, FULL),
        ({"WindowCenter": [9, 9, 2000], "WindowWidth": [0, -1, 900]}, windowed(RAMP[0], 2000, 900)),
        (
            {"WindowCenter": 2000, "WindowWidth": 900, "VOILUTSequence": [item()]},
            windowed(RAMP[0], 2000, 900),
        ),
        (
            {"WindowCenter": 2000, "WindowWidth": 900, "ModalityLUTSequence": [item()]},
            windowed(RAMP[0], 2000, 900),
        ),
        ({"WindowCenter": "", "WindowWidth": ""}, FULL),
        ({"WindowCenter": 2000}, FULL),
    ],
    ids=[
        "linear", "the first of two", "one wide", "exact", "sigmoid", "of its own",
        "narrower than one", "none wide", "negative", "the first that is one", "empty table",
        "empty modality table", "empty", "no width",
    ],
)  # fmt: skip
def test_every_window_function_is_the_standards(tags, row):
    assert looks_like(shown(dicom_of(RAMP, **tags)), row)


def test_monochrome1_is_white_where_its_window_is_black():
    tags = {"WindowCenter": 2000, "WindowWidth": 1000}
    two, one = (
        shown(dicom_of(RAMP, PhotometricInterpretation=f"MONOCHROME{n}", **tags)) for n in (2, 1)
    )
    assert (one == 255 - two).all() and two[0, 0] == 0


# The modality LUT.


@pytest.mark.parametrize(
    "tags",
    [
        {"RescaleSlope": 1, "RescaleIntercept": -1000},
        {"RescaleIntercept": -1000},
        {"RescaleIntercept": -1000, "RescaleSlope": ""},
        {"RescaleIntercept": -1000, "RescaleSlope": 1, "RescaleType": "HU"},
        {
            "RescaleSlope": "", "RescaleIntercept": "",
            "SharedFunctionalGroupsSequence": functional(
                PixelValueTransformationSequence={"RescaleSlope": 1, "RescaleIntercept": -1000}
            ),
        },
        {
            "NumberOfFrames": 1,
            "PerFrameFunctionalGroupsSequence": functional(
                PixelValueTransformationSequence={"RescaleSlope": 1, "RescaleIntercept": -1000}
            ),
        },
    ],
    ids=["both", "no slope", "empty slope", "of a type", "shared", "of the frame"],
)  # fmt: skip
def test_stored_values_are_rescaled_wherever_that_is_said(tags):
    data = dicom_of(RAMP, WindowCenter=1000, WindowWidth=2000, **tags)
    assert looks_like(shown(data), windowed(RAMP[0] - 1000.0, 1000, 2000))


def test_a_slope_alone_is_one_too():
    data = dicom_of(RAMP, WindowCenter=1000, WindowWidth=2000, RescaleSlope=0.5)
    assert looks_like(shown(data), windowed(RAMP[0] * 0.5, 1000, 2000))


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("big", [False, True])
def test_a_modality_table_may_have_entries_of_any_depth(bits, big):
    """An entry is looked up, whatever the descriptor says of its bits."""
    table = (np.arange(4096) >> (12 - min(bits, 12))).astype(">u2" if big else "<u2")
    pixels = RAMP.astype(">u2" if big else "<u2")
    sequence = [lut([4096, 0, bits], table.tobytes(), ModalityLUTType="US")]
    tags = {"syntax": ExplicitVRBigEndian} if big else {}
    assert looks_like(shown(dicom_of(pixels, ModalityLUTSequence=sequence, **tags)), FULL, by=2)


def written(data: bytes, keyword: str, text: bytes) -> bytes:
    """With that as a tag's value, which pydicom would not write; it must be as long as before."""
    tag = pydicom.datadict.tag_for_keyword(keyword)
    start = data.index(struct.pack("<HH", tag >> 16, tag & 0xFFFF)) + 8
    assert int.from_bytes(data[start - 2 : start], "little") == len(text)
    return data[:start] + text + data[start + len(text) :]


@pytest.mark.parametrize(
    ("keyword", "text", "tags"),
    [
        ("RescaleSlope", b"0,25", {"RescaleSlope": "0.25"}),
        ("RescaleIntercept", b"-1000,50", {"RescaleIntercept": "-1000.50"}),
        ("WindowCenter", b"1234,5", {"WindowCenter": "1234.5", "WindowWidth": "900"}),
        (
            "WindowWidth", b"900,5\\40,25 ",
            {"WindowCenter": ["2000", "1"], "WindowWidth": ["900.5", "40.25"]},
        ),
        ("PixelSpacing", b"3,0\\1,0 ", {"PixelSpacing": ["3.0", "1.0"]}),
    ],
)  # fmt: skip
def test_a_decimal_comma_is_read_as_a_point(keyword, text, tags):
    point = dicom_of(RAMP, **{"WindowCenter": "1000", "WindowWidth": "2000", **tags})
    assert (shown(written(point, keyword, text)) == shown(point)).all()


@pytest.mark.parametrize("text", [b"1 234 ", b"1,2,3 ", b"1,23.4", b"twelve", b"1e9999", b"NaN   "])
@pytest.mark.parametrize(
    ("keyword", "tag"),
    [
        ("RescaleSlope", r"\(0028,1053\) Rescale Slope"),
        ("RescaleIntercept", r"\(0028,1052\) Rescale Intercept"),
        ("WindowCenter", r"\(0028,1050\) Window Center"),
        ("WindowWidth", r"\(0028,1051\) Window Width"),
    ],
)
def test_what_is_written_as_no_number_is_refused_and_not_replaced(keyword, tag, text):
    tags = {"WindowCenter": "100000", "WindowWidth": "100000", keyword: "100000"}
    with pytest.raises(UnreadableImage, match=tag + " is no number"):
        shown(written(dicom_of(RAMP, **tags), keyword, text))


# The VOI LUT.


@pytest.mark.parametrize(
    ("descriptor", "data"),
    [
        ([4096, 0, 8], (np.arange(4096) // 16).astype("<u2").tobytes()),
        ([4096, 0, 8], (np.arange(4096) // 16).astype("u1").tobytes()),
        ([4096, 0, 12], np.arange(4096).astype("<u2").tobytes()),
        ([4096, 0, 16], (np.arange(4096) * 16).astype("<u2").tobytes()),
        ([0, 0, 16], (np.arange(65536) * 16 % 65536).astype("<u2").tobytes()),
    ],
    ids=["bytes in words", "packed bytes", "12 bits", "16 bits", "65536 entries"],
)
def test_a_voi_table_of_a_rising_ramp_is_a_rising_picture(descriptor, data):
    picture = sent(
        dicom_of(RAMP, VOILUTSequence=[lut(descriptor, data)], WindowCenter=1, WindowWidth=2)
    )
    assert picture.shown.window is None
    assert looks_like(
        shown(dicom_of(RAMP, VOILUTSequence=[lut(descriptor, data)])), RAMP[0] / 16, by=2
    )


def test_a_voi_table_may_begin_below_zero():
    """Written as an unsigned number where the values are signed after the modality LUT."""
    table = lut([2000, 65536 - 1000, 8], (np.arange(2000) // 8).astype("<u2").tobytes())
    hu = np.clip((RAMP[0] - 1000.0 + 1000) // 8, 0, 249)
    assert looks_like(shown(dicom_of(RAMP, RescaleIntercept=-1000, VOILUTSequence=[table])), hu)


def test_a_tables_sign_does_not_hang_on_what_else_is_in_the_picture():
    """One without air is shown as the same tissue is beside air: below 0 there can be some."""
    table = lut([4096, 64512, 12], np.arange(4096, dtype="<u2").tobytes())
    tags = {"RescaleIntercept": -1024, "VOILUTSequence": [table]}
    bright = RAMP // 3 + 1100
    beside_air = bright.copy()
    beside_air[0] = 0
    one, other = (shown(dicom_of(each, **tags)) for each in (bright, beside_air))
    assert np.array_equal(one[1:], other[1:])
    assert looks_like(one, bright[0] * (255 / 4095))


# Functional groups.


def test_an_enhanced_ct_is_the_classic_slices_picture():
    tissue = np.full((64, 64), 1064, "<u2")
    tissue[32:] = 1084
    groups = functional(
        PixelValueTransformationSequence={"RescaleSlope": 1, "RescaleIntercept": -1024},
        FrameVOILUTSequence={"WindowCenter": 40, "WindowWidth": 80},
    )
    enhanced = dicom_of(tissue, NumberOfFrames=1, SharedFunctionalGroupsSequence=groups)
    classic = dicom_of(
        tissue, RescaleSlope=1, RescaleIntercept=-1024, WindowCenter=40, WindowWidth=80
    )
    assert (shown(enhanced) == shown(classic)).all() and shown(classic)[0, 0] == 129


def test_each_frame_has_its_own_window():
    own = [
        functional(FrameVOILUTSequence={"WindowCenter": centre, "WindowWidth": 400})[0]
        for centre in (500, 3000)
    ]
    data = dicom_of(np.stack([RAMP, RAMP]), NumberOfFrames=2, PerFrameFunctionalGroupsSequence=own)
    for frame, centre in ((1, 500), (2, 3000)):
        assert looks_like(shown(data, frame), windowed(RAMP[0], centre, 400))
        assert sent(data, frame).shown.window == (centre, 400)


# The range where no window is given.


def test_padding_takes_no_part_in_the_range_and_is_background():
    tissue = DICE.normal(0, 60, (64, 64)).round().astype("<i2")
    whole = shown(dicom_of(tissue))
    padded = tissue.copy()
    padded[:8] = -2000
    picture = shown(dicom_of(padded, PixelPaddingValue=-2000))
    assert (picture[:8] == 0).all()
    assert np.abs(picture[8:].astype(int) - whole[8:]).max() <= 6


@pytest.mark.parametrize(
    ("fill", "tags"),
    [
        ([-2000], {"PixelPaddingValue": -2000}),
        ([-2000, -1990, -1500], {"PixelPaddingValue": -2000, "PixelPaddingRangeLimit": -1500}),
        ([-2000, -1500], {"PixelPaddingValue": -1500, "PixelPaddingRangeLimit": -2000}),
    ],
    ids=["one", "a range", "a range from above"],
)
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_known_however_it_is_written(fill, tags, photometric):
    """And it is black under either photometric interpretation."""
    padded = np.tile(np.arange(64, dtype="<i2") * 4, (64, 1))
    for row, value in enumerate(fill):
        padded[row] = value
    data = dicom_of(padded, PhotometricInterpretation=photometric, **tags)
    unsigned = data.replace(b"\x28\0\x20\1SS", b"\x28\0\x20\1US")  # -2000 becomes 63536
    for picture in map(shown, (data, unsigned)):
        assert (picture[: len(fill)] == 0).all()
        assert looks_like(picture, FULL if photometric == "MONOCHROME2" else HALF)


def test_padding_is_black_in_a_window_too():
    padded = RAMP.copy()
    padded[0] = 4000
    assert (
        shown(dicom_of(padded, PixelPaddingValue=4000, WindowCenter=9, WindowWidth=9))[0] == 0
    ).all()
    assert (shown(dicom_of(np.full((8, 8), 7, "<u2"), PixelPaddingValue=7)) == 0).all()


@pytest.mark.parametrize("signed", [0, 1])
@pytest.mark.parametrize("value", [-32_768, 32_767, -4_096])
def test_a_padding_value_that_no_pixel_can_have_pads_nothing(value, signed):
    """Of 12 bits: modulo them it would be one that pixels have."""
    values = RAMP.astype(np.int32) - 2048 * signed
    values[0] = value & 0xFFF if not signed else (value + 2048) % 4096 - 2048
    tags = {"BitsStored": 12, "HighBit": 11, "PixelRepresentation": signed}
    tags |= {"WindowCenter": 1890 - 2048 * signed, "WindowWidth": 3780}
    words = (values & 0xFFF).astype("<u2")
    data = dicom_of(words, PixelPaddingValue=0, **tags)
    kind = b"\x28\0\x20\1" + (b"SS" if signed else b"US") + b"\2\0"
    data = data.replace(kind + bytes(2), kind + struct.pack("<h", value))
    assert (shown(data) == shown(dicom_of(words, **tags))).all()


PICTURES = {
    "mr": np.tile(np.linspace(0, 300, 64).astype("<i4"), (64, 1)),
    "noise": DICE.normal(500, 50, (64, 64)).astype("<i4"),
    "nearly constant": np.where(DICE.random((64, 64)) < 0.5, 1000, 1001).astype("<i4"),
    "mostly background": np.pad(DICE.integers(100, 200, (8, 8)), 60).astype("<i4"),
    "tiny": np.arange(0, 64, dtype="<i4").reshape(8, 8),
    "very tiny": np.array([[0, 100], [200, 300]], "<i4"),
    "negative": -np.tile(np.linspace(0, 300, 64).astype("<i4"), (64, 1)),
    "large": DICE.integers(0, 4096, (256, 256)).astype("<i4"),
}


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("absurd", [None, 65_535, -32_768, 2_000_000_000])
def test_one_absurd_pixel_changes_nothing_visible(name, absurd):
    """And without one darkest is 0, brightest 255, or so little of the picture is beyond that."""
    pixels = PICTURES[name]
    low, high = int(pixels.min()), int(pixels.max())
    right = (pixels - low) * (255 / (high - low))
    if absurd is not None:
        pixels = pixels.copy()
        pixels[1, 1] = absurd
    if absurd is None or pixels.size > 4:
        differs = np.abs(shown(dicom_of(pixels)).astype(float) - right)
        differs[1, 1] = 0
        allowed = 40 if name == "noise" else 3  # its few outermost pixels are not told apart
        assert np.median(differs) <= 20 and np.percentile(differs, 90) <= allowed


@pytest.mark.parametrize("absurd", [65_535, 5_000])
def test_a_range_that_the_header_states_is_taken_where_the_pixels_bear_it_out(absurd):
    """The absurd pixels are too many here to be told by themselves. A statement that is not so, as
    many are, is passed over."""
    pixels = np.tile(np.linspace(0, 300, 64).astype("<u2"), (64, 1))
    right = shown(dicom_of(pixels))
    for smallest, largest in ((0, 65_535), (0, 4_095), (100, 120), (300, 0)):
        tags = {"SmallestImagePixelValue": smallest, "LargestImagePixelValue": largest}
        assert (shown(dicom_of(pixels, **tags)) == right).all()
    pixels[:2] = absurd
    tags = {"SmallestImagePixelValue": 0, "LargestImagePixelValue": 300}
    assert (shown(dicom_of(pixels, **tags))[2:] == right[2:]).all()


def test_a_constant_picture_is_black():
    assert (shown(dicom_of(np.full((9, 9), 700, "<u2"))) == 0).all()


# Presentation.


def test_inverse_is_inverted_and_never_twice():
    """MONOCHROME1 and INVERSE say the same (C.8.11.3.1.2)."""
    for photometric, shape, row in (
        ("MONOCHROME2", "IDENTITY", FULL),
        ("MONOCHROME2", "INVERSE", HALF),
        ("MONOCHROME1", "INVERSE", HALF),
        ("MONOCHROME1", "", HALF),
    ):
        tags = {"PhotometricInterpretation": photometric, "PresentationLUTShape": shape}
        assert looks_like(shown(dicom_of(RAMP, **tags)), row)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_a_presentation_table_gives_what_is_shown(photometric):
    falling = [lut([256, 0, 12], np.linspace(4095, 0, 256).astype("<u2").tobytes())]
    tags = {"PhotometricInterpretation": photometric, "PresentationLUTSequence": falling}
    assert looks_like(shown(dicom_of(RAMP, **tags)), HALF, by=2)


# How pixels are stored.


@pytest.mark.parametrize("dtype", ["u1", "<u2", "<u4", "i1", "<i2", "<i4", "<f4"])
def test_every_depth_is_read_signed_and_unsigned(dtype):
    low = -32 if np.dtype(dtype).kind != "u" else 0
    pixels = np.tile((np.arange(64) + low).astype(dtype), (64, 1))
    data = dicom_of(pixels, **({"drop": ("PixelRepresentation",)} if dtype == "<f4" else {}))
    assert looks_like(shown(data), FULL)


def test_what_is_no_number_is_background():
    pixels = np.tile(np.arange(64, dtype="<f4"), (64, 1))
    pixels[0, :9], pixels[1, :9], pixels[2, :9] = np.nan, np.inf, -np.inf
    picture = shown(dicom_of(pixels))
    assert looks_like(picture, FULL) and (picture[:3, :9] == 0).all()


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("high_bit", [11, 13, 15])
def test_bits_are_read_up_to_the_high_bit(high_bit, signed):
    """And what else is in a word, an overlay for one, is no part of the value."""
    values = RAMP.astype(np.int32) - (2048 if signed else 0)
    words = (values & 0xFFF) << (high_bit - 11)
    words |= DICE.integers(0, 65536, words.shape) & ~(0xFFF << (high_bit - 11))
    tags = {"BitsStored": 12, "HighBit": high_bit, "PixelRepresentation": int(signed)}
    assert looks_like(shown(dicom_of(words.astype("<u2"), **tags)), FULL)


@pytest.mark.parametrize(
    "tags",
    [
        {"drop": ("PixelRepresentation",)},
        {"drop": ("PhotometricInterpretation",)},
        {"drop": ("SamplesPerPixel", "HighBit", "BitsStored")},
        {"BitsStored": 32, "HighBit": 31},
        {"NumberOfFrames": ""},
        {"NumberOfFrames": 0},
        {"RepresentativeFrameNumber": 7},
        {"SeriesDescription": DeflatedExplicitVRLittleEndian},
        {"SeriesDescription": "1.2.840.10008.1.2.4.100"},
    ],
)
def test_what_is_missing_or_odd_is_taken_as_viewers_take_it(tags):
    """The transfer syntax is what (0002,0010) says, wherever else one is named."""
    assert looks_like(shown(dicom_of(RAMP, **tags)), FULL)


def test_a_byte_short_or_long_is_read_and_a_row_short_is_not():
    whole = dicom_of(RAMP)
    expected = shown(whole)
    for data in (whole[:-1], whole[:-2], whole + b"\0", whole + bytes(100)):
        assert np.abs(shown(data).astype(int) - expected)[:, :-1].max() == 0
    with pytest.raises(UnreadableImage, match=r"\(7FE0,0010\) Pixel Data is cut short"):
        shown(whole[:-128])


def test_frames_that_are_not_there_do_not_hide_those_that_are():
    data = dicom_of(np.stack([RAMP, RAMP]), NumberOfFrames=5)
    assert looks_like(shown(data, 2), FULL)
    with pytest.raises(UnreadableImage, match="cut short"):
        shown(data, 3)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, None, ExplicitVRBigEndian])
@pytest.mark.parametrize("start", ["preamble", "meta", "data set"])
def test_a_dicom_is_known_with_and_without_its_preamble(syntax, start):
    pixels = RAMP.astype(">u2") if syntax == ExplicitVRBigEndian else RAMP
    whole = dicom_of(pixels, **({"syntax": syntax} if syntax else {}))
    meta_length = 132 + 12 + int.from_bytes(whole[140:144], "little")
    data = whole[{"preamble": 0, "meta": 132, "data set": meta_length}[start] :]
    assert looks_like(shown(data), FULL)


# Shape and frames.


@pytest.mark.parametrize(
    ("tags", "shape"),
    [
        ({"PixelSpacing": ["3", "1"]}, (120, 64)),
        ({"PixelSpacing": ["1", "2"]}, (40, 128)),
        ({"ImagerPixelSpacing": ["3", "1"]}, (120, 64)),
        ({"NominalScannedPixelSpacing": ["3", "1"]}, (120, 64)),
        ({"PixelAspectRatio": ["3", "1"]}, (120, 64)),
        ({"PixelAspectRatio": ["1", "2"]}, (40, 128)),
        ({"PixelSpacing": ["1", "1"], "PixelAspectRatio": ["3", "1"]}, (40, 64)),
        ({"PixelSpacing": ["0.4883", "0.488281"]}, (40, 64)),
        ({"PixelSpacing": ["0", "1"]}, (40, 64)),
        ({"PixelSpacing": ""}, (40, 64)),
        (
            {
                "SharedFunctionalGroupsSequence": functional(
                    PixelMeasuresSequence={"PixelSpacing": [3, 1]}
                )
            },
            (120, 64),
        ),
    ],
)
def test_pixels_are_made_square(tags, shape):
    assert shown(dicom_of(RAMP[:40], **tags)).shape == shape


def test_pixels_are_made_square_within_the_limit_only():
    with pytest.raises(TooLarge):
        shown(dicom_of(RAMP, PixelSpacing=["1000000", "1"]))


def test_the_frame_that_was_asked_for_is_shown_and_told():
    frames = np.stack([RAMP * n // 4 for n in (1, 2, 3, 4)])
    frames[:, 0, 0] = 3780
    data = dicom_of(
        frames, NumberOfFrames=4, RepresentativeFrameNumber=2, WindowCenter=1890, WindowWidth=3780
    )
    for asked, told in ((None, 2), (1, 1), (4, 4)):
        picture = sent(data, asked)
        assert (picture.shown.frame, picture.shown.of, picture.shown.converted) == (told, 4, True)
        assert looks_like(shown(data, asked), FULL * told / 4, by=2)
    assert len({sent(data, frame).identity for frame in (1, 2, 3, 4)}) == 4
    with pytest.raises(InvalidCase, match="4 frames: send one from 1 to 4"):
        shown(data, 5)


def test_the_window_that_was_asked_for_is_shown_and_told():
    hu = dicom_of(RAMP, RescaleIntercept=-1000, WindowCenter=0, WindowWidth=9)
    assert looks_like(shown(hu, None, "lung"), windowed(RAMP[0] - 1000.0, -600, 1500))
    assert looks_like(shown(hu, None, (100.0, 200.0)), windowed(RAMP[0] - 1000.0, 100, 200))
    assert sent(hu, None, "lung").shown.window == (-600, 1500)
    assert sent(dicom_of(RAMP)).shown.window == (1890, 3780)  # the range that was found
    with pytest.raises(InvalidCase, match="is no CT"):
        shown(dicom_of(RAMP, Modality="MR"), None, "lung")
    with pytest.raises(InvalidCase, match="has colours"):
        shown(dicom_of(np.zeros((4, 4, 3), "u1")), None, "lung")


@pytest.mark.parametrize(
    ("said", "modality", "is_ct"),
    [
        ("ct", "ct", True),
        (" CT ", "ct", True),
        ("CT\\", "ct", True),
        ("CR\\DX", "xray", False),
        ("CT\\PT", None, True),  # of which no picture is both
        ("MR\\PT", None, False),
        ("OT", None, False),
        ("", None, True),
    ],
)
def test_a_modality_is_known_however_it_is_spelled(said, modality, is_ct):
    data = dicom_of(RAMP, Modality=said)
    assert sent(data).modality == modality
    if is_ct:
        assert sent(data, None, "lung").shown.window == (-600, 1500)
    else:
        with pytest.raises(InvalidCase, match="is no CT"):
            sent(data, None, "lung")


# What is refused, by name.


@pytest.mark.parametrize(
    ("kind", "tags", "words"),
    [
        ("1.66.4", {}, "is Segmentation Storage"),
        ("1.481.2", {}, "is RT Dose Storage"),
        ("1.77.1.6", {}, "tiles.* is VL Whole Slide Microscopy Image Storage"),
        ("1.77.1.9", {}, "cut into tiles"),
        ("1.77.1.2", {"TotalPixelMatrixRows": 65, "TotalPixelMatrixColumns": 64}, "into tiles"),
        ("9", {"TotalPixelMatrixRows": 64, "TotalPixelMatrixColumns": 999}, "cut into tiles"),
        ("1.2", {"PixelData": b""}, "without pixels.* is CT Image Storage"),
        ("9", {"Modality": "SEG"}, r"\(0008,0060\) Modality is SEG"),
        ("9", {"Modality": "seg\\SR"}, r"\(0008,0060\) Modality is SEG"),
        ("9", {"Modality": "RTDOSE"}, r"no picture.*\(0008,0060\) Modality is RTDOSE"),
        ("9", {"Modality": "PR"}, r"\(0008,0060\) Modality is PR"),
        ("9", {"Modality": "SR"}, r"\(0008,0060\) Modality is SR"),
        ("9", {"Modality": "KO"}, r"\(0008,0060\) Modality is KO"),
        ("1.77.1.2", {"DimensionOrganizationType": "TILED_FULL"}, "cut into tiles"),
        ("1.2", {"drop": ("PixelData",)}, "without pixels.* is CT Image Storage"),
        ("1.11.1", {"drop": ("PixelData",)}, "without pixels.* Presentation State Storage"),
        ("9", {"drop": ("PixelData",)}, "of a kind of its own"),
        ("1.2", {"drop": ("Rows",)}, r"\(0028,0010\) Rows is missing"),
        ("1.2", {"Columns": 0}, r"\(0028,0011\) Columns is missing"),
        ("1.2", {"BitsAllocated": 12}, r"\(0028,0100\) Bits Allocated"),
        ("1.2", {"PhotometricInterpretation": "HSV"}, r"\(0028,0004\)"),
        ("1.2", {"PhotometricInterpretation": "RGB"}, r"\(0028,0004\)"),
        ("1.2", {"SamplesPerPixel": 4}, r"\(0028,0004\)"),
        ("1.2", {"syntax": MPEG4HP41, "PixelData": encapsulate([b"1"])}, "MPEG-4.* not decoded"),
        ("1.2", {"syntax": "9.9.9"}, r"\(0002,0010\).* not a standard one"),
    ],
)
def test_what_is_no_picture_to_be_asked_about_is_refused_by_name(kind, tags, words):
    """With the tag that says so, and no value that a sender could have written."""
    with pytest.raises(UnreadableImage, match=words) as refused:
        shown(dicom_of(RAMP, SOPClassUID=f"1.2.840.10008.5.1.4.1.{kind}", **tags))
    assert str(refused.value).startswith("Image 1 of 1") and "9.9.9" not in str(refused.value)


def test_a_value_of_the_wrong_length_is_refused():
    whole = dicom_of(RAMP)
    rows = whole.index(b"\x28\0\x10\0US")
    with pytest.raises(UnreadableImage, match="damaged"):
        shown(whole[: rows + 6] + b"\3\0abc" + whole[rows + 10 :])
    length = whole.index(b"\2\0\0\0UL\4\0")
    with pytest.raises(UnreadableImage, match="damaged"):
        shown(whole[: length + 6] + b"\5" + whole[length + 7 :])


def test_without_a_sop_class_the_modality_decides():
    """Which is Image Plane's own for a picture, whatever its class."""
    for kind in ("", "1.2.3"):
        assert looks_like(
            shown(dicom_of(RAMP, SOPClassUID=kind or "1.2", Modality="RTIMAGE")), FULL
        )
    whole = dicom_of(RAMP, Modality="SEG")
    header = pydicom.dcmread(io.BytesIO(whole))
    del header.SOPClassUID, header.file_meta.MediaStorageSOPClassUID
    file = io.BytesIO()
    header.save_as(file)
    with pytest.raises(UnreadableImage, match=r"\(0008,0060\) Modality is SEG"):
        shown(file.getvalue())
    assert looks_like(shown(dicom_of(RAMP, Modality="SEG")), FULL)  # a CT by its class


@pytest.mark.parametrize("kind", ["481.1", "481.23", "481.24", "77.1.8"])
@pytest.mark.parametrize("whole", [{}, {"TotalPixelMatrixRows": 64, "TotalPixelMatrixColumns": 64}])
def test_radiotherapys_own_images_and_confocal_ones_are_pictures(kind, whole):
    data = dicom_of(RAMP, SOPClassUID=f"1.2.840.10008.5.1.4.1.1.{kind}", **whole)
    assert looks_like(shown(data), FULL)


@pytest.mark.parametrize("organised", [{}, {"DimensionOrganizationType": "TILED_FULL"}])
def test_a_slides_thumbnail_is_one_picture(organised):
    whole = {"TotalPixelMatrixRows": 64, "TotalPixelMatrixColumns": 64} | organised
    data = dicom_of(RAMP, SOPClassUID="1.2.840.10008.5.1.4.1.1.77.1.6", **whole)
    assert looks_like(shown(data), FULL)


def test_overlays_are_not_drawn():
    with open(get_testdata_file("examples_overlay.dcm"), "rb") as file:
        data = file.read()
    header = pydicom.dcmread(io.BytesIO(data))
    for element in [e.tag for e in header if e.tag.group == 0x6000]:
        del header[element]
    bare = io.BytesIO()
    header.save_as(bare)
    assert (shown(data) == shown(bare.getvalue())).all()


@pytest.mark.parametrize("centres", ["\\40", "\\40\\90"])
def test_of_windows_the_first_may_be_empty(centres):
    plain = shown(dicom_of(RAMP, WindowCenter=40, WindowWidth=400))
    widths = centres.replace("40", "400")
    assert (shown(dicom_of(RAMP, WindowCenter=centres, WindowWidth=widths)) == plain).all()
