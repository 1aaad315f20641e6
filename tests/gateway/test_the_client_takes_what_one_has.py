"""`gateway.client.ask`: an image however it is at hand, options as they are written, and a key as
it was pasted."""

from pathlib import Path

import numpy as np
import pytest

from gateway.client import GatewayError, GatewayRefused, GatewayUnreachable, ask, bearer
from gateway.contract import ImageShown, Options
from tests.conftest import picture
from tests.dicoms import dicom_of


@pytest.fixture
def url(vllm, gateway):
    return gateway([vllm("yes"), vllm("yes")])


@pytest.mark.parametrize("given", [Path, str, Path.read_bytes])
def test_one_image_or_several(given, url, tmp_path):
    """A path as text or as a Path, or what the file holds; alone or in a list."""
    (tmp_path / "scan.png").write_bytes(picture())
    image = given(tmp_path / "scan.png")
    assert ask(image, "Is it?", url=url).answer == "yes"
    assert ask([image, image], "Is it?", url=url).answer == "yes"
    assert ask((image,), "Is it?", url=url).cached


def test_of_a_dicom_a_frame_and_a_window(url):
    """And what of it was shown is in the verdict."""
    scan = dicom_of(np.arange(3 * 32 * 32, dtype="i2").reshape(3, 32, 32), NumberOfFrames=3)

    verdict = ask({"data": scan, "frame": 2, "window": [40, 400]}, "Is it?", url=url)

    assert verdict.images == (ImageShown(frame=2, of=3, window=(40, 400), converted=True),)


@pytest.mark.parametrize("options", [{"workers": ["w1"]}, Options(workers=("w1",))])
def test_options_as_a_mapping_or_an_object(options, url):
    verdict = ask(picture(), "Is it?", options=options, choices=("yes", "no"), url=url)
    assert [answer.worker for answer in verdict.answers if answer.text] == ["w1"]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"options": {"rounds": 3}}, "rounds"),
        ({"options": {"max-risk": 1}}, "options"),
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
        bearer(key)
    assert key not in str(told.value)
    monkeypatch.setenv("CONSILIUM_KEY", key)
    with pytest.raises(GatewayError, match="holds a character that no key has"):
        ask(b"", "?", url="http://127.0.0.1:1")


def test_what_pasting_adds_to_a_key_is_taken_off(monkeypatch):
    monkeypatch.setenv("CONSILIUM_KEY", " consilium_a\r\n")
    assert bearer() == bearer("consilium_a\r") == {"authorization": "Bearer consilium_a"}
    monkeypatch.setenv("CONSILIUM_KEY", "\r\n")
    assert bearer() == {}


@pytest.mark.parametrize("url", ["gateway:8000", "http://[::1", "ftp://gateway", ""])
def test_an_address_that_is_none_is_one_sentence(url):
    with pytest.raises(GatewayUnreachable, match="No verdict from"):
        ask(b"", "?", url=url)
