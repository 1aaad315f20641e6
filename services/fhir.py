"""A verdict → a FHIR R4 DiagnosticReport, which holds all that is said as Observations.

It is held against the schema of R4B, in which these resources are as in R4. Patient, request and
study are told by their identifiers, as the archive's own instances have them.
"""

import html
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import httpx
from fhir.resources.R4B.diagnosticreport import DiagnosticReport
from pydantic import ValidationError
from pydicom.dataset import Dataset

from gateway.archive.words import RESEARCH, figures, lines
from gateway.contract import Verdict

DEVICE = "device"  # the id that it has within the report
SEND_S = 20


class NotTaken(Exception):
    """There is no report, or the server has not stored it; the message says why in one sentence."""


def report(verdict: Verdict, question: str, images: Sequence[Dataset]) -> DiagnosticReport:
    """`images` are the headers of what the panel was shown, as the archive has them.

    Raises:
        NotTaken
    """
    header = images[0]
    said = [*lines(verdict, question), ("Instances", " ".join(i.SOPInstanceUID for i in images))]
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
        "identifier": [{"value": verdict.id}],
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
        "conclusion": f"{RESEARCH}. {dict(said)['Answer']}",
    }
    if header.PatientID:
        made["subject"] = _told("Patient", "MR", header.PatientID)
    if header.AccessionNumber:
        made["basedOn"] = [_told("ServiceRequest", "ACSN", header.AccessionNumber)]
    try:
        return DiagnosticReport.model_validate(made)
    except ValidationError as error:
        raise NotTaken("What the verdict and the archive say makes no FHIR report.") from error


def send(made: DiagnosticReport, verdict: str, url: str, authorization: str | None) -> str:
    """Creates it on the server whose base is `url`, once for each verdict (its id); gives its
    address.

    Raises:
        NotTaken
    """
    headers = {
        "Content-Type": "application/fhir+json",
        # R4 3.1.0.8.1: what is there already is not created again.
        "If-None-Exist": f"identifier={verdict}",
    }
    if authorization:
        headers["Authorization"] = authorization
    address = f"{url.rstrip('/')}/DiagnosticReport"
    try:
        with httpx.Client(headers=headers, timeout=SEND_S, trust_env=False) as http:
            response = http.post(address, content=made.model_dump_json())
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise NotTaken(f"The FHIR server does not answer ({type(error).__name__}).") from error
    if response.status_code not in (200, 201):
        raise NotTaken(f"The FHIR server did not store it (HTTP {response.status_code}).")
    return str(response.headers.get("Location", address))


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
