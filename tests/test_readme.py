"""The documents' maps are the tree, and their links lead somewhere."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


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
    command = ["git", "ls-files", "gateway", "services", "models"]
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


def test_every_link_in_the_documents_leads_to_a_file() -> None:
    for document in DOCUMENTS:
        targets = re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text("utf-8"))
        assert [t for t in targets if not (document.parent / t).exists()] == [], document
