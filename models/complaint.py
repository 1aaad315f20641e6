"""What pydantic finds wrong with what somebody wrote, in a line."""

from collections.abc import Sequence
from typing import Any


def first_of(errors: Sequence[Any], whole: str = "") -> str:
    """The first of a ValidationError's `errors()`: where it is, and what; `whole` is what stands
    for the place of what is wrong with all of it. A check of our own says it in its own words."""
    first = errors[0]
    place = ".".join(map(str, first["loc"])) or whole
    what = first["msg"].removeprefix("Value error, ")
    return f"{place}: {what}" if place else what
