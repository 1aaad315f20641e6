"""Tensors on disk: written whole or not at all."""

import os
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor


def save_whole(tensors: dict[str, Tensor], path: Path) -> None:
    """Writes a safetensors file in place of whatever is there.

    Raises:
        OSError: it could not be written; what was there before is untouched.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file({name: value.contiguous() for name, value in tensors.items()}, scratch)
        scratch.rename(path)
    except SafetensorError as error:
        scratch.unlink(missing_ok=True)
        raise OSError(
            f"{path} could not be written ({error}). Make room, and run the same command again."
        ) from error
