"""A study is asked by its UID out of a real archive, and the verdict goes back beside it."""

import base64
import io
import json
import os
import signal
import subprocess
import time
import uuid
from contextlib import contextmanager
from pathlib import Path

import httpx
import pydicom
import pytest
from fastapi import FastAPI, Request, Response

from tests.conftest import listening, needs_program, until
from tests.dicoms import stack
from tests.ports import free_port
from tests.services.cli.conftest import consilium as consilium

ROOT = Path(__file__).parents[2]
WHO = ("gateway", "secret")

pytestmark = pytest.mark.usefixtures("programs")

FILES = stack(9, PatientName="Doe^Jane", PatientID="P1", StudyID="S", AccessionNumber="A1")
HEADERS = [pydicom.dcmread(io.BytesIO(data)) for data in FILES]
STUDY, SERIES = HEADERS[0].StudyInstanceUID, HEADERS[0].SeriesInstanceUID


@pytest.fixture(scope="module")
def programs():
    for program, package in (("Orthanc", "orthanc, orthanc-dicomweb"), ("dsrdump", "dcmtk")):
        needs_program(program, package)


@contextmanager
def running(folder, files):
    """An archive that holds these: its process, and its DICOMweb root."""
    port = free_port()
    # As in the container, but for where.
    settings = json.loads((ROOT / "deploy/orthanc.json").read_text("utf-8"))
    settings |= {"HttpPort": port, "StorageDirectory": str(folder), "IndexDirectory": str(folder)}
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["Orthanc", folder / "orthanc.json"],
            stdout=log,
            stderr=log,
            env={**os.environ, "ARCHIVE_PASSWORD": WHO[1]},
        )
    root = f"http://127.0.0.1:{port}"
    try:
        give_up_at = time.monotonic() + 30
        while not _answers(root):
            assert process.poll() is None and time.monotonic() < give_up_at
            time.sleep(0.1)
        with httpx.Client(auth=WHO, trust_env=False) as http:
            for data in files:
                http.post(f"{root}/instances", content=data).raise_for_status()
        yield process, f"{root}/dicom-web"
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory):
    """It holds the study; its DICOMweb root."""
    with running(tmp_path_factory.mktemp("orthanc"), FILES[::-1]) as (_, root):
        yield root


def _answers(root):
    try:
        return httpx.get(f"{root}/system", auth=WHO, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture
def environ(monkeypatch):
    login = base64.b64encode(":".join(WHO).encode()).decode()
    monkeypatch.setenv("CONSILIUM_ARCHIVE_AUTHORIZATION", f"Basic {login}")
    return {"CONSILIUM_ARCHIVE_AUTHORIZATION": f"Basic {login}"}


@pytest.fixture
def url(vllm, gateway, orthanc, environ):
    workers = [vllm("yes"), vllm("yes"), vllm("no")]
    return gateway(workers, environ=environ, http=f'\n[archive]\nurl = "{orthanc}"\nstore = true')


@pytest.fixture
def stored(orthanc):
    """Reads an instance back."""

    def read(uid):
        with httpx.Client(auth=WHO, trust_env=False) as http:
            root = orthanc.removesuffix("/dicom-web")
            [found] = http.post(f"{root}/tools/lookup", content=uid).json()
            return http.get(f"{root}/instances/{found['ID']}/file").content

    return read


@pytest.fixture
def verdict(consilium, url, tmp_path):
    """Of three workers who differ, in a file as it is printed."""
    asked = consilium(
        *("ask", "--study", STUDY, "--slices", "max 2-4", "--question", "Is there a nodule?"),
        *("--json", "--gateway", url),
    )
    assert asked.status == 0, asked.err
    path = tmp_path / "verdict.json"
    path.write_text(asked.out, "utf-8")
    return path


def test_a_study_is_asked_by_its_uid(verdict):
    [image] = json.loads(verdict.read_text("utf-8"))["images"]
    series = image["series"]
    assert (series["first"], series["last"], series["of"], series["faults"]) == (2, 4, 9, [])
    assert series["instances"] == [header.SOPInstanceUID for header in HEADERS[1:4]]


def test_one_that_stops_is_told_and_asked_again_once_it_goes_on(vllm, gateway, environ, tmp_path):
    with running(tmp_path, FILES[:2]) as (process, root):
        url = gateway(
            [vllm("yes")], environ=environ, http=f'\n[archive]\nurl = "{root}"\ntimeout_s = 1'
        )

        def asked():
            sent = {"question": "q?", "slices": "1", "dicomweb": {"study": STUDY}}
            return httpx.post(f"{url}/vqa", json=sent, timeout=30)

        process.send_signal(signal.SIGSTOP)
        stopped = asked()
        process.send_signal(signal.SIGCONT)
        until(lambda: asked().status_code == 200)
        process.kill()
        process.wait(10)
        killed = asked()
    assert [each.status_code for each in (stopped, killed)] == [502, 502]
    assert stopped.json()["detail"] == "The archive did not answer within 1 s."
    assert killed.json()["detail"] == "The archive cannot be reached."


def test_the_report_is_read_by_dcmtk_with_every_answer_and_the_dissent(
    consilium, verdict, stored, tmp_path
):
    """It refers to the very instances, and is of the patient and the study that they are of."""
    sent = consilium(
        *("archive", "send", verdict, "--as", "sr", "--question", "¿Hay un nódulo, 结节?"),
        *("--panel", tmp_path / "panel.toml"),
    )
    assert sent.status == 0, sent.err

    path = tmp_path / "report.dcm"
    path.write_bytes(stored(sent.out.strip()))
    made = pydicom.dcmread(path)
    read = subprocess.run(["dsrdump", "+Pl", path], capture_output=True, text=True, timeout=60)
    text = read.stdout
    assert read.returncode == 0 and "Comprehensive SR Document" in text
    for name, said in (
        ("Question", "¿Hay un nódulo, 结节?"),
        ("Answer", "yes"),
        ("Dissent", "no (w2; weight 0.33)"),
        *(("Worker", each) for each in ("w0: yes", "w1: yes", "w2: no")),
        ("Disclaimer", "Research use, not for diagnosis"),
        ("Shown", "slices 2 to 4 of 9, max"),
    ):
        assert f',"{name}")="{said}' in text, text
    assert '"Agreement")="0.6' in text and '"Algorithm Name")="Consilium"' in text
    assert json.loads(verdict.read_text("utf-8"))["panel"] in text
    assert (made.PatientID, made.StudyInstanceUID) == ("P1", STUDY)
    [study] = made.CurrentRequestedProcedureEvidenceSequence
    [series] = study.ReferencedSeriesSequence
    referenced = {each.ReferencedSOPInstanceUID for each in series.ReferencedSOPSequence}
    assert referenced == {header.SOPInstanceUID for header in HEADERS[1:4]}


def test_a_page_is_stored_for_viewers_that_show_no_report(consilium, verdict, stored, tmp_path):
    sent = consilium(
        *("archive", "send", verdict, "--as", "sc", "--question", "Is there a nodule?"),
        *("--panel", tmp_path / "panel.toml"),
    )
    assert sent.status == 0, sent.err
    made = pydicom.dcmread(io.BytesIO(stored(sent.out.strip())))
    assert (made.PatientID, made.StudyInstanceUID) == ("P1", STUDY)
    assert (made.pixel_array > 128).any()


@pytest.mark.parametrize("kind", ["sr", "sc"])
def test_what_is_stored_has_no_error_by_the_standards_modules(
    consilium, verdict, stored, kind, tmp_path
):
    """Held to PS3.3 by a validator that shares no code with who wrote it."""
    validator = needs_program("dciodvfy", "dicom3tools")
    sent = consilium(
        *("archive", "send", verdict, "--as", kind, "--question", "Is there a nodule?"),
        *("--panel", tmp_path / "panel.toml"),
    )
    path = tmp_path / "stored.dcm"
    path.write_bytes(stored(sent.out.strip()))
    found = subprocess.run([validator, path], capture_output=True, text=True, timeout=60)
    told = (found.stdout + found.stderr).splitlines()
    assert {"sr": "ComprehensiveSR", "sc": "SCImage"}[kind] in told
    assert [line for line in told if line.startswith("Error")] == []


@pytest.mark.parametrize("kind", ["sr", "sc"])
def test_a_case_may_have_its_verdict_stored(consilium, url, stored, kind, tmp_path):
    """By the gateway, as `archive send` does it; the verdict says where. It is there once."""
    asked = consilium(
        *("ask", "--study", STUDY, "--slices", "4", "--question", "Is there a nodule?"),
        *("--store", kind, "--json", "--gateway", url),
    )
    instance = json.loads(asked.out)["stored"]["instance"]
    made = pydicom.dcmread(io.BytesIO(stored(instance)))
    assert (made.PatientID, made.StudyInstanceUID) == ("P1", STUDY)
    assert made.Modality == {"sr": "SR", "sc": "OT"}[kind]

    twice = consilium(
        *("ask", "--study", STUDY, "--slices", "4", "--question", "Is there a nodule?"),
        *("--store", kind, "--json", "--gateway", url),
    )
    assert json.loads(twice.out)["stored"] == {"instance": instance, "error": None}
    (tmp_path / "verdict.json").write_text(twice.out, "utf-8")
    later = consilium(
        *("archive", "send", tmp_path / "verdict.json", "--as", kind),
        *("--question", " Is there a nodule? ", "--panel", tmp_path / "panel.toml"),
    )
    assert later.out.strip() == instance, later.err

    again = consilium(
        *("ask", "--study", STUDY, "--series", made.SeriesInstanceUID, "--question", "What is it?"),
        *("--gateway", url),
    )
    assert again.status == (kind == "sr") == ("is no picture of a patient" in again.err)


@pytest.fixture
def as_fhir(consilium, verdict, tmp_path):
    return lambda *to: consilium(
        *("archive", "send", verdict, "--as", "fhir", "--question", "Is there a <nodule>?"),
        *("--panel", tmp_path / "panel.toml", *to),
    )


def test_a_diagnostic_report_says_all_that_the_structured_one_says(as_fhir):
    """Of the patient, the request and the study that the archive's own instances name."""
    sent = as_fhir()
    assert sent.status == 0, sent.err
    made = json.loads(sent.out)
    assert (made["resourceType"], made["status"]) == ("DiagnosticReport", "preliminary")
    assert made["subject"]["identifier"]["value"] == "P1"
    assert made["basedOn"][0]["identifier"]["value"] == "A1"
    assert made["imagingStudy"][0]["identifier"]["value"] == f"urn:oid:{STUDY}"
    assert made["conclusion"] == "Research use, not for diagnosis. yes"
    device, *said = made["contained"]
    assert [each["reference"] for each in made["result"]] == [f"#{each['id']}" for each in said]
    assert {each["device"]["reference"] for each in said} == {f"#{device['id']}"}
    texts = [(each["code"]["text"], each.get("valueString")) for each in said]
    for told in (
        ("Question", "Is there a <nodule>?"),
        ("Answer", "yes"),
        ("Dissent", "no (w2; weight 0.33)"),
        ("Worker", "w2: no (raw confidence 0.90)"),
        ("Shown", "slices 2 to 4 of 9, max"),
        ("Instances", " ".join(header.SOPInstanceUID for header in HEADERS[1:4])),
    ):
        assert told in texts
    [agreement] = [each["valueQuantity"] for each in said if each["code"]["text"] == "Agreement"]
    assert agreement["value"] == pytest.approx(2 / 3, abs=1e-6)
    assert "Is there a &lt;nodule&gt;?" in made["text"]["div"]


@pytest.mark.parametrize(("status", "says"), [(201, ""), (200, ""), (422, "(HTTP 422)")])
def test_it_is_created_on_a_server_once(as_fhir, verdict, status, says):
    asked = []
    app = FastAPI()

    @app.post("/fhir/DiagnosticReport")
    async def create(request: Request) -> Response:
        asked.append((request.headers, await request.json()))
        return Response(status_code=status, headers={"Location": "/fhir/DiagnosticReport/7"})

    with listening(app) as url:
        sent = as_fhir("--to", f"{url}/fhir/", "--authorization", "Bearer f")
    [(headers, made)] = asked
    assert headers["authorization"] == "Bearer f"
    assert headers["content-type"] == "application/fhir+json"
    [known] = made["identifier"]
    assert headers["if-none-exist"] == f"identifier={known['system']}|{known['value']}"
    own = uuid.UUID(json.loads(verdict.read_text("utf-8"))["id"])
    assert known == {"system": "urn:ietf:rfc:3986", "value": own.urn}
    assert (sent.status, says in sent.err) == (bool(says), True)
    assert says or sent.out == "/fhir/DiagnosticReport/7\n"


def test_a_server_that_is_not_there_is_told(as_fhir, dead_url):
    sent = as_fhir("--to", dead_url)
    assert sent.status == 1 and "does not answer (ClientConnectorError)" in sent.err


def test_a_report_goes_nowhere_but_to_the_archive(consilium, verdict, dead_url):
    sent = consilium("archive", "send", verdict, "-q", "?", "--as", "sr", "--to", dead_url)
    assert sent.status == 2 and "--as fhir" in sent.err


def test_a_verdict_of_loose_files_does_not_go_there(consilium, verdict, tmp_path):
    read = json.loads(verdict.read_text("utf-8"))
    verdict.write_text(json.dumps(read | {"images": []}), "utf-8")
    sent = consilium("archive", "send", verdict, "-q", "?", "--panel", tmp_path / "panel.toml")
    assert sent.status == 1 and "of no images in an archive" in sent.err
