"""Tensors on disk: written whole or not at all."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from models.files import written_whole


def save_whole(tensors: dict[str, Tensor], path: Path) -> None:
    """Writes a safetensors file in place of whatever is there.

    Raises:
        OSError: it could not be written; what was there before is untouched.
    """
    try:
        with written_whole(path) as scratch:
            save_file({name: value.contiguous() for name, value in tensors.items()}, scratch)
    except SafetensorError as error:
        raise OSError(
            f"{path} could not be written ({error}). Make room, and run the same command again."
        ) from error
