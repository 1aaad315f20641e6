"""inspect_ai asks the panel as it asks any of OpenAI's models. It is none of our requirements: the
test runs where its program `inspect` is found, or CONSILIUM_INSPECT says which it is; `make
test-inspect` installs it."""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import pages
from tests.conftest import picture

INSPECT = os.environ.get("CONSILIUM_INSPECT") or shutil.which("inspect")


@pytest.mark.skipif(not INSPECT, reason="needs inspect_ai; make test-inspect installs it")
def test_inspect_ai_asks_the_panel(
    vllm: Callable[..., Any], gateway: Callable[..., str], tmp_path: Path
) -> None:
    """By the task and the command that docs/evaluate.md shows; the worker is sent the images."""
    worker = vllm("Yes")
    url = gateway([worker])
    page = pages.read("evaluate.md")
    (task,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (command,) = re.findall(r"^inspect eval .*$", page, re.MULTILINE)
    (tmp_path / "panel.py").write_text(task, "utf-8")
    (tmp_path / "cases.csv").write_text("id,images,question,answer\n1,chest.png,Is it?,Yes\n")
    (tmp_path / "chest.png").write_bytes(picture())

    ran = subprocess.run(
        [str(INSPECT), *shlex.split(command)[1:], "--display=plain"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
        | {"OPENAI_BASE_URL": f"{url}/v1", "OPENAI_API_KEY": "none"},
        capture_output=True,
        text=True,
    )

    assert re.search(r"mean\s+1\.000", ran.stdout), ran.stdout + ran.stderr
    (request,) = worker.requests
    assert [part["type"] for part in request["messages"][0]["content"]] == ["image_url", "text"]
