"""Palettes, YBR and RGB of any depth become the colours that they stand for."""

import io
import tracemalloc
from typing import Any

import numpy as np
import pytest

from gateway.intake.dicom.file import read
from gateway.intake.dicom.picture import show_read
from gateway.intake.pixels import shown as picture_of
from gateway.refusals import TooLarge, UnreadableImage
from tests.dicoms import HERE, dicom_of, shown

DICE = np.random.default_rng(0)


def palette(values: list[int], bits: int, dtype: str = "<u2", kind: str = "") -> dict[str, Any]:
    tags: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour in ("Red", "Green", "Blue"):
        tags[f"{colour}PaletteColorLookupTableDescriptor"] = [4, 0, bits]
        tags[f"{kind}{colour}PaletteColorLookupTableData"] = np.array(values, dtype).tobytes()
    return tags


@pytest.mark.parametrize(
    "tags",
    [
        palette([v << 8 for v in (20, 50, 100, 120)], 16),
        palette([v * 257 for v in (20, 50, 100, 120)], 16),
        palette([20, 50, 100, 120], 8),
        palette([20, 50, 100, 120], 16),
        palette([20, 50, 100, 120], 8, "u1"),
        palette([0, 4, 20 << 8, 50 << 8, 100 << 8, 120 << 8], 16, kind="Segmented"),
        palette([0, 4, 20, 50, 100, 120], 8, "u1", kind="Segmented"),
    ],
    ids=[
        "shifted",
        "replicated",
        "bytes in words",
        "only the lower bytes",
        "packed",
        "segmented",
        "segmented bytes",
    ],
)
def test_a_palettes_entries_are_colours_and_are_not_stretched(tags):
    indices = np.tile(np.array([0, 1, 2, 9], "u1"), (4, 1))
    assert shown(dicom_of(indices, **tags))[0].tolist() == [[v] * 3 for v in (20, 50, 100, 120)]


def test_a_segmented_palette_may_draw_lines_and_repeat_itself():
    """C.7.9.2: a value, a line up from it, and both segments once more."""
    segments = [0, 1, 0, 1, 2, 200 << 8, 2, 1, 0, 0]
    tags = palette(segments, 16, kind="Segmented")
    indices = np.tile(np.array([0, 1, 2, 3], "u1"), (4, 1))
    assert shown(dicom_of(indices, **tags))[0, :, 0].tolist() == [0, 100, 200, 0]


NOTHING = [0, 0]  # a segment of no entries: of such, repeated 65,535 times each, none would end


@pytest.mark.parametrize(
    "segments",
    [
        *([2, 1, 0, 0], [1, 4, 9], [7, 1, 1], NOTHING, [0, 1, 0, 2, 9, 6, 0]),
        *([0, 2, 7, 7, *NOTHING, 0, 2, 7, 7], [0, 2, 7, 7, 1, 0, 7, 0, 2, 7, 7]),
    ],
)
def test_a_palette_that_is_none_is_refused(segments):
    with pytest.raises(UnreadableImage):
        shown(dicom_of(np.zeros((4, 4), "u1"), **palette(segments, 16, kind="Segmented")))


def test_colours_of_sixteen_bits_are_values_too():
    """A dark picture stays one."""
    pixels = np.full((4, 4, 3), 20 << 8, "<u2")
    assert (shown(dicom_of(pixels)) == 20).all()
    assert (
        shown(dicom_of(np.full((4, 4, 3), 20 << 4, "<u2"), BitsStored=12, HighBit=11)) == 20
    ).all()


@pytest.mark.parametrize("bits", [1, 4, 7, 8, 9, 12, 16])
def test_a_colour_is_scaled_by_its_bits(bits):
    brightest = 2**bits - 1
    pixels = np.full((4, 4, 3), brightest, "<u2")
    found = shown(dicom_of(pixels, BitsStored=bits, HighBit=bits - 1))
    assert (found == 255).all()
    assert not shown(dicom_of(pixels * 0, BitsStored=bits, HighBit=bits - 1)).any()


def peak_a_pixel(data: bytes) -> float:
    """Bytes that are in use at once, as numpy tells of them too, a pixel of 500 by 500."""
    picture_of(data, HERE)  # what is imported is not counted
    tracemalloc.start()
    picture_of(data, HERE)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak / 500**2


def test_a_picture_takes_little_more_memory_than_its_pixels():
    """Of fifty million pixels each wide number is 400 megabytes."""
    values = DICE.integers(0, 256, (500, 500, 3))
    assert peak_a_pixel(dicom_of(values.astype("u1"))) < 16
    assert peak_a_pixel(dicom_of(values.astype("<u2"))) < 24
    grey = values[..., 0]
    assert peak_a_pixel(dicom_of(grey.astype("<i2") - 128)) < 20
    palette: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour in ("Red", "Green", "Blue"):
        palette[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 8]
        palette[f"{colour}PaletteColorLookupTableData"] = bytes(range(256))
    assert peak_a_pixel(dicom_of(grey.astype("u1"), **palette)) < 20


@pytest.mark.parametrize(("dtype", "colours"), [("<u2", 3), ("<u4", 3), ("<u8", 1)])
def test_wide_numbers_beyond_measure_are_refused_unread(dtype, colours):
    """Compressed they may be a few kilobytes."""
    pixels = np.zeros((2, 2, 3) if colours == 3 else (2, 2), dtype)
    data = dicom_of(pixels, Rows=7_000, Columns=7_000)
    with pytest.raises(TooLarge, match="MB of wide numbers"):
        shown(data)


@pytest.mark.parametrize("frames", [1, 2])
def test_colours_that_are_said_to_be_shared_and_are_not_are_read(frames):
    pixels = DICE.integers(0, 256, (frames, 8, 8, 3)).astype("u1")
    own, shared = (
        shown(dicom_of(pixels, NumberOfFrames=frames, PhotometricInterpretation=kind), frames)
        for kind in ("YBR_FULL", "YBR_FULL_422")
    )
    assert (own == shared).all()


# PS3.3 C.7.6.3.1.2, as it stands there: black, white, red and blue of either space.
YBR_OF = {
    "YBR_FULL": [(0, 128, 128), (255, 128, 128), (76, 85, 255), (29, 255, 107)],
    "YBR_FULL_422": [(0, 128, 128), (255, 128, 128), (76, 85, 255), (29, 255, 107)],
    "YBR_PARTIAL_422": [(16, 128, 128), (235, 128, 128), (81, 90, 240), (41, 240, 110)],
}
RGB = [(0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 0, 255)]


@pytest.mark.parametrize("kind", ["whole", "shared", "planes", "wide"])
@pytest.mark.parametrize("space", YBR_OF)
def test_luma_and_chroma_become_the_colours_that_they_stand_for(space, kind):
    """Each pixel with its own, in planes, of 16 bits, or two pixels with one, whose second luma
    stands between them."""
    pixels = np.repeat(np.array(YBR_OF[space], "u1")[None], 2, axis=1).repeat(4, axis=0)
    tags = {"PhotometricInterpretation": space}
    if kind == "shared" and space != "YBR_FULL":
        pairs = np.concatenate([pixels[:, ::2, :1], pixels[:, 1::2]], axis=2)
        tags |= {"Rows": 4, "Columns": 8, "SamplesPerPixel": 3, "PlanarConfiguration": 0}
        data = dicom_of(pairs.reshape(4, 16), **tags)
    elif kind == "planes" and space == "YBR_FULL":
        data = dicom_of(np.moveaxis(pixels, 2, 0).reshape(4, 8, 3), PlanarConfiguration=1, **tags)
    elif kind == "wide":
        data = dicom_of(pixels.astype("<u2") << 8, **tags)
    else:
        data = dicom_of(pixels, **tags)
    assert np.abs(shown(data)[2, ::2].astype(int) - RGB).max() <= 3


@pytest.mark.parametrize("is_shared", [True, False])
@pytest.mark.parametrize("space", ["YBR_FULL_422", "YBR_PARTIAL_422"])
def test_each_frame_of_a_file_that_is_read_once_has_its_own_colours(space, is_shared):
    """Two pixels with one chroma, or each with its own although it says otherwise."""
    samples = 2 if is_shared else 3
    pixels = DICE.integers(0, 256, (3, 8, 8 * samples)).astype("u1")
    tags = {"PhotometricInterpretation": space, "PlanarConfiguration": 0, "NumberOfFrames": 3}
    data = dicom_of(pixels, Rows=8, Columns=8, SamplesPerPixel=3, **tags)
    header = read(io.BytesIO(data), HERE)
    for frame in (1, 2, 3, 1):
        together = np.asarray(show_read(header, HERE, frame, None).picture)
        assert (together == shown(data, frame)).all()
