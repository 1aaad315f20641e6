"""What is written in an image's pixels may name a patient: it is refused, blacked out or told."""

import base64
import io
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from gateway.intake import burned_in
from gateway.settings import SettingsError, load_settings
from tests.conftest import picture

NAME = "GARCIA LOPEZ, MARIA"
IMAGE = picture("RGB", (960, 480))


def reads(monkeypatch, *lines: tuple[str, float]) -> None:
    """Puts a reader in the place of RapidOCR, which finds these lines, one under the other."""
    monkeypatch.setattr("gateway.tables.find_spec", lambda name: name)
    found = SimpleNamespace(
        boxes=[
            np.array([[200, top], [600, top], [600, top + 20], [200, top + 20]], np.float32)
            for top in range(100, 100 + 100 * len(lines), 100)
        ],
        txts=[text for text, _ in lines],
        scores=[score for _, score in lines],
    )
    monkeypatch.setattr(burned_in, "_reader", lambda: lambda pixels: found if lines else [])


def ask(url: str) -> httpx.Response:
    images = [base64.b64encode(IMAGE).decode()]
    return httpx.post(f"{url}/vqa", json={"question": "Is it?", "images": images}, timeout=20)


def seen_by(worker) -> np.ndarray:
    [request] = worker.requests
    uri = request["messages"][0]["content"][0]["image_url"]["url"]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


@pytest.mark.parametrize(
    ("how", "told"), [("mask", {"burned_in": "masked", "converted": True}), ("warn", "left")]
)
def test_text_is_blacked_out_or_told(vllm, gateway, monkeypatch, how, told):
    """With a quarter of its height around it, and nothing else; a preview shows the same."""
    reads(monkeypatch, (NAME, 0.9))
    worker = vllm()
    url = gateway([worker], limits=f'burned_in = "{how}"')
    shown = ask(url).json()["images"][0]
    seen, sent = seen_by(worker), np.asarray(Image.open(io.BytesIO(IMAGE)))
    if how == "mask":
        assert told.items() <= shown.items()
        assert not seen[96:125, 196:605].any()
        seen = seen.copy()
        seen[94:127, 194:607] = sent[94:127, 194:607]
    assert shown["burned_in"] == (told if how == "warn" else "masked")
    assert (seen == sent).all()
    preview = httpx.post(f"{url}/preview", files={"images": ("a.png", IMAGE)}).json()
    assert preview["shown"] == shown


def test_text_is_refused_and_not_repeated(vllm, gateway, monkeypatch):
    reads(monkeypatch, (NAME, 0.9))
    refused = ask(gateway([vllm()], limits='burned_in = "refuse"'))
    assert refused.status_code == 422
    assert "Image 1 of 1 has text burned into its pixels" in refused.json()["detail"]
    assert refused.json()["code"] == "burned_in_text"
    assert "GARCIA" not in refused.text


@pytest.mark.parametrize(
    "lines", [[], [("L", 1.0), ("AP", 0.9)], [(NAME, 0.5)], [("王", 0.9)], [("ＡＰ", 1.0)]]
)
def test_a_side_mark_or_what_cannot_be_read_is_no_text(monkeypatch, lines):
    reads(monkeypatch, *lines)
    assert burned_in.text_in(Image.new("L", (480, 480))) == []


def test_a_name_of_two_chinese_characters_is_text_and_stands_where_it_is(monkeypatch):
    """In the picture's own pixels, whatever size it was read at."""
    reads(monkeypatch, ("王明", 0.9))
    assert burned_in.text_in(Image.new("L", (480, 480))) == [(97, 47, 302, 62)]


def test_without_a_reader_the_panel_file_is_refused(panel_file, monkeypatch):
    monkeypatch.setattr("gateway.tables.find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"limits: burned_in.*consilium\[burned-in\]"):
        load_settings(panel_file(["http://127.0.0.1:1"], limits='burned_in = "warn"'), environ={})


def test_the_real_reader_finds_a_name():
    image = Image.open(io.BytesIO(IMAGE)).convert("RGB")
    assert burned_in.text_in(image) == []
    ImageDraw.Draw(image).text((40, 400), NAME, "white", ImageFont.load_default(32))
    [(left, top, right, bottom)] = burned_in.text_in(image)
    assert 10 < left < 60 < 300 < right and 380 < top < 415 < 425 < bottom < 460
