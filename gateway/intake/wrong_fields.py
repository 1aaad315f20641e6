"""What is wrong with a field, in words for who never heard of pydantic."""

import difflib
from collections.abc import Iterable
from typing import NoReturn

from pydantic import BaseModel, ValidationError

from gateway.contract import ArchivedImages, AskedImage, CaseRequest, Options, ReadersWord
from gateway.must_be import what_it_must_be
from gateway.refusals import InvalidCase

# Whose fields stand within one of a case's.
KNOWN_IN: dict[str, type[BaseModel]] = {
    "options": Options,
    "images": AskedImage,
    "dicomweb": ArchivedImages,
}
MAX_NAME = 40  # characters; ours are shorter
# What is in lists that hold something else than texts.
ITEMS = {"messages": "messages", "content": "parts, or a text"}


def refuse_fields(error: ValidationError) -> NoReturn:
    """Raises InvalidCase: names the first wrong field, and never what was in it."""
    first = error.errors(include_url=False, include_input=False)[0]
    field = ".".join(shown_name(str(part)) for part in first["loc"])
    *above, name = ("", *map(str, first["loc"]))
    if first["type"] == "value_error":  # a sentence of our own
        own = str(first["ctx"]["error"])
        own = f"{field}: {own}." if field else f"{own[:1].upper()}{own[1:]}."
        raise InvalidCase(own) from error
    if first["type"] == "extra_forbidden":
        known = next((KNOWN_IN[name] for name in above if name in KNOWN_IN), CaseRequest)
        if error.title == ReadersWord.__name__ and "case" not in above:
            known = ReadersWord
        reason = unknown(name, known.model_fields)
    else:
        told = what_it_must_be(first, "an object", ITEMS.get(name, "texts"))
        reason = told or "must be as /docs says"
    raise InvalidCase(f"{field}: it {reason}." if field else f"It {reason}.") from error


def unknown(name: str, known: Iterable[str]) -> str:
    """What is said of a field that is none of the `known` ones."""
    # A name of a megabyte would be looked through for a tenth of a second.
    near = difflib.get_close_matches(name[:MAX_NAME], list(known), n=1)
    return "is not a known field" + (f"; is {near[0]} meant?" if near else ".") + " See /docs"


def shown_name(name: str) -> str:
    """A field's name, unless what the caller sent in its place could be anything."""
    return name if len(name) <= MAX_NAME and name.replace("_", "a").isalnum() else "a field"
