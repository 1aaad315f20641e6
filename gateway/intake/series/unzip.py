"""A zip of a series → its DICOM files, one unpacked at a time.

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
from typing import IO

from gateway.intake.pixels import is_dicom
from gateway.refusals import TooLarge, UnreadableImage

ENTRY = b"PK\1\2"  # of its directory
BEGINNING = 512  # bytes of a DICOM that say what it is
# PS3.10 8.6: the directory of a medium lists its files, and is none of them.
DIRECTORY = b"1.2.840.10008.1.3.10"
KNOWN = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
OTHERS = 1_000  # files that are no DICOM, as a medium has beside them

Open = Callable[[], IO[bytes]]


def dicoms_in(data: bytes, max_files: int, max_bytes: int) -> tuple[list[Open], int]:
    """What opens each DICOM file, and how many others there are.

    Raises:
        UnreadableImage, TooLarge
    """
    with _told():
        # Python reads the whole directory, however long, before it can be asked.
        if data.count(ENTRY) > max_files + OTHERS:
            raise TooLarge(f"The zip holds over {max_files + OTHERS} files. Send one series.")
        archive = zipfile.ZipFile(io.BytesIO(data))
        entries = [entry for entry in archive.infolist() if not entry.is_dir()]
        if sum(entry.file_size for entry in entries) > max_bytes:
            raise TooLarge(
                f"The zip unpacks to over {max_bytes // 1_000_000} MB. Send fewer slices."
            )
        if any(entry.flag_bits & 1 or entry.compress_type not in KNOWN for entry in entries):
            raise UnreadableImage(
                "The zip is encrypted, or packed in a rare way. Pack it by deflate, without a "
                "password."
            )
        files = [partial(archive.open, entry) for entry in entries]
        dicoms: list[Open] = [file for file in files if _is_of_a_series(file)]
    if not dicoms:
        raise UnreadableImage("The zip holds no DICOM file. Send the files of one series.")
    return dicoms, len(files) - len(dicoms)


def _is_of_a_series(opens: Open) -> bool:
    with opens() as file:
        beginning = file.read(BEGINNING)
    return is_dicom(beginning) and DIRECTORY not in beginning


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
