"""A verdict → a FHIR R4 DiagnosticReport, which holds all that is said as Observations.

It is held against the schema of R4B, in which these resources are as in R4. Patient, request and
study are told by their identifiers, as the archive's own instances have them.
"""

import asyncio
import html
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import aiohttp
from fhir.resources.R4B.diagnosticreport import DiagnosticReport
from pydantic import ValidationError
from pydicom.dataset import Dataset

from gateway.archive.words import CAUTION, RESEARCH, figures, first_id, lines
from gateway.contract import Verdict
from gateway.refusals import ArchiveFailed, InvalidCase

DEVICE = "device"  # the id that it has within the report
SEND_S = 20
URIS = "urn:ietf:rfc:3986"  # the system of identifiers that are URIs


def report(verdict: Verdict, question: str, images: Sequence[Dataset]) -> DiagnosticReport:
    """`images` are the headers of what the panel was shown, as the archive has them; raises
    InvalidCase where they, or the verdict, make no report."""
    header = images[0]
    said = [*lines(verdict, question), ("Instances", " ".join(i.SOPInstanceUID for i in images))]
    cautions = [text for name, text in said if name == CAUTION]
    values: list[dict[str, Any]] = [*_figures(verdict), *map(_text, said)]
    observations = [
        {
            "resourceType": "Observation",
            "id": f"said-{number}",
            "status": "preliminary",
            "device": {"reference": f"#{DEVICE}"},
            **value,
        }
        for number, value in enumerate(values, 1)
    ]
    device = {
        "resourceType": "Device",
        "id": DEVICE,
        "manufacturer": "Consilium",
        "deviceName": [{"name": f"Consilium, panel {verdict.panel}", "type": "model-name"}],
        "version": [{"value": version("consilium")}],
    }
    made = {
        "text": {"status": "generated", "div": _page(said)},
        "contained": [device, *observations],
        "identifier": [{"system": URIS, "value": _urn(verdict)}],
        "status": "preliminary",
        "category": [_coded("http://terminology.hl7.org/CodeSystem/v2-0074", "RAD", "Radiology")],
        "code": _coded("http://loinc.org", "18748-4", "Diagnostic imaging study"),
        "imagingStudy": [
            {
                "type": "ImagingStudy",
                "identifier": {
                    "system": "urn:dicom:uid",
                    "value": f"urn:oid:{header.StudyInstanceUID}",
                },
            }
        ],
        "issued": datetime.now(UTC),
        "result": [{"reference": f"#{each['id']}"} for each in observations],
        "conclusion": " ".join([f"{RESEARCH}.", *cautions, dict(said)["Answer"]]),
    }
    if header.PatientID:
        made["subject"] = _told("Patient", "MR", header.PatientID)
    if header.AccessionNumber:
        made["basedOn"] = [_told("ServiceRequest", "ACSN", header.AccessionNumber)]
    try:
        return DiagnosticReport.model_validate(made)
    except ValidationError as error:
        raise InvalidCase("What the verdict and the archive say makes no FHIR report.") from error


async def send(
    http: aiohttp.ClientSession,
    made: DiagnosticReport,
    verdict: Verdict,
    url: str,
    authorization: str | None,
) -> str:
    """Creates it on the server whose base is `url`, once for each verdict; gives its address.
    Raises ArchiveFailed."""
    headers = {
        "Content-Type": "application/fhir+json",
        # R4 3.1.0.8.1: what is there already is not created again.
        "If-None-Exist": f"identifier={URIS}|{_urn(verdict)}",
    }
    if authorization:
        headers["Authorization"] = authorization
    address = f"{url.rstrip('/')}/DiagnosticReport"
    try:
        async with (
            asyncio.timeout(SEND_S),
            http.post(
                address, data=made.model_dump_json(), headers=headers, allow_redirects=False
            ) as response,
        ):
            if response.status not in (200, 201):
                raise ArchiveFailed(f"The FHIR server did not store it (HTTP {response.status}).")
            return response.headers.get("Location", address)
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise ArchiveFailed(f"The FHIR server does not answer ({type(error).__name__}).") from error


def _urn(verdict: Verdict) -> str:
    try:
        return uuid.UUID(first_id(verdict)).urn
    except ValueError as error:
        raise InvalidCase("The verdict's id is none that a gateway gives.") from error


def _figures(verdict: Verdict) -> Iterator[dict[str, Any]]:
    for name, value in figures(verdict).items():
        one = {"value": round(value, 6), "system": "http://unitsofmeasure.org", "code": "1"}
        yield {"code": {"text": name}, "valueQuantity": one}


def _text(said: tuple[str, str]) -> dict[str, Any]:
    return {"code": {"text": said[0]}, "valueString": said[1]}


def _page(said: Sequence[tuple[str, str]]) -> str:
    """The same for whoever reads no more than the narrative."""
    rows = "".join(f"<p>{name}: {html.escape(text)}</p>" for name, text in said)
    return f'<div xmlns="http://www.w3.org/1999/xhtml">{rows}</div>'


def _coded(system: str, code: str, display: str) -> dict[str, Any]:
    return {"coding": [{"system": system, "code": code, "display": display}]}


def _told(what: str, kind: str, value: str) -> dict[str, Any]:
    """A resource that is known by an identifier alone, of a kind in HL7 v2's table 0203."""
    kinds = "http://terminology.hl7.org/CodeSystem/v2-0203"
    known = {"type": {"coding": [{"system": kinds, "code": kind}]}, "value": value}
    return {"type": what, "identifier": known}
