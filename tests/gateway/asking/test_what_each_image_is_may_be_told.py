"""`views`: what each image is, read by the workers before the question, and told in the verdict."""

import base64
import json

import httpx
import pytest

from tests.conftest import picture
from tests.gateway.asking.test_each_image_is_seen_alone import SEAT, question, shown

FILES = [picture(size=(side, 32)) for side in (32, 40)]
TOGETHER = 'languages = ["en", "es", "zh"]\nmax_images = 4'
ASKED = "Is it healthy?"


def ask(url, views, as_form=False, images=FILES, **fields):
    fields = {"question": ASKED, **fields}
    if as_form:
        sent = {**fields, "views": views} if views else fields
        files = [("images", ("a", data, "image/png")) for data in images]
        return httpx.post(f"{url}/vqa", data=sent, files=files, timeout=60)
    encoded = [base64.b64encode(data).decode() for data in images]
    sent = {**fields, "images": encoded, "views": views}
    return httpx.post(f"{url}/vqa", json=sent, timeout=60)


@pytest.mark.parametrize("as_form", [True, False])
@pytest.mark.parametrize(
    ("fields", "views", "asked"),
    [
        ({}, ["frontal", "lateral"], f"Image 1: frontal. Image 2: lateral.\n{ASKED}"),
        ({}, [" ", " left   lateral "], f"Image 2: left lateral.\n{ASKED}"),
        ({"context": "Fell."}, ["frontal", ""], f"Image 1: frontal.\nFell.\n{ASKED}"),
        ({"language": "es"}, ["frontal", ""], f"Imagen 1: frontal.\n{ASKED}"),
        ({"language": "zh"}, ["正位", "侧位"], f"图像1：正位。 图像2：侧位。\n{ASKED}"),
        ({}, ["", ""], ASKED),
        ({}, [None, "lateral"], f"Image 2: lateral.\n{ASKED}"),
        ({}, None, ASKED),
    ],
)
def test_workers_read_it_before_the_question_and_the_verdict_says_it(
    vllm, gateway, as_form, fields, views, asked
):
    worker = vllm("yes")
    response = ask(gateway([worker], seats=[TOGETHER]), views, as_form, **fields)
    assert response.status_code == 200, response.text
    assert question(worker.requests[-1]) == asked
    told = [image.get("view") for image in response.json()["images"]]
    assert told == [" ".join((view or "").split()) or None for view in views or ["", ""]]


def test_null_is_a_forms_way_to_say_nothing_of_an_image(vllm, gateway):
    worker = vllm("yes")
    response = ask(gateway([worker], seats=[TOGETHER]), ["null", "lateral"], as_form=True)
    assert question(worker.requests[-1]) == f"Image 2: lateral.\n{ASKED}"
    assert [image.get("view") for image in response.json()["images"]] == [None, "lateral"]


def test_one_image_needs_no_number(vllm, gateway):
    worker = vllm("yes")
    ask(gateway([worker]), ["lateral"], images=FILES[:1])
    assert question(worker.requests[-1]) == f"Image: lateral.\n{ASKED}"


@pytest.mark.parametrize("same", [True, False])
def test_a_worker_that_sees_one_at_a_time_reads_what_that_one_is(vllm, gateway, same):
    """The same picture is looked at again where it is said to be something else."""
    worker = vllm("yes")
    images = [FILES[0], FILES[0]] if same else FILES
    ask(gateway([worker], seats=[SEAT]), ["frontal", "lateral"], images=images)
    asked = sorted((question(request), shown(request)) for request in worker.requests)
    sides = [32, 32] if same else [32, 40]
    assert asked == [
        (f"Image: {view}.\n{ASKED}", [side])
        for view, side in zip(("frontal", "lateral"), sides, strict=True)
    ]


def test_what_is_asked_of_another_view_is_another_case(vllm, gateway):
    url = gateway([vllm("yes")], seats=[TOGETHER])
    for views in (None, ["frontal", "lateral"], ["lateral", "frontal"]):
        first, again = (ask(url, views).json() for _ in range(2))
        assert (first["cached"], again["cached"]) == (False, True)


@pytest.mark.parametrize(
    ("views", "fields", "says"),
    [
        (["frontal"], {}, "views: 1 for 2 image(s). Send one for each"),
        (["a", "b", "c"], {}, "views: 3 for 2 image(s)"),
        (["x" * 41, ""], {}, "at most 40 characters"),
        (["a\0b", ""], {}, "send a few words, such as frontal"),
        (["\ud800", ""], {}, "send a few words, such as frontal"),
        ([1, 2], {}, "views"),
        ("frontal", {}, "views"),
        (["frontal", "lateral"], {"slices": "even"}, "views: of a series slices says"),
    ],
)
def test_what_tells_of_no_image_is_refused(vllm, gateway, views, fields, says):
    url = gateway([vllm("yes")], seats=[TOGETHER])
    encoded = [base64.b64encode(data).decode() for data in FILES]
    # Not by httpx: it does not write half a character.
    body = json.dumps({"question": ASKED, "images": encoded, "views": views, **fields})
    headers = {"content-type": "application/json"}
    response = httpx.post(f"{url}/vqa", content=body, headers=headers, timeout=60)
    assert response.status_code == 422 and says in response.json()["detail"], response.text
