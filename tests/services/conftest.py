"""What calibrating, replaying and training a summariser share: a stored run of workers whose habits
we know."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from gateway.contract import Answer, Summary, Verdict
from gateway.settings import Settings, load_settings
from services.evaluation.stored_run import Run, claim

IMAGES, EACH = 60, 8
YES_NO, PLACE = "Is the lung healthy?", "Where is the lung?"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """SLAKE's layout: of each image four yes/no questions and four about a place."""
    rows = []
    for number in range(IMAGES):
        folder = tmp_path / "data" / "slake" / "imgs" / f"xmlab{number}"
        folder.mkdir(parents=True)
        Image.new("L", (16, 16), number).save(folder / "source.jpg")
        for asked in range(EACH):
            row = {"img_name": f"xmlab{number}/source.jpg", "qid": len(rows), "q_lang": "en"}
            row |= {"question": YES_NO, "answer": "Yes", "answer_type": "CLOSED"}
            if asked % 2:
                row |= {"question": PLACE, "answer": "Left", "answer_type": "OPEN"}
            rows.append(row | {"modality": "CT" if number % 2 else "MRI", "content_type": "Organ"})
    (tmp_path / "data" / "slake" / "validate.json").write_text(json.dumps(rows), "utf-8")
    return tmp_path / "data"


@pytest.fixture
def settings(panel_file: Callable[..., Path]) -> Settings:
    """w0 and w2 are of one family."""
    path = panel_file(["http://127.0.0.1:1"] * 3)
    two = path.read_text().split("[[worker]]")[2]
    other = two.replace('family = "mock"', 'family = "other"')
    path.write_text(path.read_text().replace(two, other))
    return load_settings(path, environ={})


@pytest.fixture
def stored(data: Path, tmp_path: Path) -> Path:
    """w0 is good at yes and no, w1 at places; w2 is w0's twin, errors and all. All are as sure of
    themselves when they are wrong."""
    dice = random.Random(0)
    folder = tmp_path / "run"
    claim(folder, Run("slake", "validate", "en", None, False, None, "never", "hash", {}))
    lines = []
    for row in json.loads((data / "slake" / "validate.json").read_text()):
        closed = row["question"] == YES_NO
        chances = {"w0": 0.9 if closed else 0.3, "w1": 0.5 if closed else 0.9}
        right = {worker: dice.random() < chance for worker, chance in chances.items()}
        right["w2"] = right["w0"]
        wrong = {"w0": "No" if closed else "Right", "w1": "No" if closed else "Middle"}
        wrong["w2"] = wrong["w0"]
        answers = tuple(
            Answer(
                worker=worker,
                text=row["answer"] if right[worker] else wrong[worker],
                confidence=dice.uniform(0.6, 0.9),
                seconds=0,
            )
            for worker in ("w0", "w1", "w2")
        )
        verdict = Verdict(
            id="x",
            answer=answers[0].text,
            language="en",
            agreement=1,
            answers=answers,
            dissent=(),
            summary=Summary(by="vote", faithful=None, seconds=0),
            panel="hash",
            seconds=0,
        )
        record = {"id": f"validate-{row['qid']}", "verdict": verdict.model_dump()}
        lines.append(json.dumps(record))
    (folder / "verdicts.jsonl").write_text("\n".join(lines) + "\n")
    return folder
