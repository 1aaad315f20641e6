"""A NIfTI's voxels are stored in any order and direction; its pictures are those of the DICOMs."""

import asyncio
import contextlib
import gzip
import io
import itertools
import sys
import threading

import httpx
import nibabel
import numpy as np
import pytest
from nibabel.orientations import ornt_transform
from PIL import Image

from gateway.intake.series.nifti import Volume
from gateway.intake.series.pictures import pictures_of
from gateway.intake.series.sources import sent
from gateway.refusals import Refused
from gateway.tables import Limits
from tests.conftest import picture
from tests.dicoms import AXIAL, dicom_of

# Of a head: x grows to its right, y to its front, z to its top.
SHAPE = (20, 18, 16)
RIGHT, FRONT, TOP = (np.arange(length) >= length // 2 for length in SHAPE)
HEAD = (100 * RIGHT[:, None, None] + 50 * FRONT[:, None] + 25 * TOP).astype("<i2")
WINDOW = (87.5, 175)


def nifti(voxels=HEAD, steps=(1, 1, 1), kind=nibabel.Nifti1Image, **header):
    """Its axes are x, y and z, in this order and direction."""
    made = kind(voxels, np.diag([*steps, 1]))
    for name, value in header.items():
        made.header[name] = value
    return made


def shown(*files, slices="2,15", window=WINDOW, **limits):
    """What the workers get."""
    allowed = Limits(**limits)
    return asyncio.run(pictures_of(sent(files, allowed), slices, window, 99, allowed))


def pixels(image):
    return np.asarray(Image.open(io.BytesIO(image.data)))


def grey(right, front, top):
    return round((100 * right + 50 * front + 25 * top) / 175 * 255)


ALL, LEFT, BACK, LOW = (grey(*on) for on in ((1, 1, 1), (0, 1, 1), (1, 0, 1), (1, 1, 0)))


@pytest.mark.parametrize(
    ("steps", "last", "size", "corners"),
    [
        ((1, 1, 1), "16", (18, 20), [ALL, LEFT, BACK]),  # axial, from the feet up
        ((1, 1, 4), "16", (18, 20), [ALL, LEFT, BACK]),
        ((1, 4, 1), "1", (16, 20), [ALL, LEFT, LOW]),  # coronal, from the front
        ((4, 1, 1), "20", (16, 18), [ALL, BACK, LOW]),  # sagittal, from the left
    ],
)
def test_the_right_is_on_the_left_and_the_front_or_the_head_at_the_top(steps, last, size, corners):
    """Of axial slices, but where those of another plane are thicker."""
    [image] = shown(nifti(steps=steps).to_bytes(), slices=last)
    found = pixels(image).astype(int)
    assert found.shape == size
    assert [found[0, 0], found[0, -1], found[-1, 0]] == pytest.approx(corners, abs=1)


def test_it_shows_what_the_dicoms_of_the_same_volume_show():
    """Slice by slice: what is the left, the front and the first is the same to both."""
    files = [
        dicom_of(
            np.ascontiguousarray(HEAD[::-1, ::-1, z].T),
            ImagePositionPatient=[-19, -17, z],
            ImageOrientationPatient=AXIAL,
            StudyInstanceUID="1.2",
            SeriesInstanceUID="1.2.3",
        )
        for z in range(16)
    ]
    ours, theirs = (shown(*each, slices="even") for each in ([nifti().to_bytes()], files))
    assert [image.identity for image in ours] == [image.identity for image in theirs]


WAYS = itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3))


def test_it_is_the_same_however_its_voxels_are_stored():
    """In all 48 orders and directions that an affine can tell."""
    expected = [image.identity for image in shown(nifti().to_bytes())]
    canonical = [[0, 1], [1, 1], [2, 1]]
    for axes, ways in WAYS:
        way = ornt_transform(canonical, [*zip(axes, ways, strict=True)])
        stored = nifti().as_reoriented(way).to_bytes()
        assert [image.identity for image in shown(stored)] == expected, (axes, ways)


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("dtype", ["<i2", ">i2", "u1", "<f8"])
@pytest.mark.parametrize("packed", [True, False])
def test_both_versions_any_numbers_plain_or_packed(kind, dtype, packed):
    expected = [image.identity for image in shown(nifti().to_bytes())]
    file = nifti(HEAD.astype(dtype), kind=kind).to_bytes()
    assert [i.identity for i in shown(gzip.compress(file) if packed else file)] == expected


def test_voxels_are_scaled_and_shown_as_the_file_says():
    """A slab of them is made as of a DICOM, in the file's own range where no window is asked."""
    made = nifti(HEAD // 25, cal_min=0, cal_max=175)
    made.header.set_slope_inter(25, 0)
    file = bytearray(made.to_bytes())
    file[112:116] = np.float32(25).tobytes()  # nibabel scales anew what it writes
    [slab] = shown(bytes(file), slices="max", window=None)
    assert slab.shown.window == WINDOW
    assert np.unique(pixels(slab)).astype(int) == pytest.approx(
        [grey(*on) for on in ((0, 0, 1), (0, 1, 1), (1, 0, 1), (1, 1, 1))], abs=1
    )


@pytest.mark.parametrize(("low", "high"), [(0, np.inf), (np.nan, np.nan), (9, 0)])
def test_a_range_that_is_none_is_not_the_files_own(low, high):
    expected = [image.identity for image in shown(FILE, window=None)]
    file = FILE[:124] + np.float32([high, low]).tobytes() + FILE[132:]
    assert [image.identity for image in shown(file, window=None)] == expected


@pytest.mark.parametrize(
    ("codes", "flipped", "says"),
    [
        ((0, 0), False, "which side is the left is not known"),
        ((1, 1), True, "says twice how it lies"),
        ((1, 1), False, ""),
        ((1, 0), False, ""),
    ],
)
def test_what_is_not_sure_of_left_and_right_is_told(codes, flipped, says):
    made = nifti()
    made.set_qform(np.diag([-1 if flipped else 1, 1, 1, 1]), codes[0])
    made.set_sform(np.diag([1, 1, 1, 1]), codes[1])
    faults = shown(made.to_bytes())[0].shown.series.faults
    assert len(faults) == bool(says) and says in "".join(faults)


FILE = nifti().to_bytes()
PACKED = gzip.compress(FILE)
# Its shape is at byte 40: by this one it would be -1 byte long, which is all that is packed.
NEGATIVE = FILE[:40] + np.array([3, -353, 1, 1], "<i2").tobytes() + FILE[48:70]
NEGATIVE += np.array([2, 8], "<i2").tobytes() + FILE[74:]
# Of its sform, whose last row is at byte 312.
SPACELESS = [FILE[:312] + np.float32([0, 0, z, 0]).tobytes() + FILE[328:] for z in (0, np.nan)]


@pytest.mark.parametrize(
    ("file", "says"),
    [
        (FILE[:-1], "The NIfTI cannot be decoded"),
        (FILE[:300], "The NIfTI cannot be decoded"),
        (PACKED[:-50], "The NIfTI cannot be decoded"),
        (PACKED[:-8] + bytes(4) + PACKED[-4:], "The NIfTI cannot be decoded"),  # its checksum
        (gzip.compress(FILE[:-9]), "The NIfTI cannot be decoded"),
        (gzip.compress(b"hello"), "The gzip holds no NIfTI"),
        (FILE[:344] + b"ni1\0" + FILE[348:], "came without its voxels"),
        (SPACELESS[0], "The NIfTI cannot be decoded"),
        (SPACELESS[1], "The NIfTI cannot be decoded"),
        (nifti(np.zeros((4, 4, 4, 3), "u1")).to_bytes(), "holds 3 volumes"),
        (nifti(np.zeros((4, 4, 4), "<c8")).to_bytes(), "colours or complex numbers"),
        (nifti(np.zeros((2001, 1, 1), "u1")).to_bytes(), "2001 slices; send at most 2000"),
        (gzip.compress(nifti(np.zeros((900, 900, 9), "u1")).to_bytes()), "over 2 MB"),
    ],
)
def test_one_that_is_none_is_refused_in_a_sentence(file, says):
    with pytest.raises(Refused, match=says):
        shown(file, max_series_mb=2)


@pytest.mark.parametrize("bytes_packed", [FILE, NEGATIVE])
def test_no_more_is_unpacked_than_the_file_says(bytes_packed, monkeypatch):
    """Else a megabyte could become the machine's whole memory."""
    read, asked = gzip.GzipFile.read, []
    monkeypatch.setattr(gzip.GzipFile, "read", lambda file, n=-1: asked.append(n) or read(file, n))
    with contextlib.suppress(Refused):
        shown(gzip.compress(bytes_packed + bytes(10_000)))
    assert all(0 <= size <= len(FILE) + 1 for size in asked) and asked


def test_its_slices_are_made_beside_the_event_loop(monkeypatch):
    header, threads = Volume._header, []
    note = lambda volume, at: threads.append(threading.current_thread()) or header(volume, at)  # noqa: E731
    monkeypatch.setattr(Volume, "_header", note)
    shown(FILE)
    assert threads and threading.main_thread() not in threads


@pytest.fixture
def ask(vllm, gateway):
    url = gateway([vllm("yes")])
    return lambda *files, **fields: httpx.post(
        f"{url}/vqa",
        data={"question": "q?", **fields},
        files=[("images", ("a", file)) for file in files],
        timeout=60,
    )


def test_a_case_may_be_one(ask):
    """Whatever else is said, it is a series; and it is sent alone."""
    response = ask(gzip.compress(FILE))
    series = [image["series"] for image in response.json()["images"]]
    assert [(each["first"], each["of"]) for each in series] == [
        (3, 16),
        (7, 16),
        (11, 16),
        (15, 16),
    ]
    response = ask(FILE, picture())
    assert response.status_code == 422 and "is sent alone" in response.json()["detail"]


def test_without_nibabel_it_is_told(ask, monkeypatch):
    monkeypatch.setitem(sys.modules, "nibabel", None)
    monkeypatch.delitem(sys.modules, "gateway.intake.series.nifti", raising=False)
    response = ask(FILE)
    assert response.status_code == 415 and "reads no NIfTI" in response.json()["detail"]
