"""Back to the archive that the images came from: what it says of them is fetched (WADO-RS), and
what was made of the verdict is stored beside them (STOW-RS, PS3.18 10.5)."""

import io
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import pydicom
from pydicom.dataset import Dataset

from gateway.contract import SeriesShown, Verdict
from gateway.settings import ArchiveSettings

BOUNDARY = "consilium"
FAILED = "00081198"  # Failed SOP Sequence
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
Make = Callable[[Verdict, str, Sequence[Dataset]], Dataset]


class SendingError(Exception):
    """Nothing was stored; the message says why in one sentence."""


def send(verdict: Verdict, question: str, make: Make, archive: ArchiveSettings) -> str:
    """Stores what `make` makes of it; gives its SOP Instance UID. Raises SendingError."""
    shown = [image.series for image in verdict.images if image.series and image.series.study]
    if not shown:
        raise SendingError(
            "The verdict is of no images in an archive: ask with --study, and keep what --json "
            "prints."
        )
    headers = {"Accept": "application/dicom+json"}
    if archive.authorization:
        headers["Authorization"] = archive.authorization.get_secret_value()
    try:
        with httpx.Client(headers=headers, timeout=archive.timeout_s, trust_env=False) as http:
            made = make(verdict, question, _headers(http, archive.url, shown))
            _store(http, f"{archive.url}/studies/{shown[0].study}", made)
    except httpx.HTTPError as error:
        raise SendingError(f"The archive does not answer ({type(error).__name__}).") from error
    return str(made.SOPInstanceUID)


def _headers(http: httpx.Client, url: str, shown: Sequence[SeriesShown]) -> list[Dataset]:
    """Of every instance that was shown, once each."""
    wanted = {instance for series in shown for instance in series.instances}
    response = http.get(f"{url}/studies/{shown[0].study}/series/{shown[0].series}/metadata")
    found = response.json() if response.status_code == 200 else []
    headers = [_header(each) for each in found]
    kept = [header for header in headers if header.SOPInstanceUID in wanted]
    if len(kept) < len(wanted):
        raise SendingError(
            f"The archive holds {len(kept)} of the {len(wanted)} instances that were shown "
            f"(HTTP {response.status_code})."
        )
    return kept


def _header(found: dict[str, Any]) -> Dataset:
    # Of pixels there is an address alone.
    plain = {tag: each for tag, each in found.items() if "BulkDataURI" not in each}
    header = Dataset.from_json(plain)
    for keyword in OFTEN_LEFT_OUT:
        if keyword not in header:
            setattr(header, keyword, None)
    return header


def _store(http: httpx.Client, url: str, made: Dataset) -> None:
    file = io.BytesIO()
    pydicom.dcmwrite(file, made, enforce_file_format=True)
    part = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    response = http.post(
        url,
        content=part + file.getvalue() + f"\r\n--{BOUNDARY}--\r\n".encode(),
        headers={
            "Content-Type": f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
        },
    )
    if response.status_code != 200 or response.json().get(FAILED, {}).get("Value"):
        raise SendingError(f"The archive did not store it (HTTP {response.status_code}).")
