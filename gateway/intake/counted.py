"""A file that is given up when it falls into too many parts.

Twenty megabytes can hold millions of parts of a few bytes. Our own walks and Pillow's take each by
itself, in a loop of Python, for seconds, while everybody waits. Of a DICOM the room
`dicom` counts more.
"""

from typing import BinaryIO, cast

MAX_PARTS = 50_000  # of a PNG or a JPEG; the most that real ones have are a few thousand
MAX_READS = 300_000  # by Pillow, which takes three for a part, or one for a byte before a mark


def counted(file: BinaryIO) -> BinaryIO:
    """The same, for who only reads, seeks and tells: raises ValueError at the read that is one too
    many."""
    return cast(BinaryIO, _Counted(file))


class _Counted:
    def __init__(self, file: BinaryIO):
        self._file, self._left = file, MAX_READS
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise ValueError("too many parts")
        return self._file.read(size)
