"""The page at `/`: what is sent of it, and that its words are whole in each language."""

import json
import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import get_args

import httpx
import pytest

from gateway.contract import WINDOWS, ErrorKind, Modality, Style, Summarise, SummaryBy
from gateway.door import keys
from gateway.out.page import FOLDER
from gateway.refusals import Code, Refused, UnknownVerdict

ROOT = Path(__file__).parents[3]
SCRIPTS = "".join(file.read_text("utf-8") for file in FOLDER.glob("*.js"))
HTML = (FOLDER / "index.html").read_text("utf-8")
WORDS = {name: json.loads((FOLDER / f"{name}.json").read_bytes()) for name in ("en", "es", "zh")}


def test_it_is_sent_to_everybody_with_a_strict_policy(vllm, gateway, tmp_path):
    """Who has no key yet must be able to type one in. HEAD, and a browser that has the file, get
    headers alone."""
    file = tmp_path / "keys.json"
    keys.add(file, "clinic", None, admin=False)
    url = gateway([vllm()], environ={"CONSILIUM_KEYS": str(file)})
    names = [each.name for each in FOLDER.iterdir() if each.name != "index.html"]
    with httpx.Client(base_url=url) as browser:
        for path in ("/", *(f"/page/{name}" for name in names)):
            response = browser.get(path)
            assert response.status_code == 200 and response.content, path
            policy = response.headers["content-security-policy"]
            assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
            assert "unsafe" not in policy and "http" not in policy
            assert response.headers["x-content-type-options"] == "nosniff"
            assert response.headers["referrer-policy"] == "no-referrer"
            assert response.headers["cache-control"] == "no-cache"
            tag = response.headers["etag"]
            assert browser.head(path).headers["etag"] == tag
            for known in (tag, f'"x", W/{tag}'):
                again = browser.get(path, headers={"if-none-match": known})
                assert again.status_code == 304 and not again.content
            assert browser.get(path, headers={"if-none-match": '"x"'}).status_code == 200
        assert browser.get("/").headers["content-type"] == "text/html; charset=utf-8"
        for path in ("/page/page.py", "/page/..%2Fpage.py", "/page/"):
            assert browser.get(path).status_code == 404


def test_it_is_small_and_names_no_other_host():
    files = list(FOLDER.iterdir())
    assert sum(file.stat().st_size for file in files) <= 150_000
    for file in files:
        assert not re.search(r"https?://", file.read_text("utf-8")), file.name
    assert not re.search(r'(src|href)="/', HTML)  # it may lie under any path


def test_it_is_in_the_package():
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    patterns = setup["package-data"]["gateway"]
    for file in FOLDER.iterdir():
        path = str(file.relative_to(ROOT / "gateway"))
        assert any(fnmatch(path, pattern) for pattern in patterns), path


@pytest.mark.parametrize("language", WORDS)
def test_every_language_has_every_word(language):
    """With the same {values} in it."""

    def values(words: dict[str, str]) -> dict[str, set[str]]:
        return {name: set(re.findall(r"\{\w+\}", text)) for name, text in words.items()}

    assert values(WORDS[language]) == values(WORDS["en"])
    assert all(text.strip() for text in WORDS[language].values())


def test_every_word_that_is_used_is_there_and_every_one_there_is_used():
    """Problems, failures and windows by the contract's own names."""
    elsewhere = (404, 502)  # said to who names an archive or a model
    titles = [
        error.title
        for error in Refused.__subclasses__()
        if error.status not in elsewhere or error is UnknownVerdict
    ]
    kinds = [title.lower().replace(" ", "_") for title in (*titles, "Internal error")]
    own = re.findall(r'(?:Failure|missing)\("([\w-]+)"', SCRIPTS)
    made = {f"problem_{name.replace('-', '_')}" for name in (*kinds, *own)}
    made |= {f"problem_{code}" for code in get_args(Code)}
    made |= {f"kind_{kind}" for kind in get_args(ErrorKind)}
    made |= {f"by_{by}" for by in get_args(SummaryBy)}
    made |= {f"window_{name}" for name in WINDOWS}
    made |= {f"stand_{stand}" for stand in ("for", "against", "said", "silent", "waiting")}
    called = re.findall(r'\bword\(\s*"(\w+)"', SCRIPTS) + re.findall(r'data-word="(\w+)"', HTML)
    quoted = {name for name in WORDS["en"] if f'"{name}"' in SCRIPTS + HTML}

    assert made | quoted == WORDS["en"].keys()
    assert set(called) <= quoted
    for name, choices in (("modality", Modality), ("style", Style), ("summarise", Summarise)):
        offered = re.findall(rf'<option value="(\w+)" data-word="{name}_\1"', HTML)
        assert offered == list(get_args(choices))
    assert re.findall(r"WINDOWS = \[(.*)\]", SCRIPTS) == [", ".join(f'"{w}"' for w in WINDOWS)]
