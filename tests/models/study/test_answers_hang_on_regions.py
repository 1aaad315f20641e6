"""Which regions an answer hangs on: an answer that hangs on one bright corner, by hand."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from PIL import Image

from models.data.example import DataError, Example
from models.parts.codes import Sizes
from models.parts.vlm import Vlm
from models.study import explained, masked_decoding, tokens
from models.study.masked_decoding import FINDING, HEALTHY, UNKNOWN, imagining, what_is_found
from models.study.regions import (
    CURVE,
    Hidden,
    blurred,
    deletion,
    insertion,
    points_into,
    without_each,
)


@pytest.fixture
def image() -> Image.Image:
    """White in its upper right quarter."""
    drawn = Image.new("L", (40, 40))
    drawn.paste(255, (20, 0, 40, 20))
    return drawn


def whiteness(images: Sequence[Image.Image]) -> list[float]:
    """Believes as far as the upper right quarter is white."""
    return [np.asarray(each.convert("L"))[:20, 20:].mean() / 255 for each in images]


def blackened(image: Image.Image, hidden: Sequence[Hidden]) -> list[Image.Image]:
    found = []
    for cells in hidden:
        wide = np.kron(cells, np.ones((20, 20), bool))
        found.append(Image.fromarray(np.where(wide, 0, np.asarray(image)).astype(np.uint8)))
    return found


def test_the_cell_that_carries_the_answer_is_found(image: Image.Image) -> None:
    found = 1 - without_each(whiteness, blackened, image, 2)

    assert found.tolist() == [[0, 1], [0, 0]]
    assert points_into(found, [[20, 0, 20, 20]], 40)
    assert points_into(found, [[200, 0, 200, 200]], 400)  # boxes of the original's pixels
    assert not points_into(found, [[0, 0, 19, 40], [20, 20, 20, 20]], 40)


def test_a_right_explanation_deletes_fast_and_inserts_fast(image: Image.Image) -> None:
    """Of four cells one is a quarter of the curve: it falls, or rises, between its second point and
    its third, where more than half of the cell is reached."""
    right = np.array([[0.0, 1.0], [0.0, 0.0]])

    assert deletion(whiteness, blackened, image, right) == pytest.approx(2.5 / CURVE)
    assert insertion(whiteness, blackened, image, right) == pytest.approx(1 - 2.5 / CURVE)
    assert deletion(whiteness, blackened, image, -right) == pytest.approx(1 - 2.5 / CURVE)


def test_what_is_blurred_changes_and_the_rest_does_not(image: Image.Image) -> None:
    hidden = np.array([[False, True], [False, False]])

    (found,) = blurred(image, [hidden])

    changed = np.asarray(found.convert("L")) != np.asarray(image)
    assert changed[:20, 20:].any()
    changed[:20, 20:] = False
    assert not changed.any()


def test_a_worker_that_gives_no_reference_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(explained, "asked_about", lambda *_: [])

    with pytest.raises(DataError, match="sure of none of the questions' references: take another"):
        explained.scored(cast(Vlm, None), "", tmp_path, {"by lot": explained.by_lot}, 1, tmp_path)


def ask_about_the_lung(image: Image.Image, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One question, whose box is the upper right quarter, of a worker that believes in white."""
    folder = data / "xmlab1"
    folder.mkdir()
    image.save(folder / "source.png")
    (folder / "detection.json").write_text('[{"Lung": [20, 0, 20, 20]}]')
    example = Example("1", (folder / "source.png",), "Is it the lung?", "Yes", "en", True)
    monkeypatch.setattr(explained, "asked_about", lambda *_: [(example, [[20, 0, 20, 20]])])
    monkeypatch.setattr(explained, "belief", lambda *_: whiteness)


def test_a_stopped_one_goes_on_with_the_same_lines(
    image: Image.Image, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A line that is there is not worked out again, nor one that is torn taken for one."""
    ask_about_the_lung(image, tmp_path, monkeypatch)
    hidden: list[int] = []

    def hide(image: Image.Image, cells: Sequence[Hidden]) -> list[Image.Image]:
        hidden.append(len(cells))
        return blurred(image, cells)

    def scored() -> dict[str, list[dict[str, float]]]:
        maps = {"blurred": explained.hiding(hide)}
        return explained.scored(cast(Vlm, None), "", tmp_path, maps, 1, tmp_path)

    first, asked = scored(), len(hidden)
    again, asked_again = scored(), len(hidden)
    lines = tmp_path / "explained.jsonl"
    lines.write_bytes(lines.read_bytes()[:-9])
    anew = scored()

    assert asked == asked_again > 0 and len(hidden) == 2 * asked
    assert first == again == anew and first["blurred"][0]["points"] == 1


def test_a_map_by_lot_is_the_same_of_an_image_each_time(image: Image.Image) -> None:
    first, again, other = (
        explained.by_lot(whiteness, each) for each in (image, image.copy(), image.rotate(90))
    )

    assert first.shape == (8, 8) and len(set(first.flatten())) == 64
    assert (first == again).all() and (first != other).any()


def test_what_one_map_has_over_another_is_told_of_pairs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """0.6 and 0.8 less 0.5 and 0.3 is 0.1 and 0.5."""
    explained.tell(
        {
            "imagined": [{"insertion": 0.6}, {"insertion": 0.8}],
            "by lot": [{"insertion": 0.5}, {"insertion": 0.3}],
        }
    )

    lines = capsys.readouterr().out.splitlines()
    assert lines[0::2] == [
        *("imagined, 2 questions", "by lot, 2 questions", "imagined less by lot, 2 questions")
    ]
    assert [line.split()[1] for line in lines[1::2]] == ["+0.700", "+0.400", "+0.300"]
    assert lines[-1].endswith("(+0.100 to +0.500)")


@pytest.mark.parametrize(
    ("named", "found"),
    [('[{"Lung": [0, 0, 9, 9]}]', HEALTHY), ('[{"Lung": [0, 0, 9, 9]}, {"Mass": [1, 1, 2, 2]}]',
     FINDING), ("", UNKNOWN)],
)  # fmt: skip
def test_what_is_found_is_what_the_boxes_name(named: str, found: int, tmp_path: Path) -> None:
    if named:
        (tmp_path / "detection.json").write_text(named)

    assert what_is_found(tmp_path / "source.png") == found


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tokens that have learned nothing, and what two steps make of their masked decoding."""
    torch.manual_seed(0)
    folder = tmp_path / "tokens"
    tokens.save(tokens.Autoencoder(Sizes(codes=8, width=4, channels=32)), {}, folder)
    for number in range(3):
        drawn = Image.fromarray(np.random.default_rng(number).integers(0, 256, (20, 20), np.uint8))
        drawn.save(tmp_path / f"{number}.png")
    monkeypatch.setattr(masked_decoding, "images_of", lambda *_: sorted(tmp_path.glob("*.png")))
    asked = ["", "--data", str(tmp_path), "--tokens", str(folder), "--steps", "2"]
    monkeypatch.setattr(sys, "argv", asked)
    masked_decoding.main()
    return folder


def test_a_study_goes_from_tokens_to_what_is_told(
    trained: Path,
    image: Image.Image,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of a worker that looks at the upper right quarter: a map by hiding has its most important
    cell there, and both beat one by lot."""
    ask_about_the_lung(image, tmp_path, monkeypatch)
    monkeypatch.setattr(explained, "worker", lambda *_: (None, ""))
    asked = ["", "--data", str(tmp_path), "--tokens", str(trained), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", asked)
    capsys.readouterr()

    explained.main()

    lines = (tmp_path / "out" / "explained.jsonl").read_text().splitlines()
    found = {each["by"]: each for each in map(json.loads, lines)}
    assert list(found) == ["imagined", "blurred", "by lot"]
    for name in ("imagined", "blurred"):
        assert found[name]["points"] == 1
        assert found[name]["deletion"] < found["by lot"]["deletion"]
        assert found[name]["insertion"] > found["by lot"]["insertion"]
    assert "imagined less by lot, 1 questions" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [*asked, "--worker", "mobilenet"])
    with pytest.raises(DataError, match="holds scores of another worker or other tokens"):
        explained.main()


def test_what_is_imagined_stands_in_hidden_cells_only(trained: Path, image: Image.Image) -> None:
    hidden = np.array([[False, True], [False, False]])
    hide = imagining(trained, 2, torch.device("cpu"))

    (found,), (again,) = hide(image, [hidden]), hide(image, [hidden])

    assert found.size == image.size and found.tobytes() == again.tobytes()
    changed = np.asarray(found.convert("L")) != np.asarray(image)
    assert changed[:20, 20:].any()
    changed[:20, 20:] = False
    assert not changed.any()
