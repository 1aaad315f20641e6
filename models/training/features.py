"""A frozen tower's features, computed once and kept: `$CONSILIUM_CACHE/features/KEY.safetensors`.

The key covers the tower's settings, weights and preprocessing, the dtype, and which copy of the
images it is; within the file an image is named by the hash of its decoded pixels.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import torch
from PIL import Image
from rich.progress import track
from safetensors.torch import load_file
from torch import Tensor

from models.assets import cache_dir
from models.data.pixel_hashes import pixel_hashes
from models.data.pixels import open_rgb
from models.parts.vision import Tower
from models.tensors import save_whole
from models.training.augment import copy_of

DTYPE = torch.bfloat16


def cached_features(
    tower: Tower, images: Iterable[Path], copy: int = 0, batch: int = 8
) -> dict[Path, Tensor]:
    """Each image's features, [patches, dim] in bfloat16, computed only where the cache has none;
    those of its augmented copy of that number, where `copy` is not 0.
    """
    path = cache_dir() / "features" / f"{_key(tower, copy)}.safetensors"
    kept = load_file(path) if path.exists() else {}
    key_of = pixel_hashes(images)
    missing = list({key: image for image, key in key_of.items() if key not in kept}.items())
    for start in track(range(0, len(missing), batch), "tower features", disable=not missing):
        chunk = missing[start : start + batch]
        shown = [copy_of(open_rgb(image), copy) for _, image in chunk]
        pixels = torch.stack([tower.preprocess(image) for image in shown])
        with torch.no_grad():
            features = tower(pixels).to(DTYPE)
        kept |= {
            key: one.contiguous().clone() for (key, _), one in zip(chunk, features, strict=True)
        }
    if missing:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_whole(kept, path)
    return {image: kept[key] for image, key in key_of.items()}


def _key(tower: Tower, copy: int) -> str:
    # A drawn image stands for how images are augmented and preprocessed: code has no hash.
    drawn = Image.linear_gradient("L").resize((97, 61)).convert("RGB")
    probe = tower.preprocess(copy_of(drawn, copy))
    digest = hashlib.sha256(json.dumps([tower.describe(), str(DTYPE)], sort_keys=True).encode())
    digest.update(probe.numpy().tobytes())
    for name, value in sorted(tower.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()[:16]
