"""What is wrong with a field, in words for who never heard of pydantic."""

import difflib
from collections.abc import Iterable
from typing import NoReturn

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from gateway.contract import ArchivedImages, AskedImage, CaseRequest, Options, ReadersWord
from gateway.must_be import what_it_must_be
from gateway.refusals import InvalidCase

# What a case holds, and what stands within one of its fields.
KNOWN_IN: dict[str, type[BaseModel]] = {
    "": CaseRequest,
    "options": Options,
    "images": AskedImage,
    "dicomweb": ArchivedImages,
}
MAX_NAME = 40  # characters; ours are shorter
SURE = 0.85  # how like one of ours a name must be to be meant where it does not stand
# What is in lists that hold something else than texts.
ITEMS = {"messages": "messages", "content": "parts, or a text"}


def refuse_fields(error: ValidationError) -> NoReturn:
    """Raises InvalidCase: names the first wrong field, and never what was in it."""
    first, *others = error.errors(include_url=False, include_input=False)
    field = ".".join(shown_name(str(part)) for part in first["loc"])
    *above, name = ("", *map(str, first["loc"]))
    if first["type"] == "value_error":  # a sentence of our own
        own = str(first["ctx"]["error"])
        own = f"{field}: {own}." if field else f"{own[:1].upper()}{own[1:]}."
        raise InvalidCase(own) from error
    if first["type"] == "extra_forbidden":
        within = next(each for each in reversed(above) if each in KNOWN_IN)
        is_words = error.title == ReadersWord.__name__ and "case" not in above
        known = ReadersWord if is_words else KNOWN_IN[within]
        reason = unknown(name, known.model_fields, within)
    else:
        told = what_it_must_be(first, "an object", ITEMS.get(name, "texts"))
        reason = told or "must be as /docs says"
        if first["type"] == "missing":
            reason += _in_place_of(first["loc"][:-1], others)
    raise InvalidCase(f"{field}: it {reason}." if field else f"It {reason}.") from error


def _in_place_of(above: tuple[int | str, ...], others: list[ErrorDetails]) -> str:
    """Of a field that is missing: what was sent there instead."""
    for other in others:
        if other["type"] == "extra_forbidden" and other["loc"][:-1] == above:
            instead = shown_name(str(other["loc"][-1]))
            return f" in place of {instead}, which is not a known one"
    return ""


def unknown(name: str, known: Iterable[str], within: str = "") -> str:
    """What is said of a field that is none of the `known` ones, `within` one of the case's or in
    the case itself: which one may be meant, here or elsewhere."""
    beside = f"beside {within}" if within else "in case"
    told = {
        field: f"{field} in {place}" if place else f"{field} {beside}"
        for place, fields in reversed(KNOWN_IN.items())
        for field in fields.model_fields
    } | {field: field for field in known}
    name = name[:MAX_NAME]  # one of a megabyte would be looked through for a tenth of a second
    near = difflib.get_close_matches(name, list(told), n=1, cutoff=SURE)
    near = near or difflib.get_close_matches(name, list(known), n=1)
    return "is not a known field" + (f"; is {told[near[0]]} meant?" if near else ".") + " See /docs"


def shown_name(name: str) -> str:
    """A field's name, unless what the caller sent in its place could be anything."""
    return name if len(name) <= MAX_NAME and name.replace("_", "a").isalnum() else "a field"
