"""Whether bytes can break what reads them: make fuzz SECONDS=600, or INPUTS=100000

Real inputs of every kind that a caller sends, a keys file and a panel file are changed at random,
led by the code that they reach (atheris, libFuzzer). Each is read or refused, within a second of
processor time and 512 MB of the whole process; what a picture becomes must come through unchanged.
A fault stops it, with an exit status that is not 0, and its input is left in `--folder`. So are
those that reached something new: the next run goes on from there.

Pictures over a million pixels are refused here, as those over fifty million are otherwise: pixels
cost what they cost.
"""

import argparse
import asyncio
import base64
import contextlib
import gzip
import io
import json
import os
import resource
import sys
import time
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import atheris
import numpy as np

# What is imported here is followed; else the last three of Pillow's and how a series is read come
# too late. It says so of each module.
with (
    contextlib.redirect_stderr(io.StringIO()),
    atheris.instrument_imports(include=["gateway", "PIL", "pydicom", "nibabel.nifti1"]),
):
    import nibabel
    import pydicom.data
    from PIL import Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin  # noqa: F401
    from starlette.requests import Request

    from gateway.door import keys
    from gateway.intake import request
    from gateway.intake.body import whole as body
    from gateway.intake.pixels import is_dicom, only_pixels
    from gateway.intake.raster import decoding
    from gateway.intake.raster.wholeness import PNG_SIGNATURE
    from gateway.intake.series import nifti  # noqa: F401
    from gateway.intake.series import pictures as of_series  # noqa: F401
    from gateway.out import openai_api
    from gateway.refusals import Refused
    from gateway.settings import SettingsError, load_settings

MAX_S, MAX_MB, HANGS_S = 1.0, 512, 30
MAX_BYTES = 60_000  # of an input
HERE = "Image 1 of 1"
FORM = "multipart/form-data; boundary=b"
PANEL = """
[panel]
quorum = 1
[limits]
max_slices = 20
[feedback]
keep = "cases"
[[worker]]
name = "thorax"
family = "mock"
model = "mock"
prompt = "Question: {question} Answer:"
languages = ["en", "zh"]
max_images = 4
[summariser]
model = "base:small"
languages = ["en"]
prompt.en = "{question} {answers}"
"""

decoding.MAX_PIXELS, decoding.MAX_BYTES = 1_000_000, 4_000_000
file = Path(f"/proc/self/fd/{os.memfd_create('file')}")  # in memory: nothing is left behind
file.write_text(PANEL)
settings = load_settings(file, environ={})
loop = asyncio.Runner()


def image(data: bytes) -> None:
    found = only_pixels(data, HERE)
    # Who sends what the workers got asks about the same picture.
    assert only_pixels(found.data, HERE).identity == found.identity


def case(data: bytes) -> None:
    """A body of `POST /vqa`, behind a line that holds its Content-Type."""

    async def read() -> None:
        draft = await request.read(posted(data), settings)
        await request.check(await request.case_of(draft, settings, None, "public"))

    loop.run(read())


def preview(data: bytes) -> None:
    loop.run(request.preview_of(posted(data), settings))


def chat(data: bytes) -> None:
    async def read() -> None:
        _, fields = openai_api.read(await body.json_of(posted(data), settings), settings)
        draft = await request.draft_of(fields, settings.limits)
        await request.check(await request.case_of(draft, settings, None, "public"))

    loop.run(read())


def word(data: bytes) -> None:
    loop.run(request.word_of(posted(data), settings))


def keys_file(data: bytes) -> None:
    file.write_bytes(data)
    keys.read(file)


def panel_file(data: bytes) -> None:
    file.write_bytes(data)
    load_settings(file, environ={})


# An input's first byte says whose it is.
READERS: list[Callable[[bytes], None]] = [
    image,
    case,
    preview,
    chat,
    word,
    keys_file,
    panel_file,
]


def posted(data: bytes) -> Request:
    kind, _, body = data.partition(b"\n")

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": body}

    return Request({"type": "http", "headers": [(b"content-type", kind)]}, receive)


def seeds() -> list[bytes]:
    """Real inputs, each with its reader before it."""
    files = Path(pydicom.data.__file__).with_name("test_files").glob("*.dcm")
    dicoms = {path.name: path.read_bytes() for path in sorted(files)}
    dicoms = {name: data for name, data in dicoms.items() if len(data) < MAX_BYTES}
    slices = [dicoms["MR_small.dcm"], dicoms["MR_small_bigendian.dcm"]]
    volume = nibabel.Nifti1Image(np.arange(20 * 18 * 4, dtype="<i2").reshape(20, 18, 4), np.eye(4))
    niftis = [volume.to_bytes(), gzip.compress(volume.to_bytes(), mtime=0)]
    png = picture("RGB", "PNG")
    uri = "data:image/png;base64," + base64.b64encode(png).decode()
    asked = {
        "question": "Is it healthy?",
        "images": [uri, {"data": base64.urlsafe_b64encode(png).decode()}],
        "language": "en",
        "context": "Male, 60",
        "choices": ["yes", "no"],
        "options": {"workers": ["thorax"], "rounds": 2, "deadline_s": 3},
    }
    content = [{"type": "text", "text": "Is it?"}, {"type": "image_url", "image_url": {"url": uri}}]
    answer = {"answer": {"type": "string", "enum": ["yes", "no"]}}
    schema = {"name": "a", "schema": {"type": "object", "properties": answer}}
    chatted = {
        "model": "consilium-en",
        "messages": [{"role": "system", "content": "x"}, {"role": "user", "content": content}],
        "response_format": {"type": "json_schema", "json_schema": schema},
        "consilium": {"context": "Male, 60"},
    }
    said = {"verdict": "a" * 32, "word": "wrong", "answer": "no", "comment": "seen", "case": asked}
    key = {"id": "0" * 8, "tenant": "a", "sha256": "0" * 64, "created": "2026-01-01T00:00:00Z"}
    dicomweb = {"question": "Is it?", "dicomweb": {"study": "1.2.3", "series": "1.2.3.4"}}
    found: dict[Callable[[bytes], None], list[bytes]] = {
        image: [*pictures(), *dicoms.values()],
        case: [
            sent(asked),
            sent(dicomweb),
            form([png], question="Is it?", language="zh"),
            form([dicoms["CT_small.dcm"]], question="Is it?", frame="1", window="40,400"),
            form(slices, question="Is it?", slices="max"),
            form([zipped(slices)], question="Is it?", slices="1", options='{"rounds": 1}'),
            *(form([data], question="Is it?") for data in (*niftis, zipped(niftis[:1]))),
        ],
        preview: [form([png]), form([dicoms["CT_small.dcm"]], frame="1", window="40,400")],
        chat: [sent(chatted)],
        word: [sent(said)],
        keys_file: [json.dumps({"keys": [key]}).encode()],
        panel_file: [PANEL.encode(), Path("panel.toml").read_bytes()],
    }
    return [
        bytes([number]) + data for number, reader in enumerate(READERS) for data in found[reader]
    ]


def picture(mode: str, kind: str, **how: object) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (24, 32, 4), np.uint8)
    made = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(made, kind, **how)
    return made.getvalue()


def pictures() -> list[bytes]:
    plain = [picture(mode, "PNG") for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")]
    plain += [picture(mode, "TIFF") for mode in ("1", "L", "P", "RGB", "I;16", "F", "LAB", "CMYK")]
    plain += [picture(mode, "JPEG") for mode in ("L", "RGB", "CMYK")]
    exif = Image.Exif()
    exif[decoding.ORIENTATION] = 6
    turned = picture("RGB", "JPEG", exif=exif.tobytes(), comment=b"x", progressive=True)
    packings = ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")
    packed = [picture("RGB", "TIFF", compression=packing) for packing in packings]
    webps = [picture("RGBA", "WEBP"), picture("RGB", "WEBP", lossless=True)]
    return [*plain, turned, *packed, *webps]


def zipped(files: list[bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, data in enumerate(files):
            archive.writestr(str(number), data)
    return packed.getvalue()


def sent(content: object) -> bytes:
    return b"application/json\n" + json.dumps(content).encode()


def form(files: list[bytes], **fields: str) -> bytes:
    part = b'--b\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'
    parts = [part % (name.encode(), b"", value.encode()) for name, value in fields.items()]
    parts += [part % (b"images", b'; filename="a"', data) for data in files]
    return FORM.encode() + b"\n" + b"".join(parts) + b"--b--\r\n"


def changed(data: bytes, max_size: int, seed: int) -> bytes:
    """It stays with its reader. Nothing behind a wrong checksum is read: a PNG's are made right,
    mostly."""
    data = data[:1] + bytes(atheris.Mutate(data[1:], max_size - 1))
    at = 1 + len(PNG_SIGNATURE)
    if data[1:at] != PNG_SIGNATURE or seed % 8 == 0:
        return data
    mended = bytearray(data)
    while at + 12 <= len(mended):
        end = at + 8 + int.from_bytes(mended[at : at + 4], "big")
        if end + 4 > len(mended):
            break
        mended[end : end + 4] = zlib.crc32(mended[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(mended)


@dataclass
class Read:
    """What one reader was given."""

    inputs: int = 0
    refused: int = 0
    slowest_s: float = 0.0


class Fuzzer:
    def __init__(self, seconds: float, inputs: int):
        self._began, self._seconds, self._inputs = time.monotonic(), seconds, inputs
        self._read: dict[str, Read] = defaultdict(Read)
        self._count = 0

    def __call__(self, data: bytes) -> None:
        """Raises what no reader may raise."""
        reader, rest = READERS[(data[0] if data else 0) % len(READERS)], data[1:]
        tally = self._read[name_of(reader, rest)]
        began = time.process_time()
        try:
            reader(rest)
        except (Refused, keys.KeysError, SettingsError):
            tally.refused += 1
        took_s = time.process_time() - began
        tally.slowest_s = max(tally.slowest_s, took_s)
        tally.inputs += 1
        self._count += 1
        if took_s > MAX_S:
            raise TimeoutError(f"{took_s:.2f} s for one input")
        spent_s = time.monotonic() - self._began
        if self._count == self._inputs or spent_s > self._seconds:
            self._tell(spent_s)
            sys.stdout.flush()
            os._exit(0)  # libFuzzer ends in no other way

    def _tell(self, spent_s: float) -> None:
        for name, tally in sorted(self._read.items()):
            print(
                f"{name:<10} {tally.inputs:>9,} inputs, {tally.refused / tally.inputs:4.0%} "
                f"refused, slowest {1000 * tally.slowest_s:.0f} ms"
            )
        print(
            json.dumps(
                {
                    "inputs": self._count,
                    "per_s": round(self._count / spent_s),
                    "slowest_s": round(max(tally.slowest_s for tally in self._read.values()), 3),
                    "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
                }
            )
        )


def name_of(reader: Callable[[bytes], None], data: bytes) -> str:
    if reader is not image:
        return reader.__name__
    return "DICOM" if is_dicom(data) else decoding.kind_of(data) or "no image"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seconds", type=float, default=float("inf"))
    arguments.add_argument("--inputs", type=int, default=0, help="0: as many as there is time for")
    arguments.add_argument("--folder", type=Path, default=Path("build/fuzz"))
    options = arguments.parse_args()
    corpus = options.folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(seeds()):
        (corpus / f"seed-{number:02}").write_bytes(data)
    limits = [f"-timeout={HANGS_S}", f"-rss_limit_mb={MAX_MB}", f"-max_len={MAX_BYTES}"]
    where = [f"-artifact_prefix={options.folder}/", str(corpus)]
    command = ["fuzz", "-verbosity=0", "-len_control=0", *limits, *where]
    atheris.Setup(command, Fuzzer(options.seconds, options.inputs), custom_mutator=changed)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
