"""Who says that he does not know has not answered; what may be an answer is one."""

import time

import pytest

from gateway.verdict.text.claims import claims
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
I cannot answer, but please consult a doctor|I cannot answer, but you should see a doctor.
I'm sorry, but I can't help with that. Please consult a radiologist.|I can't see the image.
I cannot provide a diagnosis, but I can offer general information.|Sorry, I cannot see the image.
As an AI language model, I am not a physician.|As an AI I don't have the ability to view images.
I'm an AI and I cannot interpret medical images|I cannot view it. There is no image attached.
The image does not provide enough information to determine this.|The question cannot be answered.
I don't have enough information to answer that.|There isn't enough information.|I have no idea.
The image doesn't contain sufficient detail to say.|The information is insufficient.
I don't know. The image does not provide enough information.|I'm not sure, please ask a doctor.
I don't know what this is because the image is blurred|It is hard to tell.|Sorry, I don't know.
No hay suficiente información|No hay suficiente información para responder.|Lo siento, no lo sé.
La imagen no proporciona información suficiente para determinarlo.|No puedo dar un diagnóstico.
No tengo suficiente información.|La pregunta no se puede responder.|Como IA, no puedo diagnosticar.
No se puede responder a esta pregunta.|No puedo diagnosticar, pero consulte a su médico.
Como modelo de lenguaje no puedo ver imágenes
无法回答这个问题|没有足够的信息|没有足够的信息来回答这个问题。|图像信息不足，无法判断|难以判断。
作为AI，我无法提供诊断。|作为一个人工智能助手，我不能诊断疾病，但建议您咨询医生。|我无法提供诊断。
对不起，我不知道。|我无法诊断，请咨询医生。
No image was provided.|There is no image attached|No image|I see no image.|Without the image.
Please provide the image.|Please upload an image so I can help.|The image is not visible.
There isn't an image attached.|I do not have access to the image|I do not see an image.
I don't have the ability to view images.|I lack the ability to see images|Please consult a physician
You should see a doctor|The image is too blurry to tell|I need more information
More information is needed to answer.|No image was provided. Please upload one image.
No se proporcionó ninguna imagen|No hay imagen.|Sin imagen|No se ve la imagen
La imagen no permite determinarlo|No me es posible responder|Disculpe, no puedo
Por favor, consulte a un médico.|Por favor, adjunte la imagen
没有图片|无图像|没有影像|未提供图像|看不到图片|请提供图片。|请您上传图像|请咨询医生|我无法查看图像
无法看到图像|没有图片，请上传图片。
不知道|我不知道。|不确定|无法确定|无法从图像中判断|不能判断|抱歉，我无法回答。
"""
ANSWERED = """
I'm not sure, but it may be edema|I don't know, probably CT|unclear|unknown|indeterminate|None|No
I cannot see an effusion|I can't identify a fracture.|An effusion cannot be excluded
Cannot exclude it|The effusion cannot be assessed|I can tell that it is CT
no se puede descartar|No sé, quizás edema|No se observa derrame
不清楚|不能排除|无|不确定，可能是水肿|没有足够的液体|作为AI，我看到左肺有肿块。
As an AI, I see a mass in the left lung.|As an AI, I do not see an effusion.|Sorry, it is a CT.
I'm sorry, I don't see an effusion.|I don't know what it is but it may be edema|Not a CT
I'm not sure. Possibly edema.|There is not enough fluid|Insufficient cardiac function
The image shows insufficient detail of the liver|Como IA, veo una masa en el pulmón izquierdo.
No images show a fracture|The image is not available, but pneumonia|Please note the left lung.
Consult a radiologist|The image is too dark|No image of the liver|The fracture is not visible
No se observa imagen nodular|没有图片显示骨折|无法看到图像中的骨折|无法看到骨折|请注意左肺
I cannot tell for sure, but it looks like CT|I can't diagnose, but see a cyst
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


@pytest.mark.parametrize(
    ("language", "question", "said", "alone"),
    [
        (
            "en",
            "Is there a pneumothorax?",
            "As an AI, I cannot diagnose, but there is a pneumothorax.",
            "yes",
        ),
        (
            "en",
            "Is there a pneumothorax?",
            "I am unable to provide a diagnosis. However, there is no pneumothorax.",
            "no",
        ),
        (
            "en",
            "What is the diagnosis?",
            "I cannot diagnose, but this appears to be pneumonia.",
            "this appears to be pneumonia",
        ),
        (
            "en",
            "What is it?",
            "As an AI, I cannot diagnose. The image shows a liver.",
            "The image shows a liver",
        ),
        ("en", "What is it?", "I'm not sure, but it may be edema.", "It may be edema"),
        ("en", "Where is it?", "I don't know exactly, but in the left lung", "left lung"),
        ("es", "¿Hay derrame?", "No puedo diagnosticar, pero hay derrame.", "sí"),
        ("zh", "有气胸吗？", "抱歉，我无法诊断，但是有气胸。", "有气胸"),
    ],
)
def test_a_disclaimer_claims_nothing(language, question, said, alone):
    assert not declines(said)
    [claim], [other] = (claims(each, language, question) for each in (said, alone))
    assert claim.meaning == other.meaning


@pytest.mark.parametrize(
    "said",
    [
        "I'm not sure, but there is a pneumothorax.",
        "I cannot give a definite diagnosis, but there is a pneumothorax.",
        "I cannot tell for certain, but yes",
    ],
)
def test_who_is_not_sure_has_not_said_yes(said):
    assert not declines(said)
    for question in ("In this image, is there a pneumothorax?", "Any pneumothorax?"):
        assert all(claim.meaning != ("yes",) for claim in claims(said, "en", question))
    [claim] = claims(said, "en", "Is there a pneumothorax?")
    assert claim.text == said and claim.meaning != ("yes",)


def test_whatever_a_worker_may_say_is_read_in_a_moment():
    began = time.process_time()
    for nasty in ("but ", ", ", ". ", "not sure, ", "no ", "不能", "但", "as an ai ", "there is "):
        for begins in ("", "I cannot diagnose, ", "As an AI, ", "I don't know "):
            declines(f"{begins}{nasty * 2_000}"[:1_999] + "x")
    assert time.process_time() - began < 2


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
