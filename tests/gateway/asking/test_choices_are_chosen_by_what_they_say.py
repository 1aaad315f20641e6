"""A choice's spelling decides nothing: a worker may write it as it is used to, and the caller reads
his own."""

import json
import math

import pytest

from gateway.asking.model_server import spellings
from gateway.asking.panel import OWN_CASE
from tests.gateway.asking.test_the_panel_survives_its_workers import ask, failures
from tests.gateway.verdict.test_second_thoughts_are_kept import reply, token


def bound(request) -> set[str]:
    return set(request["structured_outputs"]["choice"])


def test_choices_bind_the_workers(vllm, gateway):
    """vLLM is told the choices; an answer outside them is garbage, not a vote."""
    keeps, strays = vllm(" PNEUMONIA."), vllm("maybe")
    response = ask(gateway([keeps, strays]), choices=["Pneumonia", "no finding"])
    assert response.json()["answer"] == "Pneumonia"
    assert failures(response) == {"w1": "garbage"}
    assert {"Pneumonia", " pneumonia", "No finding", " No Finding"} <= bound(keeps.requests[0])


def test_who_has_no_token_for_any_choice_is_told_as_such(vllm, gateway):
    """vLLM answers 500 to that; the panel goes on, and without choices a 500 is a failure alone. So
    is a 503, which a proxy says of a server that is down: another time it may answer."""
    broken = vllm(status=500, raw=b"{}")
    seats = ['languages = ["en"]', 'languages = ["en"]\none_token = true']
    url = gateway([vllm("left"), broken], seats=seats)
    verdict = ask(url, choices=["left", "right"]).json()
    assert verdict["answer"] == "left" and verdict["answers"][1]["error"]["kind"] == "refused"
    told = "It knows none of the choices, or failed (HTTP 500)."
    assert verdict["answers"][1]["error"]["detail"] == told
    assert failures(ask(url)) == {"w1": "unreachable"}
    for number in range(4):
        ask(url, question=f"{number}?", choices=["left", "right"])
    assert OWN_CASE.question not in str(broken.requests)  # no doubt of a seat that only says so
    broken.status = 503
    assert failures(ask(url, choices=["left", "right"])) == {"w1": "unreachable"}


@pytest.mark.parametrize("choices", [["yes", "no"], ["Yes", "No"], ["YES", "NO"], [" Yes", "nO"]])
def test_every_spelling_asks_for_the_same(vllm, gateway, choices):
    """And what comes back is in the caller's own."""
    worker = vllm(" Yes")
    verdict = ask(gateway([worker]), choices=choices).json()
    assert verdict["answer"] == verdict["answers"][0]["text"] == choices[0]
    usual = {"yes", "Yes", "YES", " yes", " Yes", " YES", "no", "No", "NO", " no", " No", " NO"}
    assert usual <= bound(worker.requests[0])


@pytest.mark.parametrize(
    ("choice", "written"),
    [
        ("left lung", {"left lung", "Left lung", "Left Lung", "LEFT LUNG", " Left Lung"}),
        ("MRI", {"MRI", "mri", " MRI"}),
        ("左肺", {"左肺", " 左肺"}),
    ],
)
def test_a_choice_is_bound_in_every_spelling(choice, written):
    assert written <= set(spellings(choice)) and spellings(choice)[0] == choice


@pytest.mark.parametrize(
    "said", ["B", "b.", "(B)", "B. MRI", "MRI", "Option B: MRI", "选B", "Opción B"]
)
def test_choices_that_have_letters_are_named_by_them(vllm, gateway, said):
    """And so is what the question gives letters to."""
    choices = ["A. CT", "B. MRI", "C. X-ray"]
    assert ask(gateway([vllm(said)]), choices=choices).json()["answer"] == "B. MRI"
    question = "Which is it? A. CT B. MRI C. X-ray"
    named = ask(gateway([vllm(said)]), question=question, choices=["CT", "MRI", "X-ray"])
    assert named.json()["answer"] == "MRI"


@pytest.mark.parametrize("said", ["B", "A. MRI", "D"])
def test_a_letter_that_names_no_choice_is_none(vllm, gateway, said):
    """Of choices without letters nobody knows which one a worker that broke the bond meant; nor of
    a letter with another one's words."""
    choices = ["CT", "MRI"] if said == "B" else ["A. CT", "B. MRI"]
    worker, keeps = vllm(said), vllm(choices[0])
    assert failures(ask(gateway([worker, keeps]), choices=choices)) == {"w0": "garbage"}


@pytest.mark.parametrize("said", ["<|begin_of_box|>No<|end_of_box|>", "### Assistant: No"])
def test_what_a_template_puts_around_an_answer_is_none_of_it(vllm, gateway, said):
    verdict = ask(gateway([vllm(said), vllm("no")])).json()
    assert verdict["answers"][0]["text"] == "No" and verdict["agreement"] == 1


def test_a_long_choice_is_not_cut_off(vllm, gateway):
    """A token may be a single byte, a blank goes before it, and the last one only ends it."""
    worker = vllm("No")
    ask(gateway([worker]), choices=["No", "左肺" * 40])
    assert worker.requests[0]["max_tokens"] == 242


def test_the_probabilities_of_all_spellings_add_up(vllm, gateway):
    """Those of the answer to its confidence, those of another choice to that one's; what is none
    of the choices could not be said."""
    others = {" yes": 0.2, " No": 0.15, "no": 0.1, " Maybe": 0.05}
    worker = vllm(raw=reply(" Yes", token(" Yes", 0.5, **others)))
    [answer] = ask(gateway([worker]), choices=["yes", "no", "left"]).json()["answers"]
    assert answer["text"] == "yes" and answer["confidence"] == pytest.approx(0.7)
    [other] = answer["alternatives"]
    assert (other["begins"], other["whole"]) == ("no", True)
    assert other["probability"] == pytest.approx(0.25)


def test_a_beginning_of_two_choices_stays_a_beginning(vllm, gateway):
    raw = reply("Heart", token("Heart", 0.6, **{"Left": 0.3, "Right lung": 0.1}))
    choices = ["heart", "left lung", "left kidney", "right lung"]
    [answer] = ask(gateway([vllm(raw=raw)]), choices=choices).json()["answers"]
    told = [(a["begins"], a["whole"]) for a in answer["alternatives"]]
    assert told == [("Left", False), ("right lung", True)]


THOUGHT = "<think>It is black. Yes? No."


@pytest.mark.parametrize(
    "said",
    [
        "{thought}</think>\n\nNo",
        "It is black.</think>No",  # its template began the thought
        "<thinking>Yes?</thinking> No",
        "<think>\n\n</think>\n\nNo",
        "[THINK]Yes?[/THINK]No",
        "<unused94>thought\nYes?<unused95>No",
        "<THINK>Yes?</THINK>No",
        "<thoughts>Yes?</thoughts>No",
        "<seed:think>Yes?</seed:think>No",
        "analysisYes? It is.assistantfinal No",
        "<|START_THINKING|>Yes?<|END_THINKING|><|START_RESPONSE|>No<|END_RESPONSE|>",
        "<|begin_of_thought|>Yes?<|end_of_thought|><|begin_of_solution|>No<|end_of_solution|>",
        "<REASONING>Yes?</REASONING><CONCLUSION>No</CONCLUSION>",
        "No</s>",
        "No<|im_end|>\n<|endoftext|>",
        "No<end_of_utterance>",
        "No<eos>",
        "\ufeffN\u200bo",
        "<|channel|>analysis<|message|>Yes?<|end|><|start|>assistant<|channel|>final<|message|>No",
    ],
)
def test_thoughts_are_no_answer(vllm, gateway, said):
    said = said.format(thought=THOUGHT)
    verdict = ask(gateway([vllm(said), vllm("no")])).json()
    assert verdict["answers"][0]["text"] == "No" and verdict["agreement"] == 1


@pytest.mark.parametrize(
    "said",
    [
        THOUGHT,
        "<thinking>No",
        "<|channel|>analysis<|message|>No",
        "<unused94>thought No",
        "No <think>but maybe",
        "<Analysis>No",
        "<|START_THINKING|>No",
        "analysisThe user asks. No",
    ],
)
def test_a_thought_without_an_end_has_no_answer(vllm, gateway, said):
    assert failures(ask(gateway([vllm(said), vllm("no")]))) == {"w0": "cut_short"}


def test_an_answers_confidence_is_that_of_its_own_tokens(vllm, gateway):
    """However unsure it was while it thought."""
    thought = [token("<think>", 1.0), token("Yes?", 0.1), token("</think>", 1.0), token("\n\n", 1)]
    raw = reply("<think>Yes?</think>\n\nNo", *thought, token("No", 0.8, Yes=0.2))
    [answer] = ask(gateway([vllm(raw=raw)])).json()["answers"]
    assert answer["confidence"] == pytest.approx(0.8)
    assert [a["begins"] for a in answer["alternatives"]] == ["Yes"]


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_thoughts_that_the_server_has_parted_count_as_little(vllm, gateway, field):
    """The answer's tokens are found behind them; where they are not, there is no confidence."""

    def parted(*tokens) -> bytes:
        content = json.loads(reply("No", *tokens))
        content["choices"][0]["message"][field] = "Yes?"
        return json.dumps(content).encode()

    found = vllm(raw=parted(token("Yes?", 0.1), token("</think>", 1.0), token("No", 0.9)))
    lost = vllm(raw=parted(token("N", math.exp(-2)), token("\ufffd", 0.5)))
    first, second = ask(gateway([found, lost])).json()["answers"]
    assert first["confidence"] == pytest.approx(0.9)
    assert second["text"] == "No" and second["confidence"] is None
