"""What a page of docs/ shows, as a test takes it: its modules as files of our packages."""

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

OURS = Path(__file__).parents[1]


def read(page: str) -> str:
    return (OURS / "docs" / page).read_text("utf-8")


def add_module(
    page: str, package: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """The one module that the page shows, as one file more of `package`; its name.

    It is written to `folder`, which the package then looks into too.
    """
    place = package.__name__.replace(".", "/")
    shown = re.findall(rf"`{place}/(\w+)\.py`:\n\n```python\n(.*?)```", page, re.DOTALL)
    ((name, code),) = [each for each in shown if not (OURS / place / f"{each[0]}.py").exists()]
    (folder / f"{name}.py").write_text(code, "utf-8")
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
    monkeypatch.delitem(sys.modules, f"{package.__name__}.{name}", raising=False)
    return str(name)


def entry(page: str) -> str:
    """The one line of a table of ours that the page shows: `"NAME": …,`, indented."""
    (line,) = re.findall(r"^    +(\"[^\"\n]+\": .+),$", page, re.MULTILINE)
    return str(line)
