"""With a competence file voices count by how far each is to be believed in such a case."""

import itertools
import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from pydantic import ValidationError

from gateway.contract import Alternative, Answer
from gateway.settings import SettingsError, load_settings
from gateway.verdict.competence import (
    Cell,
    Competence,
    CompetenceError,
    Line,
    Skill,
    Worker,
    load_competence,
    save_competence,
)
from gateway.verdict.text.questions import KINDS
from gateway.verdict.weigh import Judge, nearly_said
from tests.gateway.asking.test_the_panel_survives_its_workers import ask

CELL = Cell("en", "count", "ct")
LOUD = ((), (2.0, 0.1, 1.5, 0.4), (0.05, 0.05, 3.2, 0.7))


def worker(**offsets: float) -> Worker:
    """One whose confidence is believed as it is, give or take an offset by cell (a_b is a/b)."""
    skills = {"": Skill(cases=9, accuracy=0.5, offset=0)}
    for name, offset in offsets.items():
        skills[name.replace("_", "/")] = Skill(cases=9, accuracy=0.5, offset=offset)
    return Worker(model="mock", prompt="Question: {question} Answer:", slope=1, skills=skills)


def judge(correlation: float = 0.0, loud: Sequence[float] = (), **workers: Worker) -> Judge:
    """w0 and w1 are of one family, all others of their own; `loud` is how loud each is."""
    known = workers or {f"w{seat}": worker() for seat in range(4)}
    families = {name: "one" if name in ("w0", "w1") else name for name in known}
    learned = Competence(
        learned_from="a test",
        workers=known,
        correlation={"one": correlation},
        voices={"en": {f"w{seat}": each for seat, each in enumerate(loud)}},
        verdict={"en": Line()},
    )
    return Judge(families, CELL, learned)


def said(seat: int, text: str, confidence: float | None, **others: float) -> Answer:
    alternatives = tuple(
        Alternative(begins=begins, whole=False, probability=p) for begins, p in others.items()
    )
    return Answer(
        worker=f"w{seat}", text=text, confidence=confidence, alternatives=alternatives, seconds=0
    )


def test_one_who_knows_outweighs_two_who_guess():
    guesses = [said(0, "1", 0.4), said(1, "1", 0.4), said(2, "2", 0.95)]
    opinion = judge().weigh(guesses)
    assert opinion.winner.text == "2" and opinion.winner.workers == ("w2",)
    assert [d.text for d in opinion.dissent] == ["1"]
    assert opinion.agreement == pytest.approx(0.95 / 1.75, abs=0.01)
    assert opinion.dissent[0].weight == pytest.approx(0.8 / 1.75, abs=0.01)
    assert opinion.confidence == pytest.approx(0.95 / 3, abs=0.01)


def test_who_is_weak_in_such_cases_is_believed_less():
    """The same answers and confidences; w2 turns out to be bad at counting in CT."""
    answers = [said(0, "1", 0.7), said(2, "2", 0.8)]
    assert judge().weigh(answers).winner.text == "2"
    for cell in ("en", "en_count", "en_count_ct"):
        weak = {"w0": worker(), "w2": worker(**{cell: -3.0})}
        assert judge(**weak).weigh(answers).winner.text == "1"
    elsewhere = {"w0": worker(), "w2": worker(en_count_mri=-3.0, zh=-3.0)}
    assert judge(**elsewhere).weigh(answers).winner.text == "2"


def test_a_family_has_less_than_a_voice_for_each_of_its_members():
    """Two that err together are not two witnesses."""
    answers = [said(0, "1", 0.6), said(1, "1", 0.6), said(2, "2", 0.8)]
    assert judge(correlation=0.0).weigh(answers).winner.text == "1"
    assert judge(correlation=0.9).weigh(answers).winner.text == "2"
    alone = judge(correlation=0.9).weigh([answers[0], answers[2]])
    assert alone.answers[0].weight == pytest.approx(0.6 / 1.4, abs=0.01)


def test_a_second_thought_supports_another_ones_answer():
    tie = [said(0, "Left Lung", 0.5), said(2, "Heart", 0.5)]
    assert judge().weigh(tie).winner.text == "Left Lung"
    nearly = [said(0, "Left Lung", 0.5, He=0.4), said(2, "Heart", 0.5)]
    assert judge().weigh(nearly).winner.text == "Heart"


@pytest.mark.parametrize(
    ("begins", "whole", "probability"),
    [
        ("left", False, 0.4),
        ("Left Lung", False, 0.4),
        ("Left Lung", True, 0.4),
        ("Left", True, 0.0),
        ("Left Lung,", False, 0.0),
        ("right", False, 0.0),
    ],
)
def test_what_another_beginning_fits(begins, whole, probability):
    other = Alternative(begins=begins, whole=whole, probability=0.4)
    answer = Answer(worker="w0", text="Heart", confidence=0.5, alternatives=(other,), seconds=0)
    assert nearly_said(answer, ["Left lung."]) == probability


def test_a_voice_is_as_loud_as_was_learned():
    answers = [said(0, "1", 0.6), said(2, "2", 0.7)]
    assert judge().weigh(answers).winner.text == "2"
    assert judge(loud=(2, 1, 1, 1)).weigh(answers).winner.text == "1"
    newcomer = said(4, "2", 0.7)  # as loud as the average
    panel = judge(loud=(2, 1, 1, 1))
    families = {**panel.families, "w4": "w4"}
    assert replace(panel, families=families).weigh([answers[0], newcomer]).winner.text == "1"


def test_a_voice_of_nothing_is_refused():
    """Of one that alone is heard, no share could be told."""
    with pytest.raises(ValidationError, match="greater than 0"):
        judge(loud=(0, 1, 1, 1))


def test_a_verdict_is_in_the_words_of_who_is_believed_most():
    answers = [said(0, "MRI", 0.4), said(2, "magnetic resonance imaging", 0.9)]
    [cluster] = judge().weigh(answers).clusters
    assert cluster.text == "magnetic resonance imaging"


def test_what_decides_is_what_is_shown():
    """Random panels: the verdict never has less than a dissent, its givers' weights are its own,
    and all of them sum to 1."""
    dice = random.Random(0)
    divided = 0
    for _ in range(400):
        asked = judge(dice.choice([0.0, 0.5, 0.9]), dice.choice(LOUD))
        answers = [
            said(
                s,
                dice.choice("123"),
                dice.choice([None, 0.3, 0.6, 0.9]),
                **{dice.choice("123"): 0.3},
            )
            for s in range(dice.choice([2, 3, 4]))
        ]
        opinion = asked.weigh(answers)
        weights = [opinion.agreement or 0, *(each.weight for each in opinion.dissent)]
        assert weights == sorted(weights, reverse=True) and sum(weights) == pytest.approx(1)
        by_worker = {answer.worker: answer.weight for answer in opinion.answers}
        for cluster in opinion.clusters:
            own = sum(by_worker[worker] or 0 for worker in cluster.workers)
            assert own == pytest.approx(cluster.weight)
        divided += not opinion.unanimous
    assert divided > 200


def test_an_answer_without_a_confidence_counts_as_often_as_it_is_right():
    answers = [said(0, "1", None), said(2, "2", 0.4)]
    assert judge().weigh(answers).winner.text == "1"


def test_decided_means_that_nothing_the_missing_say_can_change_it():
    """Random panels: whenever it is decided, every continuation keeps the winner."""
    dice = random.Random(0)
    texts = ["1", "2", "3"]
    decided = 0
    for _ in range(800):
        asked = judge(dice.choice([0.0, 0.5, 0.9]), dice.choice(LOUD))
        seats = dice.sample(range(4), 4)
        answers = [
            said(s, dice.choice(texts), dice.choice([0.3, 0.8, 0.99]), **{dice.choice(texts): 0.1})
            for s in seats
        ]
        heard, late = answers[:-1], answers[-1]
        heard = heard[: dice.choice([2, 3])]
        missing = [f"w{s}" for s in range(4) if f"w{s}" not in {a.worker for a in heard}]
        if not asked.is_decided(heard, missing):
            continue
        decided += 1
        winner = asked.weigh(heard).winner.text
        for count in range(len(missing) + 1):
            for who in itertools.combinations(missing, count):
                for words in itertools.product([*texts, "4"], repeat=count):
                    more = [
                        late.model_copy(update={"worker": w, "text": text, "confidence": 0.999})
                        for w, text in zip(who, words, strict=True)
                    ]
                    assert asked.weigh([*heard, *more]).winner.text == winner
    assert decided > 50


@pytest.fixture
def competence_file(tmp_path: Path) -> Path:
    known = {"w0": worker(), "w1": worker(), "w2": worker(en=1.0)}
    learned = Competence(
        learned_from="a test", workers=known, correlation={}, verdict={"en": Line(slope=2)}
    )
    save_competence(learned, tmp_path / "competence.json")
    return tmp_path / "competence.json"


COMPETENT = 'quorum = 1\ncompetence = "competence.json"'


def test_the_gateway_weighs_by_its_competence_file(vllm, gateway, competence_file):
    workers = [vllm("1", confidence=0.4), vllm("1", confidence=0.4), vllm("2", confidence=0.999)]
    plain, url = gateway(workers), gateway(workers, panel=COMPETENT)
    by_vote, verdict = ask(plain).json(), ask(url).json()
    assert by_vote["answer"] == "1" and by_vote["confidence"] is None
    reports = [httpx.get(f"{each}/panel").json() for each in (plain, url)]
    assert [report["learned_from"] for report in reports] == [None, "a test"]
    assert [report["workers"][0]["calibrated"] for report in reports] == [None, True]
    assert verdict["answer"] == "2" and 0 < verdict["confidence"] < 1
    assert verdict["panel"] != by_vote["panel"]
    assert sum(answer["weight"] for answer in verdict["answers"]) == pytest.approx(1)
    assert verdict["dissent"][0]["workers"] == ["w0", "w1"]


def test_a_new_seat_begins_at_a_prior_and_is_told_so(vllm, gateway, competence_file):
    """The others keep what was learned of them. Whatever it claims, it is believed halfway between
    a guess and what they are in such cases; whose model or prompt has changed is new as well."""
    content = json.loads(competence_file.read_text())
    for known in content["workers"].values():
        for skill in known["skills"].values():
            skill["accuracy"] = 0.8
    content["workers"]["w1"]["prompt"] = "{question}"
    competence_file.write_text(json.dumps(content))
    workers = [vllm("1", confidence=c) for c in (0.9, 0.999, 0.9, 0.999)]
    url = gateway(workers, panel=COMPETENT)
    report, verdict = httpx.get(f"{url}/panel").json(), ask(url).json()
    assert [seat["calibrated"] for seat in report["workers"]] == [True, False, True, False]
    told = "a test; not w1, w3, whose voice begins at a prior"
    assert report["learned_from"] == verdict["learned_from"] == told
    first, changed, _, new = (answer["weight"] for answer in verdict["answers"])
    assert changed == pytest.approx(new)
    assert new / first == pytest.approx((2 / 3) / 0.9, rel=0.01)
    assert verdict["confidence"] is not None


def test_a_newcomers_confidence_is_not_believed():
    learned = judge().competence
    assert learned is not None
    believed = {learned.believed("nobody", c, CELL) for c in (None, 0.01, 0.5, 0.999)}
    assert believed == {0.5}  # what the others are when they guess


def test_a_competence_file_of_other_workers_is_refused(panel_file, competence_file):
    urls = ["http://127.0.0.1:1"] * 3
    load_settings(panel_file(urls, panel=COMPETENT), environ={})
    content = json.loads(competence_file.read_text())
    for known in content["workers"].values():
        known["prompt"] = "{question}"
    competence_file.write_text(json.dumps(content))
    with pytest.raises(SettingsError, match="learned from no worker as it is seated now"):
        load_settings(panel_file(urls, panel=COMPETENT), environ={})
    load_settings(panel_file(urls, panel=COMPETENT), environ={}, with_competence=False)


@pytest.mark.parametrize("content", ["", "[]", '{"workers": {}}'])
def test_a_broken_competence_file_is_one_line(panel_file, competence_file, content):
    competence_file.write_text(content)
    with pytest.raises(
        SettingsError, match=r"panel.competence: .*competence.json.*run consilium calibrate"
    ):
        load_settings(panel_file(["http://127.0.0.1:1"], panel=COMPETENT), environ={})
    with pytest.raises(CompetenceError, match="cannot be read"):
        load_competence(competence_file.with_name("none.json"))


def test_every_kind_has_a_place_in_every_cell():
    assert Cell("zh", "size", None).names == ("zh/size", "zh", "")
    assert len(set(KINDS)) == len(KINDS) == 12
