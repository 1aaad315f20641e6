"""`consilium explain`: the panel is asked again without each region of an image."""

import base64
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from gateway.contract import Dissent
from models.parts.codes import Sizes
from models.study import tokens
from models.study.masked_decoding import MaskedTransformer
from models.study.tokens import Autoencoder
from models.tensors import save_whole
from services.running.explain import belief
from tests.fake_gateway import VERDICT


@pytest.fixture
def scan(tmp_path):
    """White in its lower left quarter."""
    drawn = Image.new("L", (64, 64))
    drawn.paste(255, (0, 32, 32, 64))
    path = tmp_path / "scan.png"
    drawn.save(path)
    return path


@pytest.fixture
def tiny_tokens(tmp_path):
    """Four in a row, of which nothing was learned: what they imagine is grey."""
    torch.manual_seed(0)
    sizes = Sizes(side=32, codes=8, width=4, channels=32)
    tokens.save(Autoencoder(sizes), {}, tmp_path / "tokens")
    model = MaskedTransformer(sizes.codes, sizes.grid**2)
    save_whole(model.state_dict(), tmp_path / "tokens" / "masked.safetensors")
    return tmp_path / "tokens"


def by_lower_left(request):
    """Says Yes as surely as that quarter is white, else No."""
    image = Image.open(io.BytesIO(base64.b64decode(request["images"][0])))
    white = float(np.asarray(image.convert("L"))[32:, :32].mean()) / 255
    other = (Dissent(text="No.", workers=("w1",), weight=1 - white),)
    return VERDICT.model_copy(update={"agreement": white, "dissent": other})


def test_the_region_that_carries_the_answer_stands_out(fake, consilium, scan, tmp_path):
    gateway, out = fake(), tmp_path / "out.png"
    gateway.verdict_of = by_lower_left

    done = consilium(
        "explain", scan, "-q", "Is it?", "--side", "2", "--json", "--out", out,
        "--gateway", gateway.url,
    )  # fmt: skip

    told = json.loads(done.out)
    assert (told["answer"], told["agreement"]) == ("Yes", 1)
    (upper, (lower_left, lower_right)) = told["without"]
    assert lower_left > 0.2 and [*upper, lower_right] == [0, 0, 0]
    assert len(gateway.requests) == 5
    assert {each["options"]["summarise"] for each in gateway.requests} == {"never"}
    red, green, _ = np.asarray(Image.open(out).convert("RGB")).astype(int).transpose(2, 0, 1)
    assert (red - green)[32:, :32].mean() > 5 * (red - green)[:32, 32:].mean()


def test_regions_are_imagined_beside_those_that_are_blurred(
    fake, consilium, scan, tiny_tokens, tmp_path
):
    """Each asked once, by one answer to the image as it is; both maps in one picture."""
    gateway, out = fake(), tmp_path / "out.png"
    gateway.verdict_of = by_lower_left
    command = ("explain", scan, "-q", "Is it?", "--side", "2", "--tokens", tiny_tokens,
               "--gateway", gateway.url)  # fmt: skip

    told = json.loads(consilium(*command, "--json", "--out", out).out)
    shown = consilium(*command).out

    assert len(gateway.requests) == 2 * (1 + 4 + 4)
    for name in ("without", "imagined"):
        (upper, (lower_left, lower_right)) = told[name]
        assert lower_left > 0.2 and [*upper, lower_right] == [0, 0, 0]
    assert told["imagined"] != told["without"]
    red, green, _ = np.asarray(Image.open(out).convert("RGB")).astype(int).transpose(2, 0, 1)
    assert red.shape == (64, 128)
    for left in (0, 64):
        assert (red - green)[32:, left : left + 32].mean() > 20 > (red - green)[:16].max()
    assert "blurred" in shown and "imagined" in shown
    assert f"{told['imagined'][1][0]:+.2f}" in shown and f"{told['without'][1][0]:+.2f}" in shown


@pytest.mark.parametrize(
    ("missing", "side", "says"),
    [
        ("tokens.json", 2, "holds no image tokens"),
        ("masked.safetensors", 2, "nothing that imagines them"),
        ("", 3, "4 tokens in a row, which 3 regions do not divide: take one of 2, 4."),
    ],
)
def test_tokens_that_cannot_imagine_are_told_before_anything_is_asked(
    fake, consilium, scan, tiny_tokens, missing, side, says
):
    gateway = fake()
    if missing:
        (tiny_tokens / missing).unlink()

    done = consilium("explain", scan, "-q", "Is it?", "--side", side, "--tokens", tiny_tokens,
                     "--gateway", gateway.url)  # fmt: skip

    assert done.status == 1 and says in done.err and done.err.count("\n") == 1
    assert not gateway.requests


def test_an_answer_that_lost_is_still_believed_a_little():
    other = (Dissent(text="no.", workers=("w1",), weight=0.3),)
    verdict = VERDICT.model_copy(update={"agreement": 0.7, "dissent": other})

    assert belief(verdict, "No", "Is it?") == 0.3
    assert belief(verdict, "Yes", "Is it?") == 0.7
    assert belief(verdict, "Left", "Is it?") == 0
    assert belief(VERDICT, "Yes", "Is it?") == 1  # a single voice
    unclaimed = verdict.model_copy(update={"agreement": None})
    assert belief(unclaimed, "Yes", "Is it?") == 0.7


def test_several_images_are_not_explained(fake, consilium, scan):
    done = consilium("explain", scan, scan, "-q", "Is it?", "--gateway", fake().url)

    assert done.status == 2
    assert "give one" in done.err


@pytest.mark.parametrize(
    ("name", "says"),
    [("out", "name a picture"), ("out.psd", "name a picture"), ("no/out.png", "no folder")],
)
def test_what_cannot_be_written_is_told_before_anything_is_asked(
    fake, consilium, scan, tmp_path, name, says
):
    gateway = fake()

    done = consilium("explain", scan, "-q", "Is it?", "--out", tmp_path / name,
                     "--gateway", gateway.url)  # fmt: skip

    assert done.status == 2 and says in done.err
    assert not gateway.requests


def test_where_there_is_no_answer_there_is_nothing_to_explain(fake, consilium, scan):
    gateway = fake()
    gateway.verdict_of = lambda request: VERDICT.model_copy(update={"answer": None})

    done = consilium("explain", scan, "-q", "Is it?", "--gateway", gateway.url)

    assert done.status == 1
    assert "no answer to this image" in done.err
