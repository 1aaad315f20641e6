"""A panel's stored disputes, as what its summariser is asked and what it might have said.

They are the very requests that the gateway makes, of the cases that it would ask about.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from gateway.asking.summariser import after, request
from gateway.settings import Settings
from gateway.tables import SummariserSettings
from gateway.verdict.weigh import Opinion
from services.evaluation import stored_run
from services.evaluation.heard import Heard, hear, refuse_strangers
from services.evaluation.learning import fit
from services.evaluation.learning.fit import FEWEST
from services.evaluation.score import is_right
from services.evaluation.stored_run import EvaluationError

Ids = list[int]
Row = TypeVar("Row")


@dataclass(frozen=True)
class Lesson:
    """One request to the summariser, of which case and opinion, and a reply to learn: the answer
    that is right by the reference, where one is, or else the one that won."""

    messages: list[dict[str, str]]
    goes_on: bool  # from the last message, which is the opening of its own reply
    reply: str
    case: Heard
    opinion: Opinion


def lessons_of(
    runs: Sequence[Path], settings: Settings, data: Path
) -> tuple[list[Lesson], list[tuple[str, str, str]]]:
    """The disputes of all runs, and each run's data set, split and language.

    Raises:
        EvaluationError: a run that cannot be read, had its images changed or is of other workers,
            too few cases in dispute, or no summariser is seated.
        models.data's DataError
    """
    summariser = settings.summariser
    if summariser is None:
        raise EvaluationError("The panel file seats no summariser; add [summariser].")
    by_dataset = defaultdict(list)
    sources = []
    for folder in runs:
        run = stored_run.read_run(folder)
        by_dataset[run.dataset].append(folder)
        sources.append((run.dataset, run.split, run.language))
    lessons = []
    for folders in by_dataset.values():
        cases, _ = hear(folders, data)
        refuse_strangers(cases, settings)
        # What one data set teaches of a worker does not hold in another.
        opinions = fit.cross_fitted(cases, settings)
        lessons += [
            lesson_of(case, opinion, summariser)
            for case, opinion in zip(cases, opinions, strict=True)
            if not opinion.unanimous and case.cell.language in summariser.languages
        ]
    if len(lessons) < FEWEST:
        raise EvaluationError(
            f"{len(lessons)} cases in dispute in a language that the summariser speaks; at least "
            f"{FEWEST} are needed."
        )
    return lessons, sorted(set(sources))


def lesson_of(case: Heard, opinion: Opinion, summariser: SummariserSettings) -> Lesson:
    body = request(case.case, opinion, summariser)
    right = [each.text for each in opinion.clusters if is_right(each.text, case.example)]
    goes_on = body["continue_final_message"]
    opening = body["messages"][-1]["content"] if goes_on else ""
    reply = after(opening, (right or [opinion.winner.text])[0])
    return Lesson(body["messages"], goes_on, reply, case, opinion)


def request_ids(lesson: Lesson, tokenizer: Any) -> Ids:
    """The request as the server's token ids."""
    prompt = tokenizer.apply_chat_template(
        lesson.messages,
        tokenize=False,
        continue_final_message=lesson.goes_on,
        add_generation_prompt=not lesson.goes_on,
    )
    ids: Ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    return ids


def alike(
    rows: Sequence[Row], length: Callable[[Row], int], size: int, dice: random.Random
) -> list[list[Row]]:
    """All rows in batches of that size; rows of like length share one, so that little is padding,
    and the batches come in no order."""
    ordered = sorted(dice.sample(rows, len(rows)), key=length)
    batches = [ordered[start : start + size] for start in range(0, len(ordered), size)]
    dice.shuffle(batches)
    return batches
