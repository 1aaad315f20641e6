"""The real thing, started once: panel.toml's workers, the 4-bit summariser, the gateway."""

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from pydicom.data import get_testdata_file

from consilium import GatewayRefused, Verdict, ask
from gateway.contract import Options
from gateway.settings import load_settings
from gateway.tables import WorkerSettings
from services.running.engine import Seat, remembers
from tests.conftest import missing, until
from tests.processes import still_running

pytestmark = pytest.mark.alone

ROOT = Path(__file__).parents[2]
SETTINGS = load_settings(ROOT / "panel.toml", {})
PORT = 8000
NEEDED_GB = 13
START_DEADLINE_S = 900.0  # the first start on a machine also fetches and converts base weights
RESTART_DEADLINE_S = 600.0

CT = Path(str(get_testdata_file("CT_small.dcm", download=False)))
QUESTION = "What modality is used to take this image?"
YES_OR_NO = ("Is this a CT image?", "Does the picture contain liver?", "Is the colon in the image?")


@dataclass
class Serving:
    """`consilium serve`, running."""

    process: subprocess.Popen[bytes]
    output: Path
    url: str = f"http://127.0.0.1:{PORT}"

    def said(self) -> str:
        return self.output.read_text("utf-8")

    def wait_until_said(self, line: str, deadline_s: float) -> None:
        give_up_at = time.monotonic() + deadline_s
        while line not in self.said():
            assert self.process.poll() is None, f"consilium serve ended:\n{self.said()}"
            assert time.monotonic() < give_up_at, f"no {line!r} in {deadline_s:g} s:\n{self.said()}"
            time.sleep(0.5)

    def listening(self) -> dict[tuple[str, int], psutil.Process]:
        """(address, port) → process, of everything that the stack started."""
        family = psutil.Process(self.process.pid).children(recursive=True)
        return {
            tuple(connection.laddr): process
            for process in family
            for connection in process.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN
        }


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """The stack; afterwards it is interrupted, and nothing of it may be left."""
    free_gb = psutil.virtual_memory().available / 1e9
    if free_gb < NEEDED_GB:
        missing(f"the real panel needs {NEEDED_GB} GB of free memory, here are {free_gb:.0f}")
    # What a shell runs in the background inherits a Ctrl-C that is ignored; ours must not be.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    output = tmp_path_factory.mktemp("serve") / "output"
    with output.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "services.cli", "serve", "--port", str(PORT)],
            cwd=ROOT,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    serving = Serving(process, output)
    family: list[psutil.Process] = []
    try:
        serving.wait_until_said("ready at", START_DEADLINE_S)
        yield serving
        family = psutil.Process(process.pid).children(recursive=True)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)
    assert process.returncode == 130
    assert still_running(family) == []


def is_up(seat: Seat) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"{seat.url}/health", trust_env=False).status_code == 200
    return False


def port_of(seat: Seat) -> int:
    return int(seat.url.rsplit(":", 1)[1])


def put(serving: Serving, **kwargs: object) -> Verdict:
    given = {"images": [CT], "question": QUESTION, "options": Options(deadline_s=60)} | kwargs
    return ask(url=serving.url, **given)  # type: ignore[arg-type]


def test_every_worker_answers_a_question_about_a_dicom_image(serving: Serving) -> None:
    """And the verdict is one of their answers, with the votes it got."""
    verdict = put(serving)

    assert verdict.status == "answered"
    assert verdict.answer
    assert [answer.worker for answer in verdict.answers] == [w.name for w in SETTINGS.workers]
    for answer in verdict.answers:
        assert answer.error is None
        assert answer.text
        assert answer.confidence is not None and 0 < answer.confidence <= 1
    assert verdict.agreement is not None and 0 < verdict.agreement <= 1
    assert {one.text for one in verdict.dissent} <= {answer.text for answer in verdict.answers}


def test_the_summariser_words_an_answer_that_the_panel_gave(serving: Serving) -> None:
    """The 4-bit model is really called; what it says is checked, and some of it counts."""
    always = Options(deadline_s=60, summarise="always")

    verdicts = [put(serving, question=question, options=always) for question in YES_OR_NO]

    assert all(verdict.summary.faithful is not None for verdict in verdicts)
    worded = [verdict for verdict in verdicts if verdict.summary.by == "summariser"]
    assert worded, [verdict.answer for verdict in verdicts]
    for verdict in worded:
        said = {answer.text for answer in verdict.answers if answer.text}
        assert any(text.lower() in (verdict.answer or "").lower() for text in said)


def test_a_question_in_chinese_goes_to_whoever_speaks_it(serving: Serving) -> None:
    """The others are listed with the reason, and a panel of one says so."""
    speakers = [worker.name for worker in SETTINGS.workers if "zh" in worker.languages]

    verdict = put(serving, question="这张图片是用什么方式拍摄的？", language="zh")

    answered = [answer.worker for answer in verdict.answers if answer.error is None]
    assert answered == speakers
    assert (verdict.agreement is None) == (len(speakers) == 1)


def test_a_text_file_is_refused_with_what_to_send(serving: Serving, tmp_path: Path) -> None:
    """The gateway's own words reach the person at the command line, in one line."""
    (tmp_path / "notes.png").write_text("no image at all")

    with pytest.raises(GatewayRefused) as refused:
        put(serving, images=[tmp_path / "notes.png"])
    asked = subprocess.run(
        [sys.executable, "-m", "services.cli", "ask", str(tmp_path / "notes.png"), "-q", QUESTION],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert refused.value.problem.status == 415
    assert asked.returncode == 1
    assert asked.stderr == f"consilium: {refused.value.problem.detail}\n"


def test_consilium_ask_shows_the_verdict(serving: Serving) -> None:
    """Everyone's answer, the verdict, and what this is not."""
    asked = subprocess.run(
        [sys.executable, "-m", "services.cli", "ask", str(CT), "--question", QUESTION],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert asked.returncode == 0, asked.stderr
    for worker in SETTINGS.workers:
        assert worker.name in asked.stdout
    assert "Verdict:" in asked.stdout
    assert "not a medical device" in asked.stdout


def test_a_person_asks_it_in_a_browser(serving: Serving, browser: Any) -> None:
    """The page's whole way, once with models behind it: what they say stands in their cards."""
    tab = browser.new_page(locale="en-US")
    tab.set_default_timeout(120_000)
    tab.goto(serving.url)
    tab.set_input_files("#files", CT)
    tab.wait_for_selector("#pictures img")
    tab.fill("#question", QUESTION)
    tab.click("#ask")
    tab.wait_for_selector("#verdict.final")

    said = tab.locator("#cards > .card .answer")
    assert said.count() == len(SETTINGS.workers) and all(said.all_inner_texts())
    assert tab.inner_text("#verdict .answer") and "Agreement" in tab.inner_text("#verdict")
    assert "not a medical device" in tab.inner_text("#verdict")


@pytest.fixture(scope="module")
def lost(serving: Serving) -> Verdict:
    """What was said just after the first worker was killed: it takes half a minute to come back."""
    server = serving.listening()["127.0.0.1", port_of(SETTINGS.workers[0])]
    server.kill()
    return put(serving, question="Which organs does this image show?")


def test_a_killed_worker_costs_its_vote(lost: Verdict) -> None:
    """Meanwhile the rest answers."""
    first, *rest = SETTINGS.workers

    errors = {answer.worker: answer.error and answer.error.kind for answer in lost.answers}
    assert errors == {first.name: "unreachable"} | {worker.name: None for worker in rest}


# While the first one comes back, so that it is the last one asked.
@pytest.mark.parametrize(
    "seat",
    [seat for seat in reversed(SETTINGS.workers) if not remembers(seat)],
    ids=lambda seat: seat.name,
)
def test_vllm_says_what_transformers_says(
    serving: Serving, dataset: Path, seat: WorkerSettings
) -> None:
    """Token by token on 10 validation questions, with the prompt that the worker was trained on."""
    from models.recipe import load_recipe
    from models.serving.export import load_served
    from models.serving.parity import compare
    from services.running.engine import model_folder
    from services.running.verify import questions

    recipe = load_recipe(ROOT / "models" / "zoo" / seat.model.removeprefix("zoo:") / "recipe.toml")
    model = load_served(model_folder(SETTINGS, seat.name))
    until(lambda: is_up(seat), RESTART_DEADLINE_S)

    asked = questions(recipe, dataset)[:10]
    parity = compare(model, seat.url, seat.name, seat.prompt, asked)

    assert seat.prompt == recipe.prompt
    assert parity.holds, parity.differing


def test_a_killed_worker_comes_back(serving: Serving, lost: Verdict) -> None:
    """Nothing has to be done by hand."""
    serving.wait_until_said(f"{SETTINGS.workers[0].name}: ready again", RESTART_DEADLINE_S)
    # Another question each time: what is stored would say nothing of who is up.
    again = put(serving, question="Is there an abnormality in this image?")

    assert not lost.cached and not again.cached
    assert [answer.error for answer in again.answers] == [None] * len(SETTINGS.workers)


def test_only_loopback_is_listened_on(serving: Serving) -> None:
    """A worker's port has no key."""
    seats = [*SETTINGS.workers, SETTINGS.summariser]
    ports = {port_of(seat) for seat in seats if seat}

    listening = serving.listening()

    assert {PORT, *ports} <= {port for _, port in listening}
    assert {address for address, _ in listening} == {"127.0.0.1"}
