"""What is sent otherwise than we would and can mean one thing only is taken; what is wrong is told
in words of ours, field by field."""

import base64
import json
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from gateway.contract import CaseRequest, Options, ReadersWord
from gateway.intake import request as intake
from gateway.intake.body.wrong_fields import refuse_fields
from gateway.intake.request import Draft
from gateway.refusals import InvalidCase
from gateway.tables import Limits
from tests.conftest import picture

IMAGE = picture("RGB", (40, 30))
PLAIN = base64.b64encode(IMAGE).decode()
IN_LINES = base64.encodebytes(IMAGE).decode()
# Bytes in whose base64 are both signs that URLs write otherwise, and padding.
ODD = IMAGE + bytes(range(200)) + bytes((3 - (len(IMAGE) + 201) % 3) % 3)
URLS = base64.urlsafe_b64encode(ODD).decode()


async def draft(**sent: Any) -> Draft:
    case = {"question": "Is it healthy?", "images": [PLAIN]} | sent
    return await intake.draft_of(case, Limits())


@pytest.mark.parametrize(
    ("text", "data"),
    [
        (PLAIN, IMAGE),
        (IN_LINES, IMAGE),
        (IN_LINES.replace("\n", "\r\n"), IMAGE),
        (f"  {PLAIN}\t\n", IMAGE),
        (URLS, ODD),
        (URLS.rstrip("="), ODD),
        (base64.b64encode(ODD).decode().rstrip("="), ODD),
        (f"data:image/png;base64,{PLAIN}", IMAGE),
        (f"DATA:image/png;charset=utf-8;BASE64,{PLAIN}", IMAGE),
        (f"data:image/png;base64;name=a.png,{PLAIN}", IMAGE),
        (f"data:image/png; base64,{IN_LINES}", IMAGE),
        (f'data:image/png;name="a,b;c.png";base64,{PLAIN}', IMAGE),
        (f"\n data:image/png;base64,{PLAIN}\n", IMAGE),
        (f"data:;base64,{URLS.rstrip('=')}", ODD),
        ("data:image/png;base64," + PLAIN.replace("+", "%2B").replace("=", "%3D"), IMAGE),
    ],
)
async def test_base64_is_read_as_others_write_it(text, data):
    assert "-" in URLS and "_" in URLS and "=" in URLS
    assert [image.data for image in (await draft(images=[text])).images] == [data]


async def test_whitespace_does_not_make_an_image_too_large():
    limits = Limits(max_image_mb=len(IMAGE) / 1e6)
    case = {"question": "q?", "images": ["\n ".join(PLAIN)]}
    assert [each.data for each in (await intake.draft_of(case, limits)).images] == [IMAGE]


OPTIONAL = [name for name, field in CaseRequest.model_fields.items() if not field.is_required()]


@pytest.mark.parametrize("sent", [*({name: None} for name in OPTIONAL),
                                  *({"options": {name: None}} for name in Options.model_fields)],
                         ids=str)  # fmt: skip
async def test_null_is_the_default(sent):
    """As libraries send what nobody chose."""
    assert (await draft(**sent)).fields == (await draft()).fields


async def test_null_is_no_images_where_an_archive_has_them():
    archived = {"dicomweb": {"study": "1.2.3"}}
    assert (await draft(**archived, images=None)).images == []


WRONG: list[tuple[str, Any, str]] = [
    ("question", 7, "must be a text"),
    ("question", None, "must be a text"),
    ("question", "", "must not be empty"),
    ("images", "aGk=", "must be a list of texts"),
    ("images", {"a": 1}, "must be a list of texts"),
    ("images", None, "must be a list of texts"),
    ("images.0", [7], "send an image as base64"),
    ("language", 7, "must be 'en', 'es' or 'zh'"),
    ("language", "english", "must be 'en', 'es' or 'zh'"),
    ("context", ["a"], "must be a text"),
    ("modality", "CT", "must be 'ct', 'mri'"),
    ("choices", "yes, no", "must be a list of texts"),
    ("choices", {"yes": "no"}, "must be a list of texts"),
    ("choices.1", ["yes", 7], "must be a text"),
    ("choices", ["yes"], "must hold at least 2, not 1"),
    ("choices", [str(n) for n in range(99)], "must hold at most 64, not 99"),
    ("slices", 7, "must be a text"),
    ("slices", "some", "send even, max or average"),
    ("dicomweb", "1.2", "must be an object"),
    ("dicomweb.study", "../1.2", "is no DICOM UID"),
    ("dicomweb.series", "1", "is no DICOM UID"),
    ("dicomweb.patient", "1.2", "is not a known field"),
    ("views", "frontal", "must be a list of texts"),
    ("options", "never", "must be an object"),
    ("options", [1], "must be an object"),
    ("options.workers", "w0", "must be a list of texts"),
    ("options.workers", [], "must hold at least 1, not 0"),
    ("options.workers.0", [7], "must be a text"),
    ("options.summarise", 7, "must be 'auto', 'always' or 'never'"),
    ("options.style", "poem", "must be 'answer', 'sentence' or 'differential'"),
    ("options.rounds", "two", "must be 1 or 2"),
    ("options.coverage", "most", "must be a number"),
    ("options.wait", True, "must be 'all' or 'enough'"),
    ("options.deadline_s", "soon", "must be a number"),
    ("options.deadline_s", [1], "must be a number"),
    ("options.deadline_s", 0, "must be greater than 0"),
    ("options.deadline_s", 9000, "must be at most 600"),
    ("options.max_risk", -1, "must be at least 0"),
    ("options.max_risk", {}, "must be a number"),
    ("options.grounding", "often", "must be true or false"),
    ("options.reasoning", "loud", "must be true or false"),
    ("options.entailment", 2, "must be true or false"),
    ("options.store", True, "must be 'sr' or 'sc'"),
    ("options.grounding", [True], "must be true or false"),
    ("image", PLAIN, "is images meant?"),
    ("choice", ["a", "b"], "is choices meant?"),
    ("options.workerz", ["w0"], "is workers meant?"),
    ("rounds", 2, "is rounds in options meant?"),
    ("window", "lung", "is window in images meant?"),
    ("series", "1.2", "is series in dicomweb meant?"),
    ("options.language", "es", "is language beside options meant?"),
    ("dicomweb.frames", 2, "is frame in images meant?"),
    ("stream", True, "is not a known field. See /docs."),
    ("choices.1", ["no", " "], "it says nothing"),
    ("choices.2", ["no", "yes", "No."], "it says the same as choices.0"),
]


@pytest.mark.parametrize(("field", "value", "says"), WRONG)
async def test_a_wrong_type_is_told_in_words_of_ours(field, value, says):
    name, _, rest = field.partition(".")
    sent = {rest: value} if rest and not rest.isdecimal() and "." not in rest else value
    if name == "options" and rest.startswith("workers."):
        sent = {"workers": value}
    if name == "dicomweb" and rest:
        sent = {"study": "1.2", rest: value}
    with pytest.raises(InvalidCase) as refused:
        await draft(**{name: sent})
    told = str(refused.value)
    assert told.startswith(f"{field}: ") and says in told
    for foreign in ("Input", "tuple", "dictionary", "instance", "valid "):
        assert foreign not in told


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (
            {"data": PLAIN, "view": "frontal"},
            "images.0.view: it is not a known field; is views b",
        ),
        ({"url": PLAIN}, "images.0.data: it is required; send it in place of url, which is not"),
        ({"url.a": PLAIN}, "send it in place of a field, which is not a known one"),
        ({"frame": 1}, "images.0.data: it is required; send it."),
    ],
)
async def test_a_wrong_image_is_told_what_stands_where(image, says):
    with pytest.raises(InvalidCase) as refused:
        await draft(images=[image])
    assert says in str(refused.value)


def test_a_readers_word_is_told_what_stands_in_its_case():
    with pytest.raises(ValidationError) as wrong:
        ReadersWord.model_validate({"verdict": "x", "word": "right", "question": "q?"})
    with pytest.raises(InvalidCase, match=r"is question in case meant\?"):
        refuse_fields(wrong.value)


def test_every_field_is_in_that_table():
    fields = {field.removeprefix("options.").partition(".")[0] for field, _, _ in WRONG}
    assert {*CaseRequest.model_fields, *Options.model_fields} <= fields


@pytest.fixture
def url(vllm, gateway):
    return gateway([vllm()], limits="max_image_aspect = 10")


def test_a_form_is_read_as_libraries_write_it(url):
    """Fields called image or images[]; and nothing sent where a field is left empty."""
    for name in ("images", "image", "images[]", "image[]", "file", "files"):
        files = [(name, ("a.png", IMAGE))]
        assert httpx.post(f"{url}/vqa", data={"question": "q?"}, files=files).status_code == 200
    empty = dict.fromkeys(("language", "context", "modality", "options", "choices"), "")
    choices = {"choices[]": ["yes", "no"]}
    for more in (empty, choices, {"options": "null"}, {"options": '{"summarise": null}'}):
        files = [("images", ("a.png", IMAGE))]
        response = httpx.post(f"{url}/vqa", data={"question": "q?"} | more, files=files)
        assert response.status_code == 200, response.text
    response = httpx.post(f"{url}/vqa", data={"question": "q?"}, files=[("img", ("a", IMAGE))])
    assert response.status_code == 422 and "call the field images" in response.json()["detail"]
    response = httpx.post(f"{url}/vqa", data={"question": "q?", "image": PLAIN}, files=files)
    assert response.status_code == 422 and "as a file" in response.json()["detail"]
    for wrong, meant in (("frames", "frame"), ("windows", "window"), ("choice", "choices")):
        response = httpx.post(f"{url}/vqa", data={"question": "q?", wrong: "1"}, files=files)
        assert response.status_code == 422 and f"is {meant} meant?" in response.json()["detail"]


@pytest.mark.parametrize(
    ("size", "says"),
    [
        ((1, 1), "1 × 1 pixels; send at least 16"),
        ((3, 3), "3 × 3 pixels; send at least 16"),
        ((1, 20_000), "1 × 20000 pixels; send at least 16"),
        ((15, 400), "at least 16"),
        ((16, 161), "16 × 161 pixels; send one whose sides differ at most 10-fold"),
        ((161, 16), "at most 10-fold"),
        ((16, 160), ""),
        ((16, 16), ""),
    ],
)
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_a_picture_must_have_the_form_of_one(url, size, says, kind):
    """A dot or a line shows nothing, and was answered with 0.81. Undecoded or decoded."""
    image = base64.b64encode(picture("RGB", size, kind)).decode()
    response = httpx.post(f"{url}/vqa", json={"question": "q?", "images": [image]})
    assert response.status_code == (422 if says else 200)
    assert not says or (says in response.json()["detail"] and "Image 1 of 1" in response.text)


def test_the_panel_states_these_limits(url):
    report = httpx.get(f"{url}/panel").json()
    assert (report["min_image_side"], report["max_image_aspect"]) == (16, 10)
    assert json.dumps(report)
