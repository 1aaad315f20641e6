"""A measurement that takes minutes is run here for a moment: it starts, measures and tells."""

import shlex
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.alone


@pytest.mark.parametrize(
    ("command", "tells"),
    [
        ("cost.gateway --kb 0 --callers 1 --runs 1 --seconds 0.2", "| 0 | 1 | consilium |"),
        ("cost.overhead --cases 4", "through the gateway, form"),
        ("cost.intake FOLDER --images 2", "files take the fast path"),
        ("faults.early_stop --cases 40", "p99 of enough over that of all"),
        ("faults.chaos --fault 'disk full'", "| disk full |"),
    ],
)
def test_for_a_moment(command, tells, tmp_path):
    """Whether a bar is missed in so short a time says nothing."""
    for name in ("1.png", "2.png"):
        noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / name)
    name, *arguments = shlex.split(command.replace("FOLDER", str(tmp_path)))
    ran = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *arguments], capture_output=True, text=True
    )
    assert tells in ran.stdout and "Traceback" not in ran.stderr, ran.stderr
