"""A form → its fields and images, as a case has them."""

from typing import Any, NamedTuple

from gateway.contract import CaseRequest
from gateway.intake.body.json_text import json_object
from gateway.intake.body.multipart import Part, parts_of
from gateway.intake.body.wrong_fields import shown_name, unknown
from gateway.refusals import InvalidCase, TooLarge

OBJECTS = {"options", "dicomweb"}  # in a form, as JSON
SINGLE_FIELDS = {"question", "language", "context", "modality", "slices", *OBJECTS}
LISTS = {"choices", "views"}  # in a form, a field for each
OPTIONAL_FIELDS = SINGLE_FIELDS - {"question"} | {"choices"}
IMAGE_FIELDS = {"images", "image", "files", "file"}  # the first is ours, all mean the same
NOTHING = ("", "null", "undefined")  # as a form sends it, the last two by JavaScript
SHOWN_FIELDS = ("frame", "window")  # of an image; a form has them beside its images


class Form(NamedTuple):
    """A form's fields, its image files, and what of each is to be shown, all as they were sent."""

    content: dict[str, Any]
    images: list[bytes]
    shown: dict[str, list[str]]


def form_of(kind: str, body: bytes, most: int) -> Form:
    """The form that a body is whose Content-Type is `kind`; raises a `Refused`: TooLarge where it
    has more than `most` files, or fields."""
    parts: list[Part] = []
    files = 0
    for part in parts_of(kind, body):
        parts.append(part)
        files += part.filename is not None
        if max(files, len(parts) - files) > most:
            raise TooLarge(f"The form has over {most} files, or fields. Send fewer.")
    form = Form({}, [], {name: [] for name in SHOWN_FIELDS})
    for part in parts:
        _take(part, form)
    for name in LISTS & form.content.keys():
        texts = form.content[name]
        if len(texts) == 1 and (name == "choices" or texts[0].startswith("[")):
            raise InvalidCase(f"{name}: in a form send a field for each.")
    return form


def _take(part: Part, form: Form) -> None:
    name = part.name.removesuffix("[]")  # as some libraries mark what is there several times
    content = form.content
    if name in IMAGE_FIELDS:
        if part.filename is None:
            raise InvalidCase(f"{name}: send each image as a file, with a file name.")
        if part.filename or part.data:  # a browser sends neither where nothing was chosen
            form.images.append(part.data)
        return
    if name not in {*SINGLE_FIELDS, *LISTS, *SHOWN_FIELDS}:
        if part.filename is not None:
            why = "only images are sent as files; call the field images"
        else:
            why = f"it {unknown(name, [*CaseRequest.model_fields, *SHOWN_FIELDS])}"
        raise InvalidCase(f"{shown_name(name)}: {why}.")
    text = part.text  # libraries send JSON as a file, too
    if text in NOTHING:
        text = ""
    if name == "views":  # one that tells nothing has its image all the same
        content.setdefault(name, []).append(text)
    elif name in form.shown:
        form.shown[name].append(text)
    elif name in OPTIONAL_FIELDS and not text:
        return
    elif name == "choices":
        content.setdefault(name, []).append(text)
    elif name in content:
        raise InvalidCase(f"{name}: send it once.")
    else:
        content[name] = json_object(text.encode(), name) if name in OBJECTS else text
