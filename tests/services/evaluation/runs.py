"""Stored runs over a set of one's own, of answers that a test gives."""

import json
from pathlib import Path

from PIL import Image

from gateway.contract import Answer, Dissent, Summary, Verdict
from gateway.refusals import Problem
from services.evaluation.stored_run import Run, Verdicts, claim

Said = dict[str, str | None]  # by worker; "panel" for the verdict


def write_set(folder: Path, rows: list[dict[str, object]]) -> Path:
    """own.jsonl in `folder`, and the images that it names; one called gone.png is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in {str(row["images"]) for row in rows} - {"gone.png"}:
        Image.new("L", (300, 200), len(name) * 9).save(folder / name)
    (folder / "own.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return folder / "own.jsonl"


def write_run(
    folder: Path, own: Path, said: dict[str, Said], sure: float | None = 0.8, **changed: object
) -> Path:
    """A run in `folder` that said so, by question; null is an answer that was not to be had."""
    run: dict[str, object] = {
        "dataset": str(own),
        "split": "all",
        "language": "en",
        "shuffle_images": None,
        "blank_images": False,
        "workers": None,
        "summarise": "never",
        "panel": "0123456789abcdef",
        "models": {"a": "weights-of-a"},
    }
    claim(folder, Run(**(run | changed)))  # type: ignore[arg-type]
    for question, answers in said.items():
        keep(folder, question, verdict(answers, sure))
    return folder


def keep(folder: Path, case: str, said: Verdict | Problem) -> None:
    with Verdicts(folder) as kept:
        kept.keep(case, said)


def verdict(said: Said, sure: float | None = 0.8) -> Verdict:
    """The answer of `panel`; everybody who said something else dissents."""
    given = {who: text for who, text in said.items() if who != "panel" and text is not None}
    others = {text: [w for w in given if given[w] == text] for text in given.values()}
    others.pop(str(said["panel"]), None)
    return Verdict(
        id="x",
        answer=said["panel"],
        language="en",
        agreement=1 - len(others) / 4,
        confidence=sure,
        answers=tuple(
            Answer(worker=who, text=text, confidence=0.6, weight=1 / len(given), seconds=place + 1)
            for place, (who, text) in enumerate(given.items())
        ),
        dissent=tuple(
            Dissent(text=text, workers=tuple(workers), weight=0.2)
            for text, workers in others.items()
        ),
        summary=Summary(by="vote", faithful=None, seconds=0),
        panel="0123456789abcdef",
        seconds=4,
    )
