"""DICOM files made for a test, and what the gateway makes of them."""

import io
from typing import Any

import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from gateway.case import CaseImage
from gateway.intake.pixels import only_pixels

HERE = "Image 1 of 1"
RAMP = np.tile(np.arange(64, dtype="<u2") * 60, (64, 1))  # 0 to 3780, from left to right
FULL = np.linspace(0, 255, 64)  # what it looks like


def dicom_of(pixels: np.ndarray, drop: tuple[str, ...] = (), **tags: Any) -> bytes:
    """A CT of these pixels, [rows, columns] or [frames, rows, columns] or with a last axis of
    three colours; what `tags` say goes before, those in `drop` are not there."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = tags.pop("syntax", ExplicitVRLittleEndian)
    header = FileDataset(None, {}, file_meta=meta, preamble=bytes(128))
    colours = pixels.shape[-1] == 3 and pixels.ndim > 2
    header.SOPClassUID = tags.pop("SOPClassUID", CTImageStorage)
    header.SOPInstanceUID = generate_uid()
    meta.MediaStorageSOPClassUID = header.SOPClassUID
    meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    header.Modality = "CT"
    header.Rows, header.Columns = pixels.shape[-3:-1] if colours else pixels.shape[-2:]
    header.SamplesPerPixel = 3 if colours else 1
    header.PhotometricInterpretation = "RGB" if colours else "MONOCHROME2"
    if colours:
        header.PlanarConfiguration = 0
    header.BitsAllocated = header.BitsStored = 8 * pixels.itemsize
    header.HighBit = header.BitsStored - 1
    header.PixelRepresentation = int(pixels.dtype.kind == "i")
    if pixels.dtype.kind == "f":
        header.FloatPixelData = pixels.tobytes()
    else:
        header.PixelData = pixels.tobytes()
    for name, value in tags.items():
        setattr(header, name, value)
    for name in drop:
        delattr(header, name)
    file = io.BytesIO()
    pydicom.dcmwrite(file, header, enforce_file_format=True)
    return file.getvalue()


def item(**tags: Any) -> Dataset:
    """One item of a sequence."""
    made = Dataset()
    for name, value in tags.items():
        setattr(made, name, value)
    return made


def lut(descriptor: list[int], data: bytes, **tags: Any) -> Dataset:
    made = item(LUTDescriptor=descriptor, **tags)
    made.add_new("LUTData", "OW", data)
    return made


def sent(data: bytes, frame: int | None = None, window: Any = None) -> CaseImage:
    """What the workers are sent of a file."""
    return only_pixels(data, HERE, frame, window)


def shown(data: bytes, frame: int | None = None, window: Any = None) -> np.ndarray:
    """Its pixels."""
    return np.asarray(Image.open(io.BytesIO(sent(data, frame, window).data)))


def looks_like(picture: np.ndarray, row: np.ndarray, by: float = 1.0) -> bool:
    """Whether a picture of greys has that row."""
    return picture.ndim == 2 and float(np.abs(picture[picture.shape[0] // 2] - row).max()) <= by


AXIAL = [1, 0, 0, 0, 1, 0]


def stack(count: int, **tags: Any) -> list[bytes]:
    """The files of a CT series, each of one value: 10 HU more from slice to slice, 2 mm apart; the
    window shows that value as it is."""
    shared = {name: generate_uid() for name in ("StudyInstanceUID", "SeriesInstanceUID")}
    shared |= {"FrameOfReferenceUID": generate_uid(), "PatientID": "P1"}
    shared |= {"WindowCenter": 128, "WindowWidth": 256, "ImageOrientationPatient": AXIAL}
    return [
        dicom_of(
            np.full((16, 16), 10 * at, "<i2"),
            **shared
            | {"ImagePositionPatient": [0, 0, 2 * at], "InstanceNumber": count - at}
            | tags,
        )
        for at in range(count)
    ]
