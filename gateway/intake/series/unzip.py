"""A zip of a series → its DICOM files, or its NIfTI, one unpacked at a time.

No name in it is looked at and nothing is written, so paths do no harm; it is held against the
limits before anything is unpacked, and no file unpacks to more than it said.
"""

import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import IO, NamedTuple

from gateway.intake.pixels import is_dicom
from gateway.intake.series.signatures import GZIP, is_nifti
from gateway.refusals import TooLarge, UnreadableImage

ENTRY = b"PK\1\2"  # of its directory
BEGINNING = 512  # bytes of a file that say what it is
# PS3.10 8.6: the directory of a medium lists its files, and is none of them.
DIRECTORY = b"1.2.840.10008.1.3.10"
KNOWN = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
WITH_GZIP_HEADER = 16 + zlib.MAX_WBITS
OTHERS = 1_000  # files that are no DICOM, as a medium has beside them

Open = Callable[[], IO[bytes]]


class Member(NamedTuple):
    open: Open
    size: int  # bytes that it takes when it is read, beside what was sent


class Found(NamedTuple):
    """The files of either kind, and how many others there are."""

    dicoms: list[Member]
    niftis: list[Member]
    others: int


def series_in(data: bytes, max_files: int, max_bytes: int) -> Found:
    """The files of a zip that hold slices.

    Raises:
        UnreadableImage, TooLarge
    """
    with _told():
        # Python reads the whole directory, however long, before it can be asked.
        if data.count(ENTRY) > max_files + OTHERS:
            raise TooLarge(f"The zip holds over {max_files + OTHERS} files. Send one series.")
        archive = zipfile.ZipFile(io.BytesIO(data))
        # A name may end like a folder's, and be a file's.
        entries = [e for e in archive.infolist() if e.file_size or not e.is_dir()]
        if sum(entry.file_size for entry in entries) > max_bytes:
            raise TooLarge(
                f"The zip unpacks to over {max_bytes // 1_000_000} MB. Send fewer slices."
            )
        if any(entry.flag_bits & 1 or entry.compress_type not in KNOWN for entry in entries):
            raise UnreadableImage(
                "The zip is encrypted, or packed in a rare way. Pack it by deflate, without a "
                "password."
            )
        found = Found([], [], 0)
        for entry in entries:
            member = Member(partial(archive.open, entry), entry.file_size)
            with member.open() as file:
                beginning = file.read(BEGINNING)
            if is_dicom(beginning) and DIRECTORY not in beginning:
                found.dicoms.append(member)
            elif _begins_nifti(beginning):
                found.niftis.append(member)
    if not found.dicoms and not found.niftis:
        raise UnreadableImage(
            "The zip holds no DICOM file and no NIfTI. Send the files of one series."
        )
    return found._replace(others=len(entries) - len(found.dicoms) - len(found.niftis))


def _begins_nifti(beginning: bytes) -> bool:
    if beginning.startswith(GZIP):
        try:
            beginning = zlib.decompressobj(WITH_GZIP_HEADER).decompress(beginning, 4)
        except zlib.error:
            return False
    return is_nifti(beginning)


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except (
        EOFError,
        LookupError,
        OSError,
        RuntimeError,
        ValueError,
        struct.error,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise UnreadableImage("The zip is damaged or cut short. Pack it again.") from error
