"""A verdict tells how far it depends on the image: what its workers say over a grey picture is
asked once for each question, and in nobody's way."""

import base64
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.asking import grey
from gateway.door import keys
from gateway.settings import SettingsError, load_settings
from gateway.verdict.competence import Competence, Line, Skill, Worker, save_competence
from gateway.verdict.grey_answers import GreyAnswers, GreySeat, beside, save_grey_answers
from tests.conftest import picture, serving, until
from tests.mock_vllm import MockVllm

BEHIND = "quorum = 1\ngrounding = true"
SIGHT = {"grounding": True}
PROMPT = "Question: {question} Answer:"


def case(question: str = "Is it healthy?", width: int = 32, **changes: Any) -> dict[str, Any]:
    """Another width is another image."""
    image = base64.b64encode(picture(size=(width, 24))).decode()
    return {"question": question, "images": [image]} | changes


def ask(url: str, *asked: Any, **changes: Any) -> dict[str, Any]:
    response = httpx.post(f"{url}/vqa", json=case(*asked, **changes), timeout=30)
    assert response.status_code == 200, response.text
    return dict(response.json())


def is_grey(request: dict[str, Any]) -> bool:
    shown = request["messages"][0]["content"][0]
    return bool(shown == json.loads(grey.GREY.part))


def over_grey(worker: MockVllm) -> list[str]:
    """The questions that it was asked so."""
    texts = [r["messages"][0]["content"][-1]["text"] for r in worker.requests if is_grey(r)]
    return [text.removeprefix("Question: ").removesuffix(" Answer:") for text in texts]


def looks(shown: str = "yes", grey: str = "no") -> Callable[[dict[str, Any]], str]:
    return lambda request: grey if is_grey(request) else shown


def test_it_is_asked_behind_the_first_verdict_and_told_from_the_second_on(vllm, gateway):
    """One worker answers without looking, one looks; the same case is told it too."""
    blind, sees = vllm("yes"), vllm(looks())
    url = gateway([blind, sees], panel=BEHIND)

    first = ask(url)
    until(lambda: len(over_grey(blind)) == len(over_grey(sees)) == 1)
    until(lambda: ask(url)["grounding"] is not None)
    again, other = ask(url), ask(url, width=33)
    alone = [ask(url, options={"workers": [name]})["grounding"] for name in ("w0", "w1")]

    assert first["grounding"] is None
    assert again["cached"] and again["grounding"] == other["grounding"] == pytest.approx(0.45)
    assert not other["cached"] and alone == pytest.approx([0, 0.9])
    assert [len(worker.requests) for worker in (blind, sees)] == [3, 3]
    assert over_grey(blind) == over_grey(sees) == ["Is it healthy?"]


def test_a_case_may_wait_for_it(vllm, gateway):
    """In a stream, in a chat and without; for as many pictures, in context, among its choices."""
    worker = vllm("yes")
    url = gateway([worker])
    images = case()["images"] + case(width=33)["images"]

    verdict = ask(url, options=SIGHT, images=images, context="cough", choices=["yes", "no"])
    events = httpx.post(
        f"{url}/vqa", json=case("Here?", options=SIGHT), headers={"accept": "text/event-stream"}
    )
    uri = f"data:image/png;base64,{images[0]}"
    content = [
        {"type": "image_url", "image_url": {"url": uri}},
        {"type": "text", "text": "So?"},
    ]
    body = {"model": "consilium", "messages": [{"role": "user", "content": content}]}
    chat = httpx.post(f"{url}/v1/chat/completions", json=body | {"consilium": {"options": SIGHT}})

    assert verdict["grounding"] == 0
    shown, over = worker.requests[:2]
    assert [part.get("text") for part in over["messages"][0]["content"]] == [
        None,
        None,
        "Question: cough\nIs it healthy? Answer:",
    ]
    assert over["structured_outputs"] == shown["structured_outputs"]
    assert json.loads(events.text.rpartition("data: ")[2])["grounding"] == 0
    said = chat.json()["choices"][0]["message"]["content"]
    assert said == "yes\n\nThe same answer as without the image."


def test_it_waits_no_longer_than_the_case_has(vllm, gateway):
    delays = iter([0, 30])
    worker = vllm("yes", delay_s=lambda: next(delays))
    verdict = ask(gateway([worker]), options=SIGHT | {"deadline_s": 0.3})
    assert (verdict["answer"], verdict["grounding"]) == ("yes", None)


def test_cases_that_come_together_ask_once(vllm, gateway):
    worker = vllm(looks(), delay_s=0.2)
    url = gateway([worker])
    with ThreadPoolExecutor(4) as pool:
        cases = [pool.submit(ask, url, width=32 + n, options=SIGHT) for n in range(4)]
        assert [case.result()["grounding"] for case in cases] == [pytest.approx(0.9)] * 4
    assert over_grey(worker) == ["Is it healthy?"]


def test_who_says_nothing_over_grey_costs_nothing(vllm, gateway):
    """It does not count where the case waited; else it is asked again with the question. The
    verdict is as whole as any."""
    sound, failing = vllm("yes"), vllm(looks(grey=""))
    url = gateway([sound, failing], panel=BEHIND)

    assert ask(url)["grounding"] is None
    until(lambda: len(over_grey(failing)) == 1)
    again = ask(url)
    until(lambda: len(over_grey(failing)) == 2)
    waited = ask(url, options=SIGHT)

    assert again["cached"] and again["grounding"] is None
    assert waited["grounding"] == 0 and len(waited["answers"]) == 2
    assert over_grey(sound) == ["Is it healthy?"]


def test_of_a_discussion_the_first_round_counts(vllm, gateway):
    """What is said after the others were heard depends on them."""
    url = gateway([vllm("yes"), vllm(looks("no", "no"))])
    verdict = ask(url, options=SIGHT | {"rounds": 2})
    assert len(verdict["answers"]) == 4 and verdict["grounding"] == 0


def test_tenants_share_none_of_it(vllm, gateway, tmp_path):
    file, worker = tmp_path / "keys.json", vllm()
    both = [keys.add(file, tenant, None, admin=False) for tenant in ("clinic", "ward")]
    url = gateway([worker], environ={"CONSILIUM_KEYS": str(file)})
    for key in both:
        headers = {"authorization": f"Bearer {key}"}
        httpx.post(f"{url}/vqa", json=case(options=SIGHT), headers=headers)
    assert len(over_grey(worker)) == 2
    assert len({request["cache_salt"] for request in worker.requests}) == 2


def test_no_worker_is_asked_that_a_case_waits_for_and_only_so_much_later(
    vllm, gateway, monkeypatch
):
    """What does not find a place in line is asked when the question comes again."""
    monkeypatch.setattr(grey, "MOST", 2)
    worker = vllm("yes", delay_s=30, only="slow")
    url = gateway([worker, vllm("yes")], panel=BEHIND)
    only = {"workers": ["w0"]}
    events = {"accept": "text/event-stream"}
    with httpx.stream("POST", f"{url}/vqa", json=case("slow?"), headers=events) as slow:
        lines = slow.iter_lines()
        next(lines)  # the other worker has answered
        for question in ("one?", "two?", "three?", "one?"):
            ask(url, question, options=only)
        assert over_grey(worker) == []
    until(lambda: ask(url, "two?", options=only)["grounding"] == 0)
    ask(url, "four?", options=only | SIGHT)
    assert over_grey(worker) == ["one?", "two?", "four?"]
    until(lambda: ask(url, "three?", options=only)["grounding"] == 0)


def test_what_is_in_line_ends_with_its_panel(vllm, gateway):
    """At a reload; open cases may still wait for theirs."""
    worker = vllm("yes", delay_s=30, only="slow")
    url = gateway([worker, vllm("yes")], panel=BEHIND)
    events = {"accept": "text/event-stream"}
    with httpx.stream("POST", f"{url}/vqa", json=case("slow?"), headers=events) as slow:
        lines = slow.iter_lines()
        next(lines)
        ask(url, "one?")
        assert httpx.post(f"{url}/panel/reload").status_code == 200
    assert ask(url, "two?", options=SIGHT)["grounding"] == 0
    assert over_grey(worker) == ["two?"]


def test_a_case_keeps_the_call_that_it_waits_for(vllm, gateway):
    """Begun behind another verdict, by a panel that is then replaced."""
    delays = iter([0, 0.6, 0])
    worker = vllm(looks(), delay_s=lambda: next(delays))
    url = gateway([worker], panel=BEHIND)
    ask(url)
    until(lambda: len(over_grey(worker)) == 1)
    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(ask, url, width=40, options=SIGHT)
        until(lambda: len(worker.requests) == 3)
        assert httpx.post(f"{url}/panel/reload").status_code == 200
        assert waits.result()["grounding"] == pytest.approx(0.9)
    assert over_grey(worker) == ["Is it healthy?"]


def test_a_gateway_that_stops_does_not_wait_for_it(vllm, panel_file):
    delays = iter([0, 30])
    worker = vllm("yes", delay_s=lambda: next(delays))
    with serving(load_settings(panel_file([worker.url], panel=BEHIND), environ={})) as url:
        ask(url)
        until(lambda: len(over_grey(worker)) == 1)
    until(lambda: worker.dropped == 1)


@pytest.fixture
def shipped(tmp_path: Path) -> Path:
    """Beside a competence file: what w0 says over grey, and w1 under another prompt."""
    path = tmp_path / "competence.json"
    seats = {"w0": PROMPT, "w1": "{question}"}
    skills = {"": Skill(cases=100, accuracy=0.6, offset=0.0)}
    workers = {
        name: Worker(model="mock", prompt=PROMPT, slope=1.0, skills=skills) for name in seats
    }
    learned = Competence(
        learned_from="nothing", workers=workers, correlation={}, verdict={"en": Line()}
    )
    save_competence(learned, path)
    told = dict.fromkeys(seats, ("no", 0.8, (("ye", False, 0.2),)))
    greys = {name: GreySeat(model="mock", prompt=prompt) for name, prompt in seats.items()}
    found = GreyAnswers(workers=greys, answers={"en": {"Is it healthy?": told}})
    save_grey_answers(found, beside(path))
    return beside(path)


COMPETENT = 'quorum = 1\ncompetence = "competence.json"'


def test_what_is_shipped_is_told_at_once_and_asked_of_nobody(vllm, gateway, shipped):
    """Of a worker that is seated as it was then, for a question without context or choices."""
    workers = [vllm("yes"), vllm("yes")]
    url = gateway(workers, panel=COMPETENT + "\ngrounding = true")

    first = ask(url, options={"workers": ["w0"]})
    among = ask(url, options={"workers": ["w0"]}, choices=["yes", "no"])
    other = ask(url)

    assert first["grounding"] == pytest.approx(0.8)
    assert among["grounding"] is other["grounding"] is None
    until(lambda: [len(over_grey(worker)) for worker in workers] == [1, 1])
    assert "structured_outputs" in workers[0].requests[-1]


def test_a_broken_file_of_it_is_one_line_and_none_is_fine(panel_file, shipped):
    panel = panel_file(["http://127.0.0.1:1"] * 2, panel=COMPETENT)
    shipped.write_text("{")
    with pytest.raises(SettingsError, match=r"competence.grey.json: .*calibrate --grey") as failed:
        load_settings(panel, environ={})
    assert "\n" not in str(failed.value)
    shipped.unlink()
    assert load_settings(panel, environ={}).grey_answers is None
