"""A gateway that is away for a moment, or tells its caller to slow down, costs time; no answer."""

import asyncio
import json
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from limits import RateLimitItemPerSecond

from consilium import GatewayError, GatewayRefused, ask
from consilium import patience as waiting
from consilium.patience import Patience
from gateway.door import admission, keys
from models.metrics import score as bootstrap
from services.evaluation.asking.evaluate import evaluate
from services.evaluation.asking.over_rest import Pace
from services.evaluation.stored_run import EvaluationError, Verdicts
from tests.fake_gateway import DROPPED, VERDICT, problem

PROXY = b"<html><h1>Bad Gateway</h1></html>"
LIMIT = 20
WHOLE = VERDICT.model_dump_json().encode()
# No wait, or none that anybody can read: then it waits as it would by itself.
ODD_WAITS = (
    "Thu, 01 Jan 1970 00:00:00 GMT",
    "Fri, 01 Jan 2027 00:00:00 +99999999999999",
    "Mon, 32 Jan 2026 00:00:00 GMT",
    "-5",
    "0.5",
    "soon",
    "",
)


@pytest.fixture
def run(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.setattr(waiting, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(bootstrap, "RESAMPLES", 20)  # intervals are looked at elsewhere

    def run(url: str, **kwargs: Any) -> dict[str, Any]:
        where = {"dataset": "slake", "split": "validate", "language": "en", "data": data}
        return evaluate(gateway_url=url, out=tmp_path / "out", limit=LIMIT, **where, **kwargs)

    return run


@pytest.mark.parametrize(
    "fails",
    [
        [(502, {}, PROXY)],
        [(503, {}, PROXY), (504, {}, b"")],
        [DROPPED] * 6,
        [problem(503, retry_after="0"), problem(503)],
        [problem(429, retry_after="0")] * 5,
        [(200, {}, WHOLE[:-1]), (200, {}, WHOLE[:1])],
        [(503, {"retry-after": odd}, PROXY) for odd in ODD_WAITS],
    ],
)
def test_what_passes_is_waited_for(fake, run, fails):
    """Each failure costs one more attempt, and every question gets its verdict."""
    gateway = fake(*fails)
    summary = run(gateway.url)

    assert summary["failed"] == summary["open_cases"] == 0
    assert summary["scores"]["panel"]["all"]["scored"] == LIMIT
    assert len(gateway.requests) == LIMIT + len(fails)


def test_a_key_that_may_ask_less_often_finishes_all(
    vllm, gateway, data, run, tmp_path, monkeypatch
):
    """It waits as the gateway says; here a minute lasts a second."""
    monkeypatch.setattr(admission, "RateLimitItemPerMinute", RateLimitItemPerSecond)
    key = keys.add(tmp_path / "keys.json", "clinic", LIMIT // 2 + 2, False)
    monkeypatch.setenv("CONSILIUM_KEY", f" {key}\r\n")
    url = gateway([vllm("Yes")], environ={"CONSILIUM_KEYS": str(tmp_path / "keys.json")})

    assert run(url)["scores"]["panel"]["all"]["scored"] == LIMIT


@pytest.mark.parametrize("status", [400, 413, 422, 500])
def test_what_a_question_is_refused_for_is_not_asked_again(fake, run, status, capsys):
    """It fails, is counted and told of, and the others go on."""
    gateway = fake(problem(status, "Not so."), problem(status, "Not so."))
    assert run(gateway.url)["failed"] == 2
    assert len(gateway.requests) == LIMIT
    told = re.findall(
        r"^one of 2 without a verdict, \S+: (.*)$", capsys.readouterr().out, re.MULTILINE
    )
    assert told == ["Not so."] * 2


def test_what_is_too_large_for_a_proxy_is_one_question_s_own(fake, run, capsys):
    """A proxy's page says so, and no gateway: the next question may be smaller."""
    gateway = fake((413, {}, b"<html>413 Request Entity Too Large</html>"))
    assert run(gateway.url)["failed"] == 1
    assert len(gateway.requests) == LIMIT
    assert "takes nothing so large: raise the limit of what" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("fails", "patience_s", "says"),
    [
        ([problem(401, "This key is not known here.")], 300, "This key is not known here"),
        ([DROPPED] * 9, 0, "No verdict from http"),
        ([(502, {}, PROXY)] * 99, 0.05, "answered HTTP 502"),
        ([problem(429, "More than 30 in a minute.", retry_after="60")], 5, "More than 30"),
        ([problem(503, "Busy.", retry_after="9" * 400)], 300, "Busy"),
        ([problem(503, "Busy.", retry_after="Fri, 31 Dec 9999 23:59:59 GMT")], 300, "Busy"),
        ([(200, {}, b"<html>")], 300, "answered HTTP 200, but not as a gateway does"),
        ([(200, {}, b"{}")], 300, "answered HTTP 200, but not as a gateway does"),
        ([(302, {"location": "/vqa"}, b"")], 300, "answered HTTP 302, but not as a gateway does"),
    ],
)
def test_who_gives_up_says_how_to_go_on(fake, run, fails, patience_s, says):
    """Once patience is at its end, or at once where no later question would fare better; the same
    command then asks what is left."""
    gateway = fake(*fails)
    with pytest.raises(EvaluationError, match=rf"{says}.* questions have no verdict yet; run the"):
        run(gateway.url, patience_s=patience_s)
    gateway.fails = []
    assert run(gateway.url)["failed"] == 0


def test_a_full_disk_keeps_what_was_gathered(fake, run, monkeypatch):
    """And the same command goes on once there is room."""
    gateway, room, keep = fake(), [7], Verdicts.keep

    def keep_where_there_is_room(kept, case, said):
        if not room[0]:
            raise OSError("verdicts.jsonl could not be written: No space left on device.")
        room[0] -= 1
        return keep(kept, case, said)

    says = r"No space left on device\. 13 questions have no verdict yet; run the same command"
    with monkeypatch.context() as full, pytest.raises(EvaluationError, match=says):
        full.setattr(Verdicts, "keep", keep_where_there_is_room)
        run(gateway.url)
    gateway.requests.clear()
    assert run(gateway.url)["failed"] == 0
    # What was under way when the run broke off may come late, and is then asked again.
    assert len(set(map(json.dumps, gateway.requests))) == LIMIT - 7


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "http://127.0.0.1:port"])
def test_what_is_no_address_is_told(run, url):
    with pytest.raises(EvaluationError, match="is no address of a gateway: write http://"):
        run(url)


def test_a_key_beside_a_password_in_the_address_is_told(fake, run, monkeypatch):
    """In a sentence, and before anything is asked."""
    gateway = fake()
    monkeypatch.setenv("CONSILIUM_KEY", "consilium_a")
    with pytest.raises(GatewayError, match="a request carries only one of them"):
        run(gateway.url.replace("//", "//user:s3cret@"))
    assert not gateway.requests


def test_a_gateway_elsewhere_is_reached_by_the_proxy_that_ask_goes_by(
    fake, run, tmp_path, monkeypatch
):
    """With the key alone, whatever else is known of that host; and it is not ours to start."""
    proxy, url = fake(), "http://gateway.invalid:8000"
    (tmp_path / "netrc").write_text("machine gateway.invalid login a password b\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("CONSILIUM_KEY", "consilium_a")
    monkeypatch.setenv("http_proxy", proxy.url.removeprefix("http://"))
    monkeypatch.delenv("no_proxy", raising=False)

    assert run(url)["failed"] == 0
    assert proxy.keys == ["Bearer consilium_a"] * LIMIT
    monkeypatch.setenv("no_proxy", "gateway.invalid")
    with pytest.raises(EvaluationError, match=f"No gateway answers at {url}; is it up"):
        run(url)


def test_without_a_key_it_is_the_gateway_that_says_so(vllm, gateway, run, tmp_path, monkeypatch):
    """Not that none is there."""
    monkeypatch.delenv("CONSILIUM_KEY", raising=False)
    keys.add(tmp_path / "keys.json", "clinic", None, False)
    url = gateway([vllm("Yes")], environ={"CONSILIUM_KEYS": str(tmp_path / "keys.json")})
    with pytest.raises(GatewayRefused, match="Send your key as the header Authorization"):
        run(url)


def test_a_gateway_that_is_restarted_in_mid_run_is_waited_for(vllm, gateway_process, run, tmp_path):
    """A real one, killed with cases open, and away for a while."""
    worker = vllm("Yes", delay_s=0.1)
    process = gateway_process([worker])
    lines = tmp_path / "out" / "verdicts.jsonl"

    def restart() -> None:
        while not lines.exists() or lines.read_bytes().count(b"\n") < LIMIT // 4:
            time.sleep(0.01)
        process.stop()
        time.sleep(0.5)
        process.start()

    with ThreadPoolExecutor(1) as other:
        restarted = other.submit(restart)
        summary = run(process.url, concurrency=2)
        restarted.result(timeout=30)

    assert summary["failed"] == 0
    ids = [json.loads(line)["id"] for line in lines.read_text("utf-8").splitlines()]
    assert len(ids) == len(set(ids)) == LIMIT


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(time, "sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.now += seconds


AWAY = GatewayError("away", may_pass=True)


def test_waits_grow_until_patience_is_at_its_end(monkeypatch):
    """And begin anew once something got through."""
    clock = Clock(monkeypatch)
    patience, waits = Patience(60), []
    while patience.goes_on(AWAY, clock.now):
        waits.append(patience.wait_s)
        clock.sleep(patience.wait_s)
    assert waits == [1, 2, 4, 8, 16]
    patience.got_through()
    assert patience.goes_on(AWAY, clock.now) and patience.wait_s == 1


def test_all_wait_where_one_is_told_to(monkeypatch):
    """Those that were under way at that moment fail with it, and do not make it longer."""
    clock, told = Clock(monkeypatch), []
    patience, sent = Patience(60, told.append), clock.now
    clock.sleep(1)
    for _ in range(4):
        assert patience.goes_on(GatewayError("slower", True, 37), sent)
        assert patience.wait_s == 37
    assert told == ["waiting 37 s: slower"]


def test_the_client_waits_too_where_it_is_given_patience(fake, monkeypatch):
    """As long as Retry-After says, in seconds or as a date."""
    clock = Clock(monkeypatch)
    monkeypatch.setattr(time, "time", lambda: 784111777.0)
    gateway = fake(
        problem(429, retry_after="40"),
        problem(503, retry_after="Sun, 06 Nov 1994 08:50:07 GMT"),
        problem(503, retry_after="soon"),
    )
    assert ask(b"image", "?", url=gateway.url, patience_s=120).answer == "Yes"
    assert clock.now == 1000 + 40 + 30 + 4
    gateway.fails = [problem(429)]
    with pytest.raises(GatewayRefused):
        ask(b"image", "?", url=gateway.url)


async def test_fewer_are_asked_at_a_time_where_one_is_told_to_wait():
    """Those under way with it count once; and one more for each round that gets through."""
    pace, now = Pace(8), time.monotonic()
    for _ in range(5):
        pace.slow_down(now)
    assert pace.at_a_time == 4
    for _ in range(9):
        pace.slow_down(time.monotonic())
    assert pace.at_a_time == 1
    rounds = []
    for _ in range(40):
        pace.got_through()
        rounds.append(pace.at_a_time)
    assert rounds[0] == 2 and rounds[:30] == sorted(rounds[:30]) and rounds[-1] == 8


async def test_no_more_are_under_way_than_its_pace_allows():
    pace, under_way, most = Pace(4), 0, 0
    pace.slow_down(time.monotonic())

    async def call() -> None:
        nonlocal under_way, most
        async with pace.turn():
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(0)
            under_way -= 1

    await asyncio.gather(*(call() for _ in range(12)))
    assert most == 2


def test_the_line_says_how_it_goes(fake, run, capsys):
    """At its end: all, how many a second, how many right and failed, and how many at a time."""
    gateway = fake(problem(429, retry_after="0"), problem(500))
    run(gateway.url, concurrency=2)
    said = re.sub(r"\s+", " ", capsys.readouterr().err)
    assert re.search(rf"asking .*{LIMIT}/{LIMIT} .*/s, \d+\.\d% right, 1 failed, 2 at a time", said)
