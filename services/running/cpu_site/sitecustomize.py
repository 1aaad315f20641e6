"""Python runs this first in every process of a vLLM server on the CPU build
(services/running/engine.py puts the folder on PYTHONPATH): the server, its
engine core, and the process that inspects models.

`models.cpu_torch` must be imported before torchvision and its siblings are, and not sooner: it
imports torch, which most of the helper processes do without.
"""

import sys


class _BeforeTorchvision:
    """A finder that finds nothing; it only notices what is asked for."""

    @classmethod
    def find_spec(cls, name: str, path: object = None, target: object = None) -> None:
        if name in {"torchvision", "torchaudio", "torchcodec"}:
            sys.meta_path.remove(cls)
            import models.cpu_torch  # noqa: F401


sys.meta_path.insert(0, _BeforeTorchvision)
