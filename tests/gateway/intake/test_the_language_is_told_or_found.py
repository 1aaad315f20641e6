"""A question is asked in the language that it is in: named, or beyond doubt."""

import pytest

from gateway.intake.language import language_of
from tests.gateway.asking.test_the_panel_survives_its_workers import ask

ALL = 'languages = ["en", "es", "zh"]\nmax_images = 4'


@pytest.mark.parametrize(
    ("question", "language"),
    [
        ("图中有胸腔积液吗？", "zh"),
        ("这是CT还是MRI？", "zh"),
        ("¿Hay derrame pleural?", "es"),
        ("Donde esta la lesion", "es"),
        ("Is there a pleural effusion?", None),
        ("pleural effusion?", None),
        ("What does 肺 mean in this report?", None),
        ("Is 左肺上叶 abnormal?", None),
        ("¿qué es 肺?", None),
        ("肺のどこですか", None),
        ("胸部単純写真?", None),
        ("脳腫瘍?", None),
        ("腦腫瘤？", "zh"),
        ("Is the sign called 'la imagen del doble halo' there?", None),
        ("", None),
        ("Se observa derrame en la imagen", "es"),
        ("Existe uma lesão que se vê nesta imagem?", None),
        ("O que se observa nesta imagem, e onde se pode ver?", None),
        ("Donde está a lesão que se vê?", None),
        ("Que se passe-t-il, et existe-t-il une lésion?", None),
        ("Una lesione del fegato si osserva? Se tiene, che cosa?", None),
    ],
)
def test_only_what_is_certain_is_found(question, language):
    assert language_of(question) == language


@pytest.mark.parametrize(
    ("question", "named", "asked"),
    [
        ("图中有胸腔积液吗？", None, "zh"),
        ("¿Hay derrame pleural?", None, "es"),
        ("Is there a pleural effusion?", None, "en"),
        ("What does 肺 mean?", None, "en"),
        ("What does 肺 mean?", "zh", "zh"),
        ("¿Hay derrame pleural?", "es", "es"),
        ("Existe uma lesão que se vê nesta imagem?", "en", "en"),
        ("Donde esta la lesion", "en", "en"),
        ("Donde esta la lesion", None, "es"),
    ],
)
def test_a_question_is_asked_in_its_own_language(vllm, gateway, question, named, asked):
    fields = {"language": named} if named else {}
    verdict = ask(gateway([vllm("no")], seats=[ALL]), question=question, **fields).json()
    assert verdict["language"] == asked


@pytest.mark.parametrize(
    ("question", "named", "send"),
    [
        ("图中有胸腔积液吗？", "en", "Chinese. Send zh"),
        ("图中有胸腔积液吗？", "es", "Chinese. Send zh"),
        ("¿Hay derrame pleural?", "en", "Spanish. Send es"),
    ],
)
def test_a_language_that_the_question_is_not_in_is_refused(vllm, gateway, question, named, send):
    worker = vllm("no")
    refused = ask(gateway([worker], seats=[ALL]), question=question, language=named)
    assert refused.status_code == 422 and send in refused.json()["detail"]
    assert not worker.requests


def test_where_nobody_speaks_it_that_is_said(vllm, gateway):
    """A Chinese question is never put to an English worker."""
    worker = vllm("Biotransformation")
    refused = ask(gateway([worker]), question="图中有胸腔积液吗？")
    assert refused.status_code == 422 and "in zh" in refused.json()["detail"]
    assert not worker.requests
