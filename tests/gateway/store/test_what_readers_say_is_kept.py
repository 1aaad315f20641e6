"""Readers' words: kept as marks, or with the case of who agrees; once, and by tenant."""

import base64
import json
import sqlite3
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from gateway.door import keys
from gateway.settings import load_settings
from gateway.store.readers import FILE, Readers
from gateway.verdict.competence import (
    Competence,
    Line,
    Skill,
    Worker,
    load_competence,
    save_competence,
)
from models.data.own_file import read as read_set
from services.cli.__main__ import app
from services.evaluation.learning.own_cases import FEWEST
from tests.conftest import picture, serving

SECRET_WORDS = "Zebedee Quux"
CASE = {
    "question": f"Is {SECRET_WORDS} healthy?",
    "images": [base64.b64encode(picture()).decode()],
    "context": SECRET_WORDS,
}
WORDS = ("Zebedee", "healthy", "yes", "oedema")


def said(url: str, verdict: str, word: str = "right", **more) -> httpx.Response:
    headers = more.pop("headers", None)
    body = {"verdict": verdict, "word": word, **more}
    return httpx.post(f"{url}/feedback", json=body, headers=headers, timeout=30)


def verdict_of(url: str, **more) -> dict:
    return httpx.post(f"{url}/vqa", json=CASE, timeout=30, **more).json()


def stored(folder: Path) -> str:
    return "".join(file.read_bytes().decode("latin-1") for file in (folder / "feedback").iterdir())


def test_a_word_is_kept_without_a_word_of_the_case(vllm, gateway, tmp_path, caplog):
    """Nothing is on the disk but marks, and nothing in the log; how often readers agree counts."""
    caplog.set_level("INFO")
    url = gateway([vllm("yes"), vllm("no", confidence=0.5)], feedback="")
    assert httpx.get(f"{url}/panel").json()["feedback"] == "marks"
    verdict = verdict_of(url)["id"]

    reply = said(url, verdict, "wrong", answer="pulmonary oedema", comment=SECRET_WORDS)

    assert reply.json() == {"verdict": verdict, "word": "wrong", "case": False}
    assert not any(word in stored(tmp_path) + caplog.text for word in WORDS)
    verdict_of(url)
    with sqlite3.connect(tmp_path / "feedback" / FILE) as db:
        marks = [mark for (mark,) in db.execute("SELECT mark FROM said")]
    assert len(set(marks)) == len(marks) == 4  # nor does it show that two answers are the same
    assert 'words_total{word="wrong"} 1.0' in httpx.get(f"{url}/metrics").text
    refused = said(url, verdict_of(url)["id"], case=CASE, answer="no")
    assert refused.status_code == 422 and "keeps none" in refused.json()["detail"]


def test_a_word_on_what_is_not_ones_own_is_refused_as_if_it_never_was(vllm, gateway, tmp_path):
    """Another tenant's, one that has a word, one that never was: the very same."""
    file = tmp_path / "keys.json"
    ours, theirs = (
        {"authorization": f"Bearer {keys.add(file, name, None, False)}"} for name in ("a", "b")
    )
    url = gateway([vllm("yes")], environ={"CONSILIUM_KEYS": str(file)}, feedback="")
    verdict = verdict_of(url, headers=ours)["id"]
    first = said(url, verdict, headers=theirs)
    assert said(url, verdict, headers=ours).status_code == 200
    others = [said(url, verdict, headers=ours), said(url, "none", headers=theirs)]

    assert first.status_code == 404
    assert {reply.content for reply in others} == {first.content}
    assert said(url, verdict).status_code == 401
    assert [w["verdict"] for w in httpx.get(f"{url}/feedback", headers=ours).json()] == [verdict]
    assert httpx.get(f"{url}/feedback", headers=theirs).json() == []


def test_a_case_that_is_given_away_becomes_a_set_of_ones_own(vllm, gateway, tmp_path):
    """With what is right, and its images as the workers got them; one that was not is not there."""
    url = gateway([vllm("yes")], feedback='keep = "cases"')
    assert not any(word in stored(tmp_path) for word in WORDS)
    given, not_given = verdict_of(url)["id"], verdict_of(url)["id"]
    other = said(url, given, "wrong", answer="No", case=CASE | {"question": "Another?"})
    assert other.status_code == 422 and "not the one" in other.json()["detail"]
    assert said(url, not_given, "wrong", answer="No").status_code == 200
    assert said(url, given, "wrong", answer="No", comment="seen", case=CASE).json()["case"]

    command = ["feedback", "export", "--panel", str(tmp_path / "panel.toml"), "--out"]
    done = CliRunner().invoke(app, [*command, str(tmp_path / "set")])

    assert done.exit_code == 0, done.output
    (example,) = read_set(tmp_path / "set" / "cases.jsonl")
    assert (example.id, example.question, example.answer) == (given, CASE["question"], "No")
    row = json.loads((tmp_path / "set" / "cases.jsonl").read_text("utf-8"))
    assert (row["comment"], row["word"]) == ("seen", "wrong")
    again = CliRunner().invoke(app, [*command, str(tmp_path / "set")])
    assert again.exit_code == 1 and "is there already" in again.stderr
    nobodys = [*command, str(tmp_path / "b"), "--tenant", "b"]
    assert CliRunner().invoke(app, nobodys).exit_code == 1


def test_from_what_readers_give_away_the_panel_learns_whom_to_believe(vllm, gateway, tmp_path):
    """By the commands alone: exported, evaluated, and learned from; meanwhile each seat tells in
    what part of the words it was right."""
    folder, file, known = tmp_path / "set", tmp_path / "panel.toml", tmp_path / "known.json"
    url = gateway([vllm("yes"), vllm("no", confidence=0.5)], feedback='keep = "cases"')
    with httpx.Client(base_url=url) as reader:
        for number in range(FEWEST):
            case = CASE | {"question": f"Is there a finding of kind {number}?"}
            word = {"verdict": reader.post("/vqa", json=case).json()["id"], "case": case}
            word |= (
                {"word": "wrong", "answer": "No"} if number else {"word": "right", "answer": "Yes"}
            )
            assert reader.post("/feedback", json=word).json()["case"]
    skills = {"": Skill(cases=9, accuracy=0.5, offset=0)}
    seat = Worker(model="mock", prompt="Question: {question} Answer:", slope=1, skills=skills)
    both, lines = {"w0": seat, "w1": seat}, {"en": Line()}
    before = Competence(learned_from="a test", workers=both, correlation={}, verdict=lines)
    save_competence(before, known)

    learned, run = tmp_path / "learned.json", folder / "run"
    for command in (
        ["feedback", "export", "--panel", file, "--out", folder],
        ["evaluate", "--dataset", folder / "cases.jsonl", "--gateway", url, "--out", run],
        ["calibrate", run, "--onto", known, "--panel", file, "--out", learned],
    ):
        done = CliRunner().invoke(app, [str(each) for each in command])
        assert done.exit_code == 0, done.output

    skill = {name: each.skills["en"] for name, each in load_competence(learned).workers.items()}
    assert skill["w0"].accuracy < 0.5 < skill["w1"].accuracy
    seats = httpx.get(f"{url}/panel").json()["workers"]
    assert [(each["words"], each["right"]) for each in seats] == [(FEWEST, 0.1), (FEWEST, 0.9)]
    told = 'words_on_workers_total{right="yes",worker="w1"} 9.0'
    assert told in httpx.get(f"{url}/metrics").text


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        ({"word": "perhaps"}, "word: it must be 'right' or 'wrong'."),
        ({"verdict": 7}, "verdict: it must be a text."),
        ({"verdict": "7" * 65}, "verdict: it must have at most 64 characters."),
        ({"answr": "no"}, "is answer meant?"),
        ({"comment": "\ud800"}, "half a character"),
        ({"case": CASE}, "Send `answer`, what is right, beside a case that is to be kept."),
        ({"case": {"images": []}, "answer": "no"}, "case.question: it is required"),
    ],
)
def test_a_word_that_is_none_is_told_in_one_sentence(sent, says, words_url):
    body = {"verdict": "x", "word": "right"} | sent

    reply = httpx.post(
        f"{words_url}/feedback",
        content=json.dumps(body),
        headers={"content-type": "application/json"},
    )

    assert reply.status_code == 422 and says in reply.json()["detail"]
    assert reply.json()["detail"][0].isalpha()


@pytest.fixture(scope="module")
def words_url(tmp_path_factory):
    path = tmp_path_factory.mktemp("words") / "panel.toml"
    path.write_text(
        '[panel]\nquorum = 1\n[feedback]\nkeep = "cases"\n[[worker]]\nname = "w0"\nfamily = "f"\n'
        'model = "m"\nurl = "http://127.0.0.1:1"\nprompt = "{question}"\n'
    )
    with serving(load_settings(path, environ={})) as url:
        yield url


def test_where_no_words_are_kept_none_is_taken(vllm, gateway, tmp_path):
    url = gateway([vllm("yes")])

    assert said(url, verdict_of(url)["id"]).status_code == 404
    assert httpx.get(f"{url}/feedback").status_code == 404
    assert httpx.get(f"{url}/panel").json()["feedback"] is None
    assert not (tmp_path / "feedback").exists()


def test_what_is_too_old_is_gone_from_the_disk(vllm, gateway, tmp_path):
    """The case with its images, too."""
    url = gateway([vllm("yes")], feedback='keep = "cases"')
    said(url, verdict_of(url)["id"], "wrong", answer="oedema", case=CASE)
    assert "Zebedee" in stored(tmp_path)

    later = Readers(tmp_path / "feedback", days=-1)  # as if it were the day after the last
    later.close()

    assert not any(word in (tmp_path / "feedback" / FILE).read_text("latin-1") for word in WORDS)
