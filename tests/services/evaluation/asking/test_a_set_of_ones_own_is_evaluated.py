"""A file of one's own is asked, goes on where it was, and is read again later."""

import json
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from models.data import own_file
from models.data.example import Example, without_images
from models.metrics import score as bootstrap
from models.recipe import load_programme
from models.training.inputs.examples import examples_of, learned_by
from services.evaluation import heard, stored_run
from services.evaluation.asking.evaluate import evaluate
from services.evaluation.learning import fit
from services.evaluation.stored_run import EvaluationError

ROOT = Path(__file__).parents[4]
HEAD = "id;images;question;answer;choices;alternatives;patient\r\n"
ROWS = [
    "1;a.png;Is there a stone?;No;;yes;P1\r\n",
    "2;a.png;Which?;CT;CT,MRI;;P1\r\n".replace("CT,MRI", '"CT;MRI"'),
]


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(bootstrap, "RESAMPLES", 20)  # intervals are looked at elsewhere
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "own.csv").write_text(HEAD + "".join(ROWS), "utf-8-sig", newline="")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "own.csv"


def run(fake: Any, **more: Any) -> dict[str, Any]:
    how: dict[str, Any] = {"dataset": "own.csv", "split": "all", "language": "en"} | more
    return evaluate(**how, out=Path("out"), data=Path("none"), gateway_url=fake.url)


def test_every_row_is_asked_with_its_choices_and_scored_by_its_answers(
    own: Path, fake: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From wherever it is read again; the answer "Yes" is another right one to the first."""
    gateway = fake()

    summary = run(gateway)

    sent = {each["question"]: each["choices"] for each in gateway.requests}
    assert sent == {"Is there a stone?": None, "Which?": ["CT", "MRI"]}
    assert summary["scores"]["panel"]["all"]["correct"] == 1
    monkeypatch.chdir("/")
    read, cases = stored_run.load(own.parent / "out", Path("none"))
    assert read.name == "own all en" and len(cases) == 2
    _, (source,) = heard.hear([own.parent / "out"], Path("none"))
    assert source == "own all en, 2 questions"  # callers read that: no path


def test_a_mended_answer_is_scored_anew_and_another_question_is_another_run(
    own: Path, fake: Callable[..., Any]
) -> None:
    """Old answers are not taken for those to questions that were never asked."""
    gateway = fake()
    run(gateway)
    text = own.read_text()
    own.write_text(text.replace(";No;", ";Yes;"))
    assert run(gateway)["scores"]["panel"]["all"]["correct"] == 1 and len(gateway.requests) == 2

    own.write_text(text.replace("a stone", "a tumour"))

    with pytest.raises(EvaluationError, match="holds another run, with other questions; take"):
        run(gateway)
    with pytest.raises(EvaluationError, match=r"own\.csv asks other questions now than out holds"):
        stored_run.load(Path("out"), Path("none"))


def test_context_and_views_are_sent_with_the_question(own: Path, fake: Callable[..., Any]) -> None:
    """As a reader's case is exported; what is shown in another order is told in that order. They
    are part of what is asked."""
    row = {"id": 1, "images": ["a.png", "b.png"], "question": "Is there a stone?", "answer": "no",
           "context": "Pain for two days.", "views": ["frontal", ""]}  # fmt: skip
    Image.new("L", (9, 8)).save(own.parent / "b.png")
    file = own.parent / "read.jsonl"
    file.write_text(json.dumps(row))
    gateway = fake()

    how: dict[str, Any] = {"dataset": str(file), "split": "all", "language": "en"}
    for folder, more in (("straight", {}), ("rotated", {"rotate_images": True})):
        evaluate(**how, out=Path(folder), data=Path("none"), gateway_url=gateway.url, **more)

    sent = [(each["context"], each["views"]) for each in gateway.requests]
    assert sent == [
        ("Pain for two days.", ["frontal", ""]),
        ("Pain for two days.", ["", "frontal"]),
    ]
    examples = own_file.read(file)
    without = [replace(each, views=()) for each in examples]
    assert stored_run.hash_of(examples) != stored_run.hash_of(without)


def test_a_worker_learns_from_one_part_of_it_and_is_asked_another(
    own: Path, fake: Callable[..., Any]
) -> None:
    """The fold that evaluate asks is the one that the documented recipe holds out."""
    for number in range(10):
        Image.linear_gradient("L").rotate(36 * number).save(own.parent / f"{number}.png")
    rows = [f"{n}-{each},{n}.png,Is {each} there?,Yes" for n in range(10) for each in "ab"]
    (own.parent / "cases.csv").write_text("id,images,question,answer\n" + "\n".join(rows))
    page = (ROOT / "docs" / "evaluate.md").read_text("utf-8")
    (line,) = re.findall(r"^sed (?:.*\\\n)?.*mine\.toml$", page, re.MULTILINE)
    subprocess.run(line.replace("models/", f"{ROOT}/models/"), shell=True, check=True)
    gateway = fake()

    run(gateway, dataset="cases.csv", fold=(0, 5))

    recipe = load_programme(Path("mine.toml"))
    assert recipe.name == "mine"
    held_out = examples_of(recipe.held_out, Path("none"), recipe.fold, held_out=True)
    learned = learned_by(recipe, Path("none"))
    _, cases = stored_run.load(Path("out"), Path("none"))
    assert {each.id for each in held_out} == {f"cases/{each.id}" for each, _ in cases}
    assert {e.images for e in learned}.isdisjoint(e.images for e in held_out)
    assert len({each.id for each in (*learned, *held_out)}) == len(rows) > len(held_out) > 0


def test_another_image_under_its_name_is_another_run(own: Path, fake: Callable[..., Any]) -> None:
    """So is one of its name elsewhere; a run of before has no word on it, and goes on."""
    gateway, image = fake(), own.parent / "a.png"
    run(gateway)
    path = own.parent / "out" / "run.json"
    kept = path.read_text()
    Image.linear_gradient("L").save(image)

    with pytest.raises(EvaluationError, match="holds another run, with other images; take"):
        run(gateway)
    with pytest.raises(EvaluationError, match=r"own\.csv shows other images now than out holds"):
        stored_run.load(Path("out"), Path("none"))
    with without_images():
        assert len(stored_run.load(Path("out"), Path("none"))[1]) == 2  # as a report reads it
    path.write_text(json.dumps({**json.loads(kept), "images": None}))
    assert len(stored_run.load(Path("out"), Path("none"))[1]) == 2

    (own.parent / "b").mkdir()
    image.rename(own.parent / "b" / "a.png")
    own.write_text(own.read_text().replace("a.png", "b/a.png"))
    path.write_text(kept)
    with pytest.raises(EvaluationError, match="with other images"):
        run(gateway)


def test_an_image_that_goes_in_mid_run_is_named(own: Path, fake: Callable[..., Any]) -> None:
    """What was gathered stays, and the same command goes on once it is back."""
    gateway = fake()
    image = own.parent / "a.png"
    kept, tell = image.read_bytes(), gateway.verdict_of

    def tell_and_take(request: dict[str, Any]) -> Any:
        image.unlink(missing_ok=True)
        return tell(request)

    gateway.verdict_of = tell_and_take
    wanted = r"a\.png cannot be read any more \(No such file.*\): put it back\. 1 questions have no"
    with pytest.raises(EvaluationError, match=wanted):
        run(gateway, concurrency=1)
    image.write_bytes(kept)
    gateway.verdict_of = tell
    assert run(gateway)["failed"] == 0 and len(gateway.requests) == 2


def test_questions_in_another_language_are_told_of(
    own: Path, fake: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """They are not asked in this run, and not forgotten."""
    own.write_text(own.read_text() + "3;a.png;这是什么？;CT;;;\n")
    gateway = fake()
    run(gateway)
    assert len(gateway.requests) == 2
    assert (
        "1 questions of own.csv are in zh: ask them with --language zh" in capsys.readouterr().out
    )


def test_what_is_learned_is_judged_on_other_patients(own: Path) -> None:
    """On other images where nobody is named."""

    def case(number: int, patient: str | None) -> Example:
        image = Path(f"{number}.png")
        return Example(str(number), (image,), "?", "yes", "en", True, patient=patient)

    cases = [case(number, f"P{number % 6}" if number < 18 else None) for number in range(24)]
    for learned, left_out in fit._folds(cases):
        patients = [{cases[i].patient for i in side} - {None} for side in (learned, left_out)]
        assert patients[0].isdisjoint(patients[1]) and len(left_out)


def test_the_run_file_of_a_named_set_is_what_it_was(tmp_path: Path) -> None:
    """One of before goes on."""
    run = stored_run.Run("slake", "test", "en", None, False, None, "never", "hash", {})
    stored_run.claim(tmp_path, run)
    path = tmp_path / "run.json"
    earlier = json.loads(path.read_text())
    del earlier["questions"]
    path.write_text(json.dumps(earlier))
    (tmp_path / "verdicts.jsonl").write_text("{}\n")
    stored_run.claim(tmp_path, run)
    assert stored_run.read_run(tmp_path) == run
