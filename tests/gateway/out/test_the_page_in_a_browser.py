"""The page at `/` in a real browser, before the real gateway: what a person does, and reads.

One browser, one panel. Workers do as the question says, so each test asks its own.
"""

import asyncio
import io
import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from gateway.door import keys
from gateway.out.page import FOLDER
from gateway.settings import load_settings
from gateway.verdict.competence import Competence, Line, Skill, Worker, save_competence
from tests.conftest import PATIENCE_MS, picture, serving
from tests.dicoms import dicom_of
from tests.gateway.asking.test_what_a_worker_remembers_is_shown import CASE as REMEMBERED
from tests.gateway.asking.test_what_a_worker_remembers_is_shown import reply
from tests.mock_vllm import MockVllm

READY = "#files-hint:not(:empty)"  # the limits are known


class Held(MockVllm):
    """A model server that answers a question which holds "late" once it may `speak`."""

    speak = threading.Event()

    async def _chat(self, request: web.Request) -> web.Response:
        if b"late" in await request.read():
            await asyncio.to_thread(self.speak.wait, 20)
        return await super()._chat(request)


class Panel:
    """Three workers: w0 remembers where the question holds "organ", w1 says no where it holds
    "divided", w2 fails where it holds "broken" and is late where it holds "late"."""

    def __init__(self) -> None:
        self.workers = [
            MockVllm("yes", raw=reply([REMEMBERED]), only="organ"),
            MockVllm(lambda body: "no" if "divided" in str(body) else "Yes", confidence=0.6),
            Held("yes", raw=b"", status=500, only="broken"),
        ]
        self.speak = Held.speak

    def write(self, folder: Path, more: str = "") -> Path:
        text = f'[panel]\nquorum = 1\ncompetence = "competence.json"\ngrounding = false\n{more}\n'
        for seat, worker in enumerate(self.workers):
            text += f'[[worker]]\nname = "w{seat}"\nfamily = "mock"\nmodel = "mock"\n'
            text += f'url = "{worker.url}"\nprompt = "Question: {{question}} Answer:"\n'
            text += 'languages = ["en", "es", "zh"]\nmax_images = 4\n'
        skill = Skill(cases=9, accuracy=0.5, offset=0)
        one = Worker(
            model="mock", prompt="Question: {question} Answer:", slope=1, skills={"": skill}
        )
        workers = dict.fromkeys(("w0", "w1", "w2"), one)
        verdict = {"en": Line(), "es": Line()}
        learned = Competence(
            learned_from="a test", workers=workers, correlation={}, verdict=verdict
        )
        save_competence(learned, folder / "competence.json")
        path = folder / "panel.toml"
        path.write_text(text, "utf-8")
        return path


@pytest.fixture(scope="module")
def panel() -> Iterator[Panel]:
    panel = Panel()
    for worker in panel.workers:
        worker.start()
    yield panel
    panel.speak.set()
    for worker in panel.workers:
        worker.stop()


@pytest.fixture(scope="module")
def url(browser: Any, panel: Panel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    path = panel.write(tmp_path_factory.mktemp("panel"), '[feedback]\nkeep = "cases"')
    with serving(load_settings(path, environ={})) as url:
        yield url


@pytest.fixture(scope="module")
def one_tab(browser: Any) -> Any:
    # A tab is a process; to load the page anew costs a tenth of a new one.
    return browser.new_context(locale="en-US").new_page()


@pytest.fixture
def tab(one_tab: Any, url: str) -> Iterator[Any]:
    """The page, as new. What it asks for stands in `tab.asked`; an error in it fails the test."""
    wrong: list[str] = []
    handlers = {
        "pageerror": lambda error: wrong.append(str(error)),
        "console": lambda line: line.type == "error" and wrong.append(line.text),
        "request": lambda request: one_tab.asked.append(request),
    }
    one_tab.asked = []
    for name, handler in handlers.items():
        one_tab.on(name, handler)
    one_tab.set_default_timeout(PATIENCE_MS)
    one_tab.set_viewport_size({"width": 1280, "height": 900})
    one_tab.goto(url)
    one_tab.wait_for_selector(READY, state="attached")
    yield one_tab
    one_tab.unroute_all()
    for name, handler in handlers.items():
        one_tab.remove_listener(name, handler)
    # The browser itself writes a line for each status that is no 200.
    assert [each for each in wrong if "Failed to load resource" not in each] == []


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a patient's.png"
    path.write_bytes(picture(size=(200, 150)))
    return path


def ask(tab: Any, question: str, *files: Path) -> None:
    if files:
        tab.set_input_files("#files", list(files))
    tab.fill("#question", question)
    tab.click("#ask")


def decided(tab: Any) -> str:
    tab.wait_for_selector("#verdict.final")
    return str(tab.inner_text("#verdict"))


def card(tab: Any, worker: str) -> str:
    return str(tab.inner_text(f"[data-worker={worker}]"))


def sent(tab: Any, path: str) -> int:
    """How often it asked for that."""
    return sum(each.url.endswith(f"/{path}") for each in tab.asked)


def replied(tab: Any, **reply: Any) -> None:
    """From now on a case is answered so."""
    tab.route("**/vqa", lambda route: route.fulfill(**reply))


def test_an_image_and_a_question_become_a_verdict(tab, url, file, panel):
    """Everything comes from the gateway itself, each file once, and no file name goes to it."""
    loaded = sorted(each.url.removeprefix(url).partition("?")[0] for each in tab.asked)
    others = ("index.html", "es.json", "zh.json")
    files = [f"/page/{each.name}" for each in FOLDER.iterdir() if each.name not in others]
    assert loaded == sorted(["/", "/panel", *files])
    tab.set_input_files("#files", file)
    tab.wait_for_selector("#pictures img")
    tab.click("#examples button:has-text('effusion')")
    assert tab.input_value("#question") == "Is there a pleural effusion?"
    tab.click("#ask")

    verdict = decided(tab)
    assert "yes" in verdict and "Agreement" in verdict and "Confidence" in verdict
    assert "Nobody dissents" in verdict and "not a medical device" in verdict
    for worker in ("w0", "w1", "w2"):
        assert "▲ for it" in card(tab, worker) and " s" in card(tab, worker)
    assert "60% sure" in card(tab, "w1")
    assert all(each.url.startswith((url, "data:")) for each in tab.asked)
    assert not any(b"patient" in (each.post_data_buffer or b"") for each in tab.asked)
    kept = tab.evaluate("[localStorage.length, sessionStorage.length, document.cookie]")
    assert kept == [0, 0, ""]


def test_several_images_are_shown_and_sent_in_their_order(tab, file, panel):
    """Chosen and dropped; no more than the panel takes, and one that is too large is never read."""
    large = file.with_name("large.dcm")
    with large.open("wb") as sparse:
        sparse.truncate(2_000_000_000)
    tab.set_input_files("#files", [file, large])
    expect(tab.locator("#error")).to_contain_text("large.dcm is over 20 MB")
    tab.evaluate(
        """() => {
        const dropped = new DataTransfer();
        const dot = atob("iVBORw0KGgo=");
        for (let n = 0; n < 50; n++) dropped.items.add(new File([dot], `${n}.png`));
        dispatchEvent(new DragEvent("drop", { dataTransfer: dropped, cancelable: true }));
        }"""
    )
    expect(tab.locator("#error")).to_contain_text("takes 4 images")
    expect(tab.locator("#pictures .failure")).to_have_count(3)
    assert tab.locator("#pictures li").count() == 4 and sent(tab, "preview") == 4
    # What is no image is told where it stands, and not asked about.
    ask(tab, "Which of the four?")
    expect(tab.locator("#error")).to_contain_text("One of the images cannot be taken")
    assert sent(tab, "vqa") == 0 and tab.input_value("#question") == "Which of the four?"

    for _ in range(3):
        tab.click("#pictures .failure ~ button >> nth=0")
    other = file.with_name("b.png")
    other.write_bytes(picture(size=(64, 48)))
    tab.click("#more summary")
    tab.fill("#views", "frontal\n")
    ask(tab, "Which of the two?", other)
    decided(tab)
    content = panel.workers[0].requests[-1]["messages"][0]["content"]
    assert [part["type"] for part in content] == ["image_url", "image_url", "text"]
    assert "Image 1: frontal.\nWhich of the two?" in content[-1]["text"]
    assert tab.locator("#asked-pictures img").count() == 2


def test_a_dicom_is_shown_and_asked_about_in_the_chosen_frame_and_window(tab, file, panel):
    """With the keyboard; what is shown is what the workers get."""
    noise = np.random.default_rng(7).integers(0, 1200, (3, 20, 20))
    scan = file.with_name("scan")
    scan.write_bytes(dicom_of(noise.astype("<i2"), NumberOfFrames=3))
    tab.set_input_files("#files", scan)
    shown = tab.locator("#pictures .shown")
    expect(shown).to_contain_text("frame 1 of 3")
    tab.focus("#pictures [type=range]")
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("ArrowRight")
    expect(shown).to_contain_text("frame 3 of 3")
    tab.select_option("#pictures select", "lung")
    expect(shown).to_contain_text("window -600 / 1,500")
    tab.select_option("#pictures select", "own")
    centre, width = (tab.get_by_role("spinbutton", name=name) for name in ("Centre", "Width"))
    assert (centre.input_value(), width.input_value()) == ("-600", "1500")
    centre.fill("600")
    width.fill("900")
    tab.keyboard.press("Enter")
    expect(shown).to_have_text("As the panel will see it: frame 3 of 3, window 600 / 900")
    seen = tab.get_attribute("#pictures img", "src")

    ask(tab, "Which frame?")
    assert "Image 1: frame 3 of 3, window 600 / 900." in decided(tab)
    content = panel.workers[0].requests[-1]["messages"][0]["content"]
    assert content[0]["image_url"]["url"] == seen


def test_cards_fill_as_workers_speak_and_the_vote_moves(tab, file, panel):
    """One is late, one fails, one is of another mind; each is told by a word and a shape."""
    panel.speak.clear()
    ask(tab, "Is it late or divided?", file)
    expect(tab.locator("[data-worker=w2]")).to_contain_text("… is being asked")
    expect(tab.locator("#progress")).to_have_text("2 of 3 have spoken.")
    expect(tab.locator("#verdict")).to_contain_text("So far, after 2")
    assert "▲ for it" in card(tab, "w0") and "▼ against it" in card(tab, "w1")
    panel.speak.set()
    assert "▼ no (w1; weight" in decided(tab)
    assert "▲ for it" in card(tab, "w2")

    ask(tab, "Is it broken?")
    expect(tab.locator("[data-worker=w2]")).to_contain_text("○ no answer")
    expect(tab.locator("[data-worker=w2]")).to_contain_text("It cannot be reached.")


def test_a_panel_that_abstains_says_what_it_would_have_said(tab, file):
    """And a worker that remembers shows what it goes by."""
    tab.click("#more summary")
    tab.fill("#max-risk", "120")
    ask(tab, "Is it?", file)
    expect(tab.locator("#error")).to_contain_text("a number from 0 to 100")
    tab.fill("#max-risk", "0.5")
    tab.fill("#choices", "Liver\nSpleen\n")
    ask(tab, "Which organ is it, divided?")
    verdict = decided(tab)
    assert "The panel abstains" in verdict and "It would have said: Liver" in verdict
    tab.click("[data-worker=w0] summary")
    assert "Which organ? Liver 93% alike slake/train-7" in card(tab, "w0")


def test_a_reader_says_what_is_right_and_gives_the_case_away_or_not(tab, url, file):
    """With the keyboard. Without the box ticked nothing of the case goes to be kept."""
    ask(tab, "Is it divided, and wrong?", file)
    decided(tab)
    tab.focus("#is-wrong")
    tab.keyboard.press("Enter")
    assert tab.get_attribute("#is-wrong", "aria-pressed") == "true"
    tab.fill("#right-answer", "no")
    tab.check("#agree")
    tab.click("#feedback-send")
    expect(tab.locator("#feedback-told")).to_contain_text("the case with it")
    expect(tab.locator("#feedback")).to_be_hidden()

    for folded in ("#more", "#how"):
        tab.click(f"{folded} > summary")
    tab.check("#grounding")
    ask(tab, "Is it right?")
    expect(tab.locator("#asked")).to_have_text("Is it right?")
    decided(tab)
    expect(tab.locator("#feedback-told")).to_be_empty()
    tab.click("#is-right")
    expect(tab.locator("#right-answer")).to_be_hidden()
    tab.click("#feedback-send")
    expect(tab.locator("#feedback-told")).to_contain_text("nothing of the case")
    told = tab.request.get(f"{url}/feedback").json()
    assert [(each["word"], each["case"] is None) for each in told] == [
        ("right", True),
        ("wrong", False),
    ]
    assert told[1]["case"]["answer"] == "no"
    expect(tab.locator("#snippets")).to_contain_text('"grounding":true')


def test_a_verdict_may_say_that_the_case_is_unfamiliar(tab, file):
    """That stands before the answer; how far it depends on the image; what each image gave; and why
    no summariser was asked."""
    answer = {"worker": "w0", "text": "yes", "confidence": None, "seconds": 1, "remembers": []}
    answer |= {"by_image": [{"image": 2, "text": "no, on its own", "confidence": 0.6}]}
    verdict = {
        "status": "answered", "answer": "yes", "agreement": None, "confidence": None,
        "answers": [answer | {"error": None}], "dissent": [], "images": [], "seconds": 1,
        "summary": {"by": "unanimous", "why": "in another language"}, "cached": True,
        "learned_from": None, "grounding": 0.04,
    }  # fmt: skip
    why = "The image is like none learned."
    tab.set_input_files("#files", file)
    alone, nobodys = "One voice alone", "No worker said this"
    cases = [(True, "Unfamiliar: ", [], nobodys), (False, "a familiar one: ", ["w0"], alone)]
    for unfamiliar, says, workers, who in cases:
        familiarity = {"image": 0.1, "unfamiliar": unfamiliar, "why": why}
        told = verdict | {"familiarity": familiarity, "workers": workers}
        told["prediction_set"] = {"coverage": 0.9, "answers": None, "why": why}
        if workers:
            told["prediction_set"]["answers"] = [{"text": "perhaps", "share": 0.4}]
        body = f"event: verdict\ndata: {json.dumps(told)}\n\n"
        replied(tab, content_type="text/event-stream", body=body)
        ask(tab, f"Is it {says}?")
        expect(tab.locator("#verdict")).to_contain_text(says + why)
        shown = decided(tab)
        assert shown.index(says) < shown.index("Verdict")
        assert "All said the same. in another language." in shown
        assert "Depends on the image 4%" in shown and "as without the image" in shown
        assert who in shown and ("no confidence is claimed" in shown) == unfamiliar
        assert ("in 90% of such cases\n\nperhaps (40%)" in shown) == bool(workers)
        assert (f"No set of answers is claimed: {why}" in shown) != bool(workers)
        assert "Image 2: no, on its own" in tab.inner_text("body")


def test_what_a_proxy_says_is_told_in_words_of_ours(tab, file):
    said = [(502, "not well, or something before it (502)"), (413, "more than the gateway takes")]
    for status, says in said:
        replied(tab, status=status, content_type="text/html", body="<h1>nginx</h1>")
        ask(tab, f"Is it {status}?", *([] if tab.locator("#pictures li").count() else [file]))
        expect(tab.locator("#verdict")).to_contain_text(says)
        assert "nginx" not in tab.inner_text("body")


@pytest.mark.parametrize("said", ["{}", "null", '{"error": "x"}', '{"type": 404}', "[]", "<h1>"])
@pytest.mark.parametrize("status", [200, 500])
def test_what_something_else_says_of_the_panel_is_told(tab, url, file, said, status):
    """And whoever asks again when it has passed is answered; nothing chosen is lost."""
    tab.route("**/panel", lambda route: route.fulfill(status=status, body=said), times=1)
    tab.goto(url)
    expect(tab.locator("#error")).to_contain_text(f"something before it ({status})")
    ask(tab, f"Is it there after {status}?", file)
    assert "yes" in decided(tab)


@pytest.mark.parametrize(
    "said", ["{}", "[null]", "event: verdict\n\n", "event: verdict\ndata: {\n\n"]
)
def test_what_something_else_says_of_a_case_is_no_verdict(tab, file, said):
    replied(tab, body=said)
    ask(tab, "Is it a gateway?", file)
    expect(tab.locator("#verdict")).to_contain_text("The connection was lost")


def test_a_key_is_wanted_once_and_kept_in_the_tab_alone(tab, file, panel, tmp_path):
    """Under a path of a proxy's; a wrong key is refused, and what is typed stays."""
    held = tmp_path / "keys.json"
    key = keys.add(held, "clinic", None, admin=False)
    folder = tmp_path / "keyed"
    folder.mkdir()
    path = panel.write(folder, '[http]\nroot_path = "/ward"')
    with serving(load_settings(path, environ={"CONSILIUM_KEYS": str(held)})) as url:
        tab.goto(f"{url}/ward")  # a slash is put behind it
        expect(tab.locator("#error")).to_contain_text("wants a key")
        assert tab.evaluate("document.activeElement.id") == "key"
        tab.fill("#question", "Is it typed already?")
        for wrong in (key[:-1], "Schlüssel", "密钥"):
            tab.fill("#key", wrong)
            tab.keyboard.press("Enter")
            expect(tab.locator("#error [lang=en]")).to_contain_text("not known here")
        tab.fill("#key", key)
        tab.keyboard.press("Enter")
        expect(tab.locator("#key-form")).to_be_hidden()
        ask(tab, tab.input_value("#question"), file)
        assert "yes" in decided(tab)
        kept = tab.evaluate("[localStorage.length, Object.values(sessionStorage), document.cookie]")
        assert kept == [0, [key], ""] and key not in tab.content()
        # It is refused again once it is revoked.
        keys.revoke(held, key.split("_")[1])
        ask(tab, "Is it revoked?")
        expect(tab.locator("#key-form")).to_be_visible()


def test_a_lost_connection_is_told_and_nothing_typed_is_lost(tab, url, file, panel):
    """Nor is what was heard before."""
    panel.speak.clear()
    with Wire(url) as wire:
        tab.goto(wire.url)
        ask(tab, "Is it late and lost?", file)
        expect(tab.locator("#progress")).to_have_text("2 of 3 have spoken.")
        wire.cut()
        expect(tab.locator("#verdict")).to_contain_text("The connection was lost")
        assert "yes" in card(tab, "w0")
        tab.click("#ask")  # nobody is there at all now
        expect(tab.locator("#verdict")).to_contain_text("cannot be reached")
    panel.speak.set()
    assert tab.input_value("#question") == "Is it late and lost?"
    assert tab.locator("#pictures img").count() == 1


def test_who_is_faster_than_the_page_is_heard(tab, url, file):
    """What is chosen and asked before its words and the panel's limits came waits for both."""
    held: list[Any] = []
    for late in ("**/en.json", "**/panel"):
        tab.route(late, lambda route: held.append(route))
    tab.goto(url)
    ask(tab, "Is it early?", file)
    tab.click("#ask")
    assert [route.request.url.rpartition("/")[2] for route in held] == ["en.json"]
    held[0].continue_()
    expect(tab.locator("#error")).to_be_empty()
    while len(held) < 2:
        tab.wait_for_timeout(10)
    held[1].continue_()
    assert "yes" in decided(tab) and sent(tab, "vqa") == 1


@pytest.mark.parametrize(
    "reply",
    [
        None,
        {"status": 500, "body": "no"},
        {"status": 200, "body": "<h1>Log in</h1>"},
        {"status": 200, "body": "{}"},
        {"status": 200, "body": "null"},
    ],
)
def test_words_that_do_not_come_are_asked_for_again(tab, url, file, reply):
    """It says so meanwhile, in the one language that it can."""
    tab.route("**/en.json", lambda r: r.fulfill(**reply) if reply else r.abort(), times=1)
    tab.goto(url)
    expect(tab.locator("#error")).to_contain_text("The words of this page did not come.")
    ask(tab, "Is it there now?", file)
    assert "yes" in decided(tab) and tab.inner_text("#ask") == "Ask the panel"


def test_the_language_that_was_chosen_last_is_spoken(tab, url):
    """Whichever comes first; where one does not come, the page stays as it is."""
    held: list[Any] = []
    for late in ("**/en.json", "**/es.json"):
        tab.route(late, lambda route: held.append(route))
    tab.goto(url)
    for name in ("es", "zh"):
        tab.select_option("#language-of-page", name)
    expect(tab.locator("#ask")).to_have_text("向小组提问")
    while len(held) < 2:
        tab.wait_for_timeout(10)
    for route in held:
        route.continue_()
    tab.wait_for_selector(READY, state="attached")
    tab.unroute_all()
    tab.route("**/en.json", lambda route: route.abort())
    tab.select_option("#language-of-page", "en")
    expect(tab.locator("#error")).to_contain_text("网关")
    assert tab.input_value("#language-of-page") == tab.get_attribute("html", "lang") == "zh"
    assert tab.inner_text("#ask") == "向小组提问"


def test_a_double_click_asks_once_and_another_question_asks_first(tab, file, panel):
    """Who asks something else while the panel is asked is asked whether to stop that."""
    panel.speak.clear()
    tab.set_input_files("#files", file)
    tab.fill("#question", "Is it late and doubled?")
    tab.dblclick("#ask")
    expect(tab.locator("#progress")).to_have_text("2 of 3 have spoken.")
    tab.keyboard.press("Control+Enter")
    assert sent(tab, "vqa") == 1

    told: list[str] = []
    tab.once("dialog", lambda dialog: (told.append(dialog.message), dialog.dismiss()))
    ask(tab, "Is it something else?")
    assert "still being asked" in told[0] and sent(tab, "vqa") == 1
    tab.click("#stop")
    expect(tab.locator("#progress")).to_have_text("You stopped this question.")
    panel.speak.set()
    tab.click("#ask")
    assert "yes" in decided(tab) and sent(tab, "vqa") == 2

    # Both can be looked at again, as long as the tab is open.
    assert tab.locator("#cases li").count() == 2
    tab.click("#cases button:has-text('doubled')")
    expect(tab.locator("#asked")).to_have_text("Is it late and doubled?")
    assert tab.locator("#cases [aria-current=true]").inner_text().endswith("No verdict.")
    assert tab.input_value("#question") == "Is it something else?"
    tab.reload()
    assert tab.locator("#cases li").count() == 0


def test_it_speaks_the_readers_language(browser, url, file):
    """The browser's, or the one that is chosen; what stands there already, too."""
    tab = browser.new_context(locale="es-MX").new_page()
    tab.goto(url)
    tab.wait_for_selector(READY, state="attached")
    assert tab.get_attribute("html", "lang") == "es"
    tab.click("#ask")
    expect(tab.locator("#error")).to_contain_text("Elija antes una imagen.")
    ask(tab, "¿Está roto (broken)?", file)
    assert "Nadie está en desacuerdo." in decided(tab)
    assert "sin respuesta" in card(tab, "w2")
    tab.select_option("#language-of-page", "zh")
    expect(tab.locator("#verdict")).to_contain_text("没有异议")
    assert "没有回答" in card(tab, "w2") and tab.get_attribute("html", "lang") == "zh"
    assert tab.inner_text("#ask") == "向小组提问" and tab.input_value("#question")
    # A problem of the gateway's, in words of one's own and in its.
    tab.click("#more summary")
    tab.select_option("#language", "en")
    tab.click("#ask")
    expect(tab.locator("#verdict")).to_contain_text("问题所用的语言与为它选择的语言不同")
    expect(tab.locator("#verdict [lang=en]")).to_contain_text("but the question is in Spanish")


def test_a_question_from_right_to_left_is_shown_so(tab, file):
    """Where it is typed, where it is asked, and in the history."""
    ask(tab, "هل يوجد كسر؟", file)
    decided(tab)
    direction = "node => getComputedStyle(node).direction"
    for place in ("#question", "#asked", "#cases bdi >> nth=0"):
        assert tab.eval_on_selector(place, direction) == "rtl", place


def test_axe_finds_nothing_serious_by_day_and_by_night(tab, file):
    """With a form in use, a problem, a verdict and everything unfolded."""
    ask(tab, "Which organ is divided?", file)
    decided(tab)
    for each in tab.locator("summary").all():
        each.click()
    tab.click("#is-wrong")
    tab.fill("#question", "")
    tab.click("#ask")
    for scheme, rules in (("light", {}), ("dark", {"runOnly": ["color-contrast"]})):
        tab.emulate_media(color_scheme=scheme)
        found = Axe().run(tab, options=rules).response["violations"]
        assert [each["id"] for each in found if each["impact"] in ("serious", "critical")] == []
    tab.emulate_media(color_scheme="null")


def test_a_phone_shows_it_in_one_column(tab, file):
    """Of 360 pixels, nothing beside them, whatever is unfolded and however long a word is."""
    tab.set_viewport_size({"width": 360, "height": 740})
    ask(tab, "Is it divided, or a" + "a" * 200 + " word?", file)
    decided(tab)
    for each in tab.locator("summary").all():
        each.click()
    tab.click("#is-wrong")
    assert tab.evaluate("document.documentElement.scrollWidth") == 360
    boxes = [tab.locator(f"[data-worker=w{n}]").bounding_box() for n in range(3)]
    assert len({box["x"] for box in boxes}) == 1


def test_the_tabulator_goes_as_one_reads(tab, file):
    """Every control is reached, the form's before the verdict's."""
    ask(tab, "Is it divided when tabbed?", file)
    decided(tab)
    tab.focus("#language-of-page")
    order = ["language-of-page"]
    for _ in range(30):
        tab.keyboard.press("Tab")
        order.append(tab.evaluate("document.activeElement.id || document.activeElement.localName"))
        if order[-1] == "a":
            break
    assert order == [
        "language-of-page", "files", "button", "question", *["button"] * 6, "summary", "ask",
        "is-right", "is-wrong", "summary", "button", "a",
    ]  # fmt: skip


def test_the_request_is_shown_for_programs_and_each_of_them_runs(tab, url, file, monkeypatch):
    """A question that a shell, a form and Python would each take for something else, and every
    way in which the panel can be asked."""
    question = """@Is it 'so'; "$HOME" `id` \\ ¿no?"""
    tab.click("#more summary")
    tab.fill("#choices", "yes\nno")
    tab.fill("#context", "<a 'case'")
    tab.fill("#views", "a 'view'")
    tab.select_option("#modality", "xray")
    tab.click("#how > summary")
    for chosen in ("#workers [value=w0]", "#workers [value=w1]", "#rounds", "#grounding"):
        tab.check(chosen)
    tab.select_option("#wait", "enough")
    tab.select_option("#style", "sentence")
    tab.select_option("#summarise", "never")
    tab.fill("#deadline", "20.5")
    tab.fill("#coverage", "30")
    ask(tab, question, file)
    expect(tab.locator("#error")).to_contain_text("a number from 50 to 99")
    tab.fill("#coverage", "")
    tab.click("#ask")
    decided(tab)
    assert tab.locator("#cards > li").count() == 2
    tab.click("#requests summary")
    curl, python, openai = tab.locator("#snippets pre").all_inner_texts()
    monkeypatch.chdir(file.parent)
    monkeypatch.delenv("CONSILIUM_KEY", raising=False)
    done = subprocess.run(["bash", "-c", curl], capture_output=True, text=True, timeout=20)
    verdict = json.loads(done.stdout)
    said = "The panel's answer is “yes”, said by 2 of 2."
    assert verdict["answer"] == said and verdict["cached"]  # it is the very same case
    assert [each["worker"] for each in verdict["answers"]] == ["w0", "w1"]
    for program in (python, openai):
        told = io.StringIO()
        with redirect_stdout(told):
            exec(program, {})
        assert said in told.getvalue()


class Wire:
    """A line to a server that can be cut while something is on it."""

    def __init__(self, url: str):
        host, port = url.removeprefix("http://").split(":")
        self._to, self._ends = (host, int(port)), []
        self._door = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._door.getsockname()[1]}"

    def __enter__(self) -> "Wire":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()

    def cut(self) -> None:
        for end in (self._door, *self._ends):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, far = self._door.accept()[0], socket.create_connection(self._to)
                self._ends += [near, far]
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=pair, daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                target.sendall(data)
