"""Nobody is answered about a frame they did not mean: it is asked for, and told."""

import base64
import io
import json

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.conftest import picture
from tests.dicoms import dicom_of

FRAMES = dicom_of(
    np.stack([np.tile(np.arange(32, dtype="<i2") * 40 - 600, (32, 1)) + n for n in range(3)]),
    NumberOfFrames=3,
    RepresentativeFrameNumber=2,
    WindowCenter=40,
    WindowWidth=400,
)
SAME = dicom_of(np.zeros((2, 16, 16), "u1"), NumberOfFrames=2)
PNG = picture()


def of_json(url, *images):
    encoded = []
    for image in images:
        data, shown = image if isinstance(image, tuple) else (image, None)
        text = base64.b64encode(data).decode()
        encoded.append(text if shown is None else {"data": text, **shown})
    return httpx.post(f"{url}/vqa", json={"question": "q?", "images": encoded}, timeout=60)


def of_form(url, images, **fields):
    files = [("images", ("a", image, "application/octet-stream")) for image in images]
    return httpx.post(f"{url}/vqa", data={"question": "q?", **fields}, files=files, timeout=60)


def told(response):
    assert response.status_code == 200, response.text
    return response.json()["images"]


@pytest.fixture
def url(vllm, gateway):
    return gateway([vllm("yes")])


def test_each_image_is_told_in_its_order(url):
    pages = [Image.new("L", (32, 32), shade) for shade in (0, 255)]
    tiff = io.BytesIO()
    pages[0].save(tiff, "TIFF", save_all=True, append_images=pages[1:])
    assert told(of_json(url, FRAMES, PNG, tiff.getvalue())) == [
        {"frame": 2, "of": 3, "window": [40, 400], "converted": True},
        {"frame": 1, "of": 1, "window": None, "converted": False},
        {"frame": 1, "of": 2, "window": None, "converted": True},
    ]


def test_frame_and_window_are_asked_for_in_json_and_in_a_form(url):
    asked = {"frame": 3, "window": "lung"}
    right = [
        {"frame": 3, "of": 3, "window": [-600, 1500], "converted": True},
        {"frame": 1, "of": 3, "window": [50, 120.5], "converted": True},
        {"frame": 1, "of": 1, "window": None, "converted": False},
    ]
    second = (FRAMES, {"frame": 1, "window": [50, 120.5]})
    assert told(of_json(url, (FRAMES, asked), second, (PNG, {"frame": None}))) == right
    form = {"frame": ["3", "1", ""], "window": ["lung", "50,120.5", ""]}
    assert told(of_form(url, [FRAMES, FRAMES, PNG], **form)) == right


def test_another_frame_is_another_case_and_the_same_pixels_are_told_as_what_they_are(vllm, gateway):
    """Two frames may look the same: the answer is known then, and the number is the caller's."""
    worker = vllm("yes")
    url = gateway([worker])
    for frame in (1, 2, 3):
        assert told(of_json(url, (FRAMES, {"frame": frame})))[0]["frame"] == frame
    assert len(worker.requests) == 3
    for frame in (1, 2):
        response = of_json(url, (SAME, {"frame": frame}))
        assert told(response)[0]["frame"] == frame
    assert response.json()["cached"] and len(worker.requests) == 4


@pytest.mark.parametrize(
    ("data", "shown", "words"),
    [
        (FRAMES, {"frame": 4}, "Image 1 of 1 has 3 frames: send one from 1 to 3."),
        (SAME, {"frame": 0}, "images.0.frame"),
        (PNG, {"frame": 1}, "is no DICOM, and has no frames"),
        (PNG, {"window": "lung"}, "is no DICOM, and has no window"),
        (FRAMES, {"window": "liver"}, "images.0.window: send brain, subdural, lung, bone"),
        (FRAMES, {"window": [40]}, "[centre, width]"),
        (FRAMES, {"window": [40, 0]}, "a width above 0"),
        (FRAMES, {"window": [True, 4]}, "[centre, width]"),
        (FRAMES, {"slice": 4}, "images.0.slice: it is not a known field"),
    ],
)
def test_what_cannot_be_shown_is_refused_in_a_sentence(url, data, shown, words):
    response = of_json(url, (data, shown))
    assert response.status_code == 422 and words in response.json()["detail"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"frame": ["1", "2", "3"]}, "frame: send one for each image, or none"),
        ({"window": "lung"}, "window: send one for each image, or none"),
        ({"frame": ["1", "two"]}, "frame"),
        ({"window": ["40;400", ""]}, "window: send brain"),
        ({"frame": ["", "9"]}, "Image 2 of 2 has 3 frames"),
    ],
)
def test_a_form_is_refused_in_a_sentence_too(url, fields, words):
    response = of_form(url, [FRAMES, FRAMES], **fields)
    assert response.status_code == 422 and words in response.json()["detail"]


def test_an_image_that_is_no_text_and_no_object_is_named(url):
    body = json.dumps({"question": "q?", "images": [5]})
    headers = {"content-type": "application/json"}
    response = httpx.post(f"{url}/vqa", content=body, headers=headers)
    assert response.status_code == 422
    assert response.json()["detail"].startswith("images.0: send an image as base64")
