"""The report and the comparison in a real browser: from a file, on a phone, to everybody."""

from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe

from models.metrics import score as bootstrap
from services.evaluation.compare import compare
from services.evaluation.report.write import report
from tests.services.evaluation.runs import write_run, write_set
from tests.services.evaluation.test_a_report_tells_what_a_panel_is_worth import ROWS, SAID


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With report.html and compare.html, of long words and an image that is gone."""
    folder = tmp_path_factory.mktemp("pages")
    own = write_set(folder, ROWS)
    long = {"2": SAID["2"] | {"a": "y" * 200}, "4": SAID["4"] | {"panel": "lobe " * 40}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bootstrap, "RESAMPLES", 20)
        before = write_run(folder / "before", own, SAID | long)
        after = write_run(folder / "after", own, SAID | {"1": SAID["1"] | {"panel": "no"}})
        report([before], Path("none"), folder)
        compare(before, after, Path("none"), folder)
    return folder


@pytest.mark.parametrize("page", ["report", "compare"])
def test_it_is_read_from_a_file_on_a_phone_and_by_all(browser: Any, folder: Path, page: str):
    """It asks for nothing, nothing lies beside the screen, and axe finds nothing of weight."""
    asked, wrong = list[str](), list[str]()
    with browser.new_context(viewport={"width": 360, "height": 740}, offline=True) as context:
        tab = context.new_page()
        tab.on("request", lambda request: asked.append(request.url))
        tab.on("console", lambda line: line.type == "error" and wrong.append(line.text))
        file = (folder / f"{page}.html").as_uri()
        tab.goto(file)

        assert tab.evaluate("document.documentElement.scrollWidth") == 360
        shown = tab.evaluate("[...document.images].map(each => each.naturalWidth)")
        assert shown and all(shown)
        found = Axe().run(tab).response["violations"]
    assert [each["id"] for each in found if each["impact"] in ("serious", "critical")] == []
    assert [each for each in asked if not each.startswith("data:")] == [file] and not wrong
