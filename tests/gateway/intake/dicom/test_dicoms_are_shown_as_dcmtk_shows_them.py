"""An independent reader shows the same: DCMTK, over pydicom's files and ones made here."""

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, JPEGLSTransferSyntaxes

from gateway.refusals import Refused
from tests.conftest import needs_program
from tests.dicoms import dicom_of, item, lut, sent, shown


@pytest.fixture(autouse=True, scope="module")
def dcmtk():
    needs_program("dcmj2pnm", "dcmtk")


FOLDER = Path(str(get_testdata_file("CT_small.dcm", download=False))).parent
FILES = sorted(path.name for path in FOLDER.glob("*.dcm"))

# A grey may be one beside DCMTK's: it cuts where the standard's real numbers are rounded here. So
# it does in a colour's three sums.
CLOSE, CLOSE_IN_YBR = 1, 2
# What is refused here and shown by DCMTK, and why.
REFUSED = {
    "RT Dose Storage": "it shows a plan's numbers, which are no picture",
    "Segmentation Storage": "it shows an outline, which is no picture",
    "cut short": "it fills up with black what is not there",
}
# What is shown here and refused by DCMTK, and why.
UNREAD = {
    "JPEG 2000": "DCMTK has no decoder for it",
    "SC_rgb_jpeg.dcm": "its data set is implicit where its meta information says explicit",
}

RAMP = np.tile(np.arange(64, dtype="<i2") * 60 - 1000, (64, 1))
UNSIGNED = (RAMP + 1000).astype("<u2")
WINDOW = {"WindowCenter": 400, "WindowWidth": 1800}
FALLING = np.linspace(4095, 0, 4096).astype("<u2").tobytes()
PALETTE: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
for number, colour in enumerate(("Red", "Green", "Blue")):
    PALETTE[f"{colour}PaletteColorLookupTableDescriptor"] = [4096, 0, 16]
    PALETTE[f"{colour}PaletteColorLookupTableData"] = (
        (np.arange(4096) * (7, 11, 13)[number]).astype("<u2").tobytes()
    )
BY_BYTES = {
    f"{colour}PaletteColorLookupTable{part}": value
    for colour in ("Red", "Green", "Blue")
    for part, value in (("Descriptor", [256, 0, 8]), ("Data", bytes(range(256))))
}
WRITTEN_ON = np.arange(65536, dtype="<u2").tobytes()
PER_FRAME = [
    item(
        PixelValueTransformationSequence=[item(RescaleSlope=1, RescaleIntercept=0)],
        FrameVOILUTSequence=[item(WindowCenter=400, WindowWidth=1800)],
    )
] * 2
COLOURS = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)

MADE: dict[str, tuple[np.ndarray, dict[str, Any]]] = {
    "window": (RAMP, WINDOW),
    "exact": (RAMP, WINDOW | {"VOILUTFunction": "LINEAR_EXACT"}),
    "sigmoid": (RAMP, WINDOW | {"VOILUTFunction": "SIGMOID"}),
    "one wide": (RAMP, {"WindowCenter": 400, "WindowWidth": 1}),
    "rescaled": (UNSIGNED, WINDOW | {"RescaleSlope": 2, "RescaleIntercept": -1024}),
    "white is low": (RAMP, WINDOW | {"PhotometricInterpretation": "MONOCHROME1"}),
    "no window": (RAMP, {}),
    "modality table": (UNSIGNED, {"ModalityLUTSequence": [lut([4096, 0, 16], FALLING)]}),
    "voi table": (UNSIGNED, {"VOILUTSequence": [lut([4096, 0, 12], FALLING)]}),
    "falling scale": (UNSIGNED, WINDOW | {"RescaleSlope": -1, "RescaleIntercept": 1000}),
    "falling scale, no window": (UNSIGNED, {"RescaleSlope": -1, "RescaleIntercept": 1000}),
    "no scale": (UNSIGNED, WINDOW | {"RescaleSlope": 0, "RescaleIntercept": 0}),
    "two windows": (RAMP, {"WindowCenter": [400, 0], "WindowWidth": [1800, 10]}),
    "white is low, sigmoid": (
        RAMP,
        WINDOW | {"VOILUTFunction": "SIGMOID", "PhotometricInterpretation": "MONOCHROME1"},
    ),
    "inverse": (RAMP, WINDOW | {"PresentationLUTShape": "INVERSE"}),
    "padding": (RAMP, WINDOW | {"PixelPaddingValue": -1000, "PixelPaddingRangeLimit": -500}),
    "modality table of 65536": (
        UNSIGNED,
        {"ModalityLUTSequence": [lut([0, 0, 16], WRITTEN_ON)]}
        | {"WindowCenter": 2000, "WindowWidth": 3000},
    ),
    "modality table over scale": (
        UNSIGNED,
        {"ModalityLUTSequence": [lut([4096, 0, 16], FALLING)], "RescaleSlope": 2}
        | {"RescaleIntercept": 5, "WindowCenter": 2000, "WindowWidth": 3000},
    ),
    "voi table from below zero": (RAMP, {"VOILUTSequence": [lut([4096, -1000, 12], FALLING)]}),
    "voi table of 65536": (UNSIGNED, {"VOILUTSequence": [lut([0, 0, 16], WRITTEN_ON)]}),
    "short voi table": (
        UNSIGNED,
        {"VOILUTSequence": [lut([256, 1000, 8], np.arange(256, dtype="<u2").tobytes())]},
    ),
    "frames": (
        np.stack([RAMP, RAMP[:, ::-1]]),
        {"NumberOfFrames": 2, "PerFrameFunctionalGroupsSequence": PER_FRAME} | WINDOW,
    ),
    "12 of 16 bits": (UNSIGNED << 4, {"BitsStored": 12, "HighBit": 15}),
    "big endian": (RAMP.astype(">i2"), WINDOW | {"syntax": ExplicitVRBigEndian}),
    "palette": (UNSIGNED, PALETTE),
    "palette of bytes": (
        (UNSIGNED >> 4).astype("u1"),
        BY_BYTES | {"PhotometricInterpretation": "PALETTE COLOR"},
    ),
    "rgb": (COLOURS, {}),
    "planes": (np.moveaxis(COLOURS, 2, 0).reshape(32, 48, 3), {"PlanarConfiguration": 1}),
    "ybr": (COLOURS, {"PhotometricInterpretation": "YBR_FULL"}),
    "ybr of video": (
        np.random.default_rng(1).integers(0, 256, (32, 96), np.uint8),
        {"Columns": 48, "SamplesPerPixel": 3, "PlanarConfiguration": 0}
        | {"PhotometricInterpretation": "YBR_PARTIAL_422"},
    ),
    "deflated": (RAMP, WINDOW | {"syntax": DeflatedExplicitVRLittleEndian}),
    "rgb of 16 bits": (COLOURS.astype("<u2") << 8, {}),
}


def by_dcmtk(path: Path, out: Path, *how: str) -> np.ndarray | None:
    header = pydicom.dcmread(path, force=True, stop_before_pixels=True)
    is_jpeg_ls = header.file_meta.get("TransferSyntaxUID") in JPEGLSTransferSyntaxes
    command = ["dcml2pnm" if is_jpeg_ls else "dcmj2pnm", "+on", "-O", *how, str(path), str(out)]
    subprocess.run(command, capture_output=True, check=False, timeout=60)
    return np.asarray(Image.open(out)) if out.exists() else None


def how_of(path: Path, data: bytes) -> list[str]:
    """DCMTK is told the window that was told to the caller: how one is found where there is none is
    everybody's own."""
    header = pydicom.dcmread(path, force=True, stop_before_pixels=True)
    if "VOILUTSequence" in header:
        return ["+Wl", "1"]
    window = sent(data).shown.window
    if window is None:
        return []
    if header.get("WindowWidth"):
        return ["+Wi", "1"]
    # In the words of LINEAR, which is all that this option knows.
    return ["+Ww", str(window[0] + 0.5), str(window[1] + 1), "+Wfl"]


@pytest.mark.parametrize("name", FILES)
def test_pydicoms_files_are_shown_as_dcmtk_shows_them(name, tmp_path):
    data = (FOLDER / name).read_bytes()
    try:
        ours = shown(data)
    except Refused as refused:
        theirs = by_dcmtk(FOLDER / name, tmp_path / "out.png")
        assert theirs is None or any(words in str(refused) for words in REFUSED)
        return
    syntax = pydicom.dcmread(FOLDER / name, force=True).file_meta.TransferSyntaxUID.name
    theirs = by_dcmtk(FOLDER / name, tmp_path / "out.png", *how_of(FOLDER / name, data))
    if theirs is None:
        assert any(words in f"{syntax} {name}" for words in UNREAD)
        return
    assert ours.shape == theirs.shape
    assert np.abs(ours.astype(int) - theirs).max() <= CLOSE


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("encoder", ["", "dcmcjpeg +e1", "dcmcjpls"])
def test_made_files_are_shown_as_dcmtk_shows_them(name, encoder, tmp_path):
    """As they are, and compressed without loss by DCMTK itself."""
    pixels, tags = MADE[name]
    path = tmp_path / "made.dcm"
    path.write_bytes(dicom_of(pixels, **tags))
    if encoder:
        whole, path = path, tmp_path / "encoded.dcm"
        done = subprocess.run([*encoder.split(), whole, path], capture_output=True, timeout=60)
        if done.returncode:
            pytest.skip("DCMTK does not compress that")
    data = path.read_bytes()
    theirs = by_dcmtk(path, tmp_path / "out.png", *how_of(path, data))
    assert theirs is not None
    close = CLOSE_IN_YBR if name.startswith("ybr") else CLOSE
    assert np.abs(shown(data).astype(int) - theirs).max() <= close


WAYS = [
    (allocated, stored, high, signed)
    for allocated in (8, 16, 32)
    for stored in (1, 3, 7, 8, 10, 12, 15, 16, 17, 31, 32)
    for high in sorted({stored - 1, allocated - 1})
    for signed in (False, True)
    if stored <= allocated
]


@pytest.mark.parametrize(("allocated", "stored", "high", "signed"), WAYS)
def test_bits_are_stored_in_every_way_as_dcmtk_reads_them(
    allocated, stored, high, signed, tmp_path
):
    lowest = -(2 ** (stored - 1)) if signed else 0
    values = np.linspace(lowest, lowest + 2**stored - 1, 64).astype(np.int64)
    words = np.tile((values & 2**stored - 1) << high + 1 - stored, (16, 1))
    tags = {"BitsStored": stored, "HighBit": high, "PixelRepresentation": int(signed)}
    path = tmp_path / "made.dcm"
    path.write_bytes(dicom_of(words.astype(f"<u{allocated // 8}"), **tags))
    data = path.read_bytes()
    theirs = by_dcmtk(path, tmp_path / "out.png", *how_of(path, data))
    assert theirs is not None
    assert np.abs(shown(data).astype(int) - theirs).max() <= CLOSE


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("big", [False, True])
def test_single_bits_are_read_as_dcmtk_reads_them(frames, photometric, big, tmp_path):
    """Without a gap from row to row; the first of several frames need not end with a byte."""
    mask = np.stack([np.tile(np.arange(13) % 3 == frame % 3, (7, 1)) for frame in range(frames)])
    packed = np.packbits(mask.ravel(), bitorder="little")
    packed = np.append(packed, np.zeros(len(packed) % 2, "u1"))
    tags = {"Rows": 7, "Columns": 13, "BitsAllocated": 1, "BitsStored": 1, "HighBit": 0}
    tags |= {"NumberOfFrames": frames}
    if big:
        packed = packed.view("<u2").byteswap().view("u1")
        tags["syntax"] = ExplicitVRBigEndian
    path = tmp_path / "made.dcm"
    made = dicom_of(packed[None], PhotometricInterpretation=photometric, **tags)
    path.write_bytes(made.replace(b"\x7f\xe0\0\x10OB", b"\x7f\xe0\0\x10OW") if big else made)
    data = path.read_bytes()
    for frame in range(frames):
        how = [*how_of(path, data), "+F", str(frame + 1)]
        theirs = by_dcmtk(path, tmp_path / f"{frame}.png", *how)
        assert theirs is not None and (shown(data, frame + 1) == theirs).all()
