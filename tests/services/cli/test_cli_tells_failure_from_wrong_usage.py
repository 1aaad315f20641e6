"""Exit status 0 is good, 1 a failure in one line, 2 wrong usage."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from services.cli.__main__ import app

ROOT = Path(__file__).parents[3]
PANEL = (ROOT / "panel.toml").read_text("utf-8")


def consilium(*arguments: str, panel: Path | None = None) -> subprocess.CompletedProcess[str]:
    chosen = ["--panel", str(panel)] if panel else []
    command = [sys.executable, "-m", "services.cli", *arguments, *chosen]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    "arguments",
    [
        ("no-such-command",),
        ("ask", "no-such-file.dcm", "--question", "?"),
        ("ask", "panel.toml"),
        ("ask", "panel.toml", "-q", "?", "--language", "la"),
        ("serve", "--port", "99999"),
        ("worker",),
    ],
)
def test_wrong_usage_is_2(arguments: tuple[str, ...]) -> None:
    """And says what is wrong with it."""
    done = consilium(*arguments)

    assert done.returncode == 2
    assert "Error" in done.stderr or "Usage" in done.stderr


@pytest.mark.parametrize(
    "verb",
    [("demo",), ("serve",), ("worker", "mobilenet"), ("compose",), ("plan", "--gpus", "1x80")],
)
@pytest.mark.parametrize(
    ("content", "named"),
    [
        (PANEL.replace("quorum = 2", "quorum = 9"), "panel.quorum is 9"),
        (PANEL.replace("quorum = 2", "quorm = 2"), "panel: quorm: is not a known key"),
        ("[panel\n", "not TOML"),
    ],
)
def test_a_wrong_panel_file_is_one_line_before_anything_starts(
    verb: tuple[str, ...], content: str, named: str, tmp_path: Path
) -> None:
    """It names the file, the key and the mend."""
    panel = tmp_path / "panel.toml"
    panel.write_text(content, "utf-8")

    done = consilium(*verb, panel=panel)

    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(f"consilium: {panel}: ")
    assert named in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_panel_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """With the variable that names another."""
    done = consilium("serve", panel=tmp_path / "none.toml")

    assert done.returncode == 1
    assert "none.toml" in done.stderr
    assert "CONSILIUM_PANEL" in done.stderr


def test_a_gateway_that_is_not_up_is_one_line(dead_url: str) -> None:
    """Not a traceback."""
    done = consilium("ask", "panel.toml", "-q", "?", "--gateway", dead_url)

    assert done.returncode == 1
    assert done.stderr.startswith(f"consilium: No verdict from {dead_url}")
    assert done.stderr.count("\n") == 1


def test_a_taken_port_is_named_before_anything_starts() -> None:
    """With whose it was to be."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = consilium("serve", "--port", str(port))

    assert done.returncode == 1
    assert f"Port {port}, which gateway needs, is taken" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("consilium ev", ["evaluate"]),
        ("consilium evaluate --da", ["--dataset", "--data"]),
        ("consilium key ", ["add", "list", "revoke"]),
    ],
)
def test_a_shell_completes_verbs_and_options(typed, offered):
    """As the script that `--install-completion` leaves asks for it."""
    asked = {"COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
    asked["_CONSILIUM_COMPLETE"] = "complete_bash"

    told = CliRunner().invoke(app, prog_name="consilium", env=asked)

    assert told.output.split() == offered
