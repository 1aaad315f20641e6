"""That all pixels of an image are there takes as long to find out as all else together: workers
are asked meanwhile, and nobody hears of a verdict before it is known."""

import io
import threading

import httpx
import pytest
from PIL import Image

from gateway.intake import request
from gateway.intake.raster import wholeness
from tests.conftest import picture


def noise() -> bytes:
    file = io.BytesIO()
    Image.effect_noise((64, 64), 90).save(file, "JPEG")
    return file.getvalue()


WHOLE = noise()
DAMAGED = WHOLE[: len(WHOLE) * 3 // 4] + wholeness.END_OF_JPEG
COMMENTS = b"\xff\xfe\0\2" * (request.HERE_CHUNKS + 1)


def form(url: str, image: bytes, fields=None, **headers: str) -> httpx.Response:
    sent = {"question": "Is it healthy?"} | (fields or {})
    return httpx.post(f"{url}/vqa", data=sent, files={"images": image}, headers=headers)


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
def test_who_sends_an_image_that_is_not_whole_hears_of_no_answer(vllm, gateway, caplog, accept):
    """Not the second time either, when the answers are known: they were given at once."""
    caplog.set_level("INFO", "consilium.gateway")
    url = gateway([vllm("yes")])
    for _ in range(2):
        refused = form(url, DAMAGED, accept=accept)
        assert refused.status_code == 400 and "Image 1 of 1" in refused.json()["detail"]
    assert "case_refused" in caplog.text and "case_answered" not in caplog.text
    assert form(url, WHOLE).json()["answer"] == "yes"


def test_a_worker_is_asked_before_it_is_known(vllm, gateway, monkeypatch):
    asked, worker = threading.Event(), vllm("yes", delay_s=lambda: asked.set() or 0)
    waited = []
    monkeypatch.setattr(wholeness, "check_jpeg", lambda _: waited.append(asked.wait(10)))
    assert form(gateway([worker]), noise()).json()["answer"] == "yes"
    assert waited == [True]


@pytest.mark.parametrize(
    ("image", "fields", "turns"),
    [
        (WHOLE, {}, 0),
        (WHOLE, {"choices": [f"choice {n}" for n in range(request.HERE_PARTS)]}, 1),
        (WHOLE[:2] + COMMENTS + WHOLE[2:], {}, 1),
        (WHOLE + bytes(request.HERE_BYTES), {}, 1),
        (picture("P"), {}, 1),
    ],
    ids=["small", "many fields", "many parts", "large", "decoded"],
)
def test_only_what_is_soon_read_is_read_where_it_comes_in(
    vllm, gateway, monkeypatch, image, fields, turns
):
    """All else takes a thread's turn, so that nobody waits behind it."""
    threads, off_loop = [], request.off_loop
    monkeypatch.setattr(request, "off_loop", lambda work: threads.append(work) or off_loop(work))
    url = gateway([vllm("choice 1" if fields else "yes")])
    assert form(url, WHOLE).status_code == 200  # it is known to be whole
    threads.clear()
    assert form(url, image, fields).status_code == 200
    assert len(threads) == turns
