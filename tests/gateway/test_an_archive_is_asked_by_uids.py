"""Images in the archive are named by UIDs; what is wrong with it is one sentence, and nothing
hangs. How a real archive answers: tests/end_to_end/test_an_archive_is_asked_and_answered.py."""

import asyncio
import base64
import io
import json

import httpx
import matplotlib
import pydicom
import pytest
from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, StreamingResponse

from gateway.archive import returning
from gateway.archive.dicomweb import Archive
from gateway.asking.model_server import new_http_client
from gateway.contract import Familiarity, ImageShown, SeriesShown, Summary, Verdict
from gateway.refusals import ArchiveFailed
from gateway.tables import ArchiveSettings, Limits
from tests.conftest import listening, picture
from tests.dicoms import stack

# The same in every process: they stand in tests' names.
STUDY = "1.2.826.0.1.3680043.8.498.1"
SERIES = f"{STUDY}.2"
FILES = stack(9, StudyInstanceUID=STUDY, SeriesInstanceUID=SERIES)
HEADERS = [pydicom.dcmread(io.BytesIO(data)) for data in FILES]
UIDS = [header.SOPInstanceUID for header in HEADERS]
DEJAVU = matplotlib.get_data_path() + "/fonts/ttf/DejaVuSans.ttf"
NAMED = ("00080016", "00080018", "0020000D", "0020000E")  # its kind and its UIDs
SR = {"0020000E": {"vr": "UI", "Value": ["1.2.9"]}, "00080060": {"vr": "CS", "Value": ["SR"]}}


async def _drops():
    """Bytes that never end, one by one."""
    while True:
        yield b" "
        await asyncio.sleep(0.01)


class FakeArchive:
    """Of one study; `asked` holds the paths and who asked, `wrong` what is wrong with it; `stored`
    what was to be stored and where, which is answered by `status` and `says` ("": it is there)."""

    def __init__(self):
        self.fresh()
        self.app = FastAPI()
        self.app.get("/studies/{path:path}")(self.answer)
        self.app.post("/studies/{path:path}")(self.store)

    async def store(self, path: str, request: Request) -> Response:
        boundary = request.headers["content-type"].rpartition("boundary=")[2].encode()
        for part in (await request.body()).split(b"--" + boundary)[1:-1]:
            file = part.partition(b"\r\n\r\n")[2]
            self.stored.append((path, pydicom.dcmread(io.BytesIO(file))))
        if self.wrong == "never stores":
            while (await request.receive())["type"] != "http.disconnect":
                pass
        uid = self.stored[-1][1].SOPInstanceUID
        there = {"00081155": {"vr": "UI", "Value": [uid]}}
        told = {"00081199": {"vr": "SQ", "Value": [there]}}
        if self.wrong.startswith("0x"):
            why = {"00081197": {"vr": "US", "Value": [int(self.wrong, 16)]}}
            told = {"00081198": {"vr": "SQ", "Value": [there | why]}}
        return Response(self.says or json.dumps(told), status_code=self.status)

    def fresh(self):
        self.asked, self.wrong = [], ""
        self.next_but_one = asyncio.Event()
        self.stored, self.status, self.says = [], 200, ""

    async def answer(self, path: str, request: Request) -> Response:
        self.asked.append((path, request.headers.get("authorization")))
        if self.wrong == "slow":
            while (await request.receive())["type"] != "http.disconnect":
                pass
        if self.wrong == "secret":
            return Response(status_code=401)
        if self.wrong == "elsewhere":
            return Response(status_code=302, headers={"location": "http://127.0.0.1:1/"})
        if self.wrong == "in part":
            return Response("[]", status_code=206)
        if self.wrong == "drips":
            return StreamingResponse(_drops())
        if self.wrong == "no json":
            return Response("<html>")
        if self.wrong.startswith("["):
            return Response(self.wrong)
        if self.wrong == "odd json":
            return Response('[{"0020000E": {"vr": "UI", "Value": [{}]}}]')
        if path == f"{STUDY}/series":
            ours = [header.to_json_dict() for header in HEADERS[:1]]
            more = ours * (self.wrong == "listed twice")
            if self.wrong == "two series":
                more = [ours[0] | {"0020000E": {"vr": "UI", "Value": ["1.2.9"]}}]
            if self.wrong == "two modalities":
                ours[0]["00080060"]["Value"] = ["ct", "PT"]
            return Response(json.dumps([*ours, *more, SR]))
        if path == f"{STUDY}/series/{SERIES}/metadata":
            found = [h.to_json_dict() for h in HEADERS]
            if self.wrong == "moved":
                found[1]["0020000D"]["Value"] = ["1.2.8"]
            if self.wrong == "odd header":
                found[1]["00101010"] = {}
            if self.wrong == "many":
                found = [{tag: found[0][tag] for tag in NAMED}] * 5_000
            if self.wrong == "no uid":
                found[1]["00080018"]["Value"] = ["../../else"]
            return Response(
                json.dumps([found[8]] * 2 if self.wrong == "twice" else found, indent=1)
            )
        instance = path.rpartition("/")[2]
        if instance not in UIDS:
            return Response(status_code=404)
        at = UIDS.index(instance) - (self.wrong == "others")
        if instance == UIDS[5]:
            self.next_but_one.set()
        if self.wrong == "waits for the next" and instance == UIDS[3]:
            await self.next_but_one.wait()
        if self.wrong == "html":
            return HTMLResponse("<html>Sign in</html>")
        if self.wrong == "empty":
            return Response(media_type='multipart/related; boundary="b"')
        part = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + FILES[at] + b"\r\n"
        body = part * (2 if self.wrong == "two files" else 1) + b"--b--\r\n"
        return Response(body, media_type='multipart/related; type="application/dicom"; boundary=b')


@pytest.fixture(scope="module")
def running():
    fake = FakeArchive()
    with listening(fake.app) as fake.url:
        yield fake


@pytest.fixture
def archive(running):
    running.fresh()
    return running


@pytest.fixture
def ask(vllm, gateway, archive):
    def start(more="", timeout_s=0.3, **environ):
        extra = f'\n[archive]\nurl = "{archive.url}"\ntimeout_s = {timeout_s}\n{more}'
        seats = ['languages = ["en", "es", "zh"]\nmax_images = 4']
        url = gateway([vllm("yes")], environ=environ, http=extra, seats=seats)
        return lambda slices=None, options=None, question="q?", **uids: httpx.post(
            f"{url}/vqa",
            json={
                "question": question,
                "slices": slices,
                "dicomweb": {"study": STUDY, **uids},
                "options": options,
            },
            timeout=60,
        )

    return start


def test_a_study_is_asked_by_its_uid_and_only_what_is_shown_is_fetched(ask, archive):
    response = ask(CONSILIUM_ARCHIVE_AUTHORIZATION="Bearer own")()
    assert response.status_code == 200, response.text
    shown = [UIDS[at] for at in (1, 3, 5, 7)]
    series = [image["series"] for image in response.json()["images"]]
    assert [each["first"] for each in series] == [2, 4, 6, 8]
    assert [each["instances"] for each in series] == [[uid] for uid in shown]
    assert {(each["study"], each["series"]) for each in series} == {(STUDY, SERIES)}
    root = f"{STUDY}/series"
    fetched = [f"{root}/{SERIES}/instances/{uid}" for uid in shown]
    asked = [root, f"{root}/{SERIES}/metadata", *fetched]
    found = [*archive.asked[:2], *sorted(archive.asked[2:])]
    assert found == [(path, "Bearer own") for path in [*asked[:2], *sorted(asked[2:])]]


def test_the_next_two_are_on_their_way_while_one_is_shown(ask, archive):
    archive.wrong = "waits for the next"
    assert ask()().status_code == 200


def test_a_series_that_is_listed_twice_is_one(ask, archive):
    """As Orthanc lists it that got it under two patients."""
    archive.wrong = "listed twice"
    assert ask()().status_code == 200


def test_a_series_that_says_two_modalities_is_one_with_images(ask, archive):
    archive.wrong = "two modalities"
    assert ask()().status_code == 200


def test_instances_are_slices_of_the_whole_that_they_make(ask):
    response = ask()(series=SERIES, instances=[UIDS[8], UIDS[2]], window="lung")
    series = [image["series"] for image in response.json()["images"]]
    assert [each["instances"] for each in series] == [[UIDS[2]], [UIDS[8]]]
    assert response.json()["images"][0]["window"] == [-600, 1500]


def test_a_file_that_is_shown_twice_is_fetched_once(ask, archive):
    """As one of many frames is."""
    assert ask()("3,3,4", series=SERIES).status_code == 200
    fetched = [path.rpartition("/")[2] for path, _ in archive.asked[1:]]
    assert fetched == UIDS[2:4]


@pytest.mark.parametrize(
    ("wrong", "uids", "status", "says"),
    [
        ("slow", {}, 502, "The archive did not answer within 0.3 s."),
        ("drips", {}, 502, "The archive did not answer within 0.3 s."),
        ("in part", {}, 502, "answers with HTTP 206"),
        ("html", {}, 502, "gave other instances than were asked for"),
        ("empty", {}, 502, "another number of files"),
        ("secret", {}, 502, "does not take the gateway's own credentials"),
        ("elsewhere", {}, 502, "answers with HTTP 302"),
        ("no json", {}, 502, "is no DICOM JSON"),
        ("[{}", {}, 502, "is no DICOM JSON"),
        ("[{}]]", {}, 502, "is no DICOM JSON"),
        ("[[]]", {}, 502, "is no DICOM JSON"),
        ("[ ]", {}, 404, "holds no such study"),
        ("odd json", {"series": SERIES}, 502, "says of the series cannot be read"),
        ("others", {}, 502, "gave other instances than were asked for"),
        ("no uid", {}, 502, "an instance by no UID"),
        ("twice", {"series": SERIES, "instances": [UIDS[8], UIDS[2]]}, 404, "holds no such study"),
        ("two files", {}, 502, "another number of files"),
        ("two series", {}, 422, f"the study has 2; send one of {SERIES}, 1.2.9."),
        ("", {"series": "1.2.9"}, 404, "holds no such study, series or instances"),
        ("", {"series": SERIES, "instances": ["1.2.9"]}, 404, "holds no such study"),
        ("", {"study": "1.2.0003"}, 404, "holds no such study"),  # as some devices write them
        ("", {"study": "1." + "2" * 62}, 404, "holds no such study"),
        *(
            ("", {"study": study}, 422, "dicomweb.study: is no DICOM UID")
            for study in (
                "1.2/../../x",
                "1." + "2" * 63,
                "",
                "1",
                "1.",
                ".1",
                "1..2",
                "１.２",
                "1.2\n",
            )
        ),
        ("", {"series": "1.2 "}, 422, "dicomweb.series: is no DICOM UID"),
        ("", {"series": SERIES, "instances": ["1.2", "%2e"]}, 422, "dicomweb.instances"),
        ("", {"series": SERIES, "instances": []}, 422, "dicomweb.instances"),
    ],
)
def test_what_is_wrong_with_it_is_one_sentence(ask, archive, wrong, uids, status, says):
    archive.wrong = wrong
    response = ask()(**uids)
    assert response.status_code == status and says in response.json()["detail"], response.text


def test_a_series_of_too_many_slices_is_told_before_one_is_fetched(ask, archive):
    archive.wrong = "many"
    response = ask(timeout_s=20)(series=SERIES)
    assert response.status_code == 413
    assert "5000 slices; send at most 2000" in response.json()["detail"]
    assert [path.rpartition("/")[2] for path, _ in archive.asked] == ["metadata"]


def test_one_that_is_stopped_is_told(vllm, gateway, dead_url):
    url = gateway([vllm("yes")], http=f'\n[archive]\nurl = "{dead_url}"')
    sent = {"question": "q?", "dicomweb": {"study": STUDY}}
    response = httpx.post(f"{url}/vqa", json=sent, timeout=60)
    assert (response.status_code, response.json()["detail"]) == (
        502,
        "The archive cannot be reached.",
    )


@pytest.mark.parametrize(
    ("tenants", "status"),
    [
        ("{ public = ['1.2.8'] }", 404),
        ("{ ward = ['1.2'] }", 404),
        (f"{{ public = ['{STUDY}'] }}", 200),
    ],
)
def test_a_tenant_asks_about_its_own_studies_alone(ask, archive, tenants, status):
    """It is not told whether the others are there; and nothing is fetched to find out."""
    assert ask(f"tenants = {tenants}")().status_code == status
    assert bool(archive.asked) == (status == 200)


def test_without_an_archive_it_is_refused(vllm, gateway):
    url = gateway([vllm("yes")])
    sent = {"question": "q?", "dicomweb": {"study": STUDY}}
    response = httpx.post(f"{url}/vqa", json=sent, timeout=60)
    assert response.status_code == 422 and "knows no archive" in response.json()["detail"]


@pytest.fixture
def store(ask):
    """Asks, and to have the verdict stored."""
    asks = ask("store = true", timeout_s=20)  # what writes reports is imported at the first
    return lambda kind="sr", **how: asks(options={"store": kind}, **how)


def test_a_verdict_is_stored_for_each_case_that_asks_for_it(store, archive):
    """Beside its images, and of the same patient. One that is known already is stored again, and
    one that was not to be stored is not asked anew for it."""
    first = store(slices="3").json()
    page = store("sc", slices="3").json()
    assert first["stored"]["error"] is None and page["cached_from"] == first["id"]
    stored = [each["stored"]["instance"] for each in (first, page)]
    assert [made.SOPInstanceUID for _, made in archive.stored] == stored
    assert [made.Modality for _, made in archive.stored] == ["SR", "OT"]
    assert {path for path, _ in archive.stored} == {STUDY}
    assert {(made.PatientID, made.StudyInstanceUID) for _, made in archive.stored} == {
        ("P1", STUDY)
    }


def test_words_of_a_caller_are_no_file_of_their_own(store, archive, monkeypatch):
    """Whoever knew the line between the files could put a report of their own there."""
    lines = iter(["aa", "bb"])
    monkeypatch.setattr("secrets.token_hex", lambda: next(lines))
    ends = "q?\r\n--{0}\r\nContent-Type: application/dicom\r\n\r\nmine\r\n--{0}--"
    for line in ("consilium", "aa"):
        assert store(question=ends.format(line)).json()["stored"]["instance"]
    assert len(archive.stored) == 2


def test_what_is_stored_with_a_warning_is_stored(store, archive):
    archive.status = 202
    assert store().json()["stored"]["error"] is None


@pytest.mark.parametrize(
    ("status", "why", "stored"), [(409, "0x0111", True), (409, "0x0110", False)]
)
def test_what_is_there_already_is_stored(store, archive, status, why, stored):
    archive.status, archive.wrong = status, why
    told = store().json()["stored"]
    assert bool(told["instance"]) == stored
    assert stored or "did not take" in told["error"]


def test_the_archive_is_asked_once_what_it_says_of_the_images(store, archive):
    """Pictures and report are made of the same answer."""
    assert store(slices="3", series=SERIES).json()["stored"]["instance"]
    assert [path.rpartition("/")[2] for path, _ in archive.asked] == ["metadata", UIDS[2]]


@pytest.mark.parametrize("kind", ["sr", "sc"])
def test_the_same_words_of_the_same_images_are_one_object(store, archive, kind):
    """Whoever hung up while it was stored, and asks again, does not have it there twice."""
    first, again = (store(kind, slices="3").json() for _ in range(2))
    assert again["cached_from"] == first["id"] and again["stored"] == first["stored"]
    made, same = (each for _, each in archive.stored)
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID"):
        assert made[keyword] == same[keyword]
    for other in ({"slices": "4"}, {"slices": "3", "question": "What?"}):
        assert store(kind, **other).json()["stored"] != first["stored"]


def test_an_archive_that_never_ends_storing_costs_its_own_time_alone(ask, archive):
    archive.wrong = "never stores"
    verdict = ask("store = true")("3", {"store": "sr"}).json()
    assert verdict["answer"] == "yes"
    assert verdict["stored"]["error"] == "Nothing was stored within 0.3 s."


SHOWN = SeriesShown(first=1, last=1, of=9, study=STUDY, series=SERIES, instances=(UIDS[1],))
VERDICT = Verdict(
    id="0b0e4d1c-4b6b-4f0e-9b0a-2f6f5a0c1d2e",
    answer="yes",
    language="en",
    agreement=1,
    images=(ImageShown(series=SHOWN),),
    answers=(),
    dissent=(),
    summary=Summary(by="vote", faithful=None, seconds=0),
    panel="p",
    seconds=0,
)


def sent(archive, verdict, kind):
    """As `consilium archive send` does it."""

    async def send():
        settings = ArchiveSettings(url=archive.url, store=True)
        async with new_http_client() as http:
            await returning.send(Archive(http, settings, "", Limits()), verdict, "q?", kind)

    asyncio.run(send())
    return archive.stored[-1][1]


def test_what_came_to_lie_in_another_study_gets_no_report(archive):
    """Between the verdict and its sending."""
    archive.wrong = "moved"
    with pytest.raises(ArchiveFailed, match="makes no report"):
        sent(archive, VERDICT, "sr")
    assert archive.stored == []


ODD = VERDICT.model_copy(
    update={"familiarity": Familiarity(unfamiliar=True, why="it is odd"), "grounding": 0.02}
)
CAUTIONS = ["Unfamiliar case: it is odd.", "The same answer as without the image."]


def test_how_far_an_answer_may_be_relied_on_stands_before_it(archive):
    """In a report, on a page, and in what a FHIR report concludes."""
    from gateway.archive import capture, diagnostic_report

    made = sent(archive, ODD, "sr")
    [measured], [words] = (
        [each.ContentSequence for each in made.ContentSequence if meaning_of(each) == name]
        for name in ("Imaging Measurements", "Qualitative Evaluations")
    )
    said = [(meaning_of(each), each.TextValue) for each in words]
    at = said.index(("Answer", "yes"))
    assert said[at - 2 : at] == [("Caution", caution) for caution in CAUTIONS]
    [figure] = [each for each in measured[0].ContentSequence if meaning_of(each) == "Grounding"]
    assert float(figure.MeasuredValueSequence[0].NumericValue) == 0.02

    assert capture._drawn(ODD, "q?").shape[0] > capture._drawn(VERDICT, "q?").shape[0]
    header = HEADERS[1].copy()
    header.AccessionNumber = ""
    report = diagnostic_report.report(ODD, "q?", [header])
    assert report.conclusion == " ".join(["Research use, not for diagnosis.", *CAUTIONS, "yes"])


def test_grounding_that_comes_to_be_known_makes_no_other_report(archive):
    """It is often asked only behind the verdict; who asks again has one report there."""
    known = [VERDICT.model_copy(update={"grounding": value}) for value in (None, 0.02, 0.7)]
    assert len({sent(archive, verdict, "sr").SOPInstanceUID for verdict in known}) == 1
    assert sent(archive, ODD, "sr").SOPInstanceUID != archive.stored[0][1].SOPInstanceUID


def meaning_of(item):
    return item.ConceptNameCodeSequence[0].CodeMeaning


@pytest.mark.parametrize("question", ["¿Hay un nódulo?", "有结节吗？"])
def test_a_report_has_the_letters_of_every_language(store, archive, question):
    assert store(question=question).json()["stored"]["instance"]
    [(_, made)] = archive.stored
    assert question in str(made)


@pytest.mark.parametrize(("fonts", "stored"), [((), False), ((DEJAVU,), True)])
def test_a_page_whose_letters_no_font_has_is_told(store, archive, monkeypatch, fonts, stored):
    """Boxes in their place would be read as an answer."""
    from gateway.archive import capture

    monkeypatch.setattr(capture, "FONTS", fonts)
    told = store("sc", question="¿Hay un nódulo?").json()["stored"]
    assert bool(told["instance"]) == stored == bool(archive.stored)
    assert stored or "No font here has the letters" in told["error"]


@pytest.mark.parametrize("error", [OSError, NotImplementedError, ZeroDivisionError, KeyError])
def test_what_cannot_be_made_costs_nobody_the_verdict(store, archive, monkeypatch, error):
    from gateway.archive import capture

    def breaks(*_):
        raise error

    monkeypatch.setattr(capture, "_drawn", breaks)
    response = store("sc")
    assert response.status_code == 200 and response.json()["answer"]
    assert "makes no report" in response.json()["stored"]["error"] and archive.stored == []


@pytest.mark.parametrize(
    ("status", "says", "told"),
    [
        (409, "<html>", "The archive does not say in DICOM JSON what it stored."),
        (500, "", "The archive answers with HTTP 500."),
        (200, "{}", "The archive did not take what was to be stored."),
        (200, '{"00081199": 1}', "The archive does not say in DICOM JSON what it stored."),
        (401, "", "The archive does not take the gateway's own credentials."),
        (200, "<html>", "The archive does not say in DICOM JSON what it stored."),
        (202, '{"00081198": {"Value": [{}]}}', "The archive did not take what was to be stored."),
    ],
)
def test_what_is_not_stored_is_answered_all_the_same_and_told(store, archive, status, says, told):
    archive.status, archive.says = status, says
    verdict = store().json()
    assert verdict["answer"] == "yes"
    assert verdict["stored"] == {"instance": None, "error": told}


def test_headers_that_make_no_report_are_told(store, archive):
    """The report needs more of a header than the picture does."""
    archive.wrong = "odd header"
    assert "makes no report" in store().json()["stored"]["error"]


@pytest.mark.parametrize("stores", [True, False])
def test_the_panel_tells_whether_verdicts_may_go_there(vllm, gateway, archive, stores):
    more = f'\n[archive]\nurl = "{archive.url}"\nstore = {str(stores).lower()}'
    report = httpx.get(f"{gateway([vllm('yes')], http=more)}/panel").json()
    assert (report["archive"], report["archive_stores"]) == (True, stores)


def test_nothing_is_stored_that_the_panel_file_does_not_allow(ask, vllm, gateway, archive):
    """And nothing that came from no archive."""
    response = ask()(options={"store": "sr"})
    assert response.status_code == 422 and "stores nothing" in response.json()["detail"]
    assert archive.asked == []
    url = gateway([vllm("yes")], http=f'\n[archive]\nurl = "{archive.url}"\nstore = true')
    sent = {
        "question": "q?",
        "images": [base64.b64encode(picture()).decode()],
        "options": {"store": "sr"},
    }
    response = httpx.post(f"{url}/vqa", json=sent, timeout=60)
    assert response.status_code == 422 and "came from no archive" in response.json()["detail"]
