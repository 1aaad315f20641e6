"""A series is sorted by where its slices lie, reduced to what the panel takes, and told."""

import asyncio
import base64
import io
import random
import tracemalloc
import zipfile

import httpx
import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import UID

from gateway.intake.series.order import arranged, chosen
from gateway.intake.series.sources import sent
from gateway.refusals import Refused
from gateway.tables import Limits
from tests.conftest import picture
from tests.dicoms import AXIAL, dicom_of, item, stack

SERIES = stack(9)
MANY_FRAMES = dicom_of(
    np.stack([np.full((16, 16), 10 * at, "<i2") for at in (2, 0, 1)]),
    NumberOfFrames=3,
    WindowCenter=128,
    WindowWidth=256,
    SharedFunctionalGroupsSequence=[
        item(PlaneOrientationSequence=[item(ImageOrientationPatient=AXIAL)])
    ],
    PerFrameFunctionalGroupsSequence=[
        item(PlanePositionSequence=[item(ImagePositionPatient=[0, 0, at])]) for at in (2, 0, 1)
    ],
)


def zip_of(files, compression=zipfile.ZIP_DEFLATED):
    """Their names tell nothing of their order, and one is a path out of the folder."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", compression) as archive:
        for name, data in files:
            archive.writestr(name, data)
    return packed.getvalue()


ZIP = zip_of([(f"../../{len(SERIES) - n}.dcm", data) for n, data in enumerate(SERIES)])

LARGE = dicom_of(np.full((99, 99), 7, "<i2"))
CHANGED = zip_of([("a", LARGE)], zipfile.ZIP_STORED).replace(LARGE[-64:], b"\1" * 64)
# One bit says it, of each file and in the directory.
ENCRYPTED = zip_of([("a", SERIES[0])]).replace(b"PK\1\2\x14\3\x14\0\0", b"PK\1\2\x14\3\x14\0\1")
# It says that it unpacks to a kilobyte.
LYING = zip_of([("a", LARGE + bytes(9_000_000))])
LYING = LYING.replace((len(LARGE) + 9_000_000).to_bytes(4, "little"), (1_000).to_bytes(4, "little"))
PATIENTS = zip_of([(each, dicom_of(np.zeros((16, 16), "<i2"), PatientID=each)) for each in "ab"])


def of_form(url, files, **fields):
    sent = [("images", ("a", data, "application/octet-stream")) for data in files]
    return httpx.post(f"{url}/vqa", data={"question": "q?", **fields}, files=sent, timeout=60)


@pytest.fixture
def worker(vllm):
    return vllm("yes")


@pytest.fixture
def url(worker, gateway):
    return gateway([worker], limits="max_slices = 50\nmax_series_mb = 1")


def seen(worker):
    """The grey that each picture of the last case is full of."""
    parts = worker.requests[-1]["messages"][-1]["content"]
    uris = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    pictures = [Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) for uri in uris]
    assert all(low == high for low, high in (each.getextrema() for each in pictures))
    return [each.getpixel((0, 0)) for each in pictures]


def told(response):
    assert response.status_code == 200, response.text
    return response.json()["images"]


def test_files_of_one_series_are_four_even_slices_from_one_end_to_the_other(url, worker):
    files = SERIES[:]
    random.Random(1).shuffle(files)
    images = told(of_form(url, files, slices="even", window="128,256"))
    assert seen(worker) == [10, 30, 50, 70]
    assert images[1] == {
        "frame": 1,
        "of": 1,
        "window": [128, 256],
        "converted": True,
        "series": {
            "first": 4,
            "last": 4,
            "of": 9,
            "projection": None,
            "faults": [],
            "study": None,
            "series": None,
            "instances": [],
        },
    }


@pytest.mark.parametrize(
    ("slices", "greys", "where"),
    [
        (None, [10, 30, 50, 70], [(2, 2), (4, 4), (6, 6), (8, 8)]),
        ("3-5", [20, 30, 40], [(3, 3), (4, 4), (5, 5)]),
        ("9, 2", [80, 10], [(9, 9), (2, 2)]),
        ("max", [80], [(1, 9)]),
        ("average 3-6", [35], [(3, 6)]),
    ],
)
def test_a_zip_is_a_series_and_slices_say_what_of_it(url, worker, slices, greys, where):
    sent = {"images": [base64.b64encode(ZIP).decode()], "slices": slices}
    images = told(httpx.post(f"{url}/vqa", json={"question": "q?", **sent}, timeout=60))
    assert seen(worker) == greys
    assert [(each["series"]["first"], each["series"]["last"]) for each in images] == where


def test_frames_of_one_file_are_sorted_by_their_positions(url, worker):
    told(of_form(url, [MANY_FRAMES], slices="1-3"))
    assert seen(worker) == [0, 10, 20]
    assert told(of_form(url, [MANY_FRAMES], slices="max 2-3"))[0]["series"]["projection"] == "max"
    assert seen(worker) == [20]
    assert "series" not in told(of_form(url, [MANY_FRAMES]))[0]


def test_what_is_padding_in_one_slice_is_seen_in_another(url, worker):
    padded = np.full((16, 16), -2000, "<i2")
    other = np.full((16, 16), 70, "<i2")
    shared = {"WindowCenter": 128, "WindowWidth": 256, "ImageOrientationPatient": AXIAL}
    files = [
        dicom_of(pixels, PixelPaddingValue=-2000, ImagePositionPatient=[0, 0, at], **shared)
        for at, pixels in enumerate((padded, other))
    ]
    told(of_form(url, files, slices="average"))
    assert seen(worker) == [70]


@pytest.mark.parametrize(
    ("second", "status"), [([0.7, 0.7], 200), ([0.7001, 0.7], 200), ([1.4, 0.7], 422), (None, 422)]
)
def test_slices_whose_pixels_are_of_another_size_make_no_slab(url, second, status):
    """Their rays would not meet. Alone each is shown as it is."""
    shared = {
        "StudyInstanceUID": "1.2",
        "SeriesInstanceUID": "1.3",
        "ImageOrientationPatient": AXIAL,
    }
    files = [
        dicom_of(
            np.full((16, 16), 7, "<i2"), ImagePositionPatient=[0, 0, at], PixelSpacing=mm, **shared
        )
        for at, mm in enumerate(([0.7, 0.7], second))
    ]
    response = of_form(url, files, slices="max")
    assert response.status_code == status
    assert status == 200 or "pixels of another size" in response.json()["detail"]
    assert of_form(url, files, slices="even").status_code == 200


def test_a_panel_gets_as_many_slices_as_a_quorum_of_it_takes(vllm, gateway):
    url = gateway(
        [vllm("yes"), vllm("yes")],
        panel="quorum = 2",
        seats=['languages = ["en"]\nmax_images = 3', 'languages = ["en"]\nmax_images = 2'],
    )
    assert len(told(of_form(url, SERIES, slices="even"))) == 2
    assert len(told(of_form(url, SERIES, slices="even", options='{"workers": ["w0"]}'))) == 3


def header(at, **tags):
    made = Dataset()
    made.ImagePositionPatient, made.ImageOrientationPatient = at, list(AXIAL)
    for name, value in tags.items():
        setattr(made, name, value)
    made.SOPClassUID = tags.get("SOPClassUID", "1.2.840.10008.5.1.4.1.1.2")
    return made


class Scan:
    """A series as scanners make them, in any direction, by any spacing, whatever the numbers say:
    shuffled, with one slice twice and one not at all, some tilted."""

    def __init__(self, seed: int):
        rng = np.random.default_rng(seed)
        turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        normal = np.cross(turn[0], turn[1])
        spacing, count = rng.uniform(0.5, 6), int(rng.integers(12, 60))
        self.lost = 5 + int(rng.integers(5))
        tilt = np.radians(rng.choice([0, 12]))
        way = spacing * (normal + np.tan(tilt) * turn[0])
        self.is_tilted = tilt > 0
        self.kept = [at for at in range(count) if at != self.lost]
        self.order = list(rng.permutation([*self.kept, self.kept[-1]]))
        self.tags = [
            {
                "ImagePositionPatient": list(rng.normal(size=3) * 1e-6 + at * way),
                "ImageOrientationPatient": [*turn[0], *turn[1]],
                "InstanceNumber": int(rng.integers(99)),
            }
            for at in self.order
        ]

    def check_faults(self, told):
        faults = " ".join(told)
        assert "1 slice is missing" in faults and f"behind {self.lost}." in faults
        assert "1 slice is left out" in faults
        assert ("tilted by 12°" in faults) == self.is_tilted


@pytest.mark.parametrize("seed", range(50))
def test_shuffled_tilted_doubled_and_missing_slices_are_ordered_and_told(seed):
    scan = Scan(seed)
    found = arranged([header(None, **tags) for tags in scan.tags], 100)
    assert [scan.order[each.file] for each in found.slices] == scan.kept
    scan.check_faults(found.faults)


@pytest.mark.parametrize("seed", range(5))
def test_so_they_are_in_a_zip_whose_names_tell_nothing(worker, gateway, seed):
    scan = Scan(seed)
    files = [
        dicom_of(np.full((16, 16), at, "<i2"), **tags)
        for at, tags in zip(scan.order, scan.tags, strict=True)
    ]
    packed = zip_of([(f"{at}.dcm", data) for at, data in enumerate(files)])
    images = told(of_form(gateway([worker]), [packed], window="128,256"))
    where = [each["series"]["first"] - 1 for each in images]
    assert len(where) == 4 and seen(worker) == [scan.kept[at] for at in where]
    scan.check_faults(images[0]["series"]["faults"])


SCOUT = ["ORIGINAL", "PRIMARY", "LOCALIZER"]


@pytest.mark.parametrize(
    "tags",
    [{"Rows": 9}, {"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, {"ImagePositionPatient": None}],
)
def test_a_localiser_is_no_part_of_the_stack(tags):
    """However it lies; alone it is what was asked about."""
    scout = header([0, 0, 9], ImageType=SCOUT, InstanceNumber=0, **tags)
    found = arranged([header([0, 0, 0], Rows=8), scout, header([0, 0, 1], Rows=8)], 100)
    assert [each.file for each in found.slices] == [0, 2]
    assert found.faults == ("1 localiser is left out.",)
    assert len(arranged([scout], 100).slices) == 1


@pytest.mark.parametrize(
    ("tags", "by"),
    [
        ([{"EchoNumbers": 1}, {"EchoNumbers": 2}], r"(0018,0086) Echo Number(s)."),
        ([{"EchoTime": 2.5}, {"EchoTime": 80}, {"EchoTime": 160}], "(0018,0081) Echo Time."),
        ([{"AcquisitionNumber": 1}, {"AcquisitionNumber": 2}], "(0020,0012) Acquisition Number."),
        ([{"ImageType": ["A", "B", "M"]}, {"ImageType": ["A", "B", "P"]}], "Image Type."),
        (
            [{"EchoNumbers": e, "TriggerTime": t} for e in (1, 2) for t in (0, 40)],
            "Echo Number(s) and (0018,1060) Trigger Time.",
        ),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_of_several_stacks_at_the_same_places_the_first_is_shown(tags, by, seed):
    """Slices of two echoes, or of two phases, are never mixed."""
    made = [(stack, at) for stack in range(len(tags)) for at in range(6)]
    random.Random(seed).shuffle(made)
    headers = [
        header([0, 0, 2 * at], InstanceNumber=6 * stack + at, **tags[stack]) for stack, at in made
    ]
    found = arranged(headers, 100)
    assert [made[each.file] for each in found.slices] == [(0, at) for at in range(6)]
    [told] = found.faults
    assert told.startswith("Several stacks lie at the same places") and told.endswith(by)


def test_acquisitions_that_overlap_are_one_stack():
    headers = [header([0, 0, at], AcquisitionNumber=1) for at in range(5)]
    headers += [header([0, 0, at], AcquisitionNumber=2) for at in range(4, 8)]
    found = arranged(headers, 100)
    assert len(found.slices) == 8
    assert found.faults == ("1 slice is left out: each lies where another does.",)


def test_of_frames_their_functional_groups_tell_the_stacks_apart():
    groups = [
        item(
            PlanePositionSequence=[item(ImagePositionPatient=[0, 0, at])],
            FrameContentSequence=[item(TemporalPositionIndex=phase)],
        )
        for at in range(3)
        for phase in (1, 2)
    ]
    enhanced = header(None, NumberOfFrames=6, PerFrameFunctionalGroupsSequence=groups)
    found = arranged([enhanced], 100)
    assert [each.frame for each in found.slices] == [1, 3, 5]
    assert "(0020,9128) Temporal Position Index" in found.faults[0]


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ([header([0, 0, 0], PatientID="A"), header([0, 0, 1], PatientID="B")], "several patients"),
        ([header([0, 0, 0], SeriesInstanceUID="1.2"), header([0, 0, 1])], "several series"),
        ([header([0, 0, 0], FrameOfReferenceUID="1.2"), header([0, 0, 1])], "frames of reference"),
        ([header([0, 0, 0], Rows=9), header([0, 0, 1], Rows=8)], "unequal sizes"),
        ([header([0, 0, 0]), header(None)], "1 of 2 slices do not say where they lie"),
        (
            [header([0, 0, 0]), header([0, 0, 1], ImageOrientationPatient=None)],
            r"\(0020,0037\) Image Orientation",
        ),
        ([header([0, 0, 0], Modality="CT"), header([0, 0, 1], Modality="PT")], "modalities"),
        (
            [header([0, 0, 0], PatientID="A"), header([0, 0, 1], PatientID="B", ImageType=SCOUT)],
            "several patients",
        ),
        (
            [header([0, 0, 0]), header([0, 0, 1], ImageOrientationPatient=[0, 1, 0, 0, 0, 1])],
            "not parallel",
        ),
        ([header([0, 0, 0], ImageOrientationPatient=[1, 0, 0, 1, 0, 0])], "holds no directions"),
        ([header([0, 0, 0], SOPClassUID="1.2.840.10008.5.1.4.1.1.88.22")], "Enhanced SR"),
        ([header([0, 0, 0], NumberOfFrames=5000)], "5000 slices; send at most 100"),
    ],
)
def test_what_is_no_series_is_refused_in_a_sentence(headers, says):
    with pytest.raises(Refused, match=says):
        arranged(headers, 100)


def test_slices_without_places_are_in_the_order_of_their_numbers_and_make_no_slab():
    found = arranged([header(None, InstanceNumber=n) for n in (3, 1, 2)], 100)
    assert [each.file for each in found.slices] == [1, 2, 0]
    assert "No slice says where it lies" in found.faults[0]
    with pytest.raises(Refused, match="lie behind each other"):
        chosen("max", found, 4, 4)


def test_a_place_of_the_whole_file_is_no_place_of_each_frame():
    """As of a tomogram of nuclear medicine: none is left out, as if it lay where the first does."""
    found = arranged([header([0, 0, 0], NumberOfFrames=3)], 100)
    assert [each.frame for each in found.slices] == [1, 2, 3]
    assert "No slice says where it lies" in found.faults[0]


@pytest.mark.parametrize(
    ("files", "fields", "status", "says"),
    [
        (SERIES[:2], {"slices": "12"}, 422, "the series has 2 slices; send numbers from 1 to 2."),
        (SERIES[:2], {"slices": "2-1"}, 422, "the range ends before it begins"),
        (SERIES, {"slices": "1,2,3,4,5"}, 413, "5 of them; send at most 4"),
        (SERIES, {}, 413, "9 images; send at most 4. Of one series, send slices too."),
        (SERIES[:2], {"slices": "even", "frame": "1"}, 422, "Leave frame out"),
        ([picture()], {"slices": "even"}, 422, "File 1 of 1 is no DICOM"),
        ([ZIP, SERIES[0]], {}, 422, "is sent alone"),
        ([zip_of([("a.txt", b"no")])], {}, 400, "holds no DICOM file"),
        ([zip_of([])], {}, 400, "holds no DICOM file"),
        ([zip_of([("in.zip", ZIP)])], {}, 400, "holds no DICOM file"),
        ([ENCRYPTED], {}, 400, "is encrypted"),
        ([LYING], {}, 400, "damaged or cut short"),
        ([PATIENTS], {}, 422, "several patients"),
        ([CHANGED], {}, 400, "File 1 of 1 cannot be decoded"),
        ([ZIP[:-30]], {}, 400, "damaged or cut short"),
        ([zip_of([("a", bytes(2_000_000))])], {}, 413, "unpacks to over 1 MB"),
        ([b"PK\3\4" + b"PK\1\2" * 5_000], {}, 413, "holds over 1050 files"),
        ([zip_of([("a", b"")], zipfile.ZIP_BZIP2)], {}, 400, "packed in a rare way"),
        (SERIES[:1] * 51, {"slices": "even"}, 413, "51 files; send at most 50"),
        (SERIES[:1], {"dicomweb": '{"study": "1.2"}'}, 422, "in the place of images"),
        ([b""] * 1_051, {"slices": "even"}, 413, "over 1050 files"),
    ],
)
def test_bad_series_are_refused_in_a_sentence(url, files, fields, status, says):
    response = of_form(url, files, **fields)
    assert (response.status_code, says in response.json()["detail"]) == (status, True), (
        response.text
    )


@pytest.mark.parametrize(
    ("patients", "status"), [(("A", "B"), 422), (("A", "A "), 200), (("A", ""), 200)]
)
def test_pictures_of_their_own_are_of_one_patient_too(url, patients, status):
    """By what those say that name one."""
    files = [dicom_of(np.full((16, 16), 7, "<i2"), PatientID=each) for each in patients]
    response = of_form(url, [*files, picture()])
    assert response.status_code == status
    assert status == 200 or "are of several patients" in response.json()["detail"]


# What a zip packs into nothing, and what grows when it is taken apart: a sequence of known length,
# one of items without end, elements, and a value.
FRAMES, ITEM = b"\x00\x52\x30\x92SQ\0\0", b"\xfe\xff\x00\xe0\0\0\0\0"


@pytest.mark.parametrize(
    "more",
    [
        FRAMES + (1_600).to_bytes(4, "little") + 200 * ITEM,
        FRAMES + b"\xff\xff\xff\xff" + 200 * ITEM + b"\xfe\xff\xdd\xe0\0\0\0\0",
        b"\x09\x53\x10\0LO\0\0" * 1_000,
        FRAMES + (600_000).to_bytes(4, "little") + bytes(600_000),
    ],
)
@pytest.mark.parametrize("packed", [True, False])
def test_a_header_without_end_is_not_taken_apart(url, monkeypatch, more, packed):
    monkeypatch.setattr("gateway.intake.dicom.file.MAX_PIECES", 900)
    pixels = b"\xe0\x7f\x10\0"
    endless = SERIES[0].replace(pixels, more + pixels)
    sent = zip_of([("1", SERIES[1]), ("2", endless)]) if packed else endless
    response = of_form(url, [sent], slices="even")
    assert (response.status_code, "header" in response.json()["detail"]) == (413, True)


@pytest.mark.parametrize(
    ("syntax", "status"), [("1.2.840.10008.1.2.1", 200), ("1.2.840.10008.1.2.4.80", 413)]
)
def test_pixels_may_look_like_items(url, monkeypatch, syntax, status):
    """Plain ones are none, however they look; those that are compressed would be taken apart."""
    monkeypatch.setattr("gateway.intake.dicom.file.MAX_PIECES", 900)
    pixels = np.frombuffer(256 * ITEM, "<i2").reshape(32, 32)
    made = dicom_of(pixels, syntax=UID(syntax))
    assert of_form(url, [made], slices="1").status_code == status


def test_what_a_mac_or_a_name_adds_to_a_zip_loses_no_slice(url):
    """A name that ends like a folder's may be a file's."""
    names = [("s/1", SERIES[0]), ("2/", SERIES[1]), ("/3", SERIES[2]), ("../4", SERIES[3])]
    fork = [("__MACOSX/s/._1", b"\0\5\x16\7" + bytes(100)), ("s/.DS_Store", b"Bud1"), ("s/", b"")]
    [first, *rest] = told(of_form(url, [zip_of([*fork, *names])]))
    assert len(rest) == 3
    assert first["series"]["faults"] == ["2 files in the zip are no DICOM image, and left out."]


def test_files_beside_a_series_are_left_out_and_told(url):
    directory = dicom_of(np.zeros((16, 16), "u1"), SOPClassUID="1.2.840.10008.1.3.10")
    names = [("DICOMDIR", directory), ("readme", b"hello"), ("1", SERIES[0]), ("2", SERIES[1])]
    [first, _] = told(of_form(url, [zip_of(names)]))
    assert first["series"]["faults"] == ["2 files in the zip are no DICOM image, and left out."]
    [first, _] = told(of_form(url, [zip_of(names[1:])]))
    assert first["series"]["faults"] == ["1 file in the zip is no DICOM image, and left out."]


def test_a_form_holds_as_many_files_as_a_series_may_have_slices(vllm, gateway):
    """Each with its window, if one likes."""
    url = gateway([vllm("yes")], limits="max_slices = 1200")
    response = of_form(url, [b""] * 1_100, slices="even", window=["lung"] * 1_100)
    assert "File 1 of 1100 is no DICOM" in response.json()["detail"]


@pytest.mark.parametrize("pack", [lambda data: zip_of([("a", data)]), bytes], ids=["zip", "file"])
def test_a_file_is_in_memory_once_when_it_was_read(pack):
    """One that is not packed as it was sent, and no more while it is read."""
    frames = np.random.default_rng(0).integers(0, 9, (40, 256, 256)).astype("<i2")
    data = dicom_of(frames, NumberOfFrames=40)
    source = sent([pack(data)], Limits())

    async def read():
        await source.headers()
        tracemalloc.start()
        header = await source.file(0)
        now, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return header, now, most

    header, now, most = asyncio.run(read())
    assert (now if pack is not bytes else most + frames.nbytes) < 1.2 * frames.nbytes
    assert header.NumberOfFrames == 40
    assert np.array_equal(np.frombuffer(header.PixelData, "<i2"), frames.ravel())
