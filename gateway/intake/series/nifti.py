"""A NIfTI file (version 1 or 2, plain or packed by gzip) → the slices of its volume, as DICOMs.

So what holds of a series holds of it: order, windows, slabs, pixels that are not square. Its space
is RAS+: x grows to the patient's right, y to the front, z to the head; in DICOM's, LPS+, x grows to
the left and y to the back. A slice is viewed as radiologists do: the patient's right on the
picture's left, the front at its top; of other planes the head at the top, of a sagittal one the
front on the left.
"""

import gzip
import io
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import IO, Any, BinaryIO, cast
from zipfile import BadZipFile

import nibabel
import numpy as np
import pydicom
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, ParametricMapStorage

from gateway.case import CaseImage
from gateway.intake.counted import counted
from gateway.intake.dicom.file import read
from gateway.intake.off_loop import off_loop
from gateway.intake.pixels import codec_errors_told
from gateway.intake.series.signatures import GZIP
from gateway.intake.series.unzip import Open
from gateway.refusals import InvalidCase, TooLarge, UnreadableImage
from gateway.tables import Limits

HEADERS = {348: nibabel.Nifti1Header, 540: nibabel.Nifti2Header}  # by their size in bytes
IN_MM = {"meter": 1000.0, "micron": 0.001}
LPS = np.array([-1.0, -1.0, 1.0])
# So much longer than the axial step is that of a volume which was taken in another plane.
THICKER = 1.5
NOWHERE = "The file does not say how it lies in the patient: which side is the left is not known."
TWICE = "The file says twice how it lies, and not the same: left and right are by its sform."
BROKEN = "The {} of the file is no space, and is left out."
BEYOND_MENDING = 50  # of the header's faults, none: those that matter are found below
PIECE = 1_000_000  # bytes
Floats = NDArray[np.float64]

# It tells of odd headers in lines of its own; whoever sent one is told once.
logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)


class Volume:
    """Its voxels stay where they are, in the file or in what is unpacked of it when the first slice
    is shown; a slice becomes a DICOM when its turn comes."""

    ahead = 1

    def __init__(self, source: bytes | Open, limits: Limits, faults: tuple[str, ...] = ()):
        """The bytes of a file, or what opens one within another, of which `faults` are told.

        Raises UnreadableImage, TooLarge, InvalidCase.
        """
        self._source = source
        with self._opened() as (file, is_packed):
            header = _header(file)
            shape, kind, begin = _shape(header, limits), header.get_data_dtype(), _begin(header)
            size = begin + int(np.prod(shape)) * kind.itemsize
            if size > limits.max_series_mb * 1_000_000:
                raise TooLarge(f"The NIfTI is over {limits.max_series_mb:g} MB. Send a part of it.")
            self._layout, (self._stored, odd) = (shape, kind, begin), _affine(header)
            self._to_unpack: int = size
            if isinstance(source, bytes) and not is_packed:
                self._found(source)
            else:
                self._hold(np.broadcast_to(np.zeros((), kind), shape))  # which takes no memory
        self.faults = (*faults, *odd)
        scale = float(header["scl_slope"]), float(header["scl_inter"])
        self._slope, self._intercept = (value if np.isfinite(value) else 0 for value in scale)
        self._shown = float(header["cal_min"]), float(header["cal_max"])

    async def headers(self) -> Sequence[Any]:
        return await off_loop(lambda: [self._header(at) for at in range(len(self._slices))])

    def memory(self, files: Sequence[int]) -> int:
        return self._to_unpack

    async def file(self, at: int) -> Any:
        if self._to_unpack:
            await self._unpack()
        return await off_loop(partial(self._dicom, at))

    def reference(self, files: Sequence[int]) -> dict[str, Any]:
        return {}

    def metadata_of(self, pictures: Sequence[CaseImage]) -> tuple[dict[str, Any], ...]:
        return ()

    async def _unpack(self) -> None:
        """A piece at a time, so that none is in memory twice, nobody else's image waits long for
        its turn, and whoever asked may leave in between."""
        with self._opened() as (file, _):
            at, data = 0, np.empty(self._to_unpack, np.uint8)
            while count := await off_loop(partial(file.readinto, data[at : at + PIECE].data)):
                at += count
            if at < len(data):
                raise ValueError("voxels are missing")
            await off_loop(partial(file.read, 1))  # behind the last is a checksum
        self._found(data)

    def _found(self, data: bytes | NDArray[np.uint8]) -> None:
        """All that the file holds."""
        shape, kind, begin = self._layout
        self._hold(np.ndarray(shape, kind, data, begin, order="F"))
        self._to_unpack = 0

    def _hold(self, voxels: NDArray[Any]) -> None:
        self._slices, self._affine = _as_viewed(voxels, self._stored)

    @contextmanager
    def _opened(self) -> Iterator[tuple[Any, bool]]:
        """What it holds, and whether that is packed; what is wrong with it is told."""
        source = self._source
        with codec_errors_told("The NIfTI"):
            try:
                with io.BytesIO(source) if isinstance(source, bytes) else source() as file:
                    is_packed = file.read(len(GZIP)) == GZIP
                    file.seek(0)
                    if not is_packed:
                        yield file, False
                        return
                    # Of many members, which may all be empty, gzip takes each by itself.
                    yield gzip.GzipFile(fileobj=counted(cast(BinaryIO, file), GZIP)), True
            except (HeaderDataError, WrapStructError, BadZipFile) as error:
                raise ValueError("a file that says of itself what cannot be") from error

    def _dicom(self, at: int) -> Any:
        made = self._header(at)
        made.file_meta = FileMetaDataset()
        made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
        values = self._slices[at].astype(np.float64)
        if self._slope:  # without one the intercept says nothing either
            values = values * self._slope + self._intercept
        made.BitsAllocated, made.DoubleFloatPixelData = 64, values.astype("<f8").tobytes()
        low, high = self._shown
        if low < high and np.isfinite(high - low):
            made.WindowCenter, made.WindowWidth = (low + high) / 2, high - low
            made.VOILUTFunction = "LINEAR_EXACT"
        file = io.BytesIO()
        pydicom.dcmwrite(file, made, enforce_file_format=True)
        return read(file, f"Slice {at + 1}")

    def _header(self, at: int) -> Dataset:
        """Where a slice lies (PS3.3 C.7.6.2)."""
        through, down, across, origin = (column * LPS for column in self._affine[:3].T)
        made = Dataset()
        made.SOPClassUID, made.SOPInstanceUID = ParametricMapStorage, f"2.25.{at + 1}"
        made.Rows, made.Columns = self._slices.shape[1:]
        made.ImagePositionPatient = list(origin + at * through)
        made.ImageOrientationPatient = [*_unit(across), *_unit(down)]
        made.PixelSpacing = [float(np.linalg.norm(each)) for each in (down, across)]
        return made


def _header(file: IO[bytes]) -> Any:
    begin = file.read(4)
    sizes = (int.from_bytes(begin, "little"), int.from_bytes(begin, "big"))
    size = next((size for size in sizes if size in HEADERS), None)
    if size is None:
        raise UnreadableImage("The gzip holds no NIfTI. Send one, or a zip of DICOMs.")
    header = HEADERS[size](begin + file.read(size - len(begin)), check=False)
    header.check_fix(error_level=BEYOND_MENDING)
    if header["magic"].item()[:3] not in (b"n+1", b"n+2"):
        raise UnreadableImage("A NIfTI's header came without its voxels. Send one .nii file.")
    return header


def _begin(header: Any) -> int:
    """Where the voxels do: of one file never before the end of its header, whatever that says."""
    return max(int(header.get_data_offset()), int(header.single_vox_offset))


def _shape(header: Any, limits: Limits) -> tuple[int, ...]:
    """Of its one volume, [x, y, z]; every axis may become that of the slices."""
    if header.get_data_dtype().kind not in "iuf":
        raise InvalidCase("The NIfTI holds colours or complex numbers. Send one of greys.")
    shape = tuple(map(int, header.get_data_shape()))
    if min(shape) < 1:  # else the product, which bounds what is unpacked, could be anything
        raise ValueError("no voxels")
    if (volumes := int(np.prod(shape[3:]))) > 1:
        raise InvalidCase(f"The NIfTI holds {volumes} volumes. Send one of them.")
    if max(shape) > limits.max_slices:
        raise TooLarge(f"The NIfTI has {max(shape)} slices; send at most {limits.max_slices}.")
    return (*shape[:3], *(1,) * (3 - len(shape)))


def _affine(header: Any) -> tuple[Floats, tuple[str, ...]]:
    """From voxels to mm in RAS+, [4, 4], and what is odd about it."""
    spaces: list[NDArray[Any]] = []
    ways: list[list[tuple[int, int]]] = []
    faults: list[str] = []
    for name, space in (("sform", header.get_sform), ("qform", partial(_qform, header))):
        if header[f"{name}_code"]:
            try:
                found = space()
                ways.append(_axes(found))
                spaces.append(found)
            except ValueError:
                faults.append(BROKEN.format(name))
    if not spaces:
        spaces.append(header.get_base_affine())
        _axes(spaces[0])
        faults.append(NOWHERE)
    elif ways[0] != ways[-1]:
        faults.append(TWICE)
    affine = spaces[0].astype(np.float64)
    affine[:3] *= IN_MM.get(header.get_xyzt_units()[0], 1)
    return affine, tuple(faults)


def _qform(header: Any) -> NDArray[Any]:
    """Of three of a quaternion's four numbers. Where they are longer than its whole may be they are
    shortened, and the fourth is 0, as in the standard's own code (`nifti_quatern_to_mat44`)."""
    names = [f"quatern_{axis}" for axis in "bcd"]
    length = np.linalg.norm([float(header[name]) for name in names])
    if not np.isfinite(length):
        raise ValueError("no quaternion")
    for name in names:
        header[name] = header[name] / max(1.0, length)
    qform: NDArray[Any] = header.get_qform()
    return qform


def _axes(affine: NDArray[Any]) -> list[tuple[int, int]]:
    """Of each axis of the voxels: which of x, y and z it is nearest to; 1 if it runs that way.
    Raises ValueError for what is no space."""
    if not np.isfinite(affine).all() or np.linalg.matrix_rank(affine[:3, :3]) < 3:
        raise ValueError("no space")
    return [(int(axis), int(way)) for axis, way in nibabel.io_orientation(affine)]


def _as_viewed(voxels: NDArray[Any], affine: Floats) -> tuple[NDArray[Any], Floats]:
    """The same voxels, none of them copied, as [slices, rows, columns], each as it is viewed; and
    the way from those to RAS+. Axial slices, but where those of another plane are thicker."""
    axes = _axes(affine)
    along = {axis: number for number, (axis, _) in enumerate(axes)}
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    thickest = int(steps.argmax())
    through = thickest if steps[thickest] > THICKER * steps[along[2]] else along[2]
    across, down = (along[axis] for axis in range(3) if along[axis] != through)
    affine = affine.copy()
    for number in (across, down):
        if axes[number][1] > 0:  # right, front and head come first
            affine[:3, 3] += affine[:3, number] * (voxels.shape[number] - 1)
            affine[:3, number] *= -1
            voxels = np.flip(voxels, number)
    return voxels.transpose(through, down, across), affine[:, [through, down, across, 3]]


def _unit(vector: Floats) -> list[float]:
    return list(vector / np.linalg.norm(vector))
