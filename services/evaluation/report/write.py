"""Stored evaluations → a page that stands alone, the same in Markdown, JSON and CSV, and every case
as a row."""

import csv
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gateway.contract import PanelReport
from gateway.settings import Settings
from models.data.example import DataError, Example
from models.files import make_folder, write_whole
from services.evaluation.heard import calibrated_on
from services.evaluation.report.figures import Evaluated, measure, read
from services.evaluation.report.notable import last_words, notable
from services.evaluation.report.page import pages
from services.evaluation.score import PANEL, is_right

OF_A_SEAT = {"name", "words", "right"}
OF_A_SHADOW = {*OF_A_SEAT, "panel_right", "cases", "agrees"}


def report(
    folders: Sequence[Path],
    data: Path,
    out: Path,
    settings: Settings | None = None,
    beside: Sequence[Path] = (),
    in_use: PanelReport | None = None,
) -> None:
    """Writes report.html, report.md, report.json, report.csv and cases.jsonl to `out`. Images may
    be missing. Where `settings` are of the panel that was asked, it is told how many of the
    questions show what that was calibrated on. `beside` are runs that asked candidates the same;
    `in_use` is what a running gateway tells of its seats and candidates.

    Raises what `figures.read` raises.
    """
    asked = read(folders, data, beside)
    cases = notable(asked.examples, asked.outcomes)
    measured = measure(asked)
    measured["cases"] = {title: [case.told for case in each] for title, each in cases.items()}
    measured["calibrated_on"] = _calibrated_on(asked, settings)
    measured["in_use"] = in_use and in_use.model_dump(
        include={"workers": {"__all__": OF_A_SEAT}, "shadows": {"__all__": OF_A_SHADOW}}
    )
    make_folder(out)
    html, markdown = pages(measured, cases)
    write_whole(out / "report.html", html)
    write_whole(out / "report.md", markdown)
    write_whole(out / "report.json", json.dumps(measured, indent=1, ensure_ascii=False))
    write_whole(out / "report.csv", _csv(measured["rates"], measured["scorers"]))
    rows = (_row(asked, example, out) for example in asked.examples)
    write_whole(
        out / "cases.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    )


def _calibrated_on(asked: Evaluated, settings: Settings | None) -> int | None:
    """Of the questions that this panel was asked, and whose images are there; None where it was
    asked none, or one of them cannot be read."""
    own = [run for run in asked.runs if settings and run.panel == settings.panel_hash]
    if settings is None or not own:
        return None
    examples = [example for run in own for example in asked.of(asked.name_of(run))]
    there = [each for each in examples if all(image.is_file() for image in each.images)]
    try:
        return calibrated_on(there, settings.competence)
    except DataError:
        return None


def _row(asked: Evaluated, example: Example, out: Path) -> dict[str, Any]:
    """One case with what became of it, under the same names in every row. It is a row of a set of
    one's own too (models.data.own_file), whose images are found from `out`."""
    outcome = asked.outcomes[example.id]
    verdict = outcome.verdict

    def right(who: str, text: str | None) -> bool | None:
        """None where it was not heard, and so is not scored."""
        return is_right(text, example) if example.id in asked.said.get(who, {}) else None

    return {
        "id": example.id,
        "images": [_path_from(out, image) for image in example.images],
        "question": example.question,
        "answer": example.answer,
        "alternatives": list(example.alternatives),
        "choices": list(example.choices),
        "language": example.language,
        "modality": example.modality,
        "kind": example.kind,
        "closed": example.closed,
        "patient": example.patient,
        "context": example.context,
        "views": list(example.views),
        "panel": outcome.answer,
        "right": right(PANEL, outcome.answer),
        "confidence": verdict and verdict.confidence,
        "agreement": verdict and verdict.agreement,
        "unfamiliar": verdict and verdict.familiarity and verdict.familiarity.unfamiliar,
        "grounding": verdict and verdict.grounding,
        "workers": [
            {
                "worker": answer.worker,
                "answer": answer.text,
                "confidence": answer.confidence,
                "right": right(answer.worker, answer.text),
            }
            for answer in last_words(outcome)
        ],
    }


def _path_from(out: Path, image: Path) -> str:
    """Where links may stand in both."""
    folder = os.path.realpath(image.parent)
    return os.path.relpath(os.path.join(folder, image.name), os.path.realpath(out))


def _csv(rates: Sequence[dict[str, Any]], scorers: Sequence[dict[str, Any]]) -> str:
    """With a mark of byte order, by which a spreadsheet knows UTF-8."""
    written = io.StringIO(newline="")
    columns = ("run", "by", "of", "voice", "score", "value", "low", "high", "images", "scored")
    table = csv.DictWriter(written, (*columns, "correct", "unscored"), extrasaction="ignore")
    table.writeheader()
    for each in rates:
        table.writerow(each | {"score": "exact match", "value": each["accuracy"]})
    for each in scorers:
        table.writerow(each | {"scored": each["cases"]})
    return "\ufeff" + written.getvalue()
