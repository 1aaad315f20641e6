"""A vision-language model as it is published, taught by LoRA: exported, served by vLLM, held to
transformers (docs/training.md, "A published model, whole").
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from models.training.record.checkpoints import newest
from tests import tiny, tiny_vlm

pytestmark = pytest.mark.alone

ROOT = Path(__file__).parents[2]
# Enough to learn four colours, so that no answer hangs on bfloat16's last digits.
STAGE = {"lora": {"rank": 16}, "epochs": 30, "language_lr": 5e-3, "warmup_steps": 4}


def test_vllm_says_what_transformers_says(tmp_path: Path) -> None:
    data = tiny.draw_slake(tmp_path / "data")
    content = tiny_vlm.recipe(tiny_vlm.save_qwen(tmp_path / "published"), **STAGE)
    recipe, runs = tiny.write_toml(content, tmp_path / "recipe.toml"), tmp_path / "runs"

    consilium("train", recipe, "--data", data, "--runs", runs)
    kept = newest(runs / "published" / "vqa")
    assert kept
    to = ("--out", tmp_path / "exported", "--verify", "--data", data)

    assert "parity holds: 0 of 8 answers differ" in consilium("export", recipe, kept.folder, *to)


def consilium(*arguments: object) -> str:
    command = [sys.executable, "-m", "services.cli", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout
