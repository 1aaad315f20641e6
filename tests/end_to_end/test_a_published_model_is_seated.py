"""A vision-language model as it is published, taught by LoRA: exported, served by vLLM merged and
as an adapter beside the model, held to transformers (docs/training.md, "A published model, whole").
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import SecretBytes

from gateway.settings import Settings
from gateway.tables import PanelSettings, WorkerSettings
from models.recipe import load_programme
from models.serving.export import load_served, served_folder
from models.serving.parity import compare
from models.training.record.checkpoints import newest
from services.running.engine import Launch, launch
from services.running.stack import running
from services.running.verify import SEAT, questions
from tests import tiny, tiny_vlm
from tests.ports import free_port

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

    beside = adapter_beside_the_model(tmp_path / "published", tmp_path / "exported")
    with running([beside], tmp_path / "logs", print) as up:
        asked = questions(load_programme(recipe), data)
        merged = load_served(served_folder(tmp_path / "exported"))
        url = up.services[0].launch.url
        found = compare(merged, url, SEAT, content["prompt"], asked)
    assert len(found.comparisons) == 8 and not found.differing


def adapter_beside_the_model(published: Path, exported: Path) -> Launch:
    """A server of the publisher's own files, whose seat is the adapter."""
    own = {"enable-lora": True, "max-lora-rank": 16, "lora-modules": f"{SEAT}={exported}"}
    seat = {
        "name": SEAT,
        "family": "tiny",
        "model": str(published),
        "engine": own,
        "prompt": "{question}",
    }
    told = {"url": f"http://127.0.0.1:{free_port()}", "external": False}
    settings = Settings(
        file=Path(),
        panel=PanelSettings(quorum=1),
        workers=(WorkerSettings.model_validate(seat | told),),
        panel_hash="",
        secret=SecretBytes(b""),
    )
    return launch(settings, SEAT, published)


def consilium(*arguments: object) -> str:
    command = [sys.executable, "-m", "services.cli", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout
