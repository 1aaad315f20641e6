"""Many cases, one after the other over one connection: a file of them, or a folder of images."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from consilium import Client, GatewayRefused, Problem, Verdict
from gateway.verdict.remarks import is_unfamiliar, of_familiarity
from models.files import read_text
from services.cli.shared import console


class CasesError(Exception):
    """Cases that cannot be asked, or not all of which were answered."""


@dataclass(frozen=True)
class Given:
    """One of many: where it stands, such as {"line": 3}, and what it asks."""

    place: Mapping[str, int | str]
    case: Mapping[str, Any]


def read_file(file: Path, asked: Mapping[str, Any]) -> list[Given]:
    """Each line's case, a JSON object of the fields of POST /vqa; `asked` where it does not say.
    An image is a path from the file's folder.

    Raises:
        CasesError, NotUtf8
    """
    found = []
    # Not splitlines: other marks that end a line may stand within a question.
    for number, line in enumerate(read_text(file).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            case = _case_of(line, file.parent, asked)
        except ValueError as error:
            raise CasesError(f"{file}, line {number}: {error}; mend that line") from error
        paths = [image["data"] for image in case["images"]]
        if missing := [path for path in paths if not _is_file(path)]:
            raise CasesError(f"{file}, line {number}: {str(missing[0])[:200]} is no file")
        found.append(Given({"line": number}, case))
    if not found:
        raise CasesError(f"{file} holds no case; write a JSON object in a line for each")
    return found


def _case_of(line: str, folder: Path, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Raises ValueError, which says what is wrong with it."""
    try:
        said = json.loads(line, object_pairs_hook=_without_doubles)
    except json.JSONDecodeError as error:
        raise ValueError(f"no JSON ({error.msg} at column {error.colno})") from error
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    if not isinstance(said, dict):
        raise ValueError("no JSON object")
    known = {"images", "question", "views", "slices", "dicomweb", *asked}
    if unknown := said.keys() - known:
        raise ValueError(f"unknown {', '.join(sorted(unknown))}")
    if "question" not in said:
        raise ValueError("no question")
    images = said.get("images", [] if said.get("dicomweb") else None)
    given = [images] if isinstance(images, str | dict) else images
    if not isinstance(given, list) or not all(isinstance(_path(each), str) for each in given):
        raise ValueError("images: a path, or an object with it in `data`, or a list of them")
    options = said.get("options") or {}
    if not isinstance(options, dict):
        raise ValueError("options: an object")
    return {
        **asked,
        **said,
        "images": [_from(folder, image) for image in given],
        "options": asked["options"] | options,
    }


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of two of one name the first would be dropped unasked."""
    said: dict[str, Any] = {}
    for name, value in pairs:
        if name in said:
            raise ValueError(f"two {name!r}")
        said[name] = value
    return said


def _path(image: Any) -> Any:
    return image.get("data") if isinstance(image, dict) else image


def read_folder(folder: Path, question: str, asked: Mapping[str, Any]) -> list[Given]:
    """The same question about each file of the folder, in the order of their names; hidden files
    and folders in it are left out.

    Raises:
        CasesError: there is none.
    """
    images = sorted(path for path in folder.iterdir() if path.is_file() and path.name[0] != ".")
    if not images:
        raise CasesError(f"{folder} holds no file")
    case = {**asked, "question": question}
    return [Given({"image": path.name}, {**case, "images": [path]}) for path in images]


def ask_each(client: Client, cases: Sequence[Given], as_table: bool) -> None:
    """Prints what comes of each; a case that is refused does not end it.

    Raises:
        CasesError: some have no verdict; GatewayError: no later case would fare better.
    """
    table = Table("case", "answer", "agreement", "confidence", "dissent")
    refused = 0
    try:
        for given in cases:
            said = _said(client, given.case)
            refused += isinstance(said, Problem)
            if as_table:
                table.add_row(*map(str, given.place.values()), *_cells(said))
            else:
                kind = "verdict" if isinstance(said, Verdict) else "problem"
                line = {**given.place, kind: said.model_dump()}
                print(json.dumps(line, ensure_ascii=False), flush=True)
    finally:
        if as_table:
            console.print(table)
    if refused:
        raise CasesError(f"{refused} of {len(cases)} cases have no verdict")


def _said(client: Client, case: Mapping[str, Any]) -> Verdict | Problem:
    try:
        return client.ask(**case)
    except GatewayRefused as error:
        if error.problem.status in (401, 403):
            raise
        return error.problem


def _cells(said: Verdict | Problem) -> tuple[str, str, str, str]:
    if isinstance(said, Problem):
        return f"{said.status}: {said.detail}", "–", "–", "–"
    mark = ""
    if of_familiarity(said):
        mark = "unfamiliar: " if is_unfamiliar(said) else "not known whether familiar: "
    answer = said.answer or f"abstained; best guess {said.best_guess}"
    return (
        mark + answer,
        "–" if said.agreement is None else f"{said.agreement:.2f}",
        "–" if said.confidence is None else f"{said.confidence:.2f}",
        "; ".join(f"{other.text} ({', '.join(other.workers)})" for other in said.dissent),
    )


def _from(folder: Path, image: str | dict[str, Any]) -> dict[str, Any]:
    """An image of a line, by its path or as an object with that in `data`."""
    sent = image if isinstance(image, dict) else {"data": image}
    return {**sent, "data": folder / sent["data"]}


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # no name of one, such as what it holds
        return False
