"""A set of one's own in one file: CSV as spreadsheets save it, JSON lines, or Parquet.

A row is a question; columns beside `COLUMNS` are left alone. Images are paths from the file's
folder. Where a cell holds several, `;` stands between them; JSON and Parquet may hold a list.
"""

import csv
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from stat import S_ISREG
from typing import Any

from gateway.intake.language import NAMES, language_of
from models.data.example import DataError, Example, images_may_be_missing, require_known, text_of
from models.files import NotUtf8, read_text
from models.metrics.exact_match import normalise

NEEDED = ("id", "images", "question", "answer")
COLUMNS = (
    *NEEDED,
    *("language", "modality", "choices", "kind", "closed", "alternatives", "patient"),
    *("context", "views", "cameras"),
)
SPLITS = ("all",)
CLOSED = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
LONGEST = 2**20  # a line, in characters
YES_OR_NO = {"yes", "no", "sí", "si", "是", "不是", "否", "有", "没有"}

Row = tuple[str, dict[str, Any]]  # where it stands, and its cells by column


def load(path: Path, split: str, language: str) -> list[Example]:
    """The questions in `language`, in file order. A row that names none is in its question's own,
    as the gateway tells it.

    Raises:
        DataError: an unknown split or language; a file that cannot be read, or with something
            missing, doubled or empty; a missing image.
    """
    require_known(path.name, split, SPLITS, language, tuple(NAMES))
    examples = read(path)
    languages = sorted({example.language for example in examples})
    if language not in languages:
        raise DataError(f"{path} asks nothing in {language!r}, but in {', '.join(languages)}.")
    return [example for example in examples if example.language == language]


def read(path: Path) -> list[Example]:
    """Those in every language; raises as `load`."""
    rows, images = READERS[path.suffix.lower()], _Images(path.parent)
    ids = set[str]()
    examples = []
    for where, cells in rows(path):
        example = _example(where, cells, images)
        if example.id in ids:
            # Looked for again: a sentence kept for every row would be most of a long set.
            told = ((at, _example(at, each, images).id) for at, each in rows(path))
            first = next(at for at, id in told if id == example.id)
            raise DataError(f"{where}: {first} has the id {example.id!r} too: give each its own.")
        ids.add(example.id)
        examples.append(example)
    if not examples:
        raise DataError(f"{path} holds no questions: give it a row for each.")
    return examples


class _Images:
    """The images of a set whose file is in `folder`, and what took them. Each image is looked for
    once, and is one path however many questions are about it."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._found: dict[tuple[str, ...], tuple[Path, ...]] = {}

    def of(self, cell: Any, where: str) -> tuple[Path, ...]:
        names = _several(cell, f"{where}: its images")
        if not names:
            raise DataError(f"{where}: its images is empty: fill it in, or take the row out.")
        if names not in self._found:
            images = tuple(self._folder / name for name in names)
            for image in images:
                wrong = None if images_may_be_missing() else _wrong_with(image)
                if wrong:
                    raise DataError(f"{where}: {image} is {wrong}: put it there, or mend its path.")
            self._found[names] = images
        return self._found[names]

    def cameras(self, cell: Any, where: str, images: int) -> tuple[Path, ...]:
        """One for each image, in their order, or none; whoever wants them opens them."""
        names = _several(cell, f"{where}: its cameras")
        if names and len(names) != images:
            raise DataError(
                f"{where} has {len(names)} cameras of {images} images: give one for each, or none."
            )
        return tuple(self._folder / name for name in names)


def _wrong_with(image: Path) -> str | None:
    try:
        found = os.stat(image)
    except (OSError, ValueError):  # the path may be longer than any can be
        return "missing"
    if not S_ISREG(found.st_mode):
        return "no file"
    return None if found.st_size else "empty"


def _example(where: str, cells: dict[str, Any], images: _Images) -> Example:
    for column in NEEDED:
        if column not in cells:
            raise DataError(f"{where} has no {column!r}: add it, or take the row out.")
        if cells[column] is None or not str(cells[column]).strip():
            raise DataError(f"{where}: its {column} is empty: fill it in, or take the row out.")

    def text(column: str) -> str | None:
        return (text_of(cells.get(column), f"{where}: its {column}") or "").strip() or None

    question, answer = text("question") or "", text("answer") or ""
    language = (text("language") or language_of(question) or "en").lower()
    if language not in NAMES:
        raise DataError(f"{where}: its language is {language!r}: write {', '.join(NAMES)}.")
    choices = _several(cells.get("choices"), f"{where}: its choices")
    if choices and normalise(answer) not in map(normalise, choices):
        raise DataError(f"{where}: its answer is none of its choices: add it to them.")
    if len(choices) == 1:
        raise DataError(f"{where} has one choice: give several, with ; between them, or none.")
    shown = images.of(cells["images"], where)
    return Example(
        id=text("id") or "",
        images=shown,
        question=question,
        answer=sys.intern(answer),  # few answer most questions
        language=language,
        closed=_closed(cells.get("closed"), where, bool(choices) or normalise(answer) in YES_OR_NO),
        modality=text("modality"),
        kind=text("kind"),
        alternatives=_several(cells.get("alternatives"), f"{where}: its alternatives"),
        choices=choices,
        patient=text("patient"),
        context=text("context"),
        views=_views(cells.get("views"), where, len(shown)),
        cameras=images.cameras(cells.get("cameras"), where, len(shown)),
    )


def _views(cell: Any, where: str, images: int) -> tuple[str, ...]:
    """One for each image, in their order; a blank one tells nothing."""
    views = _parts(cell, f"{where}: its views")
    if not any(views):
        return ()
    if len(views) != images:
        raise DataError(
            f"{where} has {len(views)} views of {images} images: give one for each, a blank one "
            "where nothing is known."
        )
    return views


def _several(cell: Any, where: str) -> tuple[str, ...]:
    return tuple(part for part in _parts(cell, where) if part)


def _parts(cell: Any, where: str) -> tuple[str, ...]:
    if isinstance(cell, list):
        parts = [text_of(each, where) or "" for each in cell]
    else:
        parts = (text_of(cell, where) or "").split(";")
    return tuple(part.strip() for part in parts)


def _closed(cell: Any, where: str, otherwise: bool) -> bool:
    told = str("" if cell is None else cell).strip().lower()
    if told not in {"", *CLOSED}:
        raise DataError(f"{where}: its closed is {told!r}: write true or false, or leave it empty.")
    return CLOSED.get(told, otherwise)


def _read_csv(path: Path) -> Iterator[Row]:
    """Commas, semicolons or tabs, whichever the first line that says something has most of."""
    first = next((line for line in _lines(path) if line.strip()), "")
    reader = csv.reader(_lines(path), delimiter=max(",;\t", key=first.count), strict=True)
    columns: list[str] = []
    while True:
        where = f"{path}, line {reader.line_num + 1}"
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(f"{where} is no row ({error}): mend its quotes.") from error
        if not any(cell.strip() for cell in cells):
            continue  # spreadsheets save empty rows too
        if not columns and cells == ["sep=", ""]:
            continue  # so does a spreadsheet say what stands between its cells
        if not columns:
            columns = _complete(_columns(cells, where), where)
        elif len(cells) != len(columns):
            raise DataError(
                f"{where} has {len(cells)} cells under {len(columns)} columns: put quotes around "
                "a text that holds what stands between cells."
            )
        else:
            yield where, dict(zip(columns, cells, strict=True))


def _read_lines(path: Path) -> Iterator[Row]:
    # Other marks that end a line elsewhere may stand within an answer.
    for number, ended in enumerate(_lines(path, ends="\n"), start=1):
        line = ended.removesuffix("\n")
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            pairs = json.loads(line, object_pairs_hook=list)
            if not line.lstrip().startswith("{"):
                raise ValueError("no JSON object")
        except json.JSONDecodeError as error:
            wrong = f"{error.msg} at character {error.colno}"
            raise DataError(f"{where} is no row ({wrong}): mend that line.") from error
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where} is no row ({error}): mend that line.") from error
        columns = _columns([name for name, _ in pairs], where)
        yield where, dict(zip(columns, (value for _, value in pairs), strict=True))


def _read_parquet(path: Path) -> Iterator[Row]:
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            columns = _complete(_columns(names, str(path)), str(path))
            # The others may hold what Python cannot, such as times in nanoseconds.
            ours = [name for name, of in zip(names, columns, strict=True) if of in COLUMNS]
            table = file.read(ours)
        rows = table.rename_columns(_columns(table.column_names, str(path))).to_pylist()
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise DataError(
            f"{path} cannot be read as Parquet with texts in its columns: write it again."
        ) from error
    for number, cells in enumerate(rows, start=1):
        yield f"{path}, row {number}", cells


def _columns(names: list[str], where: str) -> list[str]:
    """The columns' names, however they are written.

    Raises:
        DataError: one of ours stands there twice.
    """
    columns = [name.strip().lower() for name in names]
    if doubled := [name for name in COLUMNS if columns.count(name) > 1]:
        raise DataError(f"{where} has two {doubled[0]!r}: take one of them out.")
    return columns


def _complete(columns: list[str], where: str) -> list[str]:
    """Raises DataError where a column that every row needs is not among them."""
    if missing := [name for name in NEEDED if name not in columns]:
        raise DataError(f"{where} names no column {missing[0]!r}: add it.")
    return columns


def _lines(path: Path, ends: str = "") -> Iterator[str]:
    """One by one, however long the file is, each with its end: "" is any that a file may have."""
    try:
        with path.open(encoding="utf-8-sig", newline=ends) as file:
            for number, line in enumerate(iter(lambda: file.readline(LONGEST), ""), start=1):
                if len(line) == LONGEST:  # not to be read to its end, which may be far
                    raise DataError(f"{path}, line {number}, is endless: give a row its own line.")
                if "\0" in line:  # UTF-16 without a mark, or what a power cut has left
                    raise DataError(f"{path}, line {number}, holds a NUL byte: save it as UTF-8.")
                yield line
    except UnicodeDecodeError:
        try:
            read_text(path)  # which says where
        except NotUtf8 as error:
            raise DataError(str(error)) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): is that its path?") from error


READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".jsonl": _read_lines,
    ".parquet": _read_parquet,
}
