"""A gateway that stops says so first; a panel can be changed while it is asked; gateways behind a
real proxy are restarted in turn under load, and no request fails."""

import base64
import errno
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from gateway.__main__ import _listener
from tests.conftest import GatewayProcess, picture, until
from tests.mock_vllm import MockVllm
from tests.ports import free_port

alone = pytest.mark.alone

IMAGE = base64.b64encode(picture()).decode()


def asked(url: str, question: str = "Is it healthy?", **more) -> httpx.Response:
    body = {"question": question, "images": [IMAGE]}
    return httpx.post(f"{url}/vqa", json=body, timeout=30, **more)


@alone
def test_it_is_not_ready_before_it_stops_and_ends_with_the_last_open_case(vllm, gateway_process):
    gateway = gateway_process([vllm(delay_s=5)], load="drain_s = 3")
    assert httpx.get(f"{gateway.url}/health/ready").status_code == 200
    with ThreadPoolExecutor(2) as pool:
        streaming = {"accept": "text/event-stream"}
        open_cases = [
            pool.submit(asked, gateway.url, "One?"),
            pool.submit(asked, gateway.url, "Two?", headers=streaming),
        ]
        time.sleep(0.5)
        gateway.process.terminate()
        until(lambda: httpx.get(f"{gateway.url}/health/ready").status_code == 503)
        assert "about to stop" in httpx.get(f"{gateway.url}/health/ready").text
        assert httpx.get(f"{gateway.url}/health/live").status_code == 200
        whole, streamed = (case.result() for case in open_cases)
    assert whole.json()["answer"] == "yes" and "event: verdict" in streamed.text
    gateway.process.wait(timeout=20)


@alone
def test_a_second_signal_hurries_it(vllm, gateway_process):
    gateway = gateway_process([vllm()], load="drain_s = 600")
    gateway.process.terminate()
    until(lambda: httpx.get(f"{gateway.url}/health/ready").status_code == 503)
    gateway.process.terminate()
    gateway.process.wait(timeout=20)


@alone
@pytest.mark.parametrize("how", ["request", "signal"])
def test_a_worker_sits_down_and_gets_up_without_a_restart(vllm, gateway_process, panel_file, how):
    first, second = vllm("yes"), vllm("no")
    gateway = gateway_process([first])
    before = httpx.get(f"{gateway.url}/panel").json()["panel"]

    def reload() -> None:
        if how == "request":
            assert httpx.post(f"{gateway.url}/panel/reload").status_code == 200
        else:
            gateway.process.send_signal(signal.SIGHUP)

    def seated() -> list[str]:
        return [seat["name"] for seat in httpx.get(f"{gateway.url}/panel").json()["workers"]]

    panel_file([first.url, second.url])
    reload()
    until(lambda: seated() == ["w0", "w1"])
    verdict = asked(gateway.url).json()
    assert [answer["worker"] for answer in verdict["answers"]] == ["w0", "w1"]
    assert verdict["panel"] != before
    panel_file([first.url])
    reload()
    until(lambda: seated() == ["w0"])
    # And what that panel had said before is still known.
    assert asked(gateway.url).json()["panel"] == before


@alone
def test_an_open_case_is_answered_by_the_panel_it_was_brought_to(vllm, gateway_process, panel_file):
    slow, other = vllm("yes", delay_s=1.5), vllm("no")
    gateway = gateway_process([slow])
    with ThreadPoolExecutor(1) as pool:
        case = pool.submit(asked, gateway.url)
        time.sleep(0.5)
        panel_file([other.url])
        assert httpx.post(f"{gateway.url}/panel/reload").status_code == 200
        assert asked(gateway.url).json()["answer"] == "no"
        assert case.result().json()["answer"] == "yes"


def test_nobody_is_listened_to_before_it_is_ready():
    """A SIGHUP would end it still."""
    port = free_port()
    with _listener("127.0.0.1", port), socket.socket() as early:
        assert early.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED


@alone
def test_streams_outlive_reloads(vllm, gateway_process, panel_file):
    """Between two panels whose workers have other names, as fast as it goes."""
    workers = [vllm("yes", delay_s=0.02), vllm("no", delay_s=0.05)]
    gateway = gateway_process(workers)
    good = panel_file([worker.url for worker in workers])
    one = good.read_text()
    two = one.replace('"w0"', '"v0"').replace('"w1"', '"v1"')
    done = threading.Event()

    def stream(number: int) -> int:
        count = 0
        while not done.is_set():
            headers = {"accept": "text/event-stream"}
            text = asked(gateway.url, f"{number} {count}?", headers=headers).text
            assert "event: verdict" in text, text
            count += 1
        return count

    with ThreadPoolExecutor(4) as pool:
        streams = [pool.submit(stream, number) for number in range(4)]
        for turn in range(60):
            good.write_text(two if turn % 2 else one)
            gateway.process.send_signal(signal.SIGHUP)
            time.sleep(0.05)
        done.set()
        assert sum(each.result() for each in streams) > 20


PANEL = """
[panel]
quorum = 1
[[worker]]
name = "w0"
family = "mock"
model = "mock"
url = "{url}"
prompt = "{{question}}"
"""


@pytest.fixture(scope="module")
def at_work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[GatewayProcess, Path]]:
    """A gateway and its panel file, for those who leave both as they were."""
    folder = tmp_path_factory.mktemp("at_work")
    worker, panel = MockVllm().start(), folder / "panel.toml"
    panel.write_text(PANEL.format(url=worker.url))
    gateway = GatewayProcess(panel, folder / "log", {})
    yield gateway, panel
    gateway.stop()
    worker.stop()


@pytest.mark.parametrize(
    ("nonsense", "says"),
    [
        ("[panel", "not TOML"),
        ("[panel]\nquorum = 9\n", "worker: none is seated"),
        ("[[worker]]\nname = 7\n", "worker 1"),
        ("a competence file without a name", "competence"),
        ("a competence file that is not there", "learned.json cannot be read"),
        ("another store", "needs a restart"),
    ],
)
@pytest.mark.parametrize("how", ["request", "signal"])
def test_a_file_edited_into_nonsense_leaves_the_panel_at_work_and_it_says_so(
    at_work, nonsense, says, how
):
    gateway, good = at_work
    text, told = good.read_text(), gateway.log.count("panel_not_taken_up")
    if "not there" in nonsense:
        nonsense = text.replace("[panel]", '[panel]\ncompetence = "learned.json"')
    elif "competence" in nonsense:
        nonsense = text.replace("[panel]", '[panel]\ncompetence = "\\u0000"')
    if nonsense == "another store":
        nonsense = text.replace("[panel]", '[panel]\nstore = "redis://127.0.0.1:1/0"')
    good.write_text(nonsense)
    if how == "request":
        response = httpx.post(f"{gateway.url}/panel/reload")
        assert response.status_code == 409 and says in response.json()["detail"]
    else:
        gateway.process.send_signal(signal.SIGHUP)
        until(lambda: gateway.log.count("panel_not_taken_up") > told)
    report = httpx.get(f"{gateway.url}/panel").json()
    assert says in report["reload_error"] and str(good.parent) not in report["reload_error"]
    assert asked(gateway.url).json()["answer"] == "yes"

    good.write_text(text)
    assert httpx.post(f"{gateway.url}/panel/reload").status_code == 200
    assert httpx.get(f"{gateway.url}/panel").json()["reload_error"] is None


def test_it_does_not_start_on_what_it_cannot_use(panel_file, dead_url, tmp_path):
    def started(panel: Path, *arguments: str, **environ: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "gateway", "--port", str(free_port()), *arguments],
            env={"PATH": "/usr/bin", "CONSILIUM_PANEL": str(panel), **environ},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
        return done.stderr

    good = panel_file([dead_url])
    assert "name the panel file" in started(tmp_path / "none.toml")
    assert "consilium key add" in started(good, CONSILIUM_KEYS=str(tmp_path / "none.json"))
    assert "CONSILIUM_SECRET_FILE" in started(good, CONSILIUM_SECRET_FILE=str(tmp_path / "none"))
    assert "Without keys" in started(good, "--host", "0.0.0.0")
    (tmp_path / "file").touch()
    panel = panel_file([dead_url], audit='folder = "file"')
    assert "audit.folder" in started(panel)


@alone
def test_a_rolling_restart_under_load_fails_no_request(vllm, gateway_process, nginx):
    workers = [vllm("yes", delay_s=0.05), vllm("yes", delay_s=0.05)]
    gateways = [gateway_process(workers, load="drain_s = 0.5") for _ in "ab"]
    # A case that is asked twice changes nothing.
    url = nginx(
        [gateway.url for gateway in gateways],
        "client_max_body_size 40m; proxy_next_upstream error timeout non_idempotent;",
    )
    statuses: list[int] = []
    stopping = threading.Event()

    def caller(number: int) -> None:
        with httpx.Client(timeout=30) as http:
            count = 0
            while not stopping.is_set():
                body = {"question": f"{number} {count}?", "images": [IMAGE]}
                statuses.append(http.post(f"{url}/vqa", json=body).status_code)
                count += 1

    with ThreadPoolExecutor(4) as pool:
        callers = [pool.submit(caller, number) for number in range(4)]
        for gateway in gateways:
            time.sleep(1)
            gateway.process.terminate()
            gateway.process.wait(timeout=30)
            time.sleep(0.5)
            gateway.start()
        time.sleep(1)
        stopping.set()
        for each in callers:
            each.result()
    assert len(statuses) > 50 and set(statuses) == {200}
