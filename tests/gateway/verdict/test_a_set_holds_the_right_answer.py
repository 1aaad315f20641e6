"""`options.coverage`: the smallest set of answers that holds the right one so often, and none where
that cannot be claimed."""

import json
import math

import pytest

from gateway.contract import Alternative, Answer, Likeness
from gateway.verdict.competence import (
    Cell,
    Competence,
    Likenesses,
    Line,
    Skill,
    Worker,
    save_competence,
)
from gateway.verdict.prediction_set import prediction_set
from gateway.verdict.weigh import Judge
from tests.gateway.asking.test_the_panel_survives_its_workers import ask

STEPS = tuple(n / 100 for n in range(101))
CELL = Cell("en", "other", None)
LIKE = Likeness(image=0.5, question=0.5, manner="slake")


def learned(**more: object) -> Competence:
    """Two who are believed as they say. The right answer's share is anything from 0 to 1; in
    questions of yes or no nobody names it in a third of the cases."""
    skills = {name: Skill(cases=9, accuracy=0.5, offset=0) for name in ("", "en")}
    one = Worker(model="mock", prompt="Question: {question} Answer:", slope=1, skills=skills)
    fields = {
        "learned_from": "a test",
        "workers": {"w0": one, "w1": one},
        "correlation": {},
        "verdict": {"en": Line()},
        "right_shares": {"en": STEPS, "en/@slake/yes_no": tuple(max(s - 0.33, 0) for s in STEPS)},
        "familiarity": {"en": Likenesses(image=STEPS, question=STEPS)},
        "tells": ["w0"],
    }
    return Competence.model_validate(fields | more)


def said(worker: str, text: str, confidence: float, **others: float) -> Answer:
    nearly = tuple(
        Alternative(begins=other.replace("_", " "), whole=True, probability=probability)
        for other, probability in others.items()
    )
    likeness = LIKE if worker == "w0" else None
    return Answer(
        worker=worker,
        text=text,
        confidence=confidence,
        alternatives=nearly,
        likeness=likeness,
        seconds=0,
    )


def asked(coverage: float, *answers: Answer, cell: Cell = CELL, **more: object):
    judge = Judge({"w0": "a", "w1": "b", "w2": "c"}, cell, learned(**more))
    return prediction_set(coverage, judge, judge.weigh(answers))


ONE, OTHER = said("w0", "Lung", 0.6, Liver=0.3, Left_Lung=0.05), said("w1", "lung", 0.8, Heart=0.2)


def test_it_holds_what_was_said_and_what_was_nearly_said_down_to_the_share_that_was_learned():
    """The shares here: lung 0.7, liver 0.15, heart 0.1, left lung 0.025."""
    for coverage, texts in {
        0.5: ["Lung"],
        0.84: ["Lung"],
        0.86: ["Lung", "Liver"],
        0.91: ["Lung", "Liver", "Heart"],
        0.98: ["Lung", "Liver", "Heart", "Left Lung"],
    }.items():
        found = asked(coverage, ONE, OTHER)
        assert [each.text.title() for each in found.answers] == texts
        assert found.coverage == coverage and found.why is None
    assert found.answers[1].share == pytest.approx(0.15, abs=0.001)


def test_answers_that_mean_the_same_are_one_of_it():
    found = asked(0.98, said("w0", "Lung", 0.6, liver=0.2), said("w1", "Liver", 0.6, LUNG=0.3))
    assert sorted(each.text for each in found.answers) == ["Liver", "Lung"]


def test_it_is_never_empty():
    unsure = asked(0.5, said("w0", "Lung", 0.3), said("w1", "Heart", 0.2))
    assert [each.text for each in unsure.answers] == ["Lung"]


@pytest.mark.parametrize(
    ("answers", "cell", "more", "why"),
    [
        ((ONE,), CELL, {}, "w1 did not answer"),
        ((ONE, OTHER, said("w2", "Lung", 0.6)), CELL, {}, "calibrated without w2"),
        ((ONE, OTHER), Cell("en", "yes_no", None), {}, "at most 66% can be had"),
        (
            (ONE, OTHER),
            CELL,
            {"familiarity": {"en": Likenesses(image=(0.6, 0.9), question=(0, 1))}},
            "the image is unlike",
        ),
    ],
)
def test_none_is_claimed_where_it_would_not_hold(answers, cell, more, why):
    found = asked(0.9, *answers, cell=cell, **more)
    assert found.answers is None and why in found.why


def reply(**probabilities: float) -> bytes:
    """Of a server whose answer is one token; the first is what it says."""
    told = [{"token": each, "logprob": math.log(p)} for each, p in probabilities.items()]
    choice = {
        "message": {"content": told[0]["token"]},
        "logprobs": {"content": [told[0] | {"top_logprobs": told}]},
        "finish_reason": "stop",
    }
    return json.dumps({"choices": [choice]}).encode()


def test_the_gateway_returns_it_where_it_is_asked_for(vllm, gateway, tmp_path):
    """What a seat of one-token answers nearly said is whole; of another seat nobody knows. Where
    nothing of sets was learned, the case is refused."""
    save_competence(learned(tells=[]), tmp_path / "competence.json")
    workers = [vllm(raw=reply(Lung=0.6, Liver=0.3), status=200) for _ in "ab"]
    panel = 'quorum = 1\ncompetence = "competence.json"'
    case = {"question": "What is shown?", "options": {"coverage": 0.9}}

    def set_of(seat: str) -> list[str]:
        found = ask(gateway(workers, panel=panel, seats=[seat] * 2), **case).json()
        return [each["text"] for each in found["prediction_set"]["answers"]]

    assert set_of('languages = ["en"]\none_token = true') == ["Lung", "Liver"]
    assert set_of('languages = ["en"]') == ["Lung"]
    url = gateway(workers, panel=panel, seats=['languages = ["en", "es"]'] * 2)
    assert ask(url, question="What is shown?").json()["prediction_set"] is None
    for refused in (ask(url, **case, language="es"), ask(gateway(workers), **case)):
        assert refused.status_code == 422 and "options.coverage" in refused.json()["detail"]
