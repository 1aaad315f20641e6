"""Are DICOM files of one patient, by what their headers say of him (PS3.3 C.7.1.1, PS3.5 6.2.1)?"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from gateway.intake.dicom.values import tag_and_name
from gateway.refusals import InvalidCase

NAME = "PatientName"
IDENTIFIERS = ("PatientID", "IssuerOfPatientID", "PatientBirthDate")
# All that is read of a header here. An ID alone may be missing, another hospital's, or everybody's.
PATIENT = (*IDENTIFIERS, NAME)


def check_one_patient(headers: Sequence[Any], what: str) -> None:
    """Raises InvalidCase, which names the tag and nothing that it says."""
    if tag := _parting(headers):
        raise InvalidCase(
            f"{what} are of several patients, by {tag_and_name(tag)}. Ask about each in a case of "
            "its own.",
            code="several_patients",
        )


def _parting(headers: Sequence[Any]) -> str | None:
    """The first tag that they contradict each other in. What one leaves empty, as a file that was
    anonymised does, contradicts nothing; nor do names (MUELLER, MÜLLER; a married one) of those
    who say one ID and one birth date."""
    for tag in IDENTIFIERS:
        if len({_text(header, tag).strip(" \0").casefold() for header in headers} - {""}) > 1:
            return tag
    known = [all(_text(h, tag) for tag in ("PatientID", "PatientBirthDate")) for h in headers]
    one = known.index(True) if any(known) else None
    named = [header for at, header in enumerate(headers) if at == one or not known[at]]
    names = [_words(_text(header, NAME)) for header in named]
    # A name in Latin letters and one in a patient's own may stand apart or together.
    for is_latin in (True, False):
        parts = [{word for word in name if word.isascii() == is_latin} for name in names]
        most = max(parts, key=len)
        if any(not part <= most for part in parts):
            return NAME
    return None


def _words(name: str) -> list[str]:
    """However they are parted, in whatever order, without case and accents: a name may be typed at
    each device, there with a middle name or a title and here without."""
    plain = unicodedata.normalize("NFKD", name.casefold())
    return re.findall(r"\w+", "".join(c for c in plain if not unicodedata.combining(c)))


def _text(header: Any, tag: str) -> str:
    said = header.get(tag) or ""
    if isinstance(said, Mapping):  # a name in DICOM JSON, by its groups of letters
        said = "=".join(map(str, said.values()))
    return str(said)
