"""What a series costs by its UID:
python -m benchmarks.cost.archive DICOMWEB [--slices N] [--enhanced] [--show WHAT]

N CT slices of 512 × 512, each a file or all of them frames of one, are stored (STOW-RS) in the
archive at DICOMWEB, whose Authorization header is CONSILIUM_ARCHIVE_AUTHORIZATION, and made into
pictures as the gateway does it. Prints the seconds that it takes to fetch the same and do nothing
with it, one file after the other; those that the pictures took beyond that; the same two in CPU
seconds, which a busy machine stretches less; and the peak of the memory of the process that makes
the pictures. Exit status 1 where a bar is missed.
"""

import argparse
import asyncio
import io
import json
import resource
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import httpx
import numpy as np
import pydicom
from pydantic import SecretStr
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from benchmarks import needs
from gateway.archive.dicomweb import Archive
from gateway.asking.model_server import new_http_client
from gateway.contract import ArchivedImages
from gateway.intake.series.pictures import pictures_of
from gateway.intake.series.sources import Archived
from gateway.tables import ArchiveSettings, Limits

SIDE, ROOM = 512, 4
OWN_BAR_S, PEAK_BAR_MB = 1.0, 400
AXIAL = [1, 0, 0, 0, 1, 0]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("dicomweb")
    arguments.add_argument("--slices", type=int, default=300)
    arguments.add_argument("--enhanced", action="store_true", help="all frames in one file")
    arguments.add_argument("--show", default="even")
    options = arguments.parse_args()
    holds = "the archive's Authorization header, such as Basic …"
    authorization = needs.variable("CONSILIUM_ARCHIVE_AUTHORIZATION", holds)
    needs.answering(options.dicomweb, "start an archive there that takes STOW-RS, such as Orthanc")
    study, series = generate_uid(), generate_uid()
    with ProcessPoolExecutor(1) as another:  # whose memory is not measured
        made = (options.slices, study, series, options.enhanced)
        another.submit(store, options.dicomweb, authorization, *made).result()
    settings = ArchiveSettings(url=options.dicomweb, authorization=SecretStr(authorization))

    async def show() -> tuple[float, float, float, float, int]:
        http = new_http_client()
        archive = Archive(http, settings, "public", Limits())
        began, cpu_began = time.perf_counter(), time.process_time()
        source = Archived(archive, ArchivedImages(study=study, series=series))
        made = await pictures_of(source, options.show, None, ROOM, Limits())
        whole_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu_began
        began, cpu_began = time.perf_counter(), time.process_time()
        await archive.metadata(study, series)
        for picture in made:
            for instance in picture.shown.series.instances if picture.shown.series else ():
                await archive.instance(study, series, instance)
        fetching_s = time.perf_counter() - began
        fetching_cpu_s = time.process_time() - cpu_began
        await http.close()
        own_s, own_cpu_s = whole_s - fetching_s, cpu_s - fetching_cpu_s
        return fetching_s, fetching_cpu_s, own_s, own_cpu_s, len(made)

    fetching_s, fetching_cpu_s, own_s, own_cpu_s, pictures = asyncio.run(show())
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    print(f"{options.slices} slices, {options.show}: {pictures} pictures")
    print(
        f"archive {fetching_s:.2f} s, of which {fetching_cpu_s:.2f} of CPU here; gateway "
        f"{own_s:.2f} s (bar {OWN_BAR_S:g}), {own_cpu_s:.2f} of CPU; peak memory {peak_mb:.0f} MB "
        f"(bar {PEAK_BAR_MB})"
    )
    found = {"archive_s": fetching_s, "archive_cpu_s": fetching_cpu_s}
    found |= {"gateway_s": own_s, "gateway_cpu_s": own_cpu_s, "peak_mb": peak_mb}
    print(json.dumps(found))
    raise SystemExit(own_s > OWN_BAR_S or peak_mb > PEAK_BAR_MB)


def store(dicomweb: str, authorization: str, *made: Any) -> None:
    """The `files` of these."""
    with httpx.Client(headers={"Authorization": authorization}, timeout=60) as http:
        for file in files(*made):
            body = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + file + b"\r\n--b--\r\n"
            kind = 'multipart/related; type="application/dicom"; boundary=b'
            url = f"{dicomweb}/studies"
            http.post(url, content=body, headers={"Content-Type": kind}).raise_for_status()


def files(count: int, study: str, series: str, enhanced: bool) -> Iterator[bytes]:
    """Of one slice each, or one of all."""
    rng = np.random.default_rng(0)
    frames = count if enhanced else 1
    for at in range(count // frames):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        header = Dataset()
        header.file_meta = meta
        header.SOPClassUID, header.SOPInstanceUID = CTImageStorage, generate_uid()
        header.StudyInstanceUID, header.SeriesInstanceUID = study, series
        header.PatientID, header.Modality = "BENCH", "CT"
        header.InstanceNumber, header.SamplesPerPixel = count - at, 1
        header.PhotometricInterpretation = "MONOCHROME2"
        header.PixelSpacing = [0.7, 0.7]
        header.ImageOrientationPatient, header.ImagePositionPatient = AXIAL, [0, 0, at]
        if enhanced:
            header.NumberOfFrames = frames
            header.PerFrameFunctionalGroupsSequence = [placed(at) for at in range(frames)]
        header.Rows = header.Columns = SIDE
        header.BitsAllocated = header.BitsStored = 16
        header.HighBit, header.PixelRepresentation = 15, 1
        header.WindowCenter, header.WindowWidth = 40, 400
        header.PixelData = rng.integers(-1000, 2000, (frames, SIDE, SIDE), np.int16).tobytes()
        file = io.BytesIO()
        pydicom.dcmwrite(file, header, enforce_file_format=True)
        yield file.getvalue()


def placed(at: int) -> Dataset:
    """What an enhanced object says of where a frame lies."""
    group, where = Dataset(), Dataset()
    where.ImagePositionPatient = [0, 0, at]
    group.PlanePositionSequence = [where]
    return group


if __name__ == "__main__":
    with needs.told():
        main()
