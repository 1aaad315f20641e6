"""docs/seeds.md: every path is in the tree, and no recipe or connector is left out."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOMS = ("benchmarks", "gateway", "models", "services")


def named() -> set[str]:
    page = (ROOT / "docs" / "seeds.md").read_text("utf-8")
    quoted = re.findall(r"`([^`\s]+)`", page)
    return {each for each in quoted if each.split("/")[0] in ROOMS or each.endswith(".toml")}


def test_every_path_is_a_file_of_the_tree() -> None:
    assert [path for path in sorted(named()) if not (ROOT / path).is_file()] == []


def test_every_recipe_and_connector_has_its_row() -> None:
    there = [*ROOT.glob("models/recipes/*.toml"), *ROOT.glob("models/connectors/[!_]*.py")]

    assert {str(path.relative_to(ROOT)) for path in there} - named() == set()
