"""Which regions of an image an answer hangs on: they are hidden, and the question is asked again.

`ask` is whatever answers: it takes images and gives for each how far it is believed that the answer
to the image as it is still holds, from 0 to 1. `hide` takes an image and square grids, and gives it
once for each of them, with those cells hidden that are True.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Grid = NDArray[np.float64]  # [side, side], rows first
Hidden = NDArray[np.bool_]
Ask = Callable[[Sequence[Image.Image]], Sequence[float]]
Hide = Callable[[Image.Image, Sequence[Hidden]], Sequence[Image.Image]]

CURVE = 16  # points of a deletion or insertion curve, after the first


def blurred(image: Image.Image, hidden: Sequence[Hidden]) -> list[Image.Image]:
    """Plain occlusion: the hidden cells are so blurred that little is left but their brightness."""
    plain = image.convert("RGB").filter(ImageFilter.GaussianBlur(max(image.size) / len(hidden[0])))
    return [pasted(plain, image, cells) for cells in hidden]


def pasted(other: Image.Image, image: Image.Image, hidden: Hidden) -> Image.Image:
    """The image, with another one of its size in the hidden cells."""
    cells = Image.fromarray(hidden.astype(np.uint8) * 255)
    mask = cells.resize(image.size, Image.Resampling.NEAREST)
    return Image.composite(other, image.convert("RGB"), mask)


def without_each(ask: Ask, hide: Hide, image: Image.Image, side: int) -> Grid:
    """How far the answer is believed without each cell of a grid of that side. The less, the more
    it hangs on that cell."""
    alone = list(np.eye(side * side, dtype=bool).reshape(-1, side, side))
    return np.asarray(ask(hide(image, alone))).reshape(side, side)


def deletion(ask: Ask, hide: Hide, image: Image.Image, found: Grid) -> float:
    """Area under the belief as cells are hidden, the most important first (Petsiuk et al. 2018,
    RISE, section 4.1): low where `found` is right."""
    return _area(ask(hide(image, _most_important_first(found))))


def insertion(ask: Ask, hide: Hide, image: Image.Image, found: Grid) -> float:
    """The same as cells are shown, the most important first: high where `found` is right."""
    return _area(ask(hide(image, [~shown for shown in _most_important_first(found)])))


def points_into(found: Grid, boxes: Iterable[Sequence[float]], side: float) -> bool:
    """The pointing game (Zhang et al. 2016): does the middle of the most important cell lie in one
    of the boxes [x, y, width, height], in pixels of a square of `side`?"""
    row, column = np.unravel_index(int(found.argmax()), found.shape)
    x, y = ((at + 0.5) * side / len(found) for at in (column, row))
    return any(
        left <= x <= left + wide and top <= y <= top + high for left, top, wide, high in boxes
    )


def _most_important_first(found: Grid) -> list[Hidden]:
    """So many masks: none at first, all cells at last."""
    order = np.argsort(-found, axis=None, kind="stable")
    ranks = np.empty(found.size, dtype=int)
    ranks[order] = np.arange(found.size)
    counts = np.linspace(0, found.size, CURVE + 1).round()
    return [(ranks < count).reshape(found.shape) for count in counts]


def _area(curve: Sequence[float]) -> float:
    return float(np.trapezoid(curve, dx=1 / CURVE))
