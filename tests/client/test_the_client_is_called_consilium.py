"""`from consilium import ask`, wherever a program stands and whatever it calls its own packages."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("module", ["consilium", "services.cli.asking"])
def test_folders_called_models_and_gateway_are_not_in_its_way(module: str, tmp_path: Path) -> None:
    """A program beside them, and the command line, which runs with safe paths."""
    for name in ("gateway", "models", "services"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('not ours')")
    alone = module == "consilium"
    paths = [ROOT / "client"] if alone else [ROOT, ROOT / "client"]
    environ = {"PYTHONPATH": os.pathsep.join(map(str, paths))}
    safe = [] if alone else ["-P"]

    done = subprocess.run(
        [sys.executable, *safe, "-c", f"import {module}"],
        cwd=tmp_path,
        env=os.environ | environ,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 0, done.stderr
