"""Lets a CPU build of torch live with the index's torchvision and torchaudio (CUDA builds).

Import this module before anything that imports torchvision (timm, transformers, vLLM).

torchvision's compiled operators cannot be loaded there, and its import fails on two that it
describes to torch but never got to define. Declaring their schemas is enough: nothing here calls
them. torchaudio and torchcodec fail in the same way and nothing here needs them, so they are made
to look absent.
"""

import logging
import sys

import torch

if torch.version.cuda is None and torch.version.hip is None:
    # bitsandbytes, which peft imports, warns each time that a kernel for 4-bit weights which a hub
    # offers is not installed: it has its own.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    # Kept for the life of the process: a Library that is collected takes its schemas with it.
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in (
        "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    ):
        library.define(schema)
    for absent in ("torchaudio", "torchcodec"):
        sys.modules[absent] = None  # type: ignore[assignment]
