"""Takes the pictures of docs/page.md: python -m tests.gateway.out.photograph_the_page docs/pictures

The shipped panel and its competence, with stand-ins that say what the README's panel said of the
same CT.
"""

import io
import json
import sys
from contextlib import ExitStack
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright
from pydicom.data import get_testdata_file

from gateway.settings import load_settings, url_variable
from tests.conftest import CHROMIUM, serving
from tests.mock_vllm import MockVllm

QUESTION = "What modality is used to take this image?"
CTA = "cta - ct angiography"
SAID = {
    "mobilenet": ("CT", 0.92),
    "polyglot": ("MRI", 0.88),
    "chooser": ("ct noncontrast", 0.50),
    "chooser-efficientnet": ("xr - plain film", 0.63),
    "memory": (CTA, 0.45),
}
REMEMBERED = [
    {"id": "vqa_med_2019/train-C1-2231", "answer": CTA, "likeness": 0.68},
    {"id": "vqa_med_2019/train-C1-236", "answer": "mr - pdw proton density", "likeness": 0.55},
    {"id": "vqa_med_2019/train-C1-2757", "answer": "ct noncontrast", "likeness": 0.57},
]
DESK, PHONE = {"width": 1180, "height": 900}, {"width": 390, "height": 800}


def memory() -> MockVllm:
    message = {"role": "assistant", "content": CTA}
    remembers = [{"question": QUESTION.lower(), **each} for each in REMEMBERED]
    token = {"token": CTA, "logprob": -0.8}
    choice = {"message": message, "logprobs": {"content": [token]}, "remembers": remembers}
    # The image is like none of its own, as the real one told of it.
    choice["likeness"] = {"image": 0.0, "question": 1.0, "manner": "vqa_med_2019"}
    return MockVllm(raw=json.dumps({"choices": [choice]}).encode())


def main(folder: Path) -> None:
    with ExitStack() as running:
        workers = {name: MockVllm(text, confidence=sure) for name, (text, sure) in SAID.items()}
        workers["memory"] = memory()
        environ = {}
        for name, worker in workers.items():
            running.callback(worker.start().stop)
            environ[url_variable(name)] = worker.url
        summariser = MockVllm(CTA).start()
        running.callback(summariser.stop)
        environ["CONSILIUM_SUMMARISER_URL"] = summariser.url
        url = running.enter_context(serving(load_settings(Path("panel.toml"), environ)))
        playwright = running.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page(viewport=DESK, locale="en")
        tab.goto(url)
        tab.set_input_files("#files", get_testdata_file("CT_small.dcm"))
        tab.click("#examples button >> nth=0")
        tab.click("#ask")
        tab.wait_for_selector("#verdict.final")
        tab.click("[data-worker=memory] summary")
        tab.evaluate("document.activeElement.blur()")
        for name, view in (("desk", DESK), ("phone", PHONE)):
            tab.set_viewport_size(view)
            tab.eval_on_selector("#asked", "heading => heading.scrollIntoView()")
            for scheme in ("light", "dark"):
                tab.emulate_media(color_scheme=scheme)
                shot = Image.open(io.BytesIO(tab.screenshot(full_page=name == "desk")))
                # A palette is a third of the size, and looks the same.
                shot.quantize(200).save(folder / f"page-{name}-{scheme}.png", optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
