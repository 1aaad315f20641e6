"""The summariser reads every answer; its reply counts only if it says what the winners say."""

import base64
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.asking.model_server import Completion
from gateway.asking.summariser import is_faithful, request
from gateway.case import Case, CaseImage
from gateway.contract import Answer, Options
from gateway.settings import load_settings
from gateway.verdict.competence import Cell
from gateway.verdict.weigh import Judge, Opinion
from tests.conftest import picture

CASE = {"question": "Where is it?", "images": [base64.b64encode(picture()).decode()]}
PANEL = Path(__file__).parents[3] / "panel.toml"


def ask(url: str, **changes: Any) -> dict[str, Any]:
    response = httpx.post(f"{url}/vqa", json=CASE | changes, timeout=30)
    assert response.status_code == 200, response.text
    return dict(response.json())


def opinion_of(*texts: str, language: Any = "en") -> Opinion:
    return judged("", language, *texts)


def judged(question: str, language: Any, *texts: str) -> Opinion:
    families = {f"w{seat}": "one" for seat in range(len(texts))}
    return Judge(families, Cell(language, "other", None), None, question).weigh(
        Answer(worker=f"w{seat}", text=text, confidence=0.5, seconds=0.1)
        for seat, text in enumerate(texts)
    )


def case_in(language: Any, identity: str = "a") -> Case:
    image = CaseImage(b"", identity, (32, 24))
    return Case("id", "Where is it?", (image,), language, None, None, Options())


@pytest.mark.parametrize(
    ("language", "texts"),
    [
        ("en", ["Left lung", "right lung", "left {lung}"]),
        ("es", ["Pulmón izquierdo", "pulmón derecho", "no se ve"]),
        ("zh", ["左肺", "右肺", "看不到"]),
    ],
)
def test_every_answer_reaches_its_prompt(language, texts):
    """The dissenter's too, in the prompt of the case's language, and nobody's name."""
    summariser = load_settings(PANEL, environ={}).summariser
    assert summariser
    body = request(case_in(language), opinion_of(*texts), summariser)
    prompt = body["messages"][0]["content"]
    assert all(text in prompt for text in texts) and "Where is it?" in prompt
    assert "w0" not in prompt and body["temperature"] == 0


def test_a_reply_goes_on_from_its_opening():
    """Left to begin by itself, a small model talks about the answer instead of giving it."""
    summariser = load_settings(PANEL, environ={}).summariser
    assert summariser
    opened = request(case_in("en"), opinion_of("Yes", "No"), summariser)
    assert opened["messages"][1:] == [{"role": "assistant", "content": summariser.opening["en"]}]
    assert opened["continue_final_message"] and not opened["add_generation_prompt"]

    silent = summariser.model_copy(update={"opening": {}})
    plain = request(case_in("en"), opinion_of("Yes", "No"), silent)
    assert len(plain["messages"]) == 1
    assert plain["add_generation_prompt"] and not plain["continue_final_message"]


def test_the_order_belongs_to_the_case():
    """Not to the seats: whoever is read first may be favoured. The same case reads the same."""
    summariser = load_settings(PANEL, environ={}).summariser
    assert summariser
    opinion = opinion_of("first", "second", "third")

    def prompt(identity: str) -> str:
        body = request(case_in("en", identity), opinion, summariser)
        return str(body["messages"][0]["content"])

    assert prompt("a") == prompt("a")
    assert len({prompt(str(number)) for number in range(30)}) > 1


@pytest.mark.parametrize(
    ("reply", "language", "texts"),
    [
        ("Left lung", "en", ["left lung", "left lung", "no"]),
        ("The answer is: the left lung.", "en", ["left lung", "left lung", "no"]),
        ("The panel's answer: Left lung", "en", ["left lung", "left lung", "no"]),
        ("The right lung and the left lung.", "en", ["left lung, right lung"] * 2 + ["no"]),
        ("La respuesta es el pulmón izquierdo.", "es", ["pulmón izquierdo"] * 2 + ["no"]),
        ("A", "en", ["A", "A", "B"]),
        ("The answer is A.", "en", ["A", "A", "B"]),
        ("The hepatitis A", "en", ["Hepatitis A", "hepatitis A", "no"]),
        ("答案是左肺。", "zh", ["左肺", "左肺", "没有"]),
        ("是", "zh", ["是", "是", "否"]),
        ("Contact urticaria?", "en", ["Contact urticaria?", "scabies"]),
        ("Contact urticaria", "en", ["Contact urticaria?", "contact urticaria", "scabies"]),
    ],
)
def test_a_reply_that_says_what_the_winners_say_is_faithful(reply, language, texts):
    assert is_faithful(Completion(reply, None), opinion_of(*texts, language=language), language)


@pytest.mark.parametrize(
    ("reply", "language", "texts"),
    [
        ("No", "en", ["yes", "yes", "no"]),
        ("Not left lung", "en", ["left lung", "left lung", "no"]),
        ("Left lung, large", "en", ["left lung", "left lung", "no"]),
        ("Left", "en", ["left lung", "left lung", "no"]),
        ("Left lung, right lung", "en", ["left lung", "left lung", "right lung"]),
        ("Hepatitis A", "en", ["Hepatitis", "Hepatitis", "no"]),
        ("Hepatitis", "en", ["Hepatitis A", "Hepatitis A", "no"]),
        ("Hepatitis infection", "en", ["Hepatitis A infection", "Hepatitis A infection", "no"]),
        ("The answer is", "en", ["yes", "yes", "no"]),
        ("答案是", "zh", ["是", "是", "否"]),
        ("不是", "zh", ["是", "是", "否"]),
        ("Contact urticaria.", "en", ["Contact urticaria?", "scabies"]),
        ("肢端角化病。", "zh", ["肢端角化病？", "湿疹"]),
    ],
)
def test_a_reply_that_adds_drops_or_turns_anything_is_not(reply, language, texts):
    assert not is_faithful(Completion(reply, None), opinion_of(*texts, language=language), language)


ASKED = {
    "en": ("What modality is it?", "Is there an effusion?", "CT", "yes", "no"),
    "es": ("¿Qué modalidad es?", "¿Hay un derrame?", "TC", "sí", "no"),
    "zh": ("这是什么模态？", "图像中有积液吗？", "CT", "有", "没有"),
}
OWN = ["cancer", "metástasis", "转移", "left", "5", "MRI", "?", ". Explanation: sepsis"]
OWN += [
    ". Explicación: sepsis",
    "。解释：脓毒症",
    ", because of sepsis",
    "，因为脓毒症",
    " – sepsis",
]
OWN += [
    " (sepsis)",
    "\nsepsis",
    ": sepsis",
    "; sepsis",
    ". Sepsis",
    "，脓毒症",
    '{"reason": "sepsis"}',
]
TURNS = ["no", "not", "不", ". No", "没有"]


@pytest.mark.parametrize(
    ("language", "said", "reply"),
    [
        ("en", 0, "The answer is CT."),
        ("en", 0, "**Answer:** CT"),
        ("en", 1, "Yes, there is an effusion."),
        ("en", 1, "There is an effusion in the image"),
        ("en", 1, "No. There is no effusion."),
        ("es", 0, "La respuesta es TC."),
        ("es", 1, "Sí, hay un derrame."),
        ("es", 1, "No, no hay derrame."),
        ("zh", 0, "答案是CT。"),
        ("zh", 1, "有，图像中有积液。"),
        ("zh", 1, "没有积液"),
    ],
)
def test_nothing_of_its_own_leaves_with_an_answer(language, said, reply):
    """A reply that says what won may leave; with any claim more, before it, in it or behind it, it
    may not: neither as an explanation, nor as what leads to the answer."""
    *asked, modality, yes, no = ASKED[language]
    denies = reply.startswith(("No", "没有"))
    won = (no if denies else yes) if said else modality
    opinion = judged(asked[said], language, won, won, yes if denies else no)

    def leaves(text: str) -> bool:
        return is_faithful(Completion(text, None), opinion, language, asked[said])

    assert leaves(reply)
    middle = reply.find(" ") + 1 or len(reply) // 2
    for own in OWN + (TURNS if not denies else []):  # who denies twice, denies
        for text in (f"{reply} {own}", f"{own} {reply}", f"{reply[:middle]}{own} {reply[middle:]}"):
            assert not leaves(text), text
        assert not leaves(reply.rstrip(".。") + own)


def test_a_reply_that_explains_itself_is_not_the_verdict(vllm, gateway):
    """No worker said what it explains: the vote answers, and the verdict says so."""
    summariser = vllm("Yes, because the patient has advanced malignancy with fever.")
    url = gateway([vllm("yes"), vllm("no"), vllm("Yes.")], summariser=summariser.url)
    verdict = ask(url, question="Is there an effusion?")
    assert verdict["answer"] == "yes" and len(summariser.requests) == 1
    assert (verdict["summary"]["by"], verdict["summary"]["faithful"]) == ("vote", False)


def test_it_is_spared_when_the_panel_is_of_one_mind(vllm, gateway):
    summariser = vllm("Yes.")
    url = gateway([vllm("yes"), vllm("Yes")], summariser=summariser.url)
    verdict = ask(url)
    unanimous = {"by": "unanimous", "seconds": 0, "faithful": None, "tokens": None}
    assert verdict["summary"] == unanimous | {"reasoning": None, "why": None}
    assert not summariser.requests
    assert ask(url, options={"summarise": "always"})["summary"]["by"] == "summariser"


@pytest.mark.parametrize(
    ("language", "said", "why"),
    [
        ("en", "湿疹", "an answer is in another language than the question"),
        ("es", "湿疹", "una respuesta está en otro idioma que la pregunta"),
        ("zh", "chronic eczema", "有的回答与问题不是同一种语言"),
        ("es", "eczema", None),
        ("zh", "CT", None),
        ("zh", "T2加权像，FLAIR", None),
    ],
)
def test_an_answer_in_another_script_is_told_and_the_vote_worded_by_hand(
    vllm, gateway, language, said, why
):
    """Of two languages in one script nobody is sure; an abbreviation is of no language, and the
    caller's own choices are in whichever he likes."""
    other = "体癣" if language == "zh" else "tinea"
    seats = ['languages = ["en", "es", "zh"]'] * 3
    summariser = vllm(said)
    url = gateway(
        [vllm(said), vllm(other), vllm(said)],
        seats=seats,
        summariser=summariser.url,
        languages=["en", "es", "zh"],
    )
    verdict = ask(url, language=language)
    assert verdict["answer"] == said and verdict["summary"]["why"] == why
    assert verdict["summary"]["by"] == ("vote" if why else "summariser")
    chosen = ask(url, language=language, choices=[said, other])
    assert chosen["summary"]["why"] is None and len(summariser.requests) == 1 + (not why)


def test_it_words_a_divided_panels_answer(vllm, gateway):
    summariser = vllm("The answer is yes.")
    url = gateway([vllm("yes"), vllm("no"), vllm("Yes.")], summariser=summariser.url)
    verdict = ask(url)
    assert verdict["answer"] == "The answer is yes."
    assert verdict["summary"]["by"] == "summariser" and verdict["summary"]["faithful"] is True
    assert [dissent["text"] for dissent in verdict["dissent"]] == ["no"]
    assert summariser.requests[0]["model"] == "summariser"
    assert ask(url, options={"summarise": "never"})["summary"]["by"] == "vote"
    assert len(summariser.requests) == 1


@pytest.mark.parametrize(
    ("fault", "faithful"),
    [
        ({"says": "no"}, False),
        ({"says": "I am a language model"}, False),
        ({"says": ""}, None),
        ({"status": 500, "raw": b""}, None),
        ({"raw": b"<html>"}, None),
        ({"delay_s": 60}, None),
        ({"says": "yes", "finish_reason": "length"}, None),
    ],
)
def test_when_it_fails_the_vote_answers_and_says_so(vllm, gateway, fault, faithful, monkeypatch):
    monkeypatch.setattr("gateway.asking.summariser.DEADLINE_S", 1)
    workers = [vllm("yes"), vllm("no"), vllm("yes")]
    verdict = ask(gateway(workers, summariser=vllm(**fault).url))
    assert verdict["answer"] == "yes"
    assert verdict["summary"]["by"] == "vote" and verdict["summary"]["faithful"] is faithful


def test_without_a_summariser_the_vote_answers(vllm, gateway, dead_url):
    workers = [vllm("yes"), vllm("no"), vllm("yes")]
    assert ask(gateway(workers, summariser=dead_url))["summary"]["by"] == "vote"
    assert ask(gateway(workers))["answer"] == "yes"


def test_a_language_that_it_does_not_speak_is_left_to_the_vote(vllm, gateway):
    summariser = vllm("是")
    seats = ['languages = ["en", "zh"]'] * 3
    url = gateway([vllm("是"), vllm("否"), vllm("是")], seats=seats, summariser=summariser.url)
    verdict = ask(url, language="zh")
    assert verdict["answer"] == "是" and verdict["summary"]["by"] == "vote"
    assert not summariser.requests


def test_choices_bind_it_too(vllm, gateway):
    """In every spelling, also with the blank with which it goes on from its opening: without, the
    shipped one turned a third of the panel's yes and no."""
    summariser = vllm("yes")
    url = gateway([vllm("yes"), vllm("no"), vllm("yes")], summariser=summariser.url)
    verdict = ask(url, choices=["Yes", "No"])
    assert (verdict["answer"], verdict["summary"]["by"]) == ("Yes", "summariser")
    bound = summariser.requests[0]["structured_outputs"]["choice"]
    assert {"Yes", " Yes", " yes", "No", " No"} <= set(bound)
    ask(url, choices=["Yes", "No", "左" * 60])
    assert summariser.requests[1]["max_tokens"] == 182
