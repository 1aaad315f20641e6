"""Stored evaluations → a page that stands alone, and the same in Markdown, JSON and CSV."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from models.files import write_whole
from services.evaluation.report.figures import measure, read, sureness
from services.evaluation.report.notable import notable
from services.evaluation.report.page import pages


def report(folders: Sequence[Path], data: Path, out: Path) -> None:
    """Writes report.html, report.md, report.json and report.csv to `out`. Images may be missing.

    Raises what `figures.read` raises.
    """
    asked = read(folders, data)
    sure, cases = sureness(asked), notable(asked.examples, asked.outcomes)
    measured = measure(asked, sure)
    measured["cases"] = {title: [case.told for case in each] for title, each in cases.items()}
    out.mkdir(parents=True, exist_ok=True)
    html, markdown = pages(measured, sure, cases)
    write_whole(out / "report.html", html)
    write_whole(out / "report.md", markdown)
    write_whole(out / "report.json", json.dumps(measured, indent=1, ensure_ascii=False))
    write_whole(out / "report.csv", _csv(measured["rates"]))


def _csv(rates: Sequence[dict[str, Any]]) -> str:
    """With a mark of byte order, by which a spreadsheet knows UTF-8."""
    written = io.StringIO(newline="")
    columns = (
        "by",
        "of",
        "voice",
        "images",
        "accuracy",
        "low",
        "high",
        "correct",
        "scored",
        "unscored",
    )
    table = csv.DictWriter(written, columns)
    table.writeheader()
    table.writerows(rates)
    return "\ufeff" + written.getvalue()
