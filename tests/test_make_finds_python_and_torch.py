"""`make` says which Python fits, takes torch from where it can be reached, and cleans up."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("models", "services")
PROGRAMS = (
    "sh",
    "mkdir",
    "cp",
    "grep",
    "tail",
    "sleep",
    "du",
    "cut",
    "rm",
    "rmdir",
    "touch",
    "find",
)
# A python that makes a .venv of itself, notes what pip is asked for, and installs nothing.
FAKE = """#!/bin/sh
case "$*" in
    -V) echo "Python {version}" ;;
    -c*) exit {fits} ;;
    *venv*) mkdir -p .venv/bin; cp "$0" .venv/bin/python ;;
    *config*) [ -z "$PIP_FIND_LINKS" ] || echo ":env:.find-links='$PIP_FIND_LINKS'" ;;
    *) echo "$*" >> asked; exit 1 ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What `make` reads of the repository, where nothing was made yet; and a PATH of no Python."""
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "constraints", tmp_path / "constraints")
    (tmp_path / "bin").mkdir()
    for program in PROGRAMS:
        found = shutil.which(program)
        assert found
        (tmp_path / "bin" / program).symlink_to(found)
    return tmp_path


def write_python(path: Path, version: str, fits: bool) -> None:
    path.write_text(FAKE.format(version=version, fits=0 if fits else 1))
    path.chmod(0o755)


def make(
    checkout: Path, *arguments: str, goal: str = "environment", **environ: str
) -> subprocess.CompletedProcess[str]:
    program = shutil.which("make")
    assert program
    return subprocess.run(
        [program, goal, *arguments],
        cwd=checkout,
        env={"PATH": str(checkout / "bin"), "HOME": str(checkout)} | environ,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_python_that_does_not_fit_is_told_which_do(checkout: Path) -> None:
    """By the names that the PATH has, and how to choose one."""
    write_python(checkout / "bin" / "python3", "3.10.2", fits=False)
    write_python(checkout / "bin" / "python3.12", "3.12.1", fits=True)
    write_python(checkout / "bin" / "python3.13", "3.13.0", fits=False)  # without venv, say

    done = make(checkout)

    assert done.returncode != 0
    assert (
        "Consilium needs Python 3.11 to 3.14 with venv; python3 is Python 3.10.2. "
        "Found on the PATH: python3.12. Choose with: make environment PYTHON=/path/to/python"
    ) in done.stderr
    assert not (checkout / ".venv").exists()


@pytest.mark.parametrize(
    ("environ", "index"),
    [
        ({}, "https://download.pytorch.org/whl/cpu"),
        ({"PIP_FIND_LINKS": "/wheels"}, None),
        ({"CONSILIUM_TORCH_INDEX": "http://here/cpu"}, "http://here/cpu"),
        ({"CONSILIUM_TORCH_INDEX": "http://here/cpu", "PIP_FIND_LINKS": "/w"}, "http://here/cpu"),
    ],
)
def test_torchs_cpu_wheel_comes_from_where_one_says_and_else_from_pytorch(
    environ: dict[str, str], index: str | None, checkout: Path
) -> None:
    """The Python that one chooses makes the environment; no other is asked."""
    write_python(checkout / "chosen", "3.12.1", fits=True)

    done = make(checkout, "PYTHON=./chosen", **environ)

    (asked,) = (checkout / "asked").read_text().splitlines()
    assert "--no-deps torch==2.13.0+cpu" in asked
    assert asked.endswith(f"--extra-index-url {index}" if index else "torch==2.13.0+cpu")
    assert "No CPU build of torch 2.13.0 was found. Set CONSILIUM_TORCH_INDEX" in done.stderr


def test_the_pythons_of_the_makefile_are_those_of_the_package() -> None:
    """One range, told twice."""
    makefile = (ROOT / "Makefile").read_text()

    assert "(3, 11) <= sys.version_info[:2] < (3, 15)" in makefile
    assert 'requires-python = ">=3.11,<3.15"' in (ROOT / "pyproject.toml").read_text()


def test_clean_leaves_nothing_of_the_cache(checkout: Path) -> None:
    """Whatever the code keeps there, its folder goes too."""
    sources = [path.read_text("utf-8") for room in ROOMS for path in (ROOT / room).rglob("*.py")]
    kept = {name for text in sources for name in re.findall(r'cache_dir\(\) / "([\w.]+)"', text)}
    assert {"logs", "served"} <= kept
    cache = checkout / "cache"
    for name in kept | {"base"}:
        (cache / name).mkdir(parents=True)

    done = make(checkout, goal="clean", CONSILIUM_CACHE=str(cache))

    assert done.returncode == 0
    assert not cache.exists()
