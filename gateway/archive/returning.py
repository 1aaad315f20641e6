"""A verdict goes back to where its images lie: beside them, of the same patient and study.

What the archive says of the images goes into what is stored alone.
"""

import asyncio
import io
from collections.abc import Sequence
from typing import Any

import pydicom
from pydicom.dataset import Dataset

from gateway.archive.dicomweb import NOT_THERE, Archive
from gateway.contract import Stores, Verdict
from gateway.refusals import ArchiveFailed, InvalidCase, NotInArchive

# Type 2 of PS3.3 C.7.1.1 and C.7.2.1: they are to be there, and may be empty.
OFTEN_LEFT_OUT = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)
INSTANCE = "00080018"  # SOP Instance UID
NOT_THEIRS = "What the archive says of the images makes no report."
# What pydicom, highdicom and Pillow raise where that is odd: a verdict is answered all the same.
_ODD = (
    ArithmeticError,
    AttributeError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


async def send(
    archive: Archive,
    verdict: Verdict,
    question: str,
    kind: Stores,
    metadata: Sequence[dict[str, Any]] | None = None,
) -> str:
    """Stores a report (sr) or a page (sc) of the verdict, once however often it is sent; gives its
    SOP Instance UID. `metadata` is what the archive says of the images (DICOM JSON); None: it is
    asked.

    Raises:
        InvalidCase: the images came from no archive.
        NotInArchive, ArchiveFailed, TooLarge
    """
    try:
        async with asyncio.timeout(archive.timeout_s):
            images = await headers_of(archive, verdict, metadata)
            instance, file = await asyncio.to_thread(_file, verdict, question, images, kind)
            await archive.store(str(images[0].StudyInstanceUID), instance, file)
            return instance
    except TimeoutError as error:
        raise ArchiveFailed(f"Nothing was stored within {archive.timeout_s:g} s.") from error


async def headers_of(
    archive: Archive, verdict: Verdict, metadata: Sequence[dict[str, Any]] | None = None
) -> list[Dataset]:
    """What the archive says of each instance that was shown, in their order; as `send`."""
    shown = [image.series for image in verdict.images if image.series]
    wanted = list(dict.fromkeys(uid for series in shown for uid in series.instances))
    if not (wanted and shown[0].study and shown[0].series):
        raise InvalidCase(
            "The verdict is of no images in an archive: ask with --study, and keep what --json "
            "prints."
        )
    if metadata is None:
        metadata = await archive.metadata(shown[0].study, shown[0].series)
    headers = await asyncio.to_thread(_headers, metadata, wanted)
    if len(headers) < len(wanted):
        raise NotInArchive(NOT_THERE)
    if any(header.get("StudyInstanceUID") != shown[0].study for header in headers):
        raise ArchiveFailed(NOT_THEIRS)
    return headers


def _headers(metadata: Sequence[dict[str, Any]], wanted: list[str]) -> list[Dataset]:
    try:
        theirs = [each for each in metadata if each[INSTANCE]["Value"][0] in wanted]
        # Of pixels there is an address alone.
        plain = ({t: each[t] for t in each if "BulkDataURI" not in each[t]} for each in theirs)
        headers = {str(header.SOPInstanceUID): header for header in map(Dataset.from_json, plain)}
    except _ODD as error:
        raise ArchiveFailed(NOT_THEIRS) from error
    kept = [headers[uid] for uid in wanted if uid in headers]
    for header in kept:
        for keyword in OFTEN_LEFT_OUT:
            if keyword not in header:
                setattr(header, keyword, None)
    return kept


def _file(
    verdict: Verdict, question: str, images: Sequence[Dataset], kind: Stores
) -> tuple[str, bytes]:
    # Imported at the first: highdicom takes a second, and few gateways store.
    from gateway.archive.capture import page
    from gateway.archive.structured_report import report

    made = {"sr": report, "sc": page}[kind]
    file = io.BytesIO()
    try:
        stored = made(verdict, question, images)
        stored.SpecificCharacterSet = "ISO_IR 192"  # UTF-8, whatever the images' own is
        pydicom.dcmwrite(file, stored, enforce_file_format=True)
    except _ODD as error:
        raise ArchiveFailed(NOT_THEIRS) from error
    return str(stored.SOPInstanceUID), file.getvalue()
