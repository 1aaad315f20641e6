"""Is the modality told right of pictures that nobody was taught?

    consilium serve                              (in one shell; in another)
    python -m benchmarks.accuracy.modality [--gateway http://127.0.0.1:8000]

Asks a running panel for the modality of every CT, MR, X-ray and ultrasound of one frame among
pydicom's files, each picture once however it is stored: as the DICOM that it is, whose header says
the modality, and as the mere picture that the workers see of it.
"""

import argparse
import base64
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import httpx
import pydicom
from pydicom.data.data_manager import DATA_ROOT

from gateway.contract import Modality
from gateway.intake.dicom.objects import modality_of
from gateway.verdict.text.modality import names_another

QUESTION = "What modality is used to take this image?"
ASKED: tuple[Modality, ...] = ("ct", "mri", "xray", "ultrasound")


def single_frames() -> Iterator[tuple[Path, Modality]]:
    for path in sorted(Path(DATA_ROOT).rglob("*.dcm")):
        header = pydicom.dcmread(path, force=True, stop_before_pixels=True)
        modality = modality_of(header)
        if modality in ASKED and int(header.get("NumberOfFrames") or 1) == 1:
            yield path, modality


def is_right(answer: str, known: Modality) -> bool:
    other = next(each for each in ASKED if each != known)
    return not names_another(answer, known) and names_another(answer, other)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gateway", default="http://127.0.0.1:8000")
    url = parser.parse_args().gateway
    seen: set[str] = set()
    right: dict[str, list[bool]] = defaultdict(list)
    with httpx.Client(base_url=url, timeout=60) as client:

        def answer(name: str, data: bytes) -> str:
            told = client.post("/vqa", data={"question": QUESTION}, files={"images": (name, data)})
            verdict = told.raise_for_status().json()
            return str(verdict["answer"] or verdict["best_guess"])

        for path, modality in single_frames():
            shown = client.post("/preview", files={"images": (path.name, path.read_bytes())})
            if shown.is_error or shown.json()["picture"] in seen:
                continue
            picture = shown.json()["picture"]
            seen.add(picture)
            said = {
                "header": answer(path.name, path.read_bytes()),
                "picture": answer("picture.png", base64.b64decode(picture.partition(",")[2])),
            }
            for how, text in said.items():
                right[how].append(is_right(text, modality))
            print(f"{path.name:34} {modality:10} {said['header']:28} {said['picture']}", flush=True)
    for how, each in right.items():
        print(f"{how}: {sum(each)} of {len(each)} right")


if __name__ == "__main__":
    main()
