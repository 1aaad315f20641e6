"""Who says that he does not know has not answered; what may be an answer is one."""

import pytest

from gateway.verdict.text.declining import declines
from tests.gateway.asking.test_the_panel_survives_its_workers import ask, failures

DECLINED = """
I don't know|I don’t know.|I do not know what this is.|N/A|n/a.|Not applicable|Not sure|**Not sure**
I'm not sure.|I am not certain which organ it is.|Unsure|Cannot be determined|Unable to determine
It cannot be determined from the image.|I cannot determine the modality from this image.
I am unable to determine whether there is an effusion.|It is not possible to tell from this image.
Not enough information|There is insufficient information to answer.|I'm sorry, I don't know.
I'm sorry, but I can't help with that.|As an AI, I cannot diagnose.
I'm unable to provide a diagnosis.
no lo sé|No lo se.|No sé|No estoy seguro|No se puede determinar con esta imagen.
No es posible determinarlo|Lo siento, no puedo ayudar.
不知道|我不知道。|不确定|无法确定|无法从图像中判断|不能判断|抱歉，我无法回答。
"""
ANSWERED = """
I'm not sure, but it may be edema|I don't know, probably CT|unclear|unknown|indeterminate|None|No
I cannot see an effusion|I can't identify a fracture.|An effusion cannot be excluded
Cannot exclude it|The effusion cannot be assessed|I can tell that it is CT
no se puede descartar|No sé, quizás edema|No se observa derrame
不清楚|不能排除|无|不确定，可能是水肿
"""


def said(table: str) -> list[str]:
    return [each for line in table.strip().splitlines() for each in line.split("|")]


@pytest.mark.parametrize("text", said(DECLINED))
def test_who_does_not_know_declines(text):
    assert declines(text)


@pytest.mark.parametrize("text", said(ANSWERED))
def test_what_may_be_an_answer_is_one(text):
    """It denies something, tells of an edge or a cause, or says after all what it may be."""
    assert not declines(text)


def test_it_does_not_count(vllm, gateway):
    """Two who do not know outvote nobody."""
    workers = [vllm("CT"), vllm("I don't know."), vllm("Cannot be determined")]
    response = ask(gateway(workers))
    assert response.json()["answer"] == "CT"
    assert failures(response) == {"w1": "empty", "w2": "empty"}


def test_a_choice_is_an_answer_whatever_it_says(vllm, gateway):
    """Where the caller offers it, not to know is one."""
    response = ask(gateway([vllm("I don't know")]), choices=["yes", "no", "I don't know"])
    assert response.json()["answer"] == "I don't know"
