"""Text on disk: written whole or not at all, read in one encoding, kept line by line.

A file of lines holds a JSON object in each. It is appended to while a program runs that may be
killed, on a disk that may be full, so a reader meets lines that are none; those are set aside and
the others stay good.
"""

import errno
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, Generic, TypeVar

Record = TypeVar("Record")
NO_RECORD = (ValueError, KeyError, TypeError, RecursionError)  # what reading a broken line raises


class NotUtf8(ValueError):
    """A text file in another encoding; the message names the file, the place and the mend."""


@dataclass(frozen=True)
class Lines(Generic[Record]):
    """What a file of lines holds: the records of its `whole` lines, and the lines that are none."""

    records: list[Record]
    whole: list[bytes]
    broken: list[bytes]


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Where to write a file that then takes the place of `path`, all of it or nothing: never one
    that was cut short, not even where the power goes.

    Raises:
        OSError: it could not be written; what was there before is untouched.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with _saying_which(path):
            yield scratch
            with scratch.open("rb") as stream:
                os.fsync(stream.fileno())  # else the new name may outlive a crash, the bytes not
            scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


@contextmanager
def _saying_which(path: Path) -> Iterator[None]:
    """Of a write that fails, as on a full disk, the system does not say which file it was to."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(f"{path} could not be written: {error.strerror}.") from error


def make_folder(path: Path) -> None:
    """`path`, and what lies above it, where they are missing.

    Raises:
        OSError: it cannot be made; says why.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = "a file stands there" if path.is_file() else error.strerror
        raise OSError(f"The folder {path} cannot be made: {why}. Name another.") from error


def write_whole(path: Path, content: str | bytes) -> None:
    """A file that is at hand: see `written_whole`."""
    with written_whole(path) as scratch:
        scratch.write_bytes(content.encode() if isinstance(content, str) else content)


def read_text(path: Path) -> str:
    """A text file in UTF-8; editors of some systems begin it with a byte order mark.

    Raises:
        OSError: it cannot be read.
        NotUtf8: it is in another encoding.
    """
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        wrong = error.object[error.start]
        raise NotUtf8(
            f"{path}, line {line}, is not UTF-8 (byte 0x{wrong:02x}): save it as UTF-8."
        ) from error


def append_line(path: Path, record: Mapping[str, Any]) -> None:
    """One more line, in one write. A line before it that was cut short stays a line of its own.

    Raises:
        OSError: it could not be written.
    """
    with open_lines(path) as stream:
        append(stream, record)


def open_lines(path: Path) -> FileIO:
    """A file of lines, for `append`.

    Raises:
        OSError
    """
    return path.open("a+b", buffering=0)


def append(stream: FileIO, record: Mapping[str, Any]) -> tuple[int, int]:
    """`append_line`, to a file that stays open; returns at which byte the line begins and ends."""
    line = json.dumps(record, ensure_ascii=False).encode() + b"\n"
    with _saying_which(Path(os.fsdecode(stream.name))):
        end = stream.seek(0, os.SEEK_END)
        if end and os.pread(stream.fileno(), 1, end - 1) != b"\n":
            line, end = b"\n" + line, end + 1
        if stream.write(line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return end, stream.tell()


def read_lines(path: Path, parse: Callable[[dict[str, Any]], Record]) -> Lines[Record]:
    """Every line as `parse` makes a record of it; one on which it raises any of `NO_RECORD` is
    broken, as is one that holds no JSON object.

    They end at "\\n" and nowhere else: other marks that end a line may stand within an answer.

    Raises:
        OSError: it cannot be read.
    """
    found: Lines[Record] = Lines([], [], [])
    *ended, last = path.read_bytes().split(b"\n")
    for line in [*ended, last] if last else ended:
        try:
            record = json.loads(line.decode())
            if not isinstance(record, dict):
                raise ValueError("no JSON object")
            parsed = parse(record)
        except NO_RECORD:
            found.broken.append(line)
        else:
            found.records.append(parsed)
            found.whole.append(line)
    return found


def set_aside(path: Path, lines: Lines[Record]) -> str:
    """Moves the broken lines of the file at `path` to a file beside it, and says so in a sentence.
    Nobody may append meanwhile."""
    aside = path.with_suffix(".broken")
    with _saying_which(aside), aside.open("ab") as stream:
        stream.writelines(line + b"\n" for line in lines.broken)
    write_whole(path, b"".join(line + b"\n" for line in lines.whole))
    count = len(lines.broken)
    what = "1 line was no record and is" if count == 1 else f"{count} lines were no records and are"
    return f"{path}: {what} kept in {aside.name}."
