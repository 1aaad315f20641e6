"""Where the patches of a case's images lie in space: by depth and camera where its set names them,
else by the headers of its DICOM files.

A camera is a JSON file for each image (the column `cameras` of a set of one's own):
    {"depth": "0.npy", "intrinsics": [[fx, 0, cx], [0, fy, cy], [0, 0, 1]], "pose": 4 rows of 4}
`depth` is a numpy array of the image's rows and columns, beside the JSON; for the units see
models.positions.by_camera.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError
from torch import Tensor

from gateway.intake.dicom.file import read, told_by_tag
from gateway.intake.dicom.picture import frame_of_file
from gateway.intake.dicom.values import number, of_frame
from gateway.intake.pixels import Refused, codec_errors_told, is_dicom
from models import complaint
from models.data.example import DataError, read_file
from models.data.pixels import size_of
from models.positions import by_camera, by_dicom

# All that is read of a header.
TAGS = (
    "FrameOfReferenceUID",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "RepresentativeFrameNumber",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)
BEGINNING = 132  # bytes of a DICOM file, with its name (PS3.10 7.1)
Three = tuple[FiniteFloat, FiniteFloat, FiniteFloat]
Four = tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat]


def places_of(images: Sequence[Path], cameras: Sequence[Path], side: int) -> Tensor | None:
    """[images, side², 3] as (row, column, slice), see models.positions; None where nothing says it,
    and of a single image, which stays as it is.

    Raises:
        DataError: some of the images say it and others do not, or what they say is no geometry.
    """
    if len(images) == 1:
        return None
    try:
        return _by_cameras(images, cameras, side) if cameras else _by_headers(images, side)
    except ValueError as error:
        raise DataError(f"{images[0]} and what is shown with it: {error}.") from error


class _Camera(BaseModel):
    model_config = ConfigDict(extra="forbid")
    depth: str
    intrinsics: tuple[Three, Three, Three]
    pose: tuple[Four, Four, Four, Four]


def _by_cameras(images: Sequence[Path], files: Sequence[Path], side: int) -> Tensor:
    cameras = [_camera(file) for file in files]
    depths = [
        _depth(file.parent / camera.depth, image)
        for file, camera, image in zip(files, cameras, images, strict=True)
    ]
    intrinsics = torch.tensor([camera.intrinsics for camera in cameras], dtype=torch.float64)
    poses = torch.tensor([camera.pose for camera in cameras], dtype=torch.float64)
    return by_camera(torch.stack(depths), intrinsics, poses, side)


def _camera(file: Path) -> _Camera:
    try:
        return _Camera.model_validate_json(read_file(file))
    except ValidationError as error:
        told = complaint.first_of(error.errors(), "it")
        raise DataError(f"{file} is no camera: {told}.") from error


def _depth(file: Path, image: Path) -> Tensor:
    """[rows, columns] in float64."""
    try:
        depth = np.load(file, allow_pickle=False)
        found = torch.from_numpy(depth.astype(np.float64, casting="safe"))
    except (OSError, ValueError, EOFError, TypeError, AttributeError) as error:
        raise DataError(
            f"{file} is no depth map: save an array of numbers by numpy.save."
        ) from error
    width, height = size_of(image)
    if found.shape != (height, width):
        raise DataError(
            f"{file} holds an array {list(found.shape)}, and its image has {height} rows and "
            f"{width} columns: give a depth for each pixel."
        )
    return found


class _Lies(NamedTuple):
    """What a header says of the frame that is shown; see models.positions.by_dicom."""

    position: list[float]
    orientation: list[float]
    spacing: list[float]
    size: list[float]
    frame_of_reference: str


def _by_headers(images: Sequence[Path], side: int) -> Tensor | None:
    said = [_lies(image) for image in images]
    found = [each for each in said if each]
    if not found:
        return None
    if len(found) < len(said):
        raise DataError(
            f"{images[said.index(None)]} does not say where it lies, and others that are shown "
            "with it do: leave it out, or take a connector that goes by their order."
        )
    if len({each.frame_of_reference for each in found}) > 1:
        raise DataError(
            f"{images[0]} and what is shown with it have several frames of reference: give slices "
            "of one scan, or take a connector that goes by their order."
        )
    position, orientation, spacing, size = (
        torch.tensor(values, dtype=torch.float64)
        for values in list(zip(*found, strict=True))[:4]  # all but the frame of reference
    )
    return by_dicom(position, orientation, spacing, size, side)


def _lies(image: Path) -> _Lies | None:
    """None where it is no DICOM file, or one without a place in the patient."""
    place = str(image)
    try:
        with image.open("rb") as file, codec_errors_told(place), told_by_tag(place):
            if not is_dicom(file.read(BEGINNING)):
                return None
            file.seek(0)
            header = read(file, place, stop_before_pixels=True, specific_tags=list(TAGS))
            return _said(header, place)
    except OSError as error:
        raise DataError(f"{image} cannot be read ({error}): put it there again.") from error
    except Refused as refused:
        raise DataError(str(refused)) from refused


def _said(header: Any, place: str) -> _Lies | None:
    frame = frame_of_file(header, None, place)
    position = of_frame(header, frame, "PlanePositionSequence", "ImagePositionPatient", 3)
    orientation = of_frame(header, frame, "PlaneOrientationSequence", "ImageOrientationPatient", 6)
    if not position or not orientation:
        return None
    spacing = of_frame(header, frame, "PixelMeasuresSequence", "PixelSpacing", 2)
    size = [number(header, tag) or 0 for tag in ("Rows", "Columns")]
    uid = str(header.get("FrameOfReferenceUID") or "")
    return _Lies(position, orientation, spacing or [0, 0], size, uid)
