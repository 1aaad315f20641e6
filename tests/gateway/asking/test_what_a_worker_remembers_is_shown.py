"""A worker that remembers names the cases that it goes by; so does the verdict."""

import json

import pytest

from tests.gateway.asking.test_the_panel_survives_its_workers import ask

CASE = {"id": "slake/train-7", "question": "Which organ?", "answer": "Liver", "likeness": 0.93}


def reply(remembers: object) -> bytes:
    message = {"role": "assistant", "content": "Liver"}
    return json.dumps({"choices": [{"message": message, "remembers": remembers}]}).encode()


@pytest.mark.parametrize("choices", [None, ["liver", "spleen"]])
def test_the_cases_stand_in_its_answer(vllm, gateway, choices):
    """Also where it chose among the caller's answers, and where it was asked before."""
    remembers, forgets = vllm(raw=reply([CASE])), vllm("Spleen")
    url = gateway([remembers, forgets])

    first = ask(url, choices=choices).json()
    again = ask(url, choices=choices, options={"workers": ["w0"]}).json()

    assert [answer["remembers"] for answer in first["answers"]] == [[CASE], []]
    assert again["answers"][0]["remembers"] == [CASE]
    assert len(remembers.requests) == 1


@pytest.mark.parametrize(
    ("remembers", "shown"),
    [
        (None, 0),
        ("all of them", 0),
        ([CASE | {"likeness": 2}], 0),
        ([CASE | {"question": "?" * 2001}], 0),
        ([CASE | {"patient": "x"}], 0),
        ([CASE] * 50, 10),
    ],
)
def test_an_answer_stands_whatever_its_server_calls_remembering(vllm, gateway, remembers, shown):
    """None of it is shown that is not what it should be, and not more of it than can be read."""
    [answer] = ask(gateway([vllm(raw=reply(remembers))])).json()["answers"]

    assert answer["text"] == "Liver"
    assert len(answer["remembers"]) == shown
