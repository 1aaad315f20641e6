"""The documents' maps are the tree, their links lead somewhere, and the README leads to each."""

import re
import subprocess
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\]\((?!https?:)([^)#]*)(#[^)]*)?\)")


def mapped(document: Path) -> set[str]:
    """The files and folders that a document's map names, from its indentation."""
    block = document.read_text("utf-8").split("## Where things are")[1].split("```")[1]
    found, folders = set(), [""]
    for line in block.strip("\n").splitlines():
        if not line.strip():
            continue
        depth, name = (len(line) - len(line.lstrip())) // 2, line.split()[0]
        folders[depth + 1 :] = [f"{folders[depth]}{name}"] if name.endswith("/") else []
        found.add(f"{folders[depth]}{name}")
    return found


def modules() -> set[str]:
    command = ["git", "ls-files", "client", "gateway", "services", "models"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found = {path for path in listed.split() if path.endswith(".py")}
    return {path for path in found if not path.endswith("__init__.py")}


def test_the_architecture_names_every_module_and_no_other() -> None:
    named = mapped(ROOT / "docs" / "architecture.md")

    assert {path for path in named if path.endswith(".py")} == modules()


def test_the_readme_names_every_room_and_no_other() -> None:
    rooms = {f"{a}/{b}/" for a, b, *rest in (m.split("/") for m in modules()) if rest}

    named = mapped(ROOT / "README.md")

    found = {path for path in named if path.count("/") == 2}
    assert found == rooms | {"models/recipes/", "models/zoo/"}


def headings(document: Path) -> set[str]:
    """A page's anchors, as GitHub makes them of its headings."""
    lines = re.findall(r"^#+ (.*)$", document.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}


def test_every_link_in_the_documents_leads_to_a_file_and_a_heading() -> None:
    wrong = []
    for document in DOCUMENTS:
        for file, anchor in LINK.findall(document.read_text("utf-8")):
            target = document.parent / file if file else document
            if not target.exists() or (anchor and anchor[1:] not in headings(target)):
                wrong.append((document.name, f"{file}{anchor}"))

    assert wrong == []


def test_the_readme_leads_to_every_page() -> None:
    """Whoever writes one says there what it is for."""
    linked = {file for file, _ in LINK.findall((ROOT / "README.md").read_text("utf-8"))}

    pages = {str(page.relative_to(ROOT)) for page in DOCUMENTS} - {"README.md"}
    assert pages - linked == set()


def test_the_citation_names_what_the_package_is() -> None:
    """With every key that the Citation File Format 1.2.0 requires, and the package's version."""
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

    assert {"cff-version", "message", "title", "authors"} <= cited.keys()
    assert cited["cff-version"] == "1.2.0"
    assert cited["title"].lower() == project["name"]
    assert (cited["version"], cited["authors"]) == (project["version"], project["authors"])
    assert " ".join(cited["abstract"].split()) == project["description"]


def test_the_changelog_has_this_version() -> None:
    """Above it stands what is not released yet."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")

    first, second, *_ = re.findall(r"^## (\S+)", text, re.MULTILINE)
    assert (first, second) == ("Unreleased", project["version"])
