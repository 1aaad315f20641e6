"""Property-based: hundreds of requests drawn from the published schema and from beside it. None of
them may crash the gateway, and no answer says where its code lies."""

import base64
import json
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from gateway.app import create_app
from gateway.contract import Verdict
from gateway.intake.body.json_text import json_object
from gateway.refusals import MalformedRequest, Problem
from gateway.settings import Settings, load_settings
from tests.conftest import picture, serving
from tests.mock_vllm import MockVllm

PANEL = """
[panel]
quorum = 1
[limits]
max_images = 2
max_image_mb = 0.1
max_body_mb = 0.2
max_question_chars = 200
max_context_chars = 200
"""
WORKER = """
[[worker]]
name = "w{seat}"
family = "mock"
model = "mock"
prompt = "{{question}}"
languages = ["en", "es", "zh"]
max_images = 2
url = "{url}"
"""
IMAGE = base64.b64encode(picture()).decode()
LEAKS = ("Traceback", 'File "', "/site-packages/", ".py", "gateway/")


def of_panel(folder: Path, urls: list[str]) -> Settings:
    path = folder / "panel.toml"
    seats = (WORKER.format(seat=seat, url=url) for seat, url in enumerate(urls))
    path.write_text(PANEL + "".join(seats))
    return load_settings(path, environ={})


with tempfile.TemporaryDirectory() as somewhere:
    app = create_app(of_panel(Path(somewhere), ["http://127.0.0.1:1"]))
published = schemathesis.openapi.from_dict(app.openapi())


@pytest.fixture(scope="module")
def url(tmp_path_factory) -> Iterator[str]:
    """A gateway of two workers, one of whom answers nonsense now and then."""
    dice = random.Random(0)
    replies = ["yes", "no", "", "?" * 3_000, "是", "\x00"]
    workers = [MockVllm("yes").start(), MockVllm(lambda _: dice.choice(replies)).start()]
    folder = tmp_path_factory.mktemp("panel")
    with serving(of_panel(folder, [worker.url for worker in workers])) as address:
        yield address
    for worker in workers:
        worker.stop()


def check(response: httpx.Response) -> None:
    assert response.status_code < 500 or response.status_code == 503, response.text
    assert not any(leak in response.text for leak in LEAKS), response.text
    if response.status_code == 200:
        Verdict.model_validate_json(response.content)
    else:
        problem = Problem.model_validate_json(response.content)
        assert problem.status == response.status_code and len(problem.detail) > 10


@published.parametrize()
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_route_does_what_its_schema_says(case, url):
    response = case.call(base_url=url)
    checks = [content_type_conformance, response_schema_conformance, status_code_conformance]
    if response.status_code != 503:
        checks.append(not_a_server_error)
    case.validate_response(response, checks=checks)
    assert not any(leak in response.text for leak in LEAKS)


ANY = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=300)
ANYTHING = st.recursive(
    ANY, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)
FIELDS = ("question", "images", "language", "context", "modality", "choices", "options", "more")
OPTIONS = (
    "workers",
    "summarise",
    "style",
    "rounds",
    "wait",
    "deadline_s",
    "max_risk",
    "grounding",
    "reasoning",
    "entailment",
    "store",
)
IMAGES = st.lists(st.sampled_from([IMAGE, "", "AAAA", "https://a/b.png", "data:,"]), max_size=3)


@st.composite
def nearly_a_case(draw):
    """A sound case in which some fields are anything at all."""
    body = {"question": "Is it healthy?", "images": draw(IMAGES) or [IMAGE]}
    for name in draw(st.lists(st.sampled_from(FIELDS), max_size=3)):
        body[name] = draw(ANYTHING)
    if draw(st.booleans()):
        names = draw(st.lists(st.sampled_from(OPTIONS), max_size=2))
        body["options"] = {name: draw(ANYTHING) for name in names}
    return body


@given(body=nearly_a_case())
@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_case_with_anything_in_it(url, body):
    raw = json.dumps(body).encode()
    headers = {"content-type": "application/json"}
    check(httpx.post(f"{url}/vqa", content=raw, headers=headers, timeout=60))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(content=st.dictionaries(st.text(), JSON), ascii_only=st.booleans())
def test_json_is_read_as_the_standard_library_reads_it(content, ascii_only):
    body = json.dumps(content, ensure_ascii=ascii_only).encode(errors="surrogatepass")
    try:
        assert json_object(body, "The body") == json.loads(body)
    except MalformedRequest:
        with pytest.raises(UnicodeDecodeError):
            body.decode()  # half a character that is not written as an escape


@given(name=st.text(), values=st.lists(JSON, min_size=2, max_size=2), deep=st.booleans())
def test_a_field_that_is_there_twice_is_refused_wherever_it_stands(name, values, deep):
    pairs = ", ".join(f"{json.dumps(name)}: {json.dumps(value)}" for value in values)
    body = f'{{"a": [{{{pairs}}}]}}' if deep else f"{{{pairs}}}"
    with pytest.raises(MalformedRequest, match="twice"):
        json_object(body.encode(), "The body")


@given(
    body=st.binary(max_size=2_000),
    kind=st.sampled_from(
        ["application/json", "multipart/form-data; boundary=b", "multipart/form-data", "text/html"]
    ),
)
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_body_of_any_bytes(url, body, kind):
    headers = {"content-type": kind}
    check(httpx.post(f"{url}/vqa", content=body, headers=headers, timeout=60))


@given(
    where=st.integers(0, 2_000), what=st.binary(max_size=30), kind=st.sampled_from(["PNG", "JPEG"])
)
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_an_image_with_anything_in_it(url, where, what, kind):
    whole = picture("RGB", size=(64, 48), kind=kind)
    data = whole[:where] + what + whole[where + len(what) :]
    files = [("images", ("a", data, "image/png"))]
    response = httpx.post(f"{url}/vqa", data={"question": "q?"}, files=files, timeout=60)
    check(response)
