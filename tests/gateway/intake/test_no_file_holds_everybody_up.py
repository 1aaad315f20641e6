"""A file costs what its pixels cost: none is walked over for seconds, or for ever, before it is
refused. What is found so is kept here; `make fuzz` looks for more."""

import asyncio
import gzip
import io
import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless

from gateway.intake.counted import MAX_PARTS, counted
from gateway.intake.pixels import only_pixels
from gateway.intake.raster import tiff
from gateway.intake.series.sources import sent
from gateway.refusals import Refused, TooLarge, UnreadableImage
from gateway.tables import Limits
from tests.conftest import picture
from tests.dicoms import HERE, dicom_of

ROOT = Path(__file__).parents[3]
GREY = np.full((32, 32), 7, "<u2")
JPEG, PNG, DICOM = picture("RGB", kind="JPEG"), picture("RGB"), dicom_of(GREY)
BEHIND_IHDR = 33
READS = 5_000  # a test need not take as many as there may be
ADOBE = b"\xff\xee\x00\x0eAdobe" + bytes(7)  # with it a JPEG is decoded


def chunk(name: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def element(group: int, number: int) -> bytes:
    return struct.pack("<HH2sH", group, number, b"SH", 0)


PARTS = {
    "JPEG's comments": (JPEG, 2, b"\xff\xfe\0\2" * MAX_PARTS),
    "JPEG's tables": (JPEG, 2, b"\xff\xdb\0\2" * MAX_PARTS),
    "JPEG's, decoded": (JPEG, 2, ADOBE + b"\xff\xe0\0\2" * MAX_PARTS),
    # Where our own walk ends, Pillow's goes on.
    "JPEG's marks alone": (JPEG, 2, b"\xff\x01" * READS),
    "PNG's texts": (PNG, BEHIND_IHDR, chunk(b"tEXt") * MAX_PARTS),
    "PNG's pixels": (PNG, BEHIND_IHDR, chunk(b"IDAT") * MAX_PARTS),
    "PNG's, decoded": (PNG, BEHIND_IHDR, chunk(b"tRNS", bytes(6)) + chunk(b"abCd") * MAX_PARTS),
    "DICOM's meta": (DICOM, 132, element(2, 0x102) * READS),
    "DICOM's": (DICOM, 132, b"".join(element(8, n) for n in range(READS))),
}


@pytest.mark.parametrize("name", PARTS)
def test_a_file_of_very_many_parts_is_refused(name, monkeypatch):
    """Twenty megabytes of them would take a thread for ten seconds."""
    monkeypatch.setattr("gateway.intake.counted.MAX_READS", READS)
    monkeypatch.setattr("gateway.intake.dicom.file.MAX_PIECES", READS)
    data, at, parts = PARTS[name]
    with pytest.raises(Refused):
        only_pixels(data[:at] + parts + data[at:], HERE)


def test_a_bigtiffs_entries_are_not_copied_with_all_that_they_point_to():
    """4,096 that each point to the whole file would be 80 GB of a file of twenty megabytes."""
    copied = []

    class Watched(bytes):
        def __getitem__(self, key):
            found = super().__getitem__(key)
            copied.append(len(found) if isinstance(found, bytes) else 1)
            return found

    entries = struct.pack(">HHQQ", 60_000, 1, 100_000, 8) * 1_000
    head = tiff.BIG + struct.pack(">HHQQ", 8, 0, 16, 1_000)
    data = Watched((head + entries).ljust(200_000, b"\0"))
    assert tiff.classic(data).startswith(b"MM\0*")
    assert sum(copied) < len(data)


def test_what_stands_before_a_mark_is_one_part():
    assert only_pixels(JPEG[:2] + b"\xff" * (2 * MAX_PARTS) + JPEG[2:], HERE).size == (32, 24)


def test_a_file_is_read_so_often_and_not_once_more(monkeypatch):
    monkeypatch.setattr("gateway.intake.counted.MAX_READS", 2)
    file = counted(io.BytesIO(b"abc"))
    assert (file.read(1), file.read()) == (b"a", b"bc")
    with pytest.raises(ValueError, match="too many parts"):
        file.read()


BOX = struct.pack(">I4s", 12, b"jP  ") + b"\r\n\x87\n"  # ITU-T T.800 I.5.1
CODESTREAM = struct.pack(">I4s", 0, b"jp2c")  # to the end of the file


@pytest.mark.parametrize(
    ("boxes", "is_read"),
    [
        (b"", True),
        (BOX + CODESTREAM, True),
        (BOX + struct.pack(">I4sI", 12, b"free", 0) + CODESTREAM, True),
        (BOX + struct.pack(">I4s", 0, b"free") + CODESTREAM, False),
        (BOX + struct.pack(">I4s", 1, b"free") + CODESTREAM, False),
        (BOX + struct.pack(">I4s", 8, b"free") * 200_000 + CODESTREAM, False),
        (BOX + struct.pack(">I4s", 1 << 31, b"free") + CODESTREAM, False),
        (BOX, False),
    ],
)
def test_boxes_before_a_codestream_lead_to_it(boxes, is_read):
    """One that has no length was walked over for ever."""
    import imagecodecs

    frame = boxes + imagecodecs.jpeg2k_encode(GREY, reversible=True, codecformat="j2k")
    data = dicom_of(GREY, syntax=JPEG2000Lossless, PixelData=encapsulate([frame]))
    if is_read:
        assert only_pixels(data, HERE).size == (32, 32)
    else:
        with pytest.raises(UnreadableImage):
            only_pixels(data, HERE)


def test_a_value_of_a_wrong_length_is_refused_in_a_series_too():
    data = bytearray(DICOM)
    data[138] += 5  # the length of (0002,0000), of which pydicom takes the value at once
    with pytest.raises(UnreadableImage, match="File 1 of 1 cannot be decoded"):
        asyncio.run(sent([bytes(data)], Limits()).headers())


@pytest.mark.parametrize("says_its_length", [True, False])
@pytest.mark.parametrize(("items", "is_read"), [(500, True), (3_000, False)])
def test_headers_of_very_many_items_are_no_series(items, is_read, says_its_length):
    """An empty one has eight bytes, and takes half a kilobyte of memory."""
    groups = (b"\xfe\xff\0\xe0" + bytes(4)) * items
    length = struct.pack("<I", len(groups)) if says_its_length else b"\xff" * 4
    end = b"" if says_its_length else b"\xfe\xff\xdd\xe0" + bytes(4)
    sequence = b"\x00\x52\x30\x92SQ\0\0" + length + groups + end
    pixels = DICOM.index(b"\xe0\x7f\x10\0")
    source = sent([DICOM[:pixels] + sequence + DICOM[pixels:]], Limits(max_slices=20))
    if is_read:
        [header] = asyncio.run(source.headers())
        assert len(header.PerFrameFunctionalGroupsSequence) == items
    else:
        with pytest.raises(TooLarge, match="headers of the series are too large"):
            asyncio.run(source.headers())


@pytest.mark.parametrize(
    ("between", "is_read"),
    [
        (gzip.compress(b"") * 100, True),
        (gzip.compress(b"") * READS, False),
        (bytes(100), True),
        (bytes(10 * READS), False),
    ],
    ids=["some members", "many members", "some zeros", "many zeros"],
)
def test_a_gzip_of_very_many_members_is_refused(between, is_read, monkeypatch):
    """A zip of two megabytes may hold fifty million empty ones: minutes for a thread."""
    monkeypatch.setattr("gateway.intake.counted.MAX_READS", READS)
    plain = nibabel.Nifti1Image(np.zeros((4, 4, 4), "i2"), np.eye(4)).to_bytes()
    packed = gzip.compress(plain[:400]) + between + gzip.compress(plain[400:])

    async def read():
        return await sent([packed], Limits()).file(0)

    if is_read:
        assert asyncio.run(read()).Rows == 4
    else:
        with pytest.raises(UnreadableImage):
            asyncio.run(read())


def test_a_short_run_of_the_fuzzer_finds_nothing(tmp_path):
    pytest.importorskip("atheris", reason="published for Linux on x86-64 alone")
    # From a shell: a process begins with the peak memory of the one that it was forked from, and
    # this one may have trained a model.
    fuzz = [sys.executable, "-m", "benchmarks.faults.fuzz", "--inputs=600", f"--folder={tmp_path}"]
    command = ["/bin/sh", "-c", '"$@"; exit $?', "sh", *fuzz]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3_000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["inputs"] == 600 and told["slowest_s"] <= 1 and told["peak_mb"] <= 512
