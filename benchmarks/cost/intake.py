"""What the fast path spares: python -m benchmarks.cost.intake FOLDER [--images N]

JPEG and PNG files below FOLDER, each stripped undecoded and, in turns, decoded and encoded again as
every other format is. Prints the medians, how many files the fast path takes, and whether a pixel
differs: then the exit status is 1.
"""

import argparse
import io
import json
import statistics
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gateway.intake.pixels import only_pixels, undecoded

HERE = "Image 1 of 1"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--images", type=int, default=400)
    options = arguments.parse_args()
    found = sorted(p for p in options.folder.rglob("*") if p.suffix in {".jpg", ".jpeg", ".png"})
    fast, slow, differing, taken = [], [], 0, 0
    for path in found[: options.images]:
        data = path.read_bytes()
        tiff = as_tiff(data)
        began = time.perf_counter()
        stripped = undecoded(data, HERE)
        middle = time.perf_counter()
        # A TIFF of the same picture has no fast path.
        decoded = only_pixels(tiff, HERE)
        done = time.perf_counter()
        if stripped is None:
            continue
        taken += 1
        fast.append(middle - began)
        slow.append(done - middle)
        differing += not np.array_equal(pixels(stripped.data), pixels(decoded.data))
    files = len(found[: options.images])
    fast_ms, slow_ms = (1000 * statistics.median(seconds) for seconds in (fast, slow))
    print(f"{taken} of {files} files take the fast path; {differing} differ in a pixel")
    print(f"stripped {fast_ms:.2f} ms, decoded and encoded again {slow_ms:.2f} ms (medians)")
    print(json.dumps({"fast_ms": fast_ms, "slow_ms": slow_ms, "differing": differing}))
    raise SystemExit(differing > 0)


def as_tiff(data: bytes) -> bytes:
    file = io.BytesIO()
    Image.open(io.BytesIO(data)).save(file, "TIFF")
    return file.getvalue()


def pixels(data: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(data)))


if __name__ == "__main__":
    main()
