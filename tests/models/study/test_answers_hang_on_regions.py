"""Which regions an answer hangs on: an answer that hangs on one bright corner, by hand."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from PIL import Image

from models.data.example import DataError, Example
from models.parts.vlm import Vlm
from models.study import explained
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
        explained.scored(cast(Vlm, None), "", tmp_path, {"blurred": blurred}, 1, tmp_path)


def test_a_stopped_one_goes_on_with_the_same_lines(
    image: Image.Image, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A line that is there is not worked out again, nor one that is torn taken for one."""
    folder = tmp_path / "xmlab1"
    folder.mkdir()
    image.save(folder / "source.png")
    (folder / "detection.json").write_text('[{"Lung": [20, 0, 20, 20]}]')
    example = Example("1", (folder / "source.png",), "Is it the lung?", "Yes", "en", True)
    monkeypatch.setattr(explained, "asked_about", lambda *_: [(example, [[20, 0, 20, 20]])])
    monkeypatch.setattr(explained, "belief", lambda *_: whiteness)
    hidden: list[int] = []

    def hide(image: Image.Image, cells: Sequence[Hidden]) -> list[Image.Image]:
        hidden.append(len(cells))
        return blurred(image, cells)

    def scored() -> dict[str, list[dict[str, float]]]:
        return explained.scored(cast(Vlm, None), "", tmp_path, {"blurred": hide}, 1, tmp_path)

    first, asked = scored(), len(hidden)
    again, asked_again = scored(), len(hidden)
    lines = tmp_path / "explained.jsonl"
    lines.write_bytes(lines.read_bytes()[:-9])
    anew = scored()

    assert asked == asked_again > 0 and len(hidden) == 2 * asked
    assert first == again == anew and first["blurred"][0]["points"] == 1
