"""A file that is given up when it falls into too many parts.

Twenty megabytes can hold millions of parts of a few bytes. Our own walks and Pillow's take each by
itself, in a loop of Python, for seconds, while everybody waits. Of a DICOM the room
`dicom` counts more.
"""

from typing import BinaryIO, cast

MAX_PARTS = 50_000  # of a PNG or a JPEG; the most that real ones have are a few thousand
MAX_READS = 300_000  # by Pillow, which takes three for a part, or one for a byte before a mark


def counted(file: BinaryIO, mark: bytes | None = None) -> BinaryIO:
    """The same, for who only reads, seeks and tells: raises ValueError at the read that is one too
    many. Where a read may bring many parts, each `mark` in it counts as another."""
    return cast(BinaryIO, _Counted(file, mark))


class _Counted:
    def __init__(self, file: BinaryIO, mark: bytes | None):
        self._file, self._mark, self._left = file, mark, MAX_READS
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._left -= 1 + (data.count(self._mark) if self._mark else 0)
        if self._left < 0:
            raise ValueError("too many parts")
        return data
