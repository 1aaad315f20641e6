"""Which regions of an image the panel's answer hangs on: it is asked again without each of them."""

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from consilium import Client, Verdict
from gateway.verdict.text.claims import claims
from gateway.verdict.text.sentences import Meaning
from models.data.pixels import open_rgb
from models.study.regions import Grid, Hide, without_each

AT_ONCE = 4  # cases; a gateway has other callers


class ExplainError(Exception):
    """There is nothing to explain; one sentence that says why."""


@dataclass(frozen=True)
class Explanation:
    answer: str
    agreement: float
    # By each way to hide, [side, side]: how much less the panel believes its answer without a cell.
    without: tuple[Grid, ...]


def explain(
    client: Client,
    image: Path,
    question: str,
    side: int,
    fields: dict[str, Any],
    ways: Sequence[Hide],
) -> Explanation:
    """Asks once for the image, and once for each cell of a grid of `side`, hidden in each way.

    Raises:
        ExplainError: the panel has no answer to the image as it is.
        GatewayError: a case was refused or has no verdict.
        DataError: no image can be read.
    """

    def asked(picture: Image.Image) -> Verdict:
        data = io.BytesIO()
        picture.save(data, "PNG")
        return client.ask(data.getvalue(), question, **fields)

    shown = open_rgb(image)
    whole = asked(shown)
    answer = whole.answer or whole.best_guess
    if answer is None:
        raise ExplainError("The panel has no answer to this image, so there is none to explain.")

    def ask(pictures: Sequence[Image.Image]) -> list[float]:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return [belief(verdict, answer, question) for verdict in pool.map(asked, pictures)]

    agreement = belief(whole, answer, question)
    without = (agreement - without_each(ask, hide, shown, side) for hide in ways)
    return Explanation(answer, agreement, tuple(without))


def belief(verdict: Verdict, answer: str, question: str) -> float:
    """How far the panel of `verdict` believes `answer`, whether or not that won."""

    def meant(text: str) -> Meaning:
        """With a question mark or without."""
        return claims(text, verdict.language, question)[0].meaning

    won = verdict.answer or verdict.best_guess
    said = [(each.text, each.weight) for each in verdict.dissent]
    if won:
        # Null of a single voice, and of an answer that nobody claims: then what dissent leaves.
        left = 1.0 - sum(weight for _, weight in said)
        said.append((won, left if verdict.agreement is None else verdict.agreement))
    return sum(weight for text, weight in said if meant(text) == meant(answer))


def overlaid(image: Path, without: Sequence[Grid]) -> Image.Image:
    """The image in grey, redder the more the answer hangs on a region: once for each map, beside
    each other, and as red where as much hangs on it."""
    grey = open_rgb(image).convert("L").convert("RGB")
    beside = Image.new("RGB", (grey.width * len(without), grey.height))
    most = max(1e-9, *(each.max() for each in without))
    for place, each in enumerate(without):
        share = np.clip(each / most, 0, 1)
        heat = Image.fromarray((160 * share).astype(np.uint8)).resize(
            grey.size, Image.Resampling.BILINEAR
        )
        red = Image.composite(Image.new("RGB", grey.size, "red"), grey, heat)
        beside.paste(red, (place * grey.width, 0))
    return beside
