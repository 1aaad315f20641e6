"""What a CPU build of torch makes others say is nobody's concern."""

import subprocess
import sys


def test_nobody_is_told_of_kernels_that_a_hub_offers():
    """bitsandbytes would, at every training and every start of an engine."""
    told = subprocess.run(
        [sys.executable, "-c", "import models.cpu_torch, bitsandbytes"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "kernels" not in told.stdout + told.stderr
