"""A question, images and options → the JSON body of `POST /vqa`."""

import base64
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, Optional, Protocol, Union

from typing_extensions import TypedDict

from consilium.tiff import as_tiff
from consilium.verdict import Language

BYTES = (bytes, bytearray, memoryview)
Modality = Literal[
    "ct",
    "mri",
    "xray",
    "ultrasound",
    "nuclear",
    "photograph",
    "fundus",
    "endoscopy",
    "microscopy",
]


class Array(Protocol):
    """Of numpy, or of what turns into one: [rows, columns] of greys, [rows, columns, 3] of RGB."""

    def __array__(self) -> Any: ...


class Readable(Protocol):
    """A file that is open in binary mode, or io.BytesIO."""

    def read(self) -> bytes: ...


# Its path, what it holds, it itself, or pixels; or what it holds as a data URI.
File = Union[str, "os.PathLike[str]", bytes, bytearray, memoryview, Readable, Array]
# Or, of a DICOM, what of it is to be shown: {"data": File, "frame": 3, "window": "lung"}. What is
# at hand as base64 stands in `base64`, in the place of `data`.
Image = Union[File, Mapping[str, Any]]
Images = Union[Image, Sequence[Image]]


class Options(TypedDict, total=False):
    """How the panel is to be asked; None is the gateway's own default, here and below."""

    workers: Optional[Sequence[str]]
    summarise: Optional[Literal["auto", "always", "never"]]
    style: Optional[Literal["answer", "sentence", "differential"]]
    rounds: Optional[Literal[1, 2]]
    wait: Optional[Literal["all", "enough"]]
    deadline_s: Optional[float]
    max_risk: Optional[float]
    grounding: Optional[bool]
    coverage: Optional[float]
    reasoning: Optional[bool]
    entailment: Optional[bool]
    store: Optional[Literal["sr", "sc"]]


class Fields(Options, total=False):
    """What a case may hold beside question and images."""

    language: Optional[Language]
    context: Optional[str]
    modality: Optional[Modality]
    choices: Optional[Sequence[str]]
    views: Optional[Sequence[Optional[str]]]  # what each image is, such as frontal
    slices: Optional[str]
    dicomweb: Optional[Mapping[str, Any]]  # then there are no images
    options: Optional[Mapping[str, Any]]  # those above in one, as POST /vqa has them


def case_json(images: Images, question: str, fields: Mapping[str, Any]) -> bytes:
    """The JSON body of `POST /vqa`; `fields` are those of Fields. One that is not known here goes
    on as it is: whether there is such a field is the gateway's to say.

    Raises OSError for a file that cannot be read, TypeError for an array that is no picture.
    """
    alone = isinstance(images, (str, *BYTES)) or not isinstance(images, Sequence)
    given: Any = [images] if alone else images
    known = Options.__annotations__
    case = {name: value for name, value in fields.items() if name not in known}
    options = {name: value for name, value in fields.items() if name in known}
    with suppress(TypeError, ValueError):  # what is no mapping the gateway refuses
        case["options"] = dict(case.get("options") or {}) | options
    case["question"] = question
    return b'%b, "images": [%b]}' % (_json(case)[:-1], b", ".join(map(_sent, given)))


def _json(value: Any) -> bytes:
    # ASCII: what is no text (half a surrogate pair) the gateway refuses in its own words.
    return json.dumps(value, default=_plain).encode()


def _plain(value: Any) -> Any:
    """Of numpy, a number or an array, as JSON has it."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"a case holds texts, numbers and lists of them, not a {type(value).__name__}")


def _sent(image: Image) -> bytes:
    if not isinstance(image, Mapping):
        data = encode(image)
        # Base64 has nothing to escape, and to look for it takes longer than all the rest.
        return _json(data) if data.startswith("data:") else b'"%b"' % data.encode()
    sent = dict(image)
    if "base64" in sent:
        sent["data"] = sent.pop("base64")
    elif "data" in sent:
        sent["data"] = encode(sent["data"])
    return _json(sent)


def encode(image: File) -> str:
    """An image file as base64, the way a JSON case carries it."""
    data: Union[bytes, bytearray, memoryview]
    if isinstance(image, str) and image.startswith("data:"):
        return image  # no path begins so; the gateway reads it
    if isinstance(image, BYTES):
        data = image
    elif isinstance(image, (str, os.PathLike)):
        data = Path(image).read_bytes()
    elif hasattr(image, "read"):
        data = image.read()
        if not isinstance(data, BYTES):
            raise TypeError("a file of an image is read as bytes: open(path, 'rb')")
    else:
        data = as_tiff(image)
    return base64.b64encode(data).decode()
