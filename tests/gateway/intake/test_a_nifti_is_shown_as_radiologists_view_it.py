"""A NIfTI's voxels are stored in any order and direction; its pictures are those of the DICOMs."""

import asyncio
import contextlib
import gzip
import io
import itertools
import sys
import threading
import tracemalloc
import zipfile

import httpx
import nibabel
import numpy as np
import pytest
from nibabel.orientations import ornt_transform
from PIL import Image

from gateway.intake.series import nifti as series_nifti
from gateway.intake.series.nifti import Volume
from gateway.intake.series.pictures import pictures_of
from gateway.intake.series.room import ROOM
from gateway.intake.series.sources import sent
from gateway.refusals import Refused
from gateway.tables import Limits
from tests.conftest import picture
from tests.dicoms import AXIAL, dicom_of, stack

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


FILE = nifti().to_bytes()
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


@pytest.mark.parametrize("slices", ["2,15", "max", "average"])
@pytest.mark.parametrize(
    ("voxels", "slope", "intercept"),
    [
        (HEAD + 1e10, 1, 0),
        (HEAD * 1e300, 1, 0),
        (HEAD * 1e-300, 1, 0),
        (HEAD.astype("<f4") * 1e36, 1, 0),
        (HEAD.astype("<f4") * 1e-40, 1, 0),
        (HEAD.astype("<i4") + 2_000_000_000, 1, 0),
        (HEAD, 1e-7, 1e3),
        (HEAD, 1, np.inf),
        (HEAD, np.nan, 7),
        (HEAD, 0, 7),
    ],
    ids=["far", "huge", "tiny", "huge 4", "tiny 4", "far integers", "far scaled", "no intercept",
         "no slope", "slope 0"],
)  # fmt: skip
def test_numbers_of_any_size_are_told_apart_as_the_file_has_them(voxels, slope, intercept, slices):
    """The picture is the same wherever its numbers lie: single precision would make it black."""
    file = bytearray(nifti(voxels).to_bytes())
    file[112:120] = np.float32([slope, intercept]).tobytes()
    found, expected = (shown(bytes(each), slices=slices, window=None) for each in (file, FILE))
    for image, right in zip(found, expected, strict=True):
        assert np.abs(pixels(image).astype(int) - pixels(right)).max() <= 1


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


QFORM_CODE, QUATERNION, SFORM = 252, 256, 280  # the bytes where they stand


def lying(codes, quaternion=(0, 0, 0), sform=None):
    """A file that says how it lies by a qform, a sform, or both, each as it is written."""
    made = nifti()
    made.set_sform(np.eye(4), 1)
    file = bytearray(made.to_bytes())
    file[QFORM_CODE:QUATERNION] = np.array(codes, "<i2").tobytes()
    file[QUATERNION : QUATERNION + 12] = np.array(quaternion, "<f4").tobytes()
    if sform is not None:
        file[SFORM : SFORM + 48] = np.array(sform, "<f4").tobytes()
    return bytes(file)


NO_SPACE = [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]
UNKNOWN = "which side is the left is not known"


@pytest.mark.parametrize(
    ("file", "says"),
    [
        (lying((1, 1), quaternion=(np.nan, 0, 0)), ["qform of the file is no space"]),
        (lying((1, 1), sform=NO_SPACE), ["sform of the file is no space"]),
        (lying((1, 1), sform=[np.inf] * 12), ["sform of the file is no space"]),
        (lying((0, 1), sform=NO_SPACE), ["sform of the file is no space", UNKNOWN]),
        (
            lying((1, 1), quaternion=(0, np.inf, 0), sform=NO_SPACE),
            ["sform of the file is no space", "qform of the file is no space", UNKNOWN],
        ),
    ],
)
def test_a_form_that_is_no_space_is_left_out_and_told(file, says):
    """What is left says how the file lies; if nothing is, it is shown like one that never did."""
    expected = [image.identity for image in shown(lying((0, 0)) if UNKNOWN in says else FILE)]
    found = shown(file)
    faults = found[0].shown.series.faults
    assert [image.identity for image in found] == expected
    assert len(faults) == len(says)
    assert all(words in fault for words, fault in zip(says, faults, strict=True))


@pytest.mark.parametrize("length", [1, 1.000001, 1.5, 40])
def test_a_quaternion_that_is_too_long_is_a_half_turn(length):
    """As the standard's own code has it: here around z, so that right is left and front is back."""
    expected = [pixels(image)[::-1, ::-1] for image in shown(FILE)]
    for image, right in zip(shown(lying((1, 0), (0, 0, length))), expected, strict=True):
        assert (pixels(image) == right).all()


@pytest.mark.parametrize(
    ("at", "value"),
    [(108, np.float32(0)), (76, np.float32(0)), (72, np.int16(8)), (80, np.float32([-1, 1, 1]))],
    ids=["no offset", "no handedness", "other bits", "a negative length"],
)
def test_what_is_a_slip_in_the_header_is_read_as_it_was_meant(at, value):
    file = FILE[:at] + value.tobytes() + FILE[at + value.nbytes :]
    expected = [image.identity for image in shown(FILE)]
    assert [image.identity for image in shown(file)] == expected


PACKED = gzip.compress(FILE)
# Its shape is at byte 40: by this one it would be -1 byte long, which is all that is packed.
NEGATIVE = FILE[:40] + np.array([3, -353, 1, 1], "<i2").tobytes() + FILE[48:70]
NEGATIVE += np.array([2, 8], "<i2").tobytes() + FILE[74:]
# Neither sform nor qform, and voxels of a length that is none.
SPACELESS = FILE[:76] + np.float32([1, np.nan, 1, 1]).tobytes() + FILE[92:252] + bytes(76)
SPACELESS += FILE[328:]


@pytest.mark.parametrize(
    ("file", "says"),
    [
        (FILE[:-1], "The NIfTI cannot be decoded"),
        (FILE[:300], "The NIfTI cannot be decoded"),
        (PACKED[:-50], "The NIfTI cannot be decoded"),
        (PACKED[:-8] + bytes(4) + PACKED[-4:], "The NIfTI cannot be decoded"),  # its checksum
        (gzip.compress(FILE[:-9]), "The NIfTI cannot be decoded"),
        (gzip.compress(b"hello", mtime=0), "The gzip holds no NIfTI"),
        (FILE[:344] + b"ni1\0" + FILE[348:], "came without its voxels"),
        (SPACELESS, "The NIfTI cannot be decoded"),
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


def zip_of(**files):
    """Names in order; "__MACOSX" is what one finds in a Mac's."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return packed.getvalue()


@pytest.mark.parametrize("file", [FILE, PACKED], ids=["plain", "packed"])
def test_a_zip_may_hold_one(file):
    """What else is in it is told, and dropped."""
    expected = [image.identity for image in shown(FILE)]
    found = shown(zip_of(scan=file))
    assert [image.identity for image in found] == expected
    assert found[0].shown.series.faults == ()
    noted = shown(zip_of(__MACOSX=b"\0\5\x16\7", scan=file, notes=gzip.compress(b"hello there")))
    assert [image.identity for image in noted] == expected
    assert noted[0].shown.series.faults == ("2 files in the zip are no NIfTI, and left out.",)


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"a": FILE, "b": PACKED}, "holds 2 NIfTIs. Send one of them"),
        ({"a": FILE[:-1]}, "The NIfTI cannot be decoded"),
        ({"a": PACKED[:-50]}, "The NIfTI cannot be decoded"),
        ({"a": gzip.compress(nifti(np.zeros((900, 900, 9), "u1")).to_bytes())}, "over 2 MB"),
        ({"a": nifti(np.zeros((900, 900, 9), "u1")).to_bytes()}, "unpacks to over 2 MB"),
        ({"a": gzip.compress(b"hello")}, "no DICOM file and no NIfTI"),
        ({"header": FILE[:344] + b"ni1\0", "voxels": FILE[352:]}, "came without its voxels"),
    ],
)
def test_a_zip_of_something_else_is_refused_in_a_sentence(files, says):
    with pytest.raises(Refused, match=says):
        shown(zip_of(**files), max_series_mb=2)


def test_beside_dicoms_in_a_zip_it_is_left_out():
    files = {str(at): data for at, data in enumerate(stack(3))}
    found = shown(zip_of(scan=FILE, **files), slices="even")
    assert len(found) == 3
    assert "1 file in the zip is no DICOM image" in found[0].shown.series.faults[0]


def test_a_zips_wrong_checksum_is_found():
    data = bytearray(zip_of(scan=FILE))
    data[14:18] = data[data.rindex(b"PK\1\2") + 16 : data.rindex(b"PK\1\2") + 20] = b"\1\2\3\4"
    with pytest.raises(Refused, match="cannot be decoded"):
        shown(bytes(data))


@pytest.mark.parametrize("how", ["plain", "packed", "zipped", "packed and zipped"])
def test_a_volume_is_in_memory_once(how):
    """As it came, if that will do; else as it is unpacked, in pieces."""
    voxels = np.random.default_rng(0).integers(0, 9, (200, 200, 200)).astype("<i2")
    plain = nifti(voxels).to_bytes()
    packed = gzip.compress(plain, 1)
    file = {
        "plain": plain,
        "packed": packed,
        "zipped": zip_of(scan=plain),
        "packed and zipped": zip_of(scan=packed),
    }[how]
    limits = Limits()
    sent([FILE], limits)  # what is imported is not counted
    tracemalloc.start()
    source = sent([file], limits)
    _, before = tracemalloc.get_traced_memory()
    asyncio.run(source.file(0))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert before < 0.2 * len(plain)
    assert peak < (0.2 if how == "plain" else 1.5) * len(plain)


BIG = gzip.compress(nifti(np.zeros((200, 200, 40))).to_bytes())  # 12.8 MB


def test_it_is_given_up_in_the_midst_of_unpacking(monkeypatch):
    """When its time is over, or whoever asked has left: here as the fourth piece is to come."""
    beside, asked = series_nifti.off_loop, []

    async def off_loop(work):
        asked.append(getattr(work, "func", work).__name__)
        if asked.count("readinto") == 4:
            raise asyncio.CancelledError
        return await beside(work)

    monkeypatch.setattr(series_nifti, "off_loop", off_loop)
    monkeypatch.setattr(series_nifti, "PIECE", 100_000)
    with pytest.raises(asyncio.CancelledError):
        shown(BIG)
    assert asked.count("readinto") == 4 and asked[-1] == "readinto"


def test_those_of_several_callers_are_in_memory_together_as_far_as_one_may_be():
    """Of eight, of which two find room, the others wait for their turn."""
    limits, window = Limits(max_series_mb=30, series_s=600), (0.5, 1)

    async def all_at_once():
        read = (pictures_of(sent([BIG], limits), "1", window, 9, limits) for _ in range(8))
        return await asyncio.gather(*read)

    asyncio.run(all_at_once())  # what is imported is not counted
    tracemalloc.start()
    made = asyncio.run(all_at_once())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len({image.identity for [image] in made}) == 1
    assert peak < 4 * 12_800_000


def test_who_finds_no_room_in_time_is_told_to_come_again(monkeypatch):
    @contextlib.asynccontextmanager
    async def never(size, most):
        raise TimeoutError
        yield

    monkeypatch.setattr(ROOM, "of", never)
    with pytest.raises(Refused, match="Send yours again") as full:
        shown(BIG, slices="1")
    assert full.value.status == 503 and full.value.headers["retry-after"]


def test_what_finds_room_does_not_wait_for_what_does_not():
    async def meanwhile():
        limits, read = Limits(max_series_mb=15, series_s=600), []
        async with ROOM.of(10_000_000, 15_000_000):
            large = asyncio.ensure_future(pictures_of(sent([BIG], limits), "1", None, 9, limits))
            large.add_done_callback(lambda _: read.append("large"))
            await pictures_of(sent([PACKED], limits), "1", None, 9, limits)
            read.append("small")
        await large
        return read

    assert asyncio.run(meanwhile()) == ["small", "large"]


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
