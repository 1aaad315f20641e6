"""`k`: the best for such a case are asked, and the generalist; who is left out is told why."""

import pytest

from gateway.settings import SettingsError, load_settings
from gateway.verdict.competence import Competence, Line, Skill, Worker, save_competence
from tests.gateway.asking.test_the_panel_survives_its_workers import ask, failures

PANEL = 'quorum = 1\ncompetence = "competence.json"\nk = 1\ngeneralist = "w2"'


@pytest.fixture
def seated(tmp_path):
    """w0 is good at yes and no, w1 at places, w2 at nothing in particular."""

    def one(**accuracy: float) -> Worker:
        skills = {"": Skill(cases=9, accuracy=0.5, offset=0)}
        skills |= {f"en/{k}": Skill(cases=9, accuracy=a, offset=0) for k, a in accuracy.items()}
        prompt = "Question: {question} Answer:"
        return Worker(model="mock", prompt=prompt, slope=1, skills=skills)

    workers = {"w0": one(yes_no=0.9, place=0.4), "w1": one(yes_no=0.6, place=0.8), "w2": one()}
    learned = Competence(
        learned_from="a test", workers=workers, correlation={}, verdict={"en": Line()}
    )
    save_competence(learned, tmp_path / "competence.json")


def test_the_best_for_the_case_and_the_generalist_are_asked(vllm, gateway, seated):
    workers = [vllm("a"), vllm("b"), vllm("c")]
    url = gateway(workers, panel=PANEL)
    healthy = ask(url)  # "Is it healthy?"
    assert failures(healthy) == {"w1": "not_eligible"}
    reason = healthy.json()["answers"][1]["error"]["detail"]
    assert reason == "In such cases it is right in 60%, and 1 others in 90% or more."
    assert failures(ask(url, question="Where is it?")) == {"w0": "not_eligible"}
    assert [len(worker.requests) for worker in workers] == [1, 1, 2]
    # Left out on purpose is no failure: the verdict is whole.
    assert ask(url).json()["cached"]


def test_who_is_named_by_the_caller_is_asked(vllm, gateway, seated):
    url = gateway([vllm("a"), vllm("b"), vllm("c")], panel=PANEL)
    assert failures(ask(url, options={"workers": ["w0", "w1"]})) == {}


def test_the_quorum_is_one_of_those_who_are_asked(vllm, gateway, seated):
    url = gateway([vllm("a"), vllm("b"), vllm("c")], panel=PANEL.replace("= 1\nc", "= 3\nc"))
    assert ask(url).status_code == 200


@pytest.mark.parametrize(
    ("panel", "complaint"),
    [
        ("quorum = 1\nk = 1", "panel.k needs panel.competence"),
        ('quorum = 1\ngeneralist = "w9"', "panel.generalist: no worker is called w9"),
        ("quorum = 1\nk = 0", "panel"),
    ],
)
def test_a_wrong_routing_is_one_line(panel_file, panel, complaint):
    with pytest.raises(SettingsError, match=complaint):
        load_settings(panel_file(["http://127.0.0.1:1"], panel=panel), environ={})
