"""Exported workers: the folders of the zoo, and the name that each is served under."""

import hashlib
import json
from pathlib import Path

ZOO = Path(__file__).parent / "zoo"
ADAPTER = "adapter_config.json"  # makes a folder a peft adapter of a language model
MEMORY = "memory.safetensors"  # makes a folder a memory: cases found again, and no weights
FORMAT = 2  # of the served folder; raise it when what models.serving.export writes there changes
TOLD = ("README.md", "LICENSE", "scores.json")  # of the worker, and no part of it


def served_name(folder: Path) -> str:
    """A hash over all that an exported worker is: its served folder is called so, and vLLM says
    which folder it serves."""
    digest = hashlib.sha256(str(FORMAT).encode())
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in TOLD:
            digest.update(str(path.relative_to(folder)).encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def for_everyone(folder: Path) -> None:
    """Lets everyone read `folder` and all in it, whatever the umask and whoever wrote it: in a
    container another user does, and safetensors writes for its own alone."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def find(name: str, folder: Path | None = None) -> Path | None:
    """The worker among those exported into `folder` (the zoo) that is served under `name`."""
    workers = (path.parent for path in (folder or ZOO).glob("*/recipe.toml"))
    return next((worker for worker in workers if served_name(worker) == name), None)


def adapter_base(reference: str) -> str:
    """The base model of a peft adapter's folder; of anything else, what was given."""
    config = Path(reference) / ADAPTER
    if not config.exists():
        return reference
    return str(json.loads(config.read_text("utf-8"))["base_model_name_or_path"])
