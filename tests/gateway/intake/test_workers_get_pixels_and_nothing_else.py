"""Whatever was sent, workers get a plain JPEG or PNG: upright, as a viewer shows it, no header."""

import base64
import contextlib
import hashlib
import io
import random
import struct
import subprocess
import sys
import zlib
from typing import Any

import httpx
import numpy as np
import pydicom
import pytest
from PIL import Image, PngImagePlugin
from pydicom.data import get_testdata_file

from gateway.intake.pixels import only_pixels, undecoded
from gateway.intake.raster import wholeness
from gateway.intake.raster.stripping import strip_jpeg, strip_png
from gateway.refusals import Refused, TooLarge
from tests.conftest import picture

NAME = "Doe^Jane"


def converted(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(only_pixels(data, "Image 1 of 1").data))


def file_of(image: Image.Image, kind: str, **how: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **how)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_every_format_keeps_its_pixels(kind, mode):
    """WebP has no grey; nothing is lost in any of them."""
    data = picture(mode, kind=kind)
    image = converted(data)
    assert image.format == ("JPEG" if kind == "JPEG" else "PNG") and image.mode in ("L", "RGB")
    before = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert (np.asarray(image.convert("RGB")) == before).all()


def test_an_image_is_turned_upright():
    """A phone writes how it was held into EXIF; a model sees only pixels."""
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = Image.open(io.BytesIO(picture(size=(40, 20))))
    image = converted(file_of(lying, "JPEG", exif=exif))
    assert image.size == (20, 40)


def test_alpha_and_palettes_are_flattened_on_black():
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert converted(file_of(clear, "PNG")).getpixel((0, 0)) == (0, 0, 0)
    red = Image.new("RGB", (4, 4), (255, 0, 0)).convert("P")
    assert converted(file_of(red, "PNG")).getpixel((0, 0)) == (255, 0, 0)


def test_sixteen_bits_are_stretched_to_eight():
    """Twelve bits stored in sixteen would look black if they were merely cut."""
    deep = Image.fromarray(np.linspace(0, 4095, 64, dtype=np.uint16).reshape(8, 8))
    image = converted(file_of(deep, "PNG"))
    assert image.mode == "L" and image.getextrema() == (0, 255)


def test_metadata_stays_behind():
    """EXIF, text chunks and profiles can name a patient as well as a DICOM header can."""
    info = PngImagePlugin.PngInfo()
    info.add_text("Patient", NAME)
    exif = Image.Exif()
    exif[0x010E] = NAME
    plain = Image.open(io.BytesIO(picture("RGB")))
    for data in (
        file_of(plain, "PNG", pnginfo=info, exif=exif, icc_profile=NAME.encode()),
        file_of(plain, "JPEG", exif=exif, comment=NAME),
    ):
        kept = only_pixels(data, "Image 1 of 1").data
        assert NAME.encode() in data and NAME.encode() not in kept
        assert not Image.open(io.BytesIO(kept)).info


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (61, 83, 3), dtype=np.uint8))


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize(
    "how",
    [
        {"format": "JPEG"},
        {"format": "JPEG", "progressive": True, "optimize": True},
        {"format": "JPEG", "restart_marker_blocks": 3},
        {"format": "JPEG", "quality": 100, "icc_profile": NAME.encode(), "comment": NAME},
        {"format": "PNG", "icc_profile": NAME.encode()},
    ],
    ids=["baseline", "progressive", "restarts", "profile", "png"],
)
def test_a_plain_file_is_passed_on_undecoded(mode, how):
    """Twenty times as fast, and not one pixel is another; what follows its end stays behind."""
    whole = file_of(NOISE.convert(mode), how["format"], **{k: how[k] for k in how if k != "format"})
    strip = strip_jpeg if how["format"] == "JPEG" else strip_png
    stripped = strip(whole + NAME.encode())
    assert stripped and stripped[1:] == NOISE.size and NAME.encode() not in stripped[0]
    before, after = (Image.open(io.BytesIO(data)) for data in (whole, stripped[0]))
    assert before.mode == after.mode == mode
    assert (np.asarray(before) == np.asarray(after)).all()
    assert only_pixels(whole, "Image 1 of 1").data == stripped[0]


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


ROWS = b"".join(b"\0" + row.tobytes() for row in np.asarray(NOISE.convert("L")))
HEAD, NO_END = struct.pack(">IIBBBBB", *NOISE.size, 8, 0, 0, 0, 0), chunk(b"IEND", b"")


def png(*idat: bytes, head: bytes = HEAD, end: bytes = NO_END) -> bytes:
    parts = b"".join(chunk(b"IDAT", each) for each in idat)
    return wholeness.PNG_SIGNATURE + chunk(b"IHDR", head) + parts + end


@pytest.mark.parametrize(
    "hidden",
    [
        lambda name: png(zlib.compress(ROWS) + name),
        lambda name: png(zlib.compress(ROWS), name),
        lambda name: png(zlib.compress(ROWS + name, 0)),
        lambda name: png(zlib.compress(ROWS), head=HEAD + name),
        lambda name: png(zlib.compress(ROWS), end=chunk(b"IEND", name)),
    ],
    ids=["behind the stream", "a chunk more", "behind the rows", "in the head", "in the end"],
)
def test_what_stands_beside_a_pngs_pixels_stays_behind(hidden):
    """So does what it makes of the image's identity."""
    kept = {only_pixels(hidden(name), "Image 1 of 1").data for name in (b"Doe^Jane", b"Roe^Rich")}
    assert len(kept) == 1 and b"Doe^Jane" not in kept.pop()
    plain = png(zlib.compress(ROWS)[:99], b"", zlib.compress(ROWS)[99:])
    assert only_pixels(plain, "Image 1 of 1").data == plain  # as it is, in however many chunks


def segment(mark: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, mark, len(body) + 2) + body


TABLE, CODES = (
    bytes(range(1, 65)),
    bytes([0, 2, *[0] * 14, 0, 1]),
)  # odd, and valid


@pytest.mark.parametrize(
    "hidden",
    [
        segment(0xDD, b"\0\0" + NAME.encode()),
        segment(0xDD, b"Do") + segment(0xDD, b"\0\0"),
        segment(0xDB, b"\x03" + TABLE),
        segment(0xDB, b"\x00" + TABLE),  # in whose place another comes
        segment(0xDB, b"\x00" + TABLE + NAME.encode()),
        segment(0xC4, b"\x13" + CODES),
        segment(0xC4, b"\x00" + CODES),
        segment(0xC4, b"\x00" + CODES + NAME.encode()),
    ],
)
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_with_tables_that_no_pixel_needs_is_not_passed_on(hidden, progressive):
    whole = file_of(NOISE, "JPEG", progressive=progressive)
    assert strip_jpeg(whole[:2] + hidden + whole[2:]) is None
    assert strip_jpeg(whole[:-2] + hidden + whole[-2:]) is None
    with contextlib.suppress(Refused):  # a decoder wants lengths to be right, too
        kept = only_pixels(whole[:2] + hidden + whole[2:], "Image 1 of 1")
        assert kept.shown.converted and kept.data.startswith(wholeness.PNG_SIGNATURE)


@pytest.mark.parametrize("mark", [0xC0, wholeness.SCAN])
def test_a_jpeg_with_a_header_that_is_too_long_is_not_passed_on(mark):
    whole = file_of(NOISE, "JPEG")
    at = whole.index(bytes([0xFF, mark]))
    length = int.from_bytes(whole[at + 2 : at + 4], "big")
    longer = segment(mark, whole[at + 4 : at + 2 + length] + NAME.encode())
    assert strip_jpeg(whole) and strip_jpeg(whole[:at] + longer + whole[at + 2 + length :]) is None


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize(
    ("kind", "how", "mode"),
    [
        ("JPEG", {"exif": turned(3)}, "RGB"),
        ("JPEG", {"xmp": b"<x tiff:Orientation='6'/>"}, "RGB"),
        ("JPEG", {}, "CMYK"),
        ("PNG", {"exif": turned(3)}, "RGB"),
        ("PNG", {"transparency": (0, 0, 0)}, "RGB"),
        ("PNG", {}, "P"),
        ("PNG", {}, "RGBA"),
        ("PNG", {}, "I;16"),
        ("PNG", {}, "1"),
    ],
)
def test_everything_else_is_decoded(kind, how, mode):
    image = NOISE.convert("I").convert("I;16") if mode == "I;16" else NOISE.convert(mode)
    data = file_of(image, kind, **how)
    assert strip_jpeg(data) is None if kind == "JPEG" else strip_png(data) is None
    assert converted(data).format == "PNG"


@pytest.mark.parametrize(("kind", "strip"), [("JPEG", strip_jpeg), ("PNG", strip_png)])
def test_a_file_that_ends_early_is_not_passed_on(kind, strip):
    """Every length: its structure is walked to its end, and its pixels are counted. A JPEG's last
    mark holds none."""
    whole = picture("RGB", kind=kind)
    needed = len(whole) - (2 if kind == "JPEG" else 0)
    assert strip(whole) and undecoded(whole[:needed], "Image 1 of 1")
    for length in range(needed):
        with contextlib.suppress(Refused):
            assert undecoded(whole[:length], "Image 1 of 1") is None


@pytest.mark.parametrize(("kind", "check"), [("JPEG", "check_jpeg"), ("PNG", "png_rows")])
def test_it_is_read_to_its_last_bit_once_if_it_is_whole_and_else_each_time(
    kind, check, monkeypatch
):
    read, reader = [], getattr(wholeness, check)
    monkeypatch.setattr(wholeness, check, lambda data: read.append(len(data)) or reader(data))
    whole = file_of(Image.effect_noise((64, 64), 90), kind)  # most of it is its pixels
    damaged = whole[: -len(whole) // 4]

    assert undecoded(whole, "Image 1 of 1") == undecoded(whole, "Image 1 of 1")
    assert len(read) == 1
    for _ in range(2):
        with pytest.raises(Refused):
            only_pixels(damaged, "Image 1 of 1")
    assert undecoded(whole, "Image 1 of 1") and len(read) == 3


def test_a_bomb_is_refused_undecoded_too():
    """A picture of a hundred million pixels is a few kilobytes of JPEG."""
    data = bytearray(picture("RGB", kind="JPEG"))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 10_000, 10_000)
    assert strip_jpeg(bytes(data))
    with pytest.raises(TooLarge, match="50 million pixels"):
        only_pixels(bytes(data), "Image 1 of 1")


def test_a_bomb_of_every_other_kind_is_refused():
    """A WebP and a DICOM of 64 million pixels, which are not there."""
    webp = io.BytesIO()
    Image.new("RGB", (8, 8)).save(webp, "WEBP", lossless=True)
    data = bytearray(webp.getvalue())
    size = data.index(b"VP8L") + 9  # 14 bits each of width and height, less one
    (bits,) = struct.unpack_from("<I", data, size)
    struct.pack_into("<I", data, size, bits >> 28 << 28 | 7_999 << 14 | 7_999)
    dicom = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    dicom.Rows = dicom.Columns = 8_000
    dicom.BitsAllocated = dicom.BitsStored = 8
    file = io.BytesIO()
    dicom.save_as(file)
    for bomb in (bytes(data), file.getvalue()):
        with pytest.raises(TooLarge, match="50 million pixels"):
            only_pixels(bomb, "Image 1 of 1")


def test_no_dicom_header_passes():
    header = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    header.PatientName = NAME
    file = io.BytesIO()
    header.save_as(file)
    assert NAME.encode() in file.getvalue()
    assert NAME.encode() not in only_pixels(file.getvalue(), "Image 1 of 1").data


def dicom_of(pixels: np.ndarray, **tags: Any) -> bytes:
    header = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    for tag in ("RescaleSlope", "RescaleIntercept", "SmallestImagePixelValue", "PixelPaddingValue"):
        if tag in header:
            delattr(header, tag)
    header.Rows, header.Columns = pixels.shape[-2:]
    header.PixelRepresentation = 0
    header.PixelData = pixels.astype("<u2").tobytes()
    for tag, value in tags.items():
        setattr(header, tag, value)
    file = io.BytesIO()
    header.save_as(file)
    return file.getvalue()


RAMP = np.arange(0, 4096, 64).reshape(8, 8)


def test_a_dicom_is_windowed_as_a_viewer_would():
    """Below the window is black, above it white."""
    data = dicom_of(RAMP, WindowCenter=2048, WindowWidth=512)
    shown = np.asarray(converted(data)).ravel()
    assert shown[0] == shown[27] == 0 and shown[-1] == shown[37] == 255
    assert 0 < shown[32] < 255


def test_of_several_frames_the_representative_one_is_shown():
    """A scanner may name the frame that shows best what was found; a number beyond is ignored."""
    frames = np.stack([RAMP, RAMP[::-1], RAMP.T])

    def shown(**tags: Any) -> list[int]:
        data = dicom_of(frames, NumberOfFrames=3, **tags)
        return np.asarray(converted(data)).ravel().tolist()

    first, second = shown(), shown(RepresentativeFrameNumber=2)
    assert first != second == np.asarray(first).reshape(8, 8)[::-1].ravel().tolist()
    assert shown(RepresentativeFrameNumber=9) == first


def test_monochrome1_is_inverted():
    """There low values are bright, and a model has learnt that bone is bright."""
    one = np.asarray(converted(dicom_of(RAMP, PhotometricInterpretation="MONOCHROME1")))
    two = np.asarray(converted(dicom_of(RAMP)))
    assert (one == 255 - two).all() and two[0, 0] == 0


@pytest.mark.parametrize(
    ("name", "mode", "size"),
    [
        ("CT_small.dcm", "L", (128, 128)),
        ("MR_small_RLE.dcm", "L", (64, 64)),
        ("MR_small_jp2klossless.dcm", "L", (64, 64)),
        ("examples_palette.dcm", "RGB", (800, 350)),
        ("examples_ybr_color.dcm", "RGB", (320, 240)),
        ("SC_rgb_rle_2frame.dcm", "RGB", (100, 100)),
    ],
)
def test_real_dicoms_of_many_kinds_are_read(name, mode, size):
    """Compressed, coloured, and of several frames (the first is taken)."""
    with open(get_testdata_file(name), "rb") as file:
        image = converted(file.read())
    assert (image.mode, image.size) == (mode, size)


def test_no_header_value_reaches_the_log():
    """pydicom quotes what it finds odd; a header's odd value can be a patient's name."""
    script = """if True:
        import io, pydicom
        from pydicom.data import get_testdata_file
        from gateway.intake.pixels import only_pixels
        data = open(get_testdata_file("CT_small.dcm"), "rb").read()
        only_pixels(data.replace(b"ISO_IR 100", b"DOE^JANE  "), "Image 1 of 1")
    """
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "DICOM"])
def test_a_damaged_file_is_refused_or_read_but_never_a_crash(kind):
    """Random damage finds every error that the decoders have."""
    dice = random.Random(0)
    whole = dicom_of(RAMP, WindowCenter=9, WindowWidth=9) if kind == "DICOM" else picture(kind=kind)
    for _ in range(300):
        data = bytearray(whole[: dice.randrange(len(whole))] if dice.random() < 0.3 else whole)
        for _ in range(dice.randrange(1, 8)):
            if data:
                data[dice.randrange(len(data))] = dice.randrange(256)
        try:
            only_pixels(bytes(data), "Image 1 of 1")
        except Refused as refused:
            assert "Image 1 of 1" in str(refused)


GREYS = np.random.default_rng(0).integers(0, 255, (24, 32)).astype("u1")
CHANGED = GREYS ^ (np.arange(GREYS.size) == 100).reshape(GREYS.shape).astype("u1")
PICTURES = [
    *(Image.fromarray(each) for each in (GREYS, CHANGED, GREYS.T.copy(), GREYS[::-1].copy())),
    Image.fromarray(GREYS.reshape(32, 24)),  # the same bytes in other rows
    Image.fromarray(255 - GREYS),
    Image.fromarray(np.stack([GREYS, GREYS, CHANGED], -1)),
    Image.fromarray(np.stack([CHANGED, GREYS, GREYS], -1)),
]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_no_two_pictures_share_an_identity(kind):
    """A verdict on one would be told of the other."""
    identities = {only_pixels(file_of(each, kind), "x").identity for each in PICTURES}
    assert len(identities) == len(PICTURES)


def test_the_worker_gets_the_bytes_that_the_identity_names(vllm, gateway):
    """And a file's name goes nowhere."""
    worker = vllm()
    url = gateway([worker])
    files = [("images", (f"{NAME}.png", picture("RGB"), "image/png"))]
    assert httpx.post(f"{url}/vqa", data={"question": "q?"}, files=files).status_code == 200
    [request] = worker.requests
    part = request["messages"][0]["content"][0]
    sent = base64.b64decode(part["image_url"]["url"].removeprefix("data:image/png;base64,"))
    assert hashlib.sha256(sent).hexdigest() == only_pixels(picture("RGB"), "x").identity
    assert NAME not in str(request)
