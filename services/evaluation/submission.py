"""Stored runs over MEDIQA-M3G → what the task takes: every encounter's answer in one JSON file."""

import json
from collections.abc import Sequence
from pathlib import Path

from models.data import mediqa_m3g
from models.data.example import without_images
from models.files import write_whole
from services.evaluation import stored_run
from services.evaluation.score import is_settled
from services.evaluation.stored_run import EvaluationError

TASK = "mediqa_m3g"


def write(folders: Sequence[Path], data: Path, out: Path) -> None:
    """The panel's answers of one split, a run for each language, in the order of the task's own
    file: its script goes by places and not by ids. Where nobody had an answer it is empty.

    Raises:
        EvaluationError: no such run, one of another set, split or of changed images, two of one
            language, or encounters that are still to be asked.
        models.data's DataError
    """
    runs = {folder: stored_run.read_run(folder) for folder in folders}
    first = runs[folders[0]]
    said: dict[str, dict[str, str]] = {}
    seen: set[str] = set()
    for folder, run in runs.items():
        if run.dataset != TASK or run.split != first.split or run.images_changed:
            raise EvaluationError(
                f"{folder} is {run.name}{run.images_changed}: give runs of {TASK} {first.split}, "
                "one for each language."
            )
        if run.language in seen:
            raise EvaluationError(f"{folder} is in {run.language}, as another of these runs is.")
        seen.add(run.language)
        for encounter, text in _answers(folder, data).items():
            said.setdefault(encounter, {})[f"content_{run.language}"] = text
    submission = [
        {"encounter_id": encounter, "responses": [texts]} for encounter, texts in said.items()
    ]
    write_whole(out, json.dumps(submission, ensure_ascii=False, indent=1))


def _answers(folder: Path, data: Path) -> dict[str, str]:
    with without_images():
        run, cases = stored_run.load(folder, data)
    outcomes = {example.id: outcome for example, outcome in cases}
    encounters = list(mediqa_m3g.responses(data / TASK, run.split, run.language))
    open_ones = [
        id
        for id in encounters
        if id not in outcomes or (outcomes[id].answer is None and not is_settled(outcomes[id]))
    ]
    if open_ones:
        raise EvaluationError(
            f"{folder}: {len(open_ones)} of {len(encounters)} encounters have no verdict; the same "
            "consilium evaluate asks them."
        )
    return {id: outcomes[id].answer or "" for id in encounters}
