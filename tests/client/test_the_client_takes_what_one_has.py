"""The client: an image however it is at hand, options as they are written, and a key as it was
pasted; one case, many, or as they come."""

import asyncio
import base64
import io
import json
import math
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

from consilium import (
    Answer,
    AsyncClient,
    Client,
    GatewayError,
    GatewayRefused,
    GatewayUnreachable,
    Provisional,
    Verdict,
    ask,
)
from consilium.case import case_json
from consilium.tiff import as_tiff
from consilium.verdict import ImageShown
from consilium.wire import bearer
from gateway.contract import Options
from gateway.intake.raster.decoding import picture as shown
from tests.conftest import picture
from tests.dicoms import dicom_of
from tests.fake_gateway import VERDICT, problem

HERE = "http://127.0.0.1:8000"


@pytest.fixture
def url(vllm, gateway):
    return gateway([vllm("yes"), vllm("yes")])


@pytest.mark.parametrize(
    "given",
    [
        Path,
        str,
        Path.read_bytes,
        lambda path: bytearray(path.read_bytes()),
        lambda path: memoryview(path.read_bytes()),
    ],
)
def test_one_image_or_several(given, url, tmp_path):
    """A path as text or as a Path, or what the file holds; alone or in a list."""
    (tmp_path / "scan.png").write_bytes(picture())
    image = given(tmp_path / "scan.png")
    assert ask(image, "Is it?", url=url).answer == "yes"
    assert ask([image, image], "Is it?", url=url).answer == "yes"
    assert ask((image,), "Is it?", url=url).cached


def test_an_open_file_is_read(url, tmp_path):
    (tmp_path / "scan.png").write_bytes(picture())
    with (tmp_path / "scan.png").open("rb") as file:
        assert ask(file, "Is it?", url=url).answer == "yes"
    assert ask([io.BytesIO(picture())], "Is it?", url=url).cached


def test_what_is_at_hand_as_base64_goes_on_as_it_is(fake):
    gateway = fake()
    ask({"base64": "aGk", "frame": 2}, "Is it?", url=gateway.url)
    assert gateway.requests[0]["images"] == [{"data": "aGk", "frame": 2}]


def test_who_would_wait_for_ever_may(url):
    with Client(url, timeout_s=math.inf, patience_s=math.inf) as client:
        assert client.ask(picture(), "Is it?").answer == "yes"


def test_a_data_uri_is_no_path(url):
    uri = f"data:image/png;base64,{base64.b64encode(picture()).decode()}"
    assert ask(uri, "Is it?", url=url).answer == "yes"
    assert ask([{"data": uri}, picture()], "Is it?", url=url).answer == "yes"


def test_what_looks_like_one_is_still_a_text_of_json():
    body = case_json(['data:"\\\n\ud800', b"\xff" * 3], 'a "quoted" word', {"context": None})
    images = ['data:"\\\n\ud800', "////"]
    assert json.loads(body) == {
        "context": None,
        "options": {},
        "question": 'a "quoted" word',
        "images": images,
    }


def test_of_a_dicom_a_frame_and_a_window(url):
    """And what of it was shown is in the verdict."""
    scan = dicom_of(np.arange(3 * 32 * 32, dtype="i2").reshape(3, 32, 32), NumberOfFrames=3)

    verdict = ask({"data": scan, "frame": 2, "window": [40, 400]}, "Is it?", url=url)

    assert verdict.images == (ImageShown(frame=2, of=3, window=(40, 400), converted=True),)


@pytest.mark.parametrize(
    "options",
    [
        {"workers": ["w1"]},
        {"options": {"workers": ["w1"]}},
        {"options": Options(workers=("w1",))},
        {"options": Options(workers=("w0",)), "workers": ("w1",)},
        {"workers": np.array(["w1"]), "rounds": np.int64(1), "deadline_s": np.float32(5)},
    ],
)
def test_options_are_keywords_or_stand_together(options, url):
    verdict = ask(picture(), "Is it?", choices=("yes", "no"), url=url, **options)
    assert [answer.worker for answer in verdict.answers if answer.text] == ["w1"]


def test_what_no_case_holds_is_told():
    with pytest.raises(TypeError, match="a case holds texts, numbers and lists of them, not a set"):
        ask(picture(), "Is it?", choices={"yes", "no"})


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"rounds": 3}, "rounds"),
        ({"max_rsk": 1}, "max_rsk"),
        ({"options": {"max-risk": 1}}, "options"),
        ({"options": "rounds=2"}, "options: it must be an object"),
        ({"options": 2, "rounds": 2}, "options: it must be an object"),
        ({"modality": "sonar"}, "modality"),
        ({"question": "half \ud800"}, "question"),
    ],
)
def test_what_is_wrong_the_gateway_says(wrong, says, url):
    """In its own words, whatever the client was given."""
    with pytest.raises(GatewayRefused, match=says):
        ask(picture(), **{"question": "Is it?", "modality": "ct", "url": url} | wrong)


@pytest.mark.parametrize(
    "key", ["consilium_kü", "consilium_a b", "consilium_a\nb", "\x07", "a\x7f"]
)
def test_a_key_that_cannot_be_sent_is_told_and_not_shown(key, monkeypatch):
    with pytest.raises(GatewayError, match="holds a character that no key has") as told:
        bearer(HERE, key)
    assert key not in str(told.value)
    monkeypatch.setenv("CONSILIUM_KEY", key)
    with pytest.raises(GatewayError, match="holds a character that no key has"):
        ask(b"", "?", url="http://127.0.0.1:1")


@pytest.mark.parametrize("key", [b"consilium_a", 7, ["consilium_a"]])
def test_a_key_that_is_no_text_is_told_and_not_shown(key):
    with pytest.raises(GatewayError, match=f"The key is a {type(key).__name__}: it must") as told:
        Client(key=key)
    assert str(key) not in str(told.value)


@pytest.mark.parametrize("name", ["patience_s", "timeout_s"])
@pytest.mark.parametrize("given", [float("nan"), -1, "soon", None, [1]])
@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_seconds_that_are_none_are_told(client, name, given):
    """Not a number is neither more nor less than what was waited: it never was enough."""
    with pytest.raises(GatewayError, match=f"{name} is .*: write how many seconds, 0 or more"):
        client(**{name: given})


def test_what_pasting_adds_to_a_key_is_taken_off(monkeypatch):
    monkeypatch.setenv("CONSILIUM_KEY", " consilium_a\r\n")
    assert bearer(HERE) == bearer(HERE, "consilium_a\r") == {"authorization": "Bearer consilium_a"}
    monkeypatch.setenv("CONSILIUM_KEY", "\r\n")
    assert bearer(HERE) == {}


@pytest.mark.parametrize(
    "url",
    [
        *("gateway:8000", "127.0.0.1:8000", "http://[::1", "http://", "ftp://gateway", "/", ""),
        *(None, 8000, b"http://127.0.0.1:8000"),
    ],
)
def test_an_address_that_is_none_is_one_sentence(url):
    with pytest.raises(GatewayUnreachable, match="is no address of a gateway: write http://"):
        ask(b"", "?", url=url)


@pytest.mark.parametrize(
    ("scheme", "rest"),
    [
        ("http://", "user:s3cret@127.0.0.1:1"),
        ("", "user:s3cret@gateway"),
        ("http://", "user:s3/cr@et@[::1"),
    ],
)
def test_a_password_in_the_address_is_not_shown(scheme, rest):
    """Whether it is one or none. In two parts, or one would be found in this file."""
    url = scheme + rest
    with pytest.raises(GatewayUnreachable, match=r"127|gateway|::1") as told:
        ask(b"", "?", url=url)
    assert "user" not in str(told.value) and "s3" not in str(told.value)


@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_a_key_and_a_password_in_the_address_do_not_go_together(client, monkeypatch):
    """Both go into one header; httpx sent the password, and nobody was told of the key."""
    url = "http://" + "user:s3cret@127.0.0.1:1"
    with pytest.raises(GatewayError, match=r"key, and http://127.0.0.1:1 was given") as told:
        client(url, "consilium_a")
    assert "user" not in str(told.value) and "s3" not in str(told.value)
    monkeypatch.setenv("CONSILIUM_KEY", "consilium_a")
    with pytest.raises(GatewayError, match="or unset CONSILIUM_KEY"):
        client(url)
    monkeypatch.delenv("CONSILIUM_KEY")
    client(url)


RAMP = np.linspace(0, 1, 32 * 24).reshape(24, 32)


@pytest.mark.parametrize("kind", ["u1", "<u2", ">i2", "i4", "i8", "<f4", ">f8"])
@pytest.mark.parametrize("colours", [1, 3])
def test_an_array_is_shown_from_its_darkest_to_its_brightest(kind, colours):
    """Of numbers of any width, either end first, of greys or of colours, and parts of a larger."""
    greys = np.asarray(RAMP * 255 if kind == "u1" else RAMP * 255 * 64, kind)
    array = greys if colours == 1 else np.stack([greys] * 3, -1)

    found = np.asarray(shown(as_tiff(array), "It"), float)

    wanted = np.asarray(greys, float) / (1 if kind == "u1" else 64)
    assert np.abs(found - (wanted if colours == 1 else wanted[..., None])).max() <= 1
    part = as_tiff(array[::2, ::-1])
    assert np.array_equal(np.asarray(shown(part, "It")).shape[:2], (12, 32))


def test_an_array_is_asked_about(url):
    assert ask([RAMP, RAMP.astype("f4")[..., None]], "Is it?", url=url).answer == "yes"


@pytest.mark.parametrize(
    "array",
    [
        RAMP > 0,
        RAMP[0],
        RAMP[None],
        RAMP[..., None, None],
        RAMP * 1j,
        RAMP[:0],
        RAMP.astype(object),
        RAMP.astype("longdouble"),
        7,
        None,
    ],
)
def test_an_array_that_is_no_picture_is_told(array):
    with pytest.raises(TypeError, match=r"no picture|not a (int|NoneType)"):
        ask(array, "?", url="http://127.0.0.1:1")


def test_a_file_that_is_read_as_text_is_told():
    with pytest.raises(TypeError, match=r"read as bytes: open\(path, 'rb'\)"):
        ask(io.StringIO("a picture"), "?", url="http://127.0.0.1:1")


def test_one_connection_for_many_cases(url):
    with Client(url) as client:
        assert [worker.name for worker in client.panel().workers] == ["w0", "w1"]
        assert {client.ask(picture(), f"Is it {n}?").answer for n in range(3)} == {"yes"}


def test_threads_share_one_connection_and_who_asked_nothing_made_none(fake, monkeypatch):
    made, slowly = [], httpx.Client

    def client(**how):
        made.append(how)
        time.sleep(0.05)  # all the others come meanwhile
        return slowly(**how)

    monkeypatch.setattr(httpx, "Client", client)
    with Client(fake().url):
        pass
    assert not made
    with Client(fake().url) as shared, ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: shared.panel(), range(4)))
    assert len(made) == 1


def test_it_tells_what_comes_as_it_comes(url):
    """Each worker's answer, after each how the vote stands, and last the verdict; from the store
    that alone. What is refused at once is raised."""
    with Client(url) as client:
        events = list(client.stream(picture(), "Is\u2028it?", context="a\x85b"))
        again = list(client.stream(picture(), "Is\u2028it?", context="a\x85b"))
        with pytest.raises(GatewayRefused, match="question"):
            list(client.stream(picture(), ""))
    assert [type(each) for each in events] == [Answer, Provisional] * 2 + [Verdict]
    assert [type(each) for each in again] == [Verdict] and again[0].cached


def test_a_problem_in_midstream_is_raised(vllm, gateway):
    url = gateway([vllm("yes"), vllm(status=500, raw=b"")], panel="quorum = 2")
    with Client(url) as client, pytest.raises(GatewayRefused) as refused:
        list(client.stream(picture(), "Is it?"))
    assert refused.value.problem.status == 503 and len(refused.value.problem.answers) == 2


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "hung up before its verdict"),
        (b"event: answer\ndata: {}\n\n", "This answer is not as a gateway sends it"),
        (b": ping\n\nevent: news\ndata: x\n\n", "hung up before its verdict"),
    ],
)
def test_a_stream_that_ends_early_is_no_verdict(body, says, fake):
    url = fake((200, {"content-type": "text/event-stream; charset=utf-8"}, body)).url
    with Client(url) as client, pytest.raises(GatewayUnreachable, match=says):
        list(client.stream(picture(), "Is it?"))


@pytest.mark.parametrize("body", [b"<html>Welcome!</html>", VERDICT.model_dump_json().encode()])
async def test_a_page_is_no_stream_and_will_not_be_one_later(body, fake):
    """As where a verdict was asked for."""
    page = (200, {"content-type": "text/html"}, body)
    url = fake(page, page).url
    says = "answered HTTP 200, but not as a gateway does"
    with Client(url) as client, pytest.raises(GatewayUnreachable, match=says) as told:
        list(client.stream(picture(), "Is it?"))
    assert not told.value.may_pass
    async with AsyncClient(url) as client:
        with pytest.raises(GatewayUnreachable, match=says):
            [each async for each in client.stream(picture(), "Is it?")]


async def test_for_asyncio_too(url):
    """With several under way at once."""
    async with AsyncClient(url) as client:
        asked = [client.ask(picture(), f"Is it {n}?", rounds=1) for n in range(4)]
        assert {verdict.answer for verdict in await asyncio.gather(*asked)} == {"yes"}
        events = [type(each) async for each in client.stream(picture(), "Is it?")]
        assert events == [Answer, Provisional] * 2 + [Verdict]
        assert (await client.panel()).quorum == 1
        with pytest.raises(GatewayRefused, match="rounds"):
            await client.ask(picture(), "Is it?", rounds=3)


async def test_it_waits_as_long_as_it_is_told(fake, monkeypatch):
    """Asked once more after Retry-After, and `tell` hears of it."""
    waits, told = [], []

    async def sleep(seconds: float) -> None:
        waits.append(round(seconds))

    monkeypatch.setattr(asyncio, "sleep", sleep)
    gateway = fake(problem(429, retry_after="7"))
    async with AsyncClient(gateway.url, patience_s=60, tell=told.append) as client:
        assert (await client.ask(picture(), "?")).answer == "Yes"
    assert waits == [7] and told == ["waiting 7 s: No."]
