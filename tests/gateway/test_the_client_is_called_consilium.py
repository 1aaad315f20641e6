"""`from consilium import ask`, wherever a program stands and whatever it calls its own packages."""

import os
import subprocess
import sys
from pathlib import Path

import consilium
from gateway import client

ROOT = Path(__file__).parents[2]


def test_its_names_are_the_clients() -> None:
    """One class of each, so that what one catches is what the other raises."""
    assert {name: getattr(client, name) for name in consilium.__all__} == {
        name: getattr(consilium, name) for name in consilium.__all__
    }


def test_another_package_called_gateway_is_neither_in_its_way_nor_replaced(tmp_path: Path) -> None:
    """Before and after: each is what it was."""
    (tmp_path / "gateway").mkdir()
    (tmp_path / "gateway" / "__init__.py").write_text("OWN = True")
    (tmp_path / "gateway" / "later.py").write_text("")
    program = (
        "from consilium import Verdict, ask\n"
        "import gateway, gateway.later\n"
        "assert gateway.OWN and ask.__module__ == 'gateway.client'\n"
        "del __import__('sys').modules['consilium']\n"
        "from consilium import ask\n"
        "assert __import__('sys').modules['gateway'] is gateway\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 0, done.stderr
