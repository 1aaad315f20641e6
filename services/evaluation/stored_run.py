"""An evaluation on disk: run.json says what it is, verdicts.jsonl what came of each case."""

import functools
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout
from pydantic import TypeAdapter

from gateway.contract import Answer, ErrorKind, Language, Summarise, Verdict
from gateway.refusals import Problem
from models.data import datasets
from models.data.example import Example, images_may_be_missing
from models.files import (
    NO_RECORD,
    Lines,
    append,
    open_lines,
    read_lines,
    set_aside,
    write_whole,
)

VERDICTS = "verdicts.jsonl"

# These may be heard when they are asked again. A worker that said nothing, or nothing usable, was
# heard: greedy decoding will say it again, and silence must not raise an accuracy.
UNHEARD: set[ErrorKind] = {"timeout", "unreachable", "refused"}


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
    models: dict[str, str | None]  # what the asked workers' servers loaded, and the summariser's
    fold: list[int] | None = None  # which one, of how many
    rounds: int = 1
    rotate_images: bool = False
    questions: str | None = None  # a hash of what a set of one's own asks: its file may change
    images: str | None = None  # and of what it shows
    # Where its verdicts are from. Those that were made of stored answers can be made again.
    origin: Literal["a gateway", "stored answers"] = "a gateway"
    begun: str | None = field(default=None, compare=False)  # in UTC, where that is known

    @property
    def name(self) -> str:
        """What was asked, as others read it."""
        return self.named(datasets.called(self.dataset))

    def named(self, dataset: str) -> str:
        """The same where the data set goes by this name."""
        return f"{dataset} {self.split} {self.language}"

    @property
    def images_changed(self) -> str:
        """What was done to them, as a phrase that goes on a list; empty where nothing was."""
        if self.shuffle_images is not None:
            return f", images shuffled by seed {self.shuffle_images}"
        if self.rotate_images:
            return ", images in another order"
        return ", images blank" if self.blank_images else ""


RUN = TypeAdapter(Run)


@dataclass(frozen=True)
class Outcome:
    """What came of one case: the verdict, and every worker's answer, which is there without it."""

    verdict: Verdict | None
    answers: tuple[Answer, ...]
    refusal: str = ""  # what the gateway said in place of a verdict

    @property
    def was_answered(self) -> bool:
        return any(answer.text is not None for answer in self.answers)

    @property
    def answer(self) -> str | None:
        return (self.verdict.answer or self.verdict.best_guess) if self.verdict else None

    @property
    def worth(self) -> tuple[bool, int]:
        """Of two outcomes of a case, the one of less is not put in the other's place: whether there
        is an answer, and how many workers were heard."""
        lost = {a.worker for a in self.answers if a.error and a.error.kind in UNHEARD}
        return self.answer is not None, len({a.worker for a in self.answers} - lost)


def hash_of(examples: Sequence[Example]) -> str:
    """Of what is asked; the answers that are right may be mended without asking again."""
    return _hash_of(
        (
            *(each.id, [image.name for image in each.images], each.question, each.choices),
            # A set that has none keeps the hash that it had before there were any.
            *((each.context, each.views) if each.context or each.views else ()),
        )
        for each in examples
    )


def hash_of_images(examples: Sequence[Example], folder: Path) -> str:
    """Of where each question's images lie, from the set's folder, and how large their files are: a
    picture in another folder, or another one under its name, is another."""
    of_one = functools.cache(lambda image: (os.path.relpath(image, folder), image.stat().st_size))
    return _hash_of((each.id, [of_one(image) for image in each.images]) for each in examples)


def _hash_of(rows: Iterable[Any]) -> str:
    """Of what `json.dumps` writes of a list of them, which need not be in memory at once."""
    hash = hashlib.sha256(b"[")
    for number, row in enumerate(rows):
        hash.update((", " * bool(number) + json.dumps(row)).encode())
    hash.update(b"]")
    return hash.hexdigest()[:16]


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Inside the block nobody else writes to `folder`. Whoever is killed lets go of it.

    Raises:
        EvaluationError: somebody else does, or it cannot be written to.
    """
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise EvaluationError(
            f"Another consilium evaluate is writing to {folder}; wait for its end, or give "
            "another --out."
        ) from error
    except OSError as error:
        raise EvaluationError(
            f"{folder} cannot be written to ({error.strerror}): give another --out."
        ) from error
    try:
        yield
    finally:
        lock.release()


def claim(folder: Path, run: Run) -> Run:
    """Makes `folder` the one of `run`; returns the run that is there, which may have begun before.

    Raises:
        EvaluationError: it is another run's, or nobody knows whose.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "run.json"
    # Whose folder it is matters once there are verdicts.
    if not _has_verdicts(folder):
        write_whole(path, json.dumps(asdict(run), indent=1))
        return run
    told: dict[str, Any] = {"images": run.images}  # of which a run of before has no word
    try:
        earlier = _run_of(told | json.loads(path.read_text("utf-8")))
    except (OSError, *NO_RECORD) as error:
        raise EvaluationError(
            f"{path} is missing, empty or broken, so that nobody knows what was asked of whom; "
            f"delete {folder}, or give another --out."
        ) from error
    differing = [
        each.name
        for each in fields(Run)
        if each.compare and getattr(earlier, each.name) != getattr(run, each.name)
    ]
    if differing:
        raise EvaluationError(
            f"{folder} holds another run, with other {' and '.join(differing)}; "
            "take a new folder for this one."
        )
    return earlier


def write_run(folder: Path, run: Run, verdicts: Mapping[str, Verdict]) -> None:
    """A whole run at once, of stored answers, in the place of one that was made so before.

    Raises:
        EvaluationError: what a gateway answered is there, or nobody knows what; or somebody else is
            writing there, or nobody can.
    """
    lines = (
        json.dumps({"id": case, "verdict": verdict.model_dump()}, ensure_ascii=False) + "\n"
        for case, verdict in verdicts.items()
    )
    run = replace(run, origin="stored answers")
    with alone_in(folder):
        if _has_verdicts(folder) and read_run(folder).origin != run.origin:
            raise EvaluationError(
                f"{folder} holds what a gateway answered, which would be lost; give another --out."
            )
        write_whole(folder / "run.json", json.dumps(asdict(run), indent=1))
        write_whole(folder / VERDICTS, "".join(lines))


def _has_verdicts(folder: Path) -> bool:
    verdicts = folder / VERDICTS
    return verdicts.exists() and verdicts.stat().st_size > 0


class Verdicts(Mapping[str, Outcome]):
    """What came of each case so far, by the example's id; whoever is `alone_in` the folder adds to
    it. It stays on disk: in memory is only where each line is, however long the run is."""

    def __init__(self, folder: Path):
        """Lines that are torn or garbled are put aside, and told of."""
        path = folder / VERDICTS
        self._places: dict[str, tuple[int, int]] = {}  # by case: its line's first byte, and its end
        self._worth: dict[str, tuple[bool, int]] = {}
        if path.exists() and not self._find(path):
            print(f"{set_aside(path, read_lines(path, _read))} Its cases are asked again.")
            self._find(path)
        self._stream = open_lines(path)

    def __enter__(self) -> "Verdicts":
        return self

    def __exit__(self, *error: object) -> None:
        self._stream.close()

    def __getitem__(self, case: str) -> Outcome:
        begin, end = self._places[case]
        return _read(json.loads(os.pread(self._stream.fileno(), end - begin, begin)))[1]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def keep(self, case: str, said: Verdict | Problem) -> Outcome:
        """Writes down at once what came of `case`.

        Raises:
            OSError: it could not be written.
        """
        kind = "verdict" if isinstance(said, Verdict) else "problem"
        place = append(self._stream, {"id": case, kind: said.model_dump()})
        outcome = _outcome(said)
        self._note(case, outcome, place)
        return outcome

    def _find(self, path: Path) -> bool:
        """Where each line is; whether all were records."""
        begin, whole = 0, True
        with path.open("rb") as lines:
            for line in lines:
                try:
                    self._note(*_read(json.loads(line.decode())), (begin, begin + len(line)))
                except NO_RECORD:
                    whole = False
                begin += len(line)
        return whole

    def _note(self, case: str, outcome: Outcome, place: tuple[int, int]) -> None:
        """The latest, but what was heard is not given up for a later failure."""
        if case not in self._worth or outcome.worth >= self._worth[case]:
            self._places[case], self._worth[case] = place, outcome.worth


def read_outcomes(folder: Path) -> dict[str, Outcome]:
    """What was told so far, by the example's id, while an evaluation may still be running. Lines
    that are torn or garbled are told of."""
    path = folder / VERDICTS
    if not path.exists():
        return {}
    found: Lines[tuple[str, Outcome]] = read_lines(path, _read)
    if found.broken:
        print(
            f"{path}: {len(found.broken)} of its lines are torn or garbled and left out; the same "
            "consilium evaluate asks those cases again."
        )
    outcomes: dict[str, Outcome] = {}
    for case, outcome in found.records:
        if case not in outcomes or outcome.worth >= outcomes[case].worth:
            outcomes[case] = outcome
    return outcomes


def _read(record: dict[str, Any]) -> tuple[str, Outcome]:
    if not isinstance(record["id"], str):
        raise ValueError("an id is a text")
    if "verdict" in record:
        return record["id"], _outcome(Verdict.model_validate(record["verdict"]))
    return record["id"], _outcome(Problem.model_validate(record["problem"]))


def _outcome(said: Verdict | Problem) -> Outcome:
    if isinstance(said, Verdict):
        return Outcome(said, said.answers)
    return Outcome(None, said.answers or (), on_one_line(said.detail))


def on_one_line(text: str) -> str:
    """Without what would move the cursor of a terminal that shows it."""
    return " ".join("".join(c for c in text if c.isprintable() or c.isspace()).split())


def read_run(folder: Path) -> Run:
    """What the evaluation in `folder` is.

    Raises:
        EvaluationError: none is there, a broken one, or one of before this version.
    """
    try:
        return _run_of(json.loads((folder / "run.json").read_text("utf-8")))
    except (OSError, *NO_RECORD) as error:
        raise EvaluationError(
            f"{folder} holds no evaluation of this version, or its run.json is broken; run "
            f"consilium evaluate --out {folder}."
        ) from error


def _run_of(told: dict[str, Any]) -> Run:
    """Raises one of NO_RECORD where it is none: for a name that is unknown or missing, or for a
    value of another type."""
    return RUN.validate_python(asdict(Run(**told)))


def load(folder: Path, data: Path) -> tuple[Run, list[tuple[Example, Outcome]]]:
    """A run and what came of each of its cases, the questions read from `data` again.

    Raises:
        EvaluationError: no run is there, or one of before this version, or of other questions or
            images than its file has now; images are not looked at where they may be missing.
        models.data's DataError
    """
    run = read_run(folder)
    examples = datasets.load(run.dataset, data, run.split, run.language)
    if run.questions and run.questions != hash_of(examples):
        raise EvaluationError(
            f"{run.dataset} asks other questions now than {folder} holds answers to; ask them: "
            "consilium evaluate with a new --out."
        )
    looked_at = run.images and not images_may_be_missing()
    if looked_at and run.images != hash_of_images(examples, Path(run.dataset).parent):
        raise EvaluationError(
            f"{run.dataset} shows other images now than {folder} holds answers to; put those back, "
            "or ask anew: consilium evaluate with a new --out."
        )
    outcomes = read_outcomes(folder)
    cases = [(each, outcomes[each.id]) for each in examples if each.id in outcomes]
    answered = sum(outcome.was_answered for _, outcome in cases)
    if run.fold is None and not run.rotate_images and answered < len(examples):
        told = f"{folder} holds answers to {answered} of its set's {len(examples)} questions."
        print(told, file=sys.stderr)
    return run, cases
