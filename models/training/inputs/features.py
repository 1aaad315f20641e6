"""A frozen tower's features, computed once and kept: `$CONSILIUM_CACHE/features/KEY*.safetensors`.

The key covers the tower's settings, weights and preprocessing, the dtype, and which copy of the
images it is; within its files an image is named by the hash of its decoded pixels. A file is added
for every few hundred images, and read where it lies: no more is in memory than is asked for.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from rich.progress import track
from safetensors import safe_open
from torch import Tensor

from models.assets import cache_dir
from models.data.image_hashes import pixel_hashes
from models.data.pixels import open_rgb
from models.parts.vision import Tower
from models.tensors import save_whole
from models.training.inputs.augment import copy_of

DTYPE = torch.bfloat16
BATCH = 8
SHARD = 64  # batches in one file


class Features(Mapping[Path, Tensor]):
    """Each image's features, [patches, dim] in bfloat16; read from disk whenever asked for."""

    def __init__(self, key_of: Mapping[Path, str], files: Iterable[Path]):
        self.key_of = key_of
        self.file_of = {key: file for file in map(_opened, files) for key in file.keys()}  # noqa: SIM118

    def __getitem__(self, image: Path) -> Tensor:
        key = self.key_of[image]
        return self.file_of[key].get_tensor(key)

    def __iter__(self) -> Iterator[Path]:
        return iter(self.key_of)

    def __len__(self) -> int:
        return len(self.key_of)


def cached_features(tower: Tower, images: Iterable[Path], copy: int = 0) -> Features:
    """The images' features, computed where the tower lies, and only where the cache has none; those
    of their augmented copies of that number, where `copy` is not 0.
    """
    folder, name = cache_dir() / "features", _key(tower, copy)
    folder.mkdir(parents=True, exist_ok=True)
    key_of = pixel_hashes(images)
    found = Features(key_of, folder.glob(f"{name}*.safetensors"))
    missing = {key: image for image, key in key_of.items() if key not in found.file_of}
    keys = list(missing)
    shard: dict[str, Tensor] = {}
    for start in track(range(0, len(keys), BATCH), "tower features", disable=not keys):
        batch = keys[start : start + BATCH]
        shown = [copy_of(open_rgb(missing[key]), copy) for key in batch]
        pixels = torch.stack([tower.preprocess(image) for image in shown])
        with torch.no_grad():
            features = tower(pixels.to(_device(tower))).to(DTYPE).cpu()
        shard |= {key: one.clone() for key, one in zip(batch, features, strict=True)}
        if len(shard) >= SHARD * BATCH or start + BATCH >= len(keys):
            save_whole(shard, folder / f"{name}-{batch[0][:16]}.safetensors")
            shard = {}
    return Features(key_of, folder.glob(f"{name}*.safetensors")) if keys else found


def _opened(file: Path) -> Any:
    return safe_open(file, "pt")


def _device(tower: Tower) -> torch.device:
    return next(tower.parameters()).device


def _key(tower: Tower, copy: int) -> str:
    # A drawn image stands for how images are augmented and preprocessed: code has no hash.
    drawn = Image.linear_gradient("L").resize((97, 61)).convert("RGB")
    probe = tower.preprocess(copy_of(drawn, copy))
    digest = hashlib.sha256(json.dumps([tower.describe(), str(DTYPE)], sort_keys=True).encode())
    digest.update(probe.numpy().tobytes())
    for name, value in sorted(tower.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
