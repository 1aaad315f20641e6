"""The cases of an evaluation that are worth looking at, as a reader sees them."""

import base64
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.contract import Answer, Familiarity
from gateway.verdict.remarks import of_grounding
from models.data.example import DataError, Example
from models.data.pixels import open_rgb
from services.evaluation.score import is_right, references_of
from services.evaluation.stored_run import Outcome

AT_MOST = 12  # of each sort
SIDE = 192  # pixels of a thumbnail, at most

Case = tuple[Example, Outcome]

SORTS: dict[str, Callable[[Case], bool]] = {
    "The panel is wrong and a member is right": lambda case: any(
        is_right(answer.text, case[0]) for answer in case[1].answers
    ),
    "All say the same, and it is wrong": lambda case: (
        case[1].verdict is not None
        and not case[1].verdict.dissent
        and sum(answer.weight is not None for answer in case[1].answers) > 1
    ),
    "The panel is surest, and wrong": lambda case: True,
}


@dataclass(frozen=True)
class Notable:
    """One case: what is told of it, and its images."""

    told: dict[str, Any]
    images: tuple[Path, ...]

    @property
    def thumbnails(self) -> list[str | None]:
        """The images as data URIs; None for one that cannot be read."""
        return [_thumbnail(image) for image in self.images]


def notable(examples: Sequence[Example], outcomes: dict[str, Outcome]) -> dict[str, list[Notable]]:
    """By sort: cases that the panel got wrong, those first of which it was surest. None stands
    twice, and of each sort there are `AT_MOST`."""
    wrong = [
        (example, outcome)
        for example in examples
        if (outcome := outcomes[example.id]).answer is not None
        and not is_right(outcome.answer, example)
    ]
    wrong.sort(key=lambda case: (-_sure(case[1]), case[0].id))
    found: dict[str, list[Notable]] = {}
    shown: set[str] = set()
    for title, is_of in SORTS.items():
        chosen = [case for case in wrong if case[0].id not in shown and is_of(case)][:AT_MOST]
        shown |= {example.id for example, _ in chosen}
        found[title] = [_told(*case) for case in chosen]
    return found


def _sure(outcome: Outcome) -> float:
    verdict = outcome.verdict
    if verdict is None or _unfamiliar(outcome):
        return 0.0  # however many agree, nothing is claimed
    return verdict.confidence if verdict.confidence is not None else verdict.agreement or 0.0


def _unfamiliar(outcome: Outcome) -> Familiarity | None:
    """What is said of a case that is unlike those calibrated on; None of another."""
    told = outcome.verdict and outcome.verdict.familiarity
    return told if told and told.unfamiliar else None


def _told(example: Example, outcome: Outcome) -> Notable:
    verdict = outcome.verdict
    about = (example.modality, example.organ, example.kind)
    told = {
        "id": example.id,
        "about": [each for each in about if each],
        "question": example.question,
        "right": list(references_of(example)),
        "panel": outcome.answer,
        "unfamiliar": odd.why if (odd := _unfamiliar(outcome)) else None,
        "grounding": verdict.grounding if verdict else None,
        "ungrounded": of_grounding(verdict) if verdict else None,
        "confidence": verdict.confidence if verdict else None,
        "agreement": verdict.agreement if verdict else None,
        "votes": [
            {
                "worker": answer.worker,
                "answer": answer.text,
                "confidence": answer.confidence,
                "right": is_right(answer.text, example),
            }
            for answer in last_words(outcome)
        ],
    }
    return Notable(told, example.images)


def last_words(outcome: Outcome) -> Iterable[Answer]:
    """Each worker's last answer."""
    return {a.worker: a for a in outcome.answers if a.text is not None}.values()


def _thumbnail(image: Path) -> str | None:
    try:
        shown = open_rgb(image)
    except DataError:
        return None
    shown.thumbnail((SIDE, SIDE))
    written = io.BytesIO()
    shown.save(written, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(written.getvalue()).decode()
