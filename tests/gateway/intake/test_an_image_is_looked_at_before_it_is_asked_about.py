"""`POST /preview` shows one image as the workers will get it, behind the same door as a case."""

import base64
from typing import Any

import httpx
import numpy as np
import pytest

from gateway.door import keys
from gateway.door.admission import PREVIEWS_OF_A_CASE
from tests.conftest import picture
from tests.dicoms import dicom_of

NOISE = np.random.default_rng(7).integers(0, 1200, (3, 20, 20))
FRAMES = dicom_of(NOISE.astype("<i2"), NumberOfFrames=3)


def look(url: str, data: bytes = FRAMES, **fields: str) -> httpx.Response:
    return httpx.post(f"{url}/preview", files={"images": data}, data=fields)


def pixels(response: httpx.Response) -> bytes:
    kind, _, data = response.json()["picture"].partition(";base64,")
    assert kind in ("data:image/png", "data:image/jpeg")
    return base64.b64decode(data)


def test_it_is_the_picture_that_the_workers_get(vllm, gateway):
    """Whatever frame and window are asked for; and it asks nobody."""
    worker = vllm()
    url = gateway([worker])
    asked: list[dict[str, Any]] = [{}, {"frame": 2}, {"frame": 3, "window": "lung"}]
    asked.append({"window": [800, 400]})
    for each in asked:
        form = {name: str(value).strip("[]") for name, value in each.items()}
        seen = look(url, **form)
        assert seen.status_code == 200 and seen.headers["cache-control"] == "no-store"
        told = seen.json()
        assert (told["dicom"], told["modality"], told["shown"]["of"]) == (True, "ct", 3)
        assert told["shown"]["frame"] == each.get("frame", 1)
        assert not worker.requests

        image = {"data": base64.b64encode(FRAMES).decode(), **each}
        case = {"question": "Is it healthy?", "images": [image]}
        verdict = httpx.post(f"{url}/vqa", json=case).json()
        assert verdict["images"] == [told["shown"]]
        sent, _ = worker.requests.pop()["messages"][0]["content"]
        assert sent["image_url"]["url"] == told["picture"]


def test_a_picture_that_is_passed_on_is_shown_as_it_is(vllm, gateway):
    jpeg = picture("RGB", kind="JPEG")
    seen = look(gateway([vllm()]), jpeg)
    assert pixels(seen)[:2] == b"\xff\xd8"
    assert (seen.json()["dicom"], seen.json()["shown"]["converted"]) == (False, False)


@pytest.mark.parametrize(
    ("images", "fields", "status", "says"),
    [
        ([b"hello " * 50], {}, 415, "not an image"),
        ([picture()[:-40]], {}, 400, "cut short"),
        ([picture(size=(8, 8))], {}, 422, "8 × 8 pixels"),
        ([picture()], {"frame": "2"}, 422, "no DICOM"),
        ([FRAMES], {"frame": "4"}, 422, "3 frames"),
        ([FRAMES], {"window": "liver"}, 422, "window"),
        ([picture(), picture()], {}, 422, "one image"),
        ([picture()], {"question": "Is it?"}, 422, "frame and window alone"),
        ([bytes(2_000_000)], {}, 413, "over 1 MB"),
    ],
)
def test_what_cannot_be_shown_is_refused_as_a_case_would_be(
    vllm, gateway, images, fields, status, says
):
    url = gateway([vllm()], limits="max_image_mb = 1\nmax_body_mb = 3")
    files = [("images", data) for data in images]
    response = httpx.post(f"{url}/preview", files=files, data=fields)
    assert response.status_code == status, response.text
    assert says in response.json()["detail"]


def test_a_form_without_an_image_or_no_form_is_told_what_to_send(vllm, gateway):
    url = gateway([vllm()])
    kind = {"content-type": "multipart/form-data; boundary=x"}
    form = b'--x\r\nContent-Disposition: form-data; name="frame"\r\n\r\n1\r\n--x--'
    response = httpx.post(f"{url}/preview", content=form, headers=kind)
    assert response.status_code == 422 and "at least one" in response.json()["detail"]
    response = httpx.post(f"{url}/preview", json={})
    assert response.status_code == 415 and "multipart/form-data" in response.json()["detail"]


def test_it_stands_behind_the_door(vllm, gateway, tmp_path):
    """A key may look more often than it may ask, and what it looks at is no case."""
    file = tmp_path / "keys.json"
    key = keys.add(file, "clinic", 1, admin=False)
    url = gateway([vllm()], environ={"CONSILIUM_KEYS": str(file)})
    assert look(url).status_code == 401
    with httpx.Client(headers={"authorization": f"Bearer {key}"}) as client:
        form = {"images": picture()}
        replies = [client.post(f"{url}/preview", files=form) for _ in range(PREVIEWS_OF_A_CASE + 1)]
    found = [each.status_code for each in replies]
    assert found == [200] * PREVIEWS_OF_A_CASE + [429]

    case = {"question": "Is it?", "images": [base64.b64encode(picture()).decode()]}
    bearer = {"authorization": f"Bearer {key}"}
    assert httpx.post(f"{url}/vqa", json=case, headers=bearer).status_code == 200
