"""The README's map is the tree, and its links lead somewhere."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def mapped() -> set[str]:
    """The files that the map names, from its indentation."""
    block = README.split("## Where things are")[1].split("```")[1]
    found, folders = set(), [""]
    for line in block.strip("\n").splitlines():
        if not line.strip():
            continue
        depth, name = (len(line) - len(line.lstrip())) // 2, line.split()[0]
        folders[depth + 1 :] = [f"{folders[depth]}{name}"] if name.endswith("/") else []
        if name.endswith(".py"):
            found.add(f"{folders[depth]}{name}")
    return found


def test_the_map_names_every_module_and_no_other() -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "gateway", "services", "models"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()

    modules = {path for path in tracked if path.endswith(".py")}

    assert mapped() == {path for path in modules if not path.endswith("__init__.py")}


def test_every_link_in_the_documents_leads_to_a_file() -> None:
    for document in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        targets = re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text("utf-8"))
        assert [t for t in targets if not (document.parent / t).exists()] == [], document
