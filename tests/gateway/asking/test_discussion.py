"""`rounds = 2`: each worker reads what the others said, once, and may think again."""

import time

from tests.gateway.asking.test_the_panel_survives_its_workers import ask, failures

TWO = {"rounds": 2}


def prompts(worker) -> list[str]:
    return [request["messages"][0]["content"][1]["text"] for request in worker.requests]


def persuadable(request) -> str:
    return "no" if "no" in request["messages"][0]["content"][1]["text"] else "yes"


def test_a_worker_may_be_persuaded(vllm, gateway):
    """Both words of each are in the verdict, the last one counts."""
    firm, weak = vllm("no"), vllm(persuadable)
    verdict = ask(gateway([firm, weak]), options=TWO).json()
    assert [(a["worker"], a["round"], a["text"]) for a in verdict["answers"]] == [
        ("w0", 1, "no"), ("w1", 1, "yes"), ("w0", 2, "no"), ("w1", 2, "no"),
    ]  # fmt: skip
    assert verdict["answer"] == "no" and verdict["agreement"] == 1
    assert [a["weight"] for a in verdict["answers"]] == [None, None, 0.5, 0.5]
    asked = "Question: Is it healthy? Other readers said: no. Answer:"
    assert prompts(weak) == ["Question: Is it healthy? Answer:", asked]
    assert "yes" in prompts(firm)[1] and "w1" not in prompts(firm)[1]


def test_a_panel_of_one_mind_has_nothing_to_discuss(vllm, gateway):
    worker = vllm("Yes.")
    verdict = ask(gateway([worker, vllm("yes")]), options=TWO).json()
    assert len(worker.requests) == 1 and len(verdict["answers"]) == 2


def test_who_fails_in_the_second_round_is_taken_at_the_first_word(vllm, gateway):
    late = vllm("yes", delay_s=lambda: 30 if late.requests[1:] else 0)
    url = gateway([vllm("no"), late, vllm(status=500, raw=b"")], panel="quorum = 2\ndeadline_s = 2")
    began = time.perf_counter()
    response = ask(url, options=TWO)
    # The deadline is that of both rounds together.
    assert time.perf_counter() - began < 6
    assert failures(response) == {"w1": "timeout", "w2": "unreachable"}
    verdict = response.json()
    assert [a["weight"] for a in verdict["answers"]] == [None, 0.5, None, 0.5, None]
    assert [d["text"] for d in verdict["dissent"]] == ["yes"]


def test_the_second_round_is_streamed_too(vllm, gateway):
    import httpx

    from tests.gateway.asking.test_the_panel_survives_its_workers import CASE

    url = gateway([vllm("no"), vllm(persuadable)])
    stream = {"accept": "text/event-stream"}
    events = httpx.post(f"{url}/vqa", json=CASE | {"options": TWO}, headers=stream).text
    assert events.count("event: answer") == 4 and events.count("event: verdict") == 1
    assert '"heard":2,"asked":2' in events.split("event: verdict")[0][-200:]
