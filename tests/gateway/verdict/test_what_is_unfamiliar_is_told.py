"""A panel that is asked of what it was not calibrated on says so, and claims no confidence."""

import base64
import json
from dataclasses import replace
from typing import Any

import httpx
import pytest

from gateway.contract import Answer, Familiarity, Likeness
from gateway.settings import load_settings
from gateway.verdict.competence import (
    Cell,
    Competence,
    Likenesses,
    Line,
    Skill,
    Worker,
    save_competence,
)
from gateway.verdict.familiarity import LEAST, WHY, familiarity
from gateway.verdict.remarks import is_unfamiliar, of_familiarity
from gateway.verdict.weigh import Judge
from tests.conftest import picture
from tests.fake_gateway import VERDICT
from tests.gateway.asking.test_the_panel_survives_its_workers import ask

STEPS = tuple(n / 100 for n in range(101))
FAMILIES = {"w0": "a", "w1": "b", "w2": "c"}


def learned(**more: object) -> Competence:
    """w0 is good in SLAKE's manner, w1 in that of VQA-Med; w2 tells, and is as good in both."""

    def worker(slake: float, med: float) -> Worker:
        levels = {"": 0.0, "en": 0.0, "en/@slake": slake, "en/@vqa_med_2019": med}
        skills = {n: Skill(cases=9, accuracy=0.5, offset=o) for n, o in levels.items()}
        skills["en/@slake/yes_no/ct"] = skills["en/@slake"]
        prompt = "Question: {question} Answer:"
        return Worker(model="mock", prompt=prompt, slope=1, skills=skills)

    whole = Likenesses(image=STEPS, question=STEPS)
    upper = Likenesses(image=tuple(0.5 + step / 2 for step in STEPS), question=STEPS)
    fields = {
        "learned_from": "a test",
        "workers": {"w0": worker(3, -3), "w1": worker(-3, 3), "w2": worker(0, 0)},
        "correlation": {},
        "verdict": {"en": Line(), "en/@slake": Line(offset=1)},
        "familiarity": {"en": whole, "en/@slake": upper, "en/@vqa_med_2019": whole},
        "tells": ("w2",),
    }
    return Competence.model_validate(fields | more)


def told(image: float = 0.9, question: float = 0.9, manner: str = "slake") -> Likeness:
    return Likeness(image=image, question=question, manner=manner)


CELL = Cell("en", "yes_no", None)


def test_a_value_is_the_part_of_the_calibration_cases_that_were_no_more_alike():
    found = familiarity(told(0.9, 0.25), CELL, learned())

    assert (found.image, found.question) == (
        pytest.approx(0.9, abs=0.01),
        pytest.approx(0.25, abs=0.01),
    )
    assert not found.unfamiliar and found.why is None


@pytest.mark.parametrize("part", ["image", "question"])
def test_below_nearly_all_of_them_it_is_unfamiliar(part):
    found = familiarity(told(**{part: LEAST / 2}), CELL, learned())

    assert found.unfamiliar and found.why == WHY["en"][part]


def test_an_image_is_held_to_those_about_which_such_questions_were_asked():
    """What is common in one data set may be odd in another; how familiar it is, is one scale."""
    seen = told(image=0.4)
    as_slake, as_med = (
        familiarity(seen, replace(CELL, manner=manner), learned())
        for manner in ("slake", "vqa_med_2019")
    )

    assert as_slake.unfamiliar and not as_med.unfamiliar
    assert as_slake.image == as_med.image


@pytest.mark.parametrize(
    ("language", "why"),
    [
        ("en", "no ultrasound is known among"),
        ("es", "ningún caso de ecografía"),
        ("zh", "没有已知的超声"),
    ],
)
def test_a_modality_that_was_never_calibrated_is_named(language, why):
    cell = Cell(language, "yes_no", "ultrasound")

    found = familiarity(told(), cell, learned())

    assert found.unfamiliar and why in str(found.why)
    assert not familiarity(told(), replace(cell, modality="ct"), learned()).unfamiliar


def test_where_nobody_tells_nothing_is_claimed_of_it():
    """A panel of models from elsewhere: its confidence is as it was, and a word says why not."""
    silent = learned(familiarity={}, tells=())
    for competence, told_ in [(silent, told()), (learned(), None)]:
        found = familiarity(told_, CELL, competence)
        assert (found.image, found.question, found.unfamiliar) == (None, None, False)
        assert found.why == WHY["en"]["untold"]
    elsewhere = familiarity(told(), replace(CELL, language="zh"), learned())
    assert elsewhere.image is None and elsewhere.why == WHY["zh"]["uncalibrated"]


def answers(likeness: Likeness | None) -> list[Answer]:
    said = {"w0": "yes", "w1": "no", "w2": "no"}
    return [
        Answer(worker=name, text=text, confidence=0.6, seconds=0, likeness=likeness and of)
        for (name, text), of in zip(said.items(), (None, None, likeness), strict=True)
    ]


def test_who_knows_the_manner_of_a_question_is_believed():
    judge = Judge(FAMILIES, CELL, learned(), "Is it?")

    slake = judge.weigh(answers(told(manner="slake")))
    med = judge.weigh(answers(told(manner="vqa_med_2019")))

    assert (slake.winner.text, med.winner.text) == ("yes", "no")
    assert slake.confidence == pytest.approx(Line(offset=1)(slake.winner.share))
    assert med.confidence == pytest.approx(Line()(med.winner.share))


def test_an_unfamiliar_case_has_no_confidence_and_is_riskier_than_any_bound():
    opinion = Judge(FAMILIES, CELL, learned(), "Is it?").weigh(answers(told(image=0.0)))

    assert opinion.confidence is None and opinion.is_riskier_than(0.99)
    assert not opinion.is_riskier_than(None)


def test_nothing_is_decided_before_the_manner_is_told():
    """The voices may yet change with it."""
    judge = Judge(FAMILIES, CELL, learned(), "Is it?")
    sure = [a.model_copy(update={"text": "yes", "confidence": 0.99}) for a in answers(None)]

    assert not judge.is_decided(sure[:2], ["w2"])
    assert judge.is_decided([sure[0], sure[2].model_copy(update={"likeness": told()})], ["w1"])


def test_likenesses_are_those_of_the_worker_that_was_calibrated():
    """Another worker's are of other cases; that its word came first makes no difference."""
    judge = Judge(FAMILIES, CELL, learned(), "Is it?")
    stranger = told(image=0.0, manner="vqa_med_2019")
    said = answers(told(manner="slake"))
    both = [said[0].model_copy(update={"likeness": stranger}), *said[1:]]

    heard, as_told = judge.weigh(both), judge.weigh(said)
    assert (heard.winner, heard.familiarity) == (as_told.winner, as_told.familiarity)
    alone = judge.weigh([*both[:2], said[2].model_copy(update={"likeness": None})])
    assert alone.familiarity and alone.familiarity.why == WHY["en"]["untold"]


def test_who_is_seated_anew_no_longer_tells(panel_file, tmp_path):
    """Another model may remember other cases: its likenesses are on no scale that is known."""
    changed = {"model": "another"}
    competence = learned()
    workers = competence.workers | {"w2": competence.workers["w2"].model_copy(update=changed)}
    save_competence(
        competence.model_copy(update={"workers": workers}), tmp_path / "competence.json"
    )
    path = panel_file(
        ["http://127.0.0.1:1"] * 3, panel='quorum = 1\ncompetence = "competence.json"'
    )

    seated = load_settings(path, environ={}).competence

    assert seated and "w2" not in seated.workers and seated.tells == ()


def reply(likeness: object) -> bytes:
    message = {"role": "assistant", "content": "yes"}
    return json.dumps({"choices": [{"message": message, "likeness": likeness}]}).encode()


def test_a_caller_is_told_and_a_bound_on_risk_holds_the_answer_back(vllm, gateway, tmp_path):
    save_competence(learned(), tmp_path / "competence.json")
    odd = vllm(raw=reply({"image": 0.001, "question": 0.9, "manner": "slake"}))
    panel = 'quorum = 1\ncompetence = "competence.json"'
    url = gateway([vllm("yes"), vllm("yes"), odd], panel=panel)

    verdict = ask(url, options={"max_risk": 0.9}).json()

    assert verdict["status"] == "abstained" and verdict["confidence"] is None
    assert verdict["familiarity"] == {
        "image": pytest.approx(0.0, abs=0.01),
        "question": pytest.approx(0.9, abs=0.01),
        "unfamiliar": True,
        "why": WHY["en"]["image"],
    }


ODD = {"unfamiliar": True, "why": "it is odd"}
UNTOLD = "Whether this case is familiar is not known: {}."


@pytest.mark.parametrize(
    ("changes", "known", "told"),
    [
        ({}, True, "Unfamiliar case: it is odd."),
        ({"language": "es"}, True, "Caso desconocido: it is odd."),
        ({"language": "zh"}, True, "不熟悉的病例：it is odd。"),
        ({"unfamiliar": False}, None, None),
        ({"unfamiliar": False, "confidence": 0.9}, None, UNTOLD.format("it is odd")),
        ({"unfamiliar": False, "confidence": 0.9, "why": None}, False, None),
    ],
)
def test_a_person_is_told_in_a_sentence(changes, known, told):
    """Also that nobody tells, where a confidence is claimed all the same."""
    said = Familiarity.model_validate(
        {name: changes.get(name, value) for name, value in ODD.items()}
    )
    verdict = VERDICT.model_copy(update=changes | {"familiarity": said})

    assert (is_unfamiliar(verdict), of_familiarity(verdict)) == (known, told)
    never = VERDICT.model_copy(update={"confidence": 0.9})  # a panel that was not calibrated
    assert (is_unfamiliar(never), of_familiarity(never)) == (None, None)


@pytest.mark.parametrize(
    ("likeness", "says"),
    [
        (
            {"image": 0.001, "question": 0.9, "manner": "slake"},
            f"Unfamiliar case: {WHY['en']['image']}.",
        ),
        (None, UNTOLD.format(WHY["en"]["untold"])),
    ],
)
def test_a_chat_begins_with_it(vllm, gateway, tmp_path, likeness, says):
    """Before the answer, and where the panel abstains."""
    save_competence(learned(), tmp_path / "competence.json")
    panel = 'quorum = 1\ncompetence = "competence.json"'
    workers = [vllm("yes"), vllm("yes"), vllm(raw=reply(likeness))]
    url = gateway(workers, panel=panel)

    def said(**options: object) -> dict[str, Any]:
        uri = "data:image/png;base64," + base64.b64encode(picture()).decode()
        content = [{"type": "image_url", "image_url": uri}, {"type": "text", "text": "Is it?"}]
        chat = {"model": "consilium", "messages": [{"role": "user", "content": content}]}
        sent = chat | {"consilium": {"options": options}}
        response = httpx.post(f"{url}/v1/chat/completions", json=sent, timeout=30)
        return response.json()["choices"][0]["message"]

    assert said()["content"] == f"{says}\n\nyes"
    abstained = said(max_risk=0)
    assert abstained["content"] is None
    assert abstained["refusal"].startswith(f"{says}\n\nThe panel abstains: ")


def test_a_manner_is_called_as_its_set_is(vllm, gateway):
    """A memory of one's own file has that file's name for it."""
    likeness = {"image": 0.5, "question": 0.5, "manner": "Ward 7 – 胸部 (2024).v2"}

    [answer] = ask(gateway([vllm(raw=reply(likeness))])).json()["answers"]

    assert answer["likeness"] == likeness


@pytest.mark.parametrize(
    "likeness",
    [
        None,
        "very",
        {"image": 2, "question": 0, "manner": "slake"},
        {"image": float("nan"), "question": 0, "manner": "slake"},
        {"image": 0, "question": 0, "manner": "slake/count"},
        {"image": 0, "question": 0, "manner": "s" * 300},
        {"image": 0.5},
    ],
)
def test_an_answer_stands_whatever_its_server_calls_likeness(vllm, gateway, likeness):
    [answer] = ask(gateway([vllm(raw=reply(likeness))])).json()["answers"]

    assert answer["text"] == "yes" and answer["likeness"] is None
