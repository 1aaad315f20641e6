"""A worker is not asked again what it has just said to the very same case."""

from tests.gateway.asking.test_the_panel_survives_its_workers import ask, failures


def test_only_who_failed_is_asked_again(vllm, gateway):
    sound, failing = vllm("yes"), vllm(status=500, raw=b"")
    url = gateway([sound, failing])
    assert failures(ask(url)) == {"w1": "unreachable"}
    failing.status, failing.raw = 200, None
    again = ask(url)
    assert failures(again) == {} and again.json()["cached"] is False
    assert (len(sound.requests), len(failing.requests)) == (1, 2)


def test_other_options_cost_no_other_answers(vllm, gateway):
    """What the panel is asked for may differ; what a worker is told does not."""
    worker = vllm("yes")
    url = gateway([worker, vllm("no")])
    first = ask(url).json()
    again = ask(url, options={"workers": ["w0"]}).json()
    assert len(worker.requests) == 1 and again["cached"] is False
    kept = {"text", "confidence", "alternatives"}
    assert {k: first["answers"][0][k] for k in kept} == {k: again["answers"][0][k] for k in kept}


def test_another_question_is_asked(vllm, gateway):
    worker = vllm("yes")
    url = gateway([worker])
    for change in ({}, {"question": "Is it?"}, {"context": "x"}, {"choices": ["yes", "no"]}):
        ask(url, **change)
    assert len(worker.requests) == 4


def test_gateways_share_answers_through_redis(vllm, gateway, redis_server):
    worker, panel = vllm("yes"), f'quorum = 1\nstore = "{redis_server.url}"'
    secret = {"CONSILIUM_SECRET": "shared"}
    ask(gateway([worker], panel=panel, environ=secret))
    ask(gateway([worker], panel=panel, environ=secret), options={"wait": "enough"})
    assert len(worker.requests) == 1
