"""Stored answers as they are weighed and learned from: each case with its kind, and what every
worker said to it at first."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from gateway.case import Case
from gateway.contract import Answer, Language, Likeness, Modality, Options
from gateway.intake.pixels import only_pixels
from gateway.settings import Settings
from gateway.verdict.competence import Cell, Competence
from gateway.verdict.text.questions import kind_of
from models.data.datasets import called
from models.data.example import Example
from models.data.image_hashes import pixel_hashes
from services.evaluation import stored_run
from services.evaluation.stored_run import EvaluationError, Outcome, Run

HASH_DIGITS = 16  # of two images' in a million the same by chance: one in 4e7

# What the datasets call them, in small letters.
MODALITIES: dict[str, Modality] = {word: word for word in get_args(Modality)}
MODALITIES["x-ray"] = "xray"


@dataclass(frozen=True)
class Heard:
    """One case of a stored run, and what each worker said to it at first."""

    example: Example
    cell: Cell
    answers: tuple[Answer, ...]

    @property
    def case(self) -> Case:
        """What the gateway made of it, from the same files."""
        images = tuple(only_pixels(path.read_bytes(), path.name) for path in self.example.images)
        asked = self.example.question
        return Case(self.example.id, asked, images, self.cell.language, None, None, Options())

    def by(self, worker: str) -> Answer | None:
        return next((a for a in self.answers if a.worker == worker and a.text is not None), None)

    def likeness_by(self, tells: Collection[str]) -> Likeness | None:
        return next((a.likeness for a in self.answers if a.worker in tells and a.likeness), None)


def hear(runs: Sequence[Path], data: Path) -> tuple[list[Heard], list[str]]:
    """Every case of the runs that somebody answered, and a phrase for each run.

    Raises:
        EvaluationError, models.data's DataError
    """
    cases, sources = [], []
    parts = [stored_run.load(folder, data) for folder in runs]
    for folder, (run, outcomes) in zip(runs, parts, strict=True):
        if run.images_changed:
            raise EvaluationError(f"{folder}: its images were changed; take a run without that.")
        cases += [heard_in(run.language, *each) for each in outcomes if each[1].was_answered]
        sources.append(
            f"{called(run.dataset)} {run.split} {run.language}, {len(outcomes)} questions"
        )
    refuse_asked_twice(runs, parts)
    return cases, sources


def refuse_asked_twice(
    folders: Sequence[Path], parts: Sequence[tuple[Run, Sequence[tuple[Example, Outcome]]]]
) -> None:
    """Raises EvaluationError where two runs answer the same question: what is learned or told of
    both would count it twice."""
    first: dict[tuple[str, ...], Path] = {}
    for folder, (run, cases) in zip(folders, parts, strict=True):
        asked = run.dataset, run.split, run.language
        of_this = {(*asked, example.id) for example, outcome in cases if outcome.was_answered}
        if twice := first.keys() & of_this:
            raise EvaluationError(
                f"{folder} and {first[min(twice)]} answer the same questions, {len(twice)} of "
                "them: give one of the two, or join them (consilium join) where each asked other "
                "workers."
            )
        first |= dict.fromkeys(of_this, folder)


def served(runs: Sequence[Path]) -> dict[str, str | None]:
    """By worker: the weights that gave its answers, where those were the same in all runs."""
    found: dict[str, set[str | None]] = defaultdict(set)
    for folder in runs:
        for name, weights in stored_run.read_run(folder).models.items():
            found[name].add(weights)
    return {name: weights.pop() for name, weights in found.items() if len(weights) == 1}


def shown_in(examples: Sequence[Example]) -> list[set[str]]:
    """What each shows: the first digits of hashes of its images' pixels."""
    found = pixel_hashes(image for example in examples for image in example.images)
    return [{found[image][:HASH_DIGITS] for image in example.images} for example in examples]


def calibrated_on(examples: Sequence[Example], competence: Competence | None) -> int:
    """How many of them show an image that the competence was learned from: what it makes of those
    is no score."""
    known = set(competence.images) if competence else set()
    return sum(not known.isdisjoint(each) for each in shown_in(examples)) if known else 0


def heard_in(language: Language, example: Example, outcome: Outcome) -> Heard:
    kind = kind_of(example.question, language)
    answers = tuple(answer for answer in outcome.answers if answer.round == 1)
    modality = MODALITIES.get((example.modality or "").lower())
    return Heard(example, Cell(language, kind, modality), answers)


def refuse_strangers(cases: Sequence[Heard], settings: Settings) -> None:
    """Raises EvaluationError where somebody has answered who is not seated."""
    seats = [worker.name for worker in settings.workers]
    answered = {a.worker for case in cases for a in case.answers if a.text is not None}
    if strangers := sorted(answered - set(seats)):
        raise EvaluationError(
            f"These answers are of {', '.join(strangers)} too, and the panel file seats "
            f"{', '.join(seats)} only; give the file of the panel that was asked: --panel FILE."
        )
