"""What a header says in numbers, and where it may say it (PS3.3 C.7.6.16, PS3.5 6.2)."""

import math
from collections.abc import Sequence
from typing import Any

from pydicom.datadict import dictionary_description, tag_for_keyword


def groups(header: Any, index: int, macro: str) -> list[Any]:
    """Where an attribute of a frame may stand, the nearest first: the frame's functional group, the
    shared one (C.7.6.16.1), the data set itself."""
    own = (header.get("PerFrameFunctionalGroupsSequence") or [])[index : index + 1]
    shared = (header.get("SharedFunctionalGroupsSequence") or [])[:1]
    return [item for group in [*own, *shared] for item in (group.get(macro) or [])[:1]] + [header]


class NoNumber(ValueError):
    """A tag that should hold a number holds something else."""

    def __init__(self, keyword: str) -> None:
        super().__init__(keyword)
        self.keyword = keyword


def number(source: Any, keyword: str, position: int = 0) -> float | None:
    """The value at a position of a tag, None where there is none. In text a comma is read as the
    point that PS3.5 6.2 asks for.

    Raises:
        NoNumber: there is a value, but none that could be meant.
    """
    try:
        value = source.get(keyword)
    except (TypeError, ValueError, OverflowError):  # pydicom reads all of its values or none
        value = source.get_item(keyword).value
    if isinstance(value, bytes):
        value = value.decode("latin-1").split("\\")
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = value[position] if position < len(value) else None
    elif position:
        value = None
    if isinstance(value, str):
        value = value.strip(" \0").replace(",", ".")
    if value is None or value == "":
        return None
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise NoNumber(keyword) from error
    if math.isfinite(found):
        return found
    if type(value) is float:  # in binary, where it is how none is written
        return None
    raise NoNumber(keyword)


def of_frame(header: Any, frame: int, macro: str, keyword: str, length: int) -> list[float] | None:
    """So many values of a tag that a frame (from 1) has for itself; None where they are not all
    there. `macro` is as in `groups`.

    Raises:
        NoNumber: one of them is none.
    """
    sources = groups(header, frame - 1, macro)
    if keyword == "ImagePositionPatient" and (number(header, "NumberOfFrames") or 1) > 1:
        sources.pop()  # the file's own is that of one frame, which one is not said
    for source in sources:
        found = [number(source, keyword, position) for position in range(length)]
        values = [value for value in found if value is not None]
        if len(values) == length:
            return values
    return None


def stored_number(header: Any, keyword: str, is_float: bool = False) -> float | None:
    """A tag's value as the pixels have it: it may be written as if they were of the other sign.
    None where no pixel can have it (PS3.5 8.1.1)."""
    value = number(header, keyword)
    if value is None or is_float:
        return value
    low, high = stored_range(header)
    otherwise = 2 ** int(header.BitsAllocated) * (-1 if header.PixelRepresentation else 1)
    return next((found for found in (value, value + otherwise) if low <= found <= high), None)


def stored_range(header: Any) -> tuple[int, int]:
    """The least and the greatest integer that a pixel can be stored as (PS3.5 8.1.1)."""
    bits = int(header.BitsStored)
    return (
        (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        if header.PixelRepresentation
        else (0, 2**bits - 1)
    )


def tag_and_name(keyword: str) -> str:
    tag = tag_for_keyword(keyword)
    name = dictionary_description(tag)
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X}) {name}"


def is_little_endian(header: Any) -> bool:
    return bool(header.original_encoding[1])
