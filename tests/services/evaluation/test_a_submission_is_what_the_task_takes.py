"""`consilium submission`: the file that MEDIQA-M3G's script reads."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from gateway.contract import Verdict
from gateway.refusals import Problem
from services.cli.__main__ import app
from services.evaluation.stored_run import EvaluationError, Run, claim
from services.evaluation.submission import write
from tests.services.evaluation.runs import keep, verdict

ENCOUNTERS = ["ENC2", "ENC10", "ENC1"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    root = tmp_path / "data" / "mediqa_m3g"
    (root / "images_test").mkdir(parents=True)
    Image.new("L", (8, 8)).save(root / "images_test" / "a.jpg")
    said = {"author_id": "U", **{f"content_{each}": "eczema" for each in ("en", "es", "zh")}}
    asked = {f"query_{part}_{each}": "?" for part in ("title", "content") for each in ("en", "zh")}
    rows = [
        {"encounter_id": id, "image_ids": ["a.jpg"], "responses": [said], **asked}
        for id in ENCOUNTERS
    ]
    (root / "test_ht_spanishtestsetcorrected.json").write_text(json.dumps(rows))
    (root / "df_userinfo.csv").write_text("author_id,validation_level,rank_level\nU,md,level_1\n")
    return tmp_path / "data"


def stored(
    folder: Path, language: str, said: dict[str, Verdict | Problem], split: str = "test"
) -> Path:
    run: dict[str, Any] = {"dataset": "mediqa_m3g", "split": split, "language": language}
    claim(folder, Run(**run, shuffle_images=None, blank_images=False, workers=None,
                      summarise="never", panel="hash", models={}))  # fmt: skip
    for id, each in said.items():
        keep(folder, id, each)
    return folder


SAID = {id: verdict({"panel": f"of {id}", "a": f"of {id}"}) for id in sorted(ENCOUNTERS)}


def test_it_has_every_encounter_in_the_tasks_order(
    data: Path, fake: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the order of the answers; both languages in one object, as its script wants."""
    monkeypatch.chdir(tmp_path)
    asked = ["evaluate", "--dataset", "mediqa_m3g", "--split", "test", "--out", "runs/m3g-en"]
    done = CliRunner().invoke(app, [*asked, "--gateway", fake().url, "--data", str(data)])
    assert done.exit_code == 0, done.output
    silent = SAID | {"ENC10": verdict({"panel": None, "a": "?"})}
    stored(tmp_path / "runs/m3g-zh", "zh", silent)
    (data / "mediqa_m3g/images_test/a.jpg").unlink()  # answers are looked at without images

    runs = ["runs/m3g-en", "runs/m3g-zh", "--out", "prediction.json", "--data", str(data)]
    done = CliRunner().invoke(app, ["submission", *runs])

    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "prediction.json").read_text("utf-8")) == [
        {"encounter_id": id, "responses": [{"content_en": "Yes", "content_zh": text}]}
        for id, text in zip(ENCOUNTERS, ("of ENC2", "", "of ENC1"), strict=True)
    ]


def test_what_the_task_would_not_take_is_refused(data: Path, tmp_path: Path) -> None:
    out, whole = tmp_path / "out.json", stored(tmp_path / "whole", "en", SAID)
    part = stored(tmp_path / "part", "zh", {"ENC1": Problem.of(503, "Busy", "No."), **{
        id: SAID[id] for id in ("ENC2", "ENC10")}})  # fmt: skip
    with pytest.raises(EvaluationError, match="part: 1 of 3 encounters have no verdict; the same"):
        write([whole, part], data, out)
    with pytest.raises(EvaluationError, match="again is in en, as another of these runs is"):
        write([whole, stored(tmp_path / "again", "en", SAID)], data, out)
    other = stored(tmp_path / "other", "zh", SAID, split="validate")
    with pytest.raises(EvaluationError, match="is mediqa_m3g validate zh: give runs of mediqa_m3g"):
        write([whole, other], data, out)
    assert not out.exists()
