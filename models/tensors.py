"""Tensors on disk: written whole or not at all, and a file that is not whole is told."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
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


def load_tensors(path: Path, mend: str) -> dict[str, Tensor]:
    """What a safetensors file holds.

    Raises:
        OSError: it is not there, or broken; ends in `mend`.
    """
    with told_where_broken(path, mend):
        return load_file(path)


@contextmanager
def told_where_broken(path: Path, mend: str) -> Iterator[None]:
    """Around whatever reads the safetensors at `path`, which does not say of which file it speaks.

    Raises:
        OSError: it is broken, such as by a copy that was cut short; ends in `mend`.
    """
    try:
        yield
    except SafetensorError as error:
        raise OSError(f"{path} is broken or cut short ({error}): {mend}.") from error
