"""Rays of a slab are what each frame's pixels mean, however they are stored."""

import io
import random

import numpy as np
import pytest

from gateway.intake.dicom.file import read
from gateway.intake.dicom.grey import measured
from gateway.intake.dicom.stored import decode, make_fit
from gateway.intake.series.rays import Average, Greatest
from tests.dicoms import HERE, dicom_of, lut

PADDED = {"PixelPaddingValue": -90, "PixelPaddingRangeLimit": -80}
ABOVE = {"PixelPaddingValue": 90, "PixelPaddingRangeLimit": 70}
KINDS = {
    "plain": {},
    "scaled": {"RescaleSlope": "0.1", "RescaleIntercept": "-7"},
    "scaled otherwise": {"RescaleSlope": "0.3", "RescaleIntercept": "-7"},
    "falling": {"RescaleSlope": "-2", "RescaleIntercept": "0"},
    "of no slope": {"RescaleSlope": "0", "RescaleIntercept": "5"},
    "too great": {"RescaleSlope": "1e307", "RescaleIntercept": "0"},
    "padded": PADDED,
    "padded above": ABOVE,
    "scaled and padded": {"RescaleSlope": "2", "RescaleIntercept": "0", **PADDED},
    "by a table": {
        "ModalityLUTSequence": [lut([200, -100, 16], np.arange(200, 0, -1, "<u2").tobytes())]
    },
}


def frame_of(kind: str, seed: int):
    """Its stored values and its header."""
    rng = np.random.default_rng(seed)
    dtype = "<f4" if kind == "of floats" else rng.choice(["<i2", "<i4"])
    pixels = rng.integers(-100, 100, (8, 8)).astype(dtype)
    if kind == "of floats":
        pixels[rng.random((8, 8)) < 0.3] = np.nan
    header = read(io.BytesIO(dicom_of(pixels, **KINDS.get(kind, {}))), HERE)
    make_fit(header, HERE)
    return decode(header, 0, HERE)[0], header


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("seed", range(60))
def test_it_is_as_if_each_frame_had_been_measured(seed):
    """In runs of one kind, which are taken together, and in a mixture."""
    chance = random.Random(seed)
    kinds = [chance.choice([*KINDS, "of floats"]) for _ in range(4)]
    frames = [frame_of(kind, 100 * seed + at) for at, kind in enumerate(kinds * 2)]
    frames += [frame_of(kinds[0], 100 * seed + at) for at in range(50, 54)]
    before = [stored.copy() for stored, _ in frames]

    greatest, average = Greatest(), Average()
    for stored, header in frames:
        greatest.add(stored, header, 0)
        average.add(stored, header, 0)

    meant = []
    for stored, header in frames:
        values, is_none = measured(stored, header, 0)
        meant.append(np.where(is_none, np.nan, values))
    assert np.array_equal(greatest.values(), np.fmax.reduce(meant), equal_nan=True)
    seen = ~np.isnan(meant)
    summed, counts = np.zeros((8, 8)), seen.sum(axis=0)
    with np.errstate(over="ignore"):
        for values in meant:
            summed = summed + np.nan_to_num(values)
        scale = np.nansum(np.abs(meant), axis=0)
    expected = np.where(counts, summed / np.maximum(counts, 1), np.nan)
    # They are added up in another order, which rounds otherwise, and overflows otherwise.
    there, rounded = np.isfinite(scale), 1e-12 * scale[np.isfinite(scale)]
    assert np.allclose(average.values()[there], expected[there], 0, rounded, equal_nan=True)
    for (stored, _), was in zip(frames, before, strict=True):
        assert np.array_equal(stored, was, equal_nan=True)
