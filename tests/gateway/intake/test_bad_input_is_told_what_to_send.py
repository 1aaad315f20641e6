"""Every wrong request gets a problem that says what was wrong and what to send, and no echo."""

import base64
import io
import json
import math
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from PIL import Image
from pydicom.data import get_testdata_file

from tests.conftest import picture
from tests.dicoms import RAMP, dicom_of

SECRET = "Müller-Lüdenscheidt"  # stands for text that must not come back


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def case(**changes: Any) -> dict[str, Any]:
    return {"question": "Is it healthy?", "images": [b64(picture())]} | changes


@pytest.fixture
def url(vllm: Callable[..., Any], gateway: Callable[..., str]) -> str:
    limits = "max_body_mb = 1\nmax_image_mb = 0.2\nmax_context_chars = 100"
    return gateway([vllm()], limits=limits)


def check(response: httpx.Response, status: int, *words: str) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == status and problem["title"]
    assert problem["type"].startswith("urn:consilium:")
    for word in words:
        assert word in problem["detail"]
    assert SECRET not in response.text


# What stands before its image begins as a zip does, and is nothing.
LIKE_A_SERIES = f"data:x=,UEsDBBQA{'A' * 200};base64,{b64(picture())}"

JSON_PROBLEMS: list[tuple[str, dict[str, Any], int, list[str]]] = [
    ("no image", case(images=[]), 422, ["images", "at least one"]),
    ("images missing", {"question": "Is it healthy?"}, 422, ["images"]),
    ("too many images", case(images=[b64(picture())] * 5), 413, ["5 images", "at most 4"]),
    ("as if of a series", case(images=[LIKE_A_SERIES] * 5), 413, ["5 images", "at most 4"]),
    ("image too large", case(images=[b64(bytes(300_000))]), 413, ["Image 1 of 1", "0.2 MB"]),
    ("not base64", case(images=["!" + SECRET]), 400, ["Image 1 of 1", "base64"]),
    ("a data URI without base64", case(images=["data:image/png,abc"]), 400, ["base64"]),
    ("a link", case(images=[f"https://{SECRET}/a.png"]), 422, ["nothing is fetched", "base64"]),
    ("a file link", case(images=["file:///etc/passwd"]), 422, ["nothing is fetched"]),
    ("not a string", case(images=[7]), 422, ["images.0"]),
    ("an empty image", case(images=[""]), 400, ["Image 1 of 1 is empty"]),
    ("a PDF", case(images=[b64(b"%PDF-1.7\n" + bytes(100))]), 415, ["PNG, JPEG, WebP, TIFF"]),
    ("text", case(images=[b64(b"hello " * 50)]), 415, ["Image 1 of 1", "not an image"]),
    ("a GIF", case(images=[b64(picture("P", kind="GIF"))]), 415, ["not an image that is served"]),
    ("cut short", case(images=[b64(picture()), b64(picture()[:-40])]), 400, ["Image 2 of 2"]),
    ("a JPEG cut short", case(images=[b64(picture(kind="JPEG")[:-60])]), 400, ["cut short"]),
    ("an unknown field", case(colour="red"), 422, ["colour", "not a known field"]),
    ("an unknown option", case(options={"speed": 1}), 422, ["options.speed"]),
    ("a field named by a patient", case(**{SECRET + " 1.1.1960": 1}), 422, ["a field"]),
    ("no question", {"images": [b64(picture())]}, 422, ["question", "required"]),
    ("a blank question", case(question=" \n"), 422, ["question", "blank"]),
    ("a question of no width", case(question="\u200b\u2060"), 422, ["question", "blank"]),
    ("a question of 100,000", case(question=SECRET * 5264), 422, ["100016 characters", "2000"]),
    ("a long context", case(context="x" * 101), 422, ["context", "at most 100"]),
    ("a wrong language", case(language=SECRET), 422, ["language", "'en', 'es' or 'zh'"]),
    ("a language nobody speaks", case(language="zh"), 422, ["No worker takes", "w0: en"]),
    ("one choice", case(choices=["yes"]), 422, ["choices"]),
    ("equal choices", case(choices=["yes", "Yes."]), 422, ["choices"]),
    ("a long choice", case(choices=["x" * 201, "y"]), 422, ["choices", "at most 200"]),
    ("an unknown worker", case(options={"workers": [SECRET]}), 422, ["w0"]),
    ("three rounds", case(options={"rounds": 3}), 422, ["options.rounds", "1 or 2"]),
    ("not waiting", case(options={"wait": "none"}), 422, ["options.wait", "'all'", "'enough'"]),
    ("abstaining", case(options={"max_risk": 0.1}), 422, ["options.max_risk"]),
    ("a set", case(options={"coverage": 0.9}), 422, ["options.coverage"]),
    ("a place to store", case(options={"store": "sr"}), 422, ["options.store", "Send null"]),
    ("thoughts", case(options={"reasoning": 2}), 422, ["options.reasoning", "true or false"]),
    ("a modality", case(modality="CT"), 422, ["modality"]),
    ("a flag for seconds", case(options={"deadline_s": True}), 422, ["deadline_s", "a number"]),
    ("a flag for rounds", case(options={"rounds": True}), 422, ["options.rounds", "a number"]),
    ("a flag for risk", case(options={"max_risk": False}), 422, ["max_risk", "send a number"]),
    ("no time", case(options={"deadline_s": 0}), 422, ["options.deadline_s", "greater than 0"]),
    ("half a character", case(question="\ud800"), 422, ["question", "half a character"]),
    ("half in the context", case(context="x\ud800"), 422, ["context", "half a character"]),
    ("half in a choice", case(choices=["a", "\ud800"]), 422, ["choices", "half a character"]),
    ("half a worker", case(options={"workers": ["\ud800"]}), 422, ["options.workers", "half"]),
]


JSON_PROBLEMS.append(
    (
        "a flag for a frame",
        case(images=[{"data": b64(picture()), "frame": True}]),
        422,
        ["images.0.frame", "send a number"],
    )
)
# Python's JSON reads integers that no float can hold.
HUGE = 10**400
for window in ([1, HUGE], [-HUGE, 5], [0.5, HUGE]):
    shown = {"data": b64(dicom_of(RAMP)), "window": window}
    JSON_PROBLEMS.append(("a huge window", case(images=[shown]), 422, ["window", "width"]))
    archived = {"question": "Is it?", "dicomweb": {"study": "1.2", "window": window}}
    JSON_PROBLEMS.append(("a huge archived window", archived, 422, ["dicomweb.window", "width"]))
for name in ("deadline_s", "max_risk", "coverage", "rounds"):
    asked = case(options={name: HUGE})
    JSON_PROBLEMS.append((f"a huge {name}", asked, 422, [f"options.{name}"]))
JSON_PROBLEMS.append(
    (
        "a huge frame",
        case(images=[{"data": b64(dicom_of(RAMP)), "frame": HUGE}]),
        422,
        ["one frame"],
    )
)


@pytest.mark.parametrize(
    ("body", "status", "words"), [p[1:] for p in JSON_PROBLEMS], ids=[p[0] for p in JSON_PROBLEMS]
)
def test_a_wrong_case(url, body, status, words):
    headers = {"content-type": "application/json"}
    check(httpx.post(f"{url}/vqa", content=json.dumps(body), headers=headers), status, *words)


def test_what_people_often_meet_has_a_code(vllm, gateway):
    """An interface has words of its own for it; OpenAI's clients find it where they look."""
    alone, zh = 'languages = ["en"]\neach_image = true', 'languages = ["zh"]'
    url = gateway([vllm(), vllm()], limits="max_context_chars = 100", seats=[alone, zh])
    two = [b64(picture()), b64(picture(size=(40, 40)))]
    met = {
        "no_image": case(images=[]),
        "no_question": case(question=" "),
        "too_long": case(context="x" * 101),
        "other_language": case(question="¿Hay derrame?", language="en"),
        "language_not_spoken": case(language="es"),
        "images_not_taken": case(images=two, language="zh"),
        "one_image_at_a_time": case(images=two, question="Which of the two images is larger?"),
        "choices_alike": case(choices=["yes", "Yes."]),
        "not_learned": case(options={"coverage": 0.9}),
        "several_patients": case(images=[b64(dicom_of(RAMP, PatientID=who)) for who in "AB"]),
        "too_small_or_narrow": case(images=[b64(picture(size=(8, 8)))]),
        "no_picture": case(images=[dicom("rtplan.dcm")]),
        "compression": case(images=[b64(dicom_of(RAMP).replace(b"10008.1.2.1", b"10008.1.2.9"))]),
    }
    told = {
        code: httpx.post(f"{url}/vqa", json=asked).json()["code"] for code, asked in met.items()
    }
    assert told == {code: code for code in met}
    assert "code" not in httpx.post(f"{url}/vqa", json=case(colour="red")).json()
    chat = {"model": "consilium", "messages": [{"role": "user", "content": "Is it?"}]}
    error = httpx.post(f"{url}/v1/chat/completions", json=chat).json()["error"]
    assert error["code"] == "no_image"


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, ["empty"]),
        (b"{", 400, ["not valid JSON in UTF-8: line 1, column 2"]),
        (b'{"a": 1,\n "b" 2}', 400, ["line 2, column 6"]),
        (b'{"a": "\xfc"}', 400, ["UTF-8: byte 8"]),
        (b"[1]", 400, ["not a JSON object"]),
        (b"\xff\xfe", 400, ["UTF-8"]),
        (b"[" * 10_000, 400, ["nested too deep"]),
        (b'{"a":' * 9_000, 400, ["nested too deep"]),
        (b"[" * 100_000, 413, ["items"]),
        (json.dumps(case(options={"deadline_s": math.nan})).encode(), 400, ["NaN"]),
        (json.dumps(case(options={"deadline_s": math.inf})).encode(), 400, ["Infinity"]),
        (b'{"question": "a", "question": "b"}', 400, ["twice"]),
        (b'{"n": ' + b"9" * 5_000 + b"}", 400, ["not valid JSON"]),
        (b" " * 1_100_000, 413, ["1 MB"]),
    ],
)
def test_a_body_that_is_no_case(url, body, status, words):
    headers = {"content-type": "application/json"}
    check(httpx.post(f"{url}/vqa", content=body, headers=headers), status, *words)


def test_a_body_that_never_ends_is_cut_off(url):
    """Without a Content-Length the limit holds while reading."""

    def endless():
        while True:
            yield b" " * 100_000

    headers = {"content-type": "application/json"}
    try:
        response = httpx.post(f"{url}/vqa", content=endless(), headers=headers, timeout=20)
    except (httpx.WriteError, httpx.ReadError):
        return  # the gateway had hung up before we stopped sending
    check(response, 413, "1 MB")


@pytest.mark.parametrize("kind", ["text/plain", "", "application/x-www-form-urlencoded"])
def test_a_body_of_another_type(url, kind):
    response = httpx.post(f"{url}/vqa", content=b"question=x", headers={"content-type": kind})
    check(response, 415, "application/json", "multipart/form-data")


def test_a_compressed_body(url):
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    check(httpx.post(f"{url}/vqa", content=b"x", headers=headers), 415, "uncompressed")
    several = [*headers.items(), ("content-encoding", "identity")]
    for order in (several, several[::-1]):
        check(httpx.post(f"{url}/vqa", content=b"x", headers=order), 415, "uncompressed")


IMAGE = ("images", ("a.png", picture()))


@pytest.mark.parametrize(
    ("data", "files", "status", "words"),
    [
        ({"question": "q?"}, [("x", ("a.png", b"x"))], 422, ["x", "only images"]),
        ({"question": "q?", "images": "text"}, [IMAGE], 422, ["images", "as a file"]),
        ({"question": ["a?", "b?"]}, [IMAGE], 422, ["question", "once"]),
        ({"question": "q?", "colour": "red"}, [IMAGE], 422, ["colour"]),
        ({"question": "q?", "options": "{"}, [IMAGE], 400, ["options", "JSON"]),
        ({"question": "q?", "options": '{"rounds": 3}'}, [IMAGE], 422, ["options.rounds"]),
        ({"question": "q?"}, [("images", ("a.png", bytes(300_000)))], 413, ["Image 1 of 1"]),
        ({"question": "q?"}, [IMAGE] * 5, 413, ["5 images"]),
        ({"question": "x" * 100_000}, [IMAGE], 422, ["100000 characters"]),
        (
            {"question": "q?"},
            [IMAGE, ("images", (f"{SECRET}.png", b"%PDF-1.7"))],
            415,
            ["Image 2 of 2", "not an image"],
        ),
    ],
)
def test_a_wrong_form(url, data, files, status, words):
    check(httpx.post(f"{url}/vqa", data=data, files=files), status, *words)


def test_a_form_that_is_cut_short_is_not_taken_for_a_smaller_one(url):
    """Whatever of its last image is missing, or only the boundary behind it."""
    form = httpx.Request("POST", url, data={"question": "q?"}, files=[IMAGE, IMAGE])
    body, headers = form.read(), {"content-type": form.headers["content-type"]}
    for there in (len(body) - 4, len(body) - 60, body.rindex(b"\r\n\r\n")):
        sent = httpx.post(f"{url}/vqa", content=body[:there], headers=headers)
        check(sent, 400, "cut short")


def test_a_form_without_images(url):
    form = {"question": (None, "q?")}
    check(httpx.post(f"{url}/vqa", files=form), 422, "images", "at least one")


def test_a_form_that_is_none(url):
    """What else is wrong with one: test_a_form_is_read_as_the_standard_says."""
    headers = {"content-type": "multipart/form-data; boundary=x"}
    check(httpx.post(f"{url}/vqa", content=b"hello", headers=headers), 400, "not in the body")


@pytest.mark.parametrize("charset", ["undefined", "raw_unicode_escape", "hex", "latin-1"])
def test_a_form_in_another_charset(url, charset):
    """Python knows some that decode to half characters, or to nothing."""
    headers = {"content-type": f"multipart/form-data; boundary=x; charset={charset}"}
    field = 'Content-Disposition: form-data; name="options"\r\n\r\n"\\ud800"\r\n'
    body = f"--x\r\n{field}--x--\r\n"
    check(httpx.post(f"{url}/vqa", content=body, headers=headers), 415, "UTF-8")


@pytest.mark.parametrize("encoding", ["gbk", "utf-16", "latin-1"])
def test_a_form_that_is_not_in_utf_8_is_not_guessed_at(url, encoding):
    """The panel would be asked another question than was sent."""
    question = {"latin-1": "¿Está sano?"}.get(encoding, "这是什么?").encode(encoding)
    check(httpx.post(f"{url}/vqa", data={"question": question}, files=[IMAGE]), 415, "UTF-8")


ASCII = "Is it?"


def form_of(headers: str, question: bytes) -> dict:
    """A form whose question has these headers."""
    part = "--x\r\nContent-Disposition: form-data; name="
    asked = f'{part}"question"\r\n{headers}\r\n'.encode() + question
    shown = f'\r\n{part}"images"; filename="a.png"\r\n\r\n'.encode() + picture()
    kind = {"content-type": "multipart/form-data; boundary=x"}
    return {"content": asked + shown + b"\r\n--x--\r\n", "headers": kind}


@pytest.mark.parametrize(
    ("headers", "question", "says"),
    [
        ("Content-Type: text/plain; charset=utf-16\r\n", ASCII.encode("utf-16"), "UTF-8"),
        ("Content-Type: text/plain; charset=utf-16le\r\n", ASCII.encode("utf-16le"), "UTF-8"),
        ("Content-Type: text/plain; charset=utf-7\r\n", b"Is it+AD8-", "UTF-8"),
        ("Content-Type: text/plain; charset=ISO-8859-1\r\n", "¿Hay?".encode(), "UTF-8"),
        ("Content-Type: text/plain; charset=windows-1252\r\n", "¿Hay?".encode("cp1252"), "UTF-8"),
        ("Content-Type: text/plain; charset=hex\r\n", b"4973206974", "UTF-8"),
        ("Content-Transfer-Encoding: base64\r\n", b"SXMgaXQ/", "Content-Transfer-Encoding"),
        ("Content-Transfer-Encoding: Quoted-Printable\r\n", b"Is it=3F", "Content-Transfer-Enc"),
        ("content-transfer-encoding: x-zip\r\n", b"Is it?", "Content-Transfer-Encoding"),
    ],
)
def test_a_part_that_is_written_otherwise_is_not_taken_as_it_is(url, headers, question, says):
    """The panel would be asked another question than was meant."""
    check(httpx.post(f"{url}/vqa", **form_of(headers, question)), 415, says)


@pytest.mark.parametrize(
    "headers",
    [
        "Content-Type: text/plain; charset=UTF-8\r\nContent-Transfer-Encoding: 8bit\r\n",
        "Content-Type: text/plain; charset=ISO-8859-1\r\n",  # as Java's libraries have it
        "Content-Type: text/plain;charset=US-ASCII\r\nContent-Transfer-Encoding: binary\r\n",
    ],
)
def test_a_part_that_says_what_makes_no_difference_is_taken(url, headers):
    response = httpx.post(f"{url}/vqa", **form_of(headers, ASCII.encode()))
    assert response.status_code == 200, response.text


def test_an_image_without_a_file_name_is_no_text_in_another_charset(url):
    unnamed = {"question": (None, "q?"), "images": (None, picture())}
    check(httpx.post(f"{url}/vqa", files=unnamed), 422, "images", "with a file name")


def dicom(name: str) -> str:
    with open(get_testdata_file(name), "rb") as file:
        return b64(file.read())


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("rtplan.dcm", ["DICOM without pixels"]),
        ("rtdose.dcm", ["(0008,0016) SOP Class UID is RT Dose Storage"]),
        ("rtplan_truncated.dcm", ["Image 1 of 1"]),
        ("MR_truncated.dcm", ["cut short"]),
    ],
)
def test_a_dicom_that_shows_nothing(url, name, words):
    check(httpx.post(f"{url}/vqa", json=case(images=[dicom(name)])), 400, *words)


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(url):
    """A file of a few kilobytes may unfold to gigabytes."""
    bomb = io.BytesIO()
    Image.new("1", (8_000, 8_000)).save(bomb, "PNG")
    response = httpx.post(f"{url}/vqa", json=case(images=[b64(bomb.getvalue())]))
    check(response, 413, "50 million pixels")


def test_a_wrong_address_and_method_are_problems_too(url):
    check(httpx.get(f"{url}/nowhere"), 404, "/docs")
    check(httpx.get(f"{url}/vqa"), 405, "/docs", "send POST")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/vqa", "POST"),
        ("HEAD", "/vqa", "POST"),
        ("PUT", "/feedback", "GET, HEAD, POST"),  # two routes at one address
        ("OPTIONS", "/panel", "GET, HEAD"),
        ("PATCH", "/openapi.json", "GET, HEAD"),
        ("DELETE", "/v1/models/consilium", "GET, HEAD"),
        ("TRACE", "/", "GET, HEAD"),
    ],
)
def test_what_else_may_be_sent_there_is_told(url, method, path, allowed):
    """All of it, once (RFC 9110 section 10.2.1)."""
    response = httpx.request(method, url + path)
    assert response.status_code == 405 and response.headers["allow"] == allowed


def test_every_refusal_has_a_status():
    from gateway.refusals import Refused

    assert all(400 <= error.status < 600 and error.title for error in Refused.__subclasses__())
