"""An evaluation on disk: run.json says what it is, verdicts.jsonl what came of each case."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from gateway.contract import Answer, Language, Problem, Summarise, Verdict
from models.data import datasets
from models.data.example import Example


class EvaluationError(Exception):
    """A run cannot begin, go on, be scored or be read; one sentence says why and what to do."""


@dataclass(frozen=True)
class Run:
    """What must be the same for two sets of verdicts to be one run."""

    dataset: str
    split: str
    language: Language
    shuffle_images: int | None
    blank_images: bool
    workers: list[str] | None
    summarise: Summarise
    panel: str
    models: dict[str, str | None]  # what the asked workers' servers loaded
    fold: list[int] | None = None  # which one, of how many
    rounds: int = 1


@dataclass(frozen=True)
class Outcome:
    """What came of one case: the verdict, and every worker's answer, which is there without it."""

    verdict: Verdict | None
    answers: tuple[Answer, ...]

    @property
    def was_answered(self) -> bool:
        return any(answer.text is not None for answer in self.answers)

    @property
    def answer(self) -> str | None:
        return (self.verdict.answer or self.verdict.best_guess) if self.verdict else None


def claim(folder: Path, run: Run) -> None:
    """Makes `folder` the one of `run`.

    Raises:
        EvaluationError: it is another run's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "run.json"
    if not path.exists():
        path.write_text(json.dumps(asdict(run), indent=1), encoding="utf-8")
        return
    earlier = json.loads(path.read_text("utf-8"))
    differing = [key for key, value in asdict(run).items() if earlier.get(key) != value]
    if differing:
        raise EvaluationError(
            f"{folder} holds another run, with other {' and '.join(differing)}; "
            "take a new folder for this one."
        )


def read_outcomes(folder: Path) -> dict[str, Outcome]:
    """What was told so far, by the example's id. A last line that was cut short is cut off."""
    path = folder / "verdicts.jsonl"
    if not path.exists():
        return {}
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    os.truncate(path, len(whole))
    outcomes: dict[str, Outcome] = {}
    for record in map(json.loads, whole.splitlines()):
        if "verdict" in record:
            verdict = Verdict.model_validate(record["verdict"])
            outcome = Outcome(verdict, verdict.answers)
        else:
            outcome = Outcome(None, Problem.model_validate(record["problem"]).answers or ())
        note(outcomes, record["id"], outcome)
    return outcomes


def note(outcomes: dict[str, Outcome], case: str, outcome: Outcome) -> None:
    """The latest, but an answer is not given up for a later refusal."""
    if outcome.answer is not None or outcomes.get(case, outcome).answer is None:
        outcomes[case] = outcome


def read_run(folder: Path) -> Run:
    """What the evaluation in `folder` is.

    Raises:
        EvaluationError: none is there, or one of before this version.
    """
    try:
        return Run(**json.loads((folder / "run.json").read_text("utf-8")))
    except (OSError, TypeError, ValueError) as error:
        raise EvaluationError(
            f"{folder} holds no evaluation of this version; run consilium evaluate --out {folder}."
        ) from error


def load(folder: Path, data: Path) -> tuple[Run, list[tuple[Example, Outcome]]]:
    """A run and what came of each of its cases, the questions read from `data` again.

    Raises:
        EvaluationError: no run is there, or one of before this version.
        models.data's DataError
    """
    run = read_run(folder)
    examples = datasets.load(run.dataset, data, run.split, run.language)
    outcomes = read_outcomes(folder)
    return run, [(each, outcomes[each.id]) for each in examples if each.id in outcomes]
