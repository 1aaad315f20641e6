"""How far each worker's word goes, by language, manner, kind of question and modality: what
`consilium calibrate` learned from answers to questions that the workers had not been trained on.

Log-odds throughout. A worker's confidence c becomes the probability that its answer is right,
σ(slope · logit c + offset): Platt scaling (1999) with an offset of its own for each kind of case.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gateway.case import Case
from gateway.contract import Answer, Language, Likeness, Modality
from gateway.verdict.text.questions import Kind, kind_of

EDGE = 0.002  # a probability is kept so far from 0 and 1: nobody is that sure


class CompetenceError(Exception):
    """A competence file that cannot be used; one sentence says why and what to do."""


@dataclass(frozen=True)
class Cell:
    """What kind of case it is. `manner` is the data set which asks most as this one is asked, where
    a worker has told it: a worker may know one set's ways and not another's."""

    language: Language
    kind: Kind
    modality: Modality | None
    manner: str | None = None

    @classmethod
    def of(cls, case: Case) -> "Cell":
        return cls(case.language, kind_of(case.question, case.language), case.modality)

    @property
    def ways(self) -> tuple[str, ...]:
        """Its manner, where that was told, and its language."""
        return (*((f"{self.language}/@{self.manner}",) if self.manner else ()), self.language)

    @property
    def names(self) -> tuple[str, ...]:
        """From the most particular to the most general: "en/@slake/count/ct", "en/@slake/count",
        "en/@slake", "en", ""; without a manner "en/count/ct", "en/count", "en", ""."""
        kind = f"{self.ways[0]}/{self.kind}"
        particular = (f"{kind}/{self.modality}",) if self.modality else ()
        return (*particular, kind, *self.ways, "")


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Line(_Frozen):
    """A map of probabilities that is a line in log-odds."""

    slope: float = 1.0
    offset: float = 0.0

    def __call__(self, probability: float) -> float:
        return sigmoid(self.slope * logit(probability) + self.offset)


class Skill(_Frozen):
    """How good a worker is in one kind of case: where those were few, mostly as it is elsewhere."""

    cases: int
    accuracy: float = Field(ge=0, le=1)
    offset: float


class Worker(_Frozen):
    """`model` and `prompt` are those that panel.toml seated when this was learned, `weights` the
    folder that was served then; null where it was not one alone, as with folds. `slopes` are those
    of manners in which its confidence is worth more, or less, than elsewhere."""

    model: str
    prompt: str
    weights: str | None = None
    slope: float
    slopes: dict[str, float] = {}
    skills: dict[str, Skill]  # by a cell's names; "" is there always

    def skill(self, cell: Cell) -> Skill:
        return next(self.skills[name] for name in cell.names if name in self.skills)

    def line(self, cell: Cell) -> Line:
        slope = self.slopes.get(cell.ways[0], self.slope)
        return Line(slope=slope, offset=self.skill(cell).offset)


class Likenesses(_Frozen):
    """How like a worker's own cases those were that the panel was calibrated on: the least, the
    greatest, and steps of as many cases each between."""

    image: tuple[float, ...] = Field(min_length=2)
    question: tuple[float, ...] = Field(min_length=2)


class Calibrated(_Frozen):
    """Of how many images the cases were, and the agreement of their verdicts: the least, the
    greatest, and steps of as many cases each between. `agreed_images` are those of the agreements,
    where these are of other cases than the likenesses; left out, of the same."""

    images: int = Field(ge=1)
    agreements: tuple[float, ...] = Field(min_length=2)
    agreed_images: int | None = Field(default=None, ge=1, exclude_if=lambda images: images is None)


class Competence(_Frozen):
    """`correlation` is that of two workers' errors, by family. `voices` says by language and manner
    how loud each worker is, 1 on average. `verdict` makes the weighed share of
    the winning answer the probability that it is right, by language and by manner; a language that
    is not there has none. `right_shares` are the shares that the right answers had in a
    hundredth of the cases each, in order, 0 where nobody came near to naming it. `familiarity` has
    the same names, and `tells` whose likenesses it is of: no other worker is heeded in that.
    `calibrated`, by language and manner, is what the cases were like, to which those that come are
    held.
    `images` are the first digits of hashes of what the cases showed: nothing is scored on them.

    A worker that is not there is a newcomer. What it says of itself cannot be believed yet: it
    begins halfway, in log-odds, between a guess and what the others are in such cases.
    """

    learned_from: str
    workers: dict[str, Worker]
    correlation: dict[str, float]
    voices: dict[str, dict[str, Annotated[float, Field(gt=0)]]] = {}
    verdict: dict[str, Line]
    right_shares: dict[str, Annotated[tuple[float, ...], Field(min_length=2)]] = {}
    calibrated: dict[str, Calibrated] = {}
    familiarity: dict[str, Likenesses] = {}
    tells: tuple[str, ...] = ()
    images: tuple[str, ...] = ()

    @cached_property
    def modalities(self) -> frozenset[str]:
        """Those of the cases that it was learned from, as far as they were known."""
        names = {name for worker in self.workers.values() for name in worker.skills}
        return frozenset(name.rpartition("/")[2] for name in names) & set(get_args(Modality))

    def told(self, answers: Iterable[Answer]) -> Likeness | None:
        """How familiar the case is to the worker whose likenesses this was learned of: another
        one's are of other cases, and on another scale."""
        return next((a.likeness for a in answers if a.likeness and a.worker in self.tells), None)

    def calibration(self, cell: Cell) -> Line | None:
        """Of the verdicts on such cases."""
        if cell.language not in self.verdict:
            return None
        return next(self.verdict[name] for name in cell.names if name in self.verdict)

    def shares_of_the_right(self, cell: Cell) -> tuple[float, ...]:
        """Those of the right answers to such cases; empty where they were not learned."""
        return next((self.right_shares[n] for n in cell.names if n in self.right_shares), ())

    def heard_in(self, language: Language) -> list[str]:
        """The workers from whose answers in that language all this was learned."""
        return [name for name, worker in self.workers.items() if language in worker.skills]

    def voice(self, worker: str, cell: Cell) -> float:
        """How loud the worker is in such cases; a newcomer is as loud as the average."""
        heard = next((self.voices[name] for name in cell.ways if name in self.voices), {})
        return heard.get(worker, 1.0)

    def family_voice(self, family: str, members: int) -> float:
        """That of one member, of so many of its family who answered."""
        return 1 / (1 + (members - 1) * self.correlation.get(family, 0.0))

    def skill(self, worker: str, cell: Cell) -> Skill:
        """How good the worker is in such cases; a newcomer, as far as can be assumed."""
        if known := self.workers.get(worker):
            return known.skill(cell)
        others = [each.skill(cell).accuracy for each in self.workers.values()]
        offset = logit(sum(others) / len(others)) / 2
        return Skill(cases=0, accuracy=sigmoid(offset), offset=offset)

    def believed(self, worker: str, confidence: float | None, cell: Cell) -> float:
        """The probability that the worker's answer is right; without a confidence that can be
        believed, how often it is right in such cases."""
        known = self.workers.get(worker)
        if known is None or confidence is None:
            return self.skill(worker, cell).accuracy
        return known.line(cell)(confidence)


def load_competence(path: Path) -> Competence:
    """The competence file at `path`.

    Raises:
        CompetenceError: there is none, or it is none.
    """
    try:
        return Competence.model_validate_json(path.read_bytes())
    except OSError as error:
        raise CompetenceError(f"{path} cannot be read ({error.strerror})") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"]) or "the file"
        raise CompetenceError(f"{path}: {key}: {first['msg']}") from error


def save_competence(competence: Competence, path: Path) -> None:
    """Written so that a person can read it, and the same content gives the same bytes."""
    content = competence.model_dump()
    path.write_text(
        json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n", "utf-8"
    )
    path.chmod(0o644)  # the gateway in its container is another user


def logit(probability: float) -> float:
    kept = min(max(probability, EDGE), 1 - EDGE)
    return math.log(kept / (1 - kept))


def sigmoid(log_odds: float) -> float:
    return 1 / (1 + math.exp(-log_odds)) if log_odds > -700 else 0.0
