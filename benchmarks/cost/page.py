"""What the page at / costs a browser: python -m benchmarks.cost.page [--runs N]

Chromium, with nothing in its cache, opens the page of a gateway with three workers without delay,
chooses a 500 KB JPEG, asks, and waits for the first answer. It is driven by its own protocol from
outside, so no script runs in it but the page's. Told are the median and the worst of so many runs:

- `complete_ms`: from the address to the last that is drawn, the words and the panel's limits;
- `script_ms`: all script from there until a first answer stands in its card, Chromium's own count
  (ScriptDuration); `answer_ms`: from the click until then.

Both ends are seen within 5 ms, late. Exit status 1 where a worst one is over its bar: a second
until it is complete, 60 ms of script.
"""

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import needs
from benchmarks.serving import URL, gateway
from benchmarks.traffic import photograph, workers

BARS = {"complete_ms": 1000.0, "script_ms": 60.0}
COMPLETE = "#files-hint:not(:empty)"
ANSWERED = ".card .answer"
PATIENCE_S, LOOK_S = 30.0, 0.005


class Tab:
    """A page of Chromium's, by the protocol of its developer tools."""

    def __init__(self, browser: Any):
        from playwright.sync_api import Error

        self._error = Error
        self._context = browser.new_context(locale="en-US")
        page = self._context.new_page()
        self._send = page.context.new_cdp_session(page).send
        self._send("Performance.enable")

    def close(self) -> None:
        self._context.close()

    def open(self, url: str) -> None:
        self._send("Page.navigate", {"url": url})

    def find(self, selector: str) -> int:
        """The id of the first such element, 0 where there is none."""
        root = self._send("DOM.getDocument", {"depth": 0})["root"]["nodeId"]
        try:
            found = self._send("DOM.querySelector", {"nodeId": root, "selector": selector})
        except self._error:  # another document took its place meanwhile
            return 0
        return int(found["nodeId"])

    def wait_for(self, selector: str) -> None:
        until = time.monotonic() + PATIENCE_S
        while not self.find(selector):
            if time.monotonic() > until:
                raise SystemExit(f"The page shows no {selector} within {PATIENCE_S:g} s.")
            time.sleep(LOOK_S)

    def choose(self, selector: str, file: Path) -> None:
        self._send("DOM.setFileInputFiles", {"nodeId": self.find(selector), "files": [str(file)]})

    def write(self, selector: str, text: str) -> None:
        self._send("DOM.focus", {"nodeId": self.find(selector)})
        self._send("Input.insertText", {"text": text})

    def press_enter_with_control(self) -> None:
        key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "modifiers": 2}
        self._send("Input.dispatchKeyEvent", {"type": "rawKeyDown", **key})

    def script_ms(self) -> float:
        """Of all script that has run since the page was opened."""
        told = self._send("Performance.getMetrics")["metrics"]
        return 1000 * next(float(m["value"]) for m in told if m["name"] == "ScriptDuration")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--runs", type=int, default=20)
    options = arguments.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        raise SystemExit("Chromium is not installed: apt install chromium.")
    with needs.told():
        from playwright.sync_api import sync_playwright

        as_root = ["--no-sandbox"] if os.geteuid() == 0 else []
        with (
            tempfile.TemporaryDirectory() as folder,
            workers() as urls,
            gateway(urls, "quorum = 2"),
            sync_playwright() as playwright,
        ):
            file = Path(folder) / "photograph.jpg"
            file.write_bytes(photograph(500))
            browser = playwright.chromium.launch(executable_path=chromium, args=as_root)
            once(browser, file, 0)  # what is read from the disk for the first time is none of ours
            runs = [once(browser, file, number) for number in range(1, options.runs + 1)]
    raise SystemExit(report(runs))


def once(browser: Any, file: Path, number: int) -> dict[str, float]:
    tab = Tab(browser)
    began = time.perf_counter()
    tab.open(URL)
    tab.wait_for(COMPLETE)
    complete = time.perf_counter()
    tab.choose("#files", file)
    tab.wait_for("#pictures img")
    tab.write("#question", f"Is there a pleural effusion, in case {number}?")
    asked = time.perf_counter()
    tab.press_enter_with_control()
    tab.wait_for(ANSWERED)
    answered = time.perf_counter()
    script_ms = tab.script_ms()
    tab.close()
    complete_ms, answer_ms = 1000 * (complete - began), 1000 * (answered - asked)
    return {"complete_ms": complete_ms, "script_ms": script_ms, "answer_ms": answer_ms}


def report(runs: list[dict[str, float]]) -> int:
    """Prints the figures; 1 where a bar is missed."""
    missed = False
    for name in runs[0]:
        found = [run[name] for run in runs]
        bar = BARS.get(name)
        over = bar is not None and max(found) > bar
        missed |= over
        told = "" if bar is None else f", {'MISSED' if over else 'within'} {bar:g}"
        print(f"{name}: median {statistics.median(found):.1f}, worst {max(found):.1f}{told}")
    print(json.dumps({"runs": len(runs), "missed": missed}))
    return int(missed)


if __name__ == "__main__":
    main()
