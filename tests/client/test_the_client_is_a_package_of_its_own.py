"""`pip install ./client`: its wheel holds all that it imports, or says who brings it."""

import ast
import shutil
import subprocess
import sys
import zipfile
from email import message_from_bytes
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

CLIENT = Path(__file__).parents[2] / "client"
BUILD = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
USE = "import sys; sys.path.insert(0, sys.argv[1]); import consilium; print(consilium.__file__)"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as pip does, from a copy: setuptools leaves folders beside what it builds."""
    folder = tmp_path_factory.mktemp("client")
    shutil.copytree(CLIENT, folder / "source")
    command = [sys.executable, "-c", BUILD, str(folder)]
    subprocess.run(command, cwd=folder / "source", check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_its_wheel_is_imported_from(wheel: Path) -> None:
    command = [sys.executable, "-I", "-c", USE, str(wheel)]
    used = subprocess.run(command, capture_output=True, text=True, check=True)

    assert used.stdout.startswith(str(wheel))
    assert "consilium/py.typed" in zipfile.ZipFile(wheel).namelist()


def test_it_asks_for_what_it_imports_and_nothing_else(wheel: Path) -> None:
    files = zipfile.ZipFile(wheel)
    (metadata,) = (name for name in files.namelist() if name.endswith("METADATA"))
    wanted = message_from_bytes(files.read(metadata)).get_all("Requires-Dist") or []
    imported = set()
    for name in files.namelist():
        if name.endswith(".py"):
            for node in ast.walk(ast.parse(files.read(name))):
                if isinstance(node, ast.ImportFrom) and node.module:
                    imported.add(node.module.partition(".")[0])
                elif isinstance(node, ast.Import):
                    imported |= {each.name.partition(".")[0] for each in node.names}
    others = imported - sys.stdlib_module_names - {"consilium"}

    bringing = packages_distributions()
    brought = {bringing[name][0].lower().replace("_", "-") for name in others}
    assert {each.partition(">")[0] for each in wanted} == brought
