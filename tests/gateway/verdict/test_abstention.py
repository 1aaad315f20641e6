"""`max_risk`: the panel says nothing where it is likelier than that to be wrong, and what it would
have said."""

import pytest
from pydicom.data import get_testdata_file

from gateway.intake.pixels import only_pixels
from gateway.verdict.competence import Competence, Line, Skill, Worker, save_competence
from tests.gateway.asking.test_the_panel_survives_its_workers import ask

COMPETENT = 'quorum = 1\ncompetence = "competence.json"'


@pytest.fixture
def seated(tmp_path):
    """Two workers who are believed as they say, on CT ten times less (in odds)."""
    skills = {"": Skill(cases=9, accuracy=0.5, offset=0)}
    skills["en/yes_no/ct"] = Skill(cases=9, accuracy=0.5, offset=-2.3)
    skills["en/yes_no/mri"] = skills[""]
    one = Worker(model="mock", prompt="Question: {question} Answer:", slope=1, skills=skills)
    learned = Competence(
        learned_from="a test",
        workers={"w0": one, "w1": one},
        correlation={},
        verdict={"en": Line()},
    )
    save_competence(learned, tmp_path / "competence.json")


def test_a_risky_answer_is_held_back_and_a_safe_one_is_not(vllm, gateway, seated):
    url = gateway([vllm("Yes", confidence=0.9), vllm("yes", confidence=0.8)], panel=COMPETENT)
    safe = ask(url, options={"max_risk": 0.5}).json()
    assert (safe["status"], safe["answer"], safe["best_guess"]) == ("answered", "Yes", None)
    assert safe["confidence"] == pytest.approx(0.85, abs=0.001)
    risky = ask(url, options={"max_risk": 0.1}).json()
    assert (risky["status"], risky["answer"], risky["best_guess"]) == ("abstained", None, "Yes")
    assert risky["confidence"] == safe["confidence"] and len(risky["answers"]) == 2
    never = ask(url, options={"max_risk": 1.0}).json()
    assert never["status"] == "answered"


def test_the_modality_is_told_or_read_from_a_dicom(vllm, gateway, seated):
    """It goes into the weighing, and into no worker's prompt."""
    worker = vllm("Yes", confidence=0.9)
    url = gateway([worker, vllm("yes", confidence=0.8)], panel=COMPETENT)
    plain = ask(url).json()["confidence"]
    assert ask(url, modality="ct").json()["confidence"] < plain - 0.2
    assert ask(url, modality="mri").json()["confidence"] == plain
    assert {str(request["messages"]) for request in worker.requests} == {
        str(worker.requests[0]["messages"])
    }
    refused = ask(url, modality="palmistry")
    assert refused.status_code == 422 and "modality" in refused.json()["detail"]
    with open(get_testdata_file("CT_small.dcm"), "rb") as file:
        assert only_pixels(file.read(), "Image 1 of 1").modality == "ct"


def test_a_risk_that_was_never_learned_is_refused(vllm, gateway, seated):
    """Neither a panel without a competence file, nor a language it was not learned in."""
    response = ask(gateway([vllm("yes")]), options={"max_risk": 0.2})
    assert response.status_code == 422
    assert response.json()["detail"].startswith("options.max_risk: how often this panel is wrong")
    both = 'languages = ["en", "zh"]\nmax_images = 1'
    url = gateway([vllm("是"), vllm("是")], panel=COMPETENT, seats=[both, both])
    assert ask(url, language="zh", question="是吗？").json()["confidence"] is None
    assert ask(url, language="zh", options={"max_risk": 0.2}).status_code == 422


@pytest.mark.parametrize("risk", [-0.1, 1.1, "much", True])
def test_a_wrong_risk_is_named(vllm, gateway, risk):
    response = ask(gateway([vllm("yes")]), options={"max_risk": risk})
    assert response.status_code == 422 and "options.max_risk" in response.json()["detail"]
