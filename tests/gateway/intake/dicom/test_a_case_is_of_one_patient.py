"""Files that contradict each other in whose they are make no case; spelling contradicts nothing."""

import io
from typing import Any

import pydicom
import pytest

from gateway.intake.dicom.file import InMemory, read
from gateway.intake.dicom.patient import PATIENT, check_one_patient
from gateway.intake.series.sources import _from_json
from gateway.refusals import InvalidCase
from tests.dicoms import RAMP, dicom_of

JANE, RICHARD = {"PatientName": "DOE^JANE"}, {"PatientName": "ROE^RICHARD"}
YAMADA = {"PatientName": "Yamada^Tarou=山田^太郎=やまだ^たろう"}


def check(*patients: dict[str, Any]) -> None:
    """As files are read, and as an archive tells of them."""
    files = [dicom_of(RAMP, SpecificCharacterSet="ISO_IR 192", **tags) for tags in patients]
    for header in ([_read(file) for file in files], _as_archived(files)):
        check_one_patient(header, "They")


def _read(file: bytes) -> Any:
    return read(InMemory(file), "It", stop_before_pixels=True, specific_tags=list(PATIENT))


def _as_archived(files: list[bytes]) -> list[Any]:
    return _from_json([pydicom.dcmread(io.BytesIO(file)).to_json_dict() for file in files])


@pytest.mark.parametrize(
    ("one", "other", "tag"),
    [
        ({"PatientID": "1"}, {"PatientID": "2"}, "0010,0020"),
        ({"PatientID": "1", **JANE}, {"PatientID": "2", **JANE}, "0010,0020"),
        (JANE, RICHARD, "0010,0010"),
        ({"PatientID": "", **JANE}, {"PatientID": "", **RICHARD}, "0010,0010"),
        ({"PatientID": "7", **JANE}, RICHARD, "0010,0010"),
        ({"PatientID": "ANON", **JANE}, {"PatientID": "ANON", **RICHARD}, "0010,0010"),
        (
            {"PatientID": "7", "IssuerOfPatientID": "HOSP A"},
            {"PatientID": "7", "IssuerOfPatientID": "HOSP B"},
            "0010,0021",
        ),
        (
            {"PatientID": "7", "PatientBirthDate": "19500101"},
            {"PatientID": "7", "PatientBirthDate": "20100101"},
            "0010,0030",
        ),
        ({"PatientName": "DOE^TWIN A"}, {"PatientName": "DOE^TWIN B"}, "0010,0010"),
        ({"PatientName": "DOE^JANE^A"}, {"PatientName": "DOE^JANE^B"}, "0010,0010"),
        # Said alike, and written otherwise.
        (YAMADA, {"PatientName": "Yamada^Tarou=山田^多朗"}, "0010,0010"),
    ],
)
def test_who_contradict_each_other_are_several(one, other, tag):
    """Told by the tag, and by nothing that it says."""
    for patients in ((one, other), (other, one), (one, {}, one, other)):
        with pytest.raises(InvalidCase, match=f"several patients, by \\({tag}\\)") as refused:
            check(*patients)
        said = [value for patient in patients for value in patient.values() if len(value) > 1]
        assert not any(value in str(refused.value) for value in said)
        assert refused.value.code == "several_patients"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (JANE, JANE),
        ({"PatientID": "A"}, {"PatientID": "A "}),
        ({"PatientID": "A", **JANE, "PatientBirthDate": "19500101"}, {}),  # one was anonymised
        ({"PatientID": "A", **JANE}, {"PatientID": "", "PatientName": "^^^^"}),
        ({"PatientID": "A", "PatientBirthDate": "19500101"}, {"PatientBirthDate": ""}),
        ({"PatientID": "A", "IssuerOfPatientID": "HOSP"}, {"PatientID": "A"}),
        ({"PatientID": "A", "IssuerOfPatientID": "HOSP"}, {"IssuerOfPatientID": "Hosp "}),
        (
            {"PatientID": "7", "PatientBirthDate": "19500101", "PatientName": "MUELLER^EVA"},
            {"PatientID": "7", "PatientBirthDate": "19500101", "PatientName": "MÜLLER^EVA"},
        ),
        *((JANE, {"PatientName": name}) for name in ("Doe^Jane", "DOE^JANE^^^", " DOE ^ JANE ")),
        *((JANE, {"PatientName": name}) for name in ("DOE^JANE^MARY", "DOE^JANE^^DR", "DOE")),
        *((JANE, {"PatientName": name}) for name in ("DOE JANE", "DOE, JANE", "DOE^JANE==")),
        ({"PatientName": "MÜLLER^ZOË"}, {"PatientName": "Muller^Zoe"}),
        (YAMADA, {"PatientName": "YAMADA^TAROU"}),
        (YAMADA, {"PatientName": "=山田^太郎"}),
        (YAMADA, {"PatientName": "山田^太郎"}),
    ],
)
def test_who_is_spelled_otherwise_or_not_named_is_the_same(one, other):
    check(one, other)
    check(other, one, {})


@pytest.mark.parametrize("charset", ["", "ISO_IR 999", "ISO 2022 IR 87", "\\ISO 2022 IR 149", "é"])
def test_a_name_in_letters_that_nobody_knows_is_read_all_the_same(charset):
    name = b"D\xd6E^\x1b$B\x3b\x1b^J\xff"
    file = dicom_of(RAMP, PatientName="x" * len(name), SpecificCharacterSet=charset)
    headers = [_read(file.replace(b"x" * len(name), name)) for _ in range(2)]
    check_one_patient(headers, "They")
