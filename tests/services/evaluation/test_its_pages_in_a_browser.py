"""The report and the comparison in a real browser: from a file, on a phone, to everybody."""

from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe

from models.metrics import score as bootstrap
from services.evaluation.compare import compare
from services.evaluation.report.write import report
from tests.services.evaluation.runs import Said, write_run, write_set
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


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of a dozen voices, whose names are no shorter than the shipped workers'."""
    folder = tmp_path_factory.mktemp("crowded")
    own = write_set(folder, ROWS)
    names = [f"chooser-of-{word}" for word in "abcdefghijk"]
    said: dict[str, Said] = {
        id: {"panel": "yes"} | dict.fromkeys(names, "yes " * 20) | {names[0]: "y" * 200}
        for id in SAID
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bootstrap, "RESAMPLES", 20)
        before = write_run(folder / "before", own, said)
        after = write_run(
            folder / "after", own, {id: each | {"panel": "no"} for id, each in said.items()}
        )
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


A4_WITHIN_MARGINS = 702  # pixels: 210 mm less 12 on either side, 96 to the inch
CUT_OFF = """[...document.querySelectorAll("table")].filter(table => {
  const paper = table.closest("article, section").getBoundingClientRect().right
  return table.getBoundingClientRect().right > paper + 0.5
}).map(table => table.innerText)"""


@pytest.mark.parametrize("page", ["report", "compare"])
def test_on_paper_no_column_is_cut_off(browser: Any, crowded: Path, page: str):
    """On a screen a wide table is scrolled within its box; A4 has nothing beside its margins."""
    with browser.new_context(viewport={"width": A4_WITHIN_MARGINS, "height": 1000}) as context:
        tab = context.new_page()
        tab.goto((crowded / f"{page}.html").as_uri())
        assert (
            page == "compare"
            or tab.evaluate("document.querySelector('.wide:has(th:nth-child(12))').scrollWidth")
            > A4_WITHIN_MARGINS
        )
        tab.emulate_media(media="print")
        assert tab.evaluate("document.querySelectorAll('table').length") > 2
        assert tab.evaluate(CUT_OFF) == []
        assert tab.evaluate("document.documentElement.scrollWidth") == A4_WITHIN_MARGINS
