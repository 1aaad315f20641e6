"""Many cases, one after the other over one connection: a file of them, or a folder of images."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from consilium import Client, GatewayRefused, Problem, Verdict
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
    known = {"images", "question", "views", "slices", "dicomweb", *asked}
    found = []
    # Not splitlines: other marks that end a line may stand within a question.
    for number, line in enumerate(read_text(file).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            case = json.loads(line)
            images = [] if "images" not in case and case.get("dicomweb") else case["images"]
            given = [images] if isinstance(images, str | dict) else images
            case = {**asked, **case, "images": [_from(file.parent, image) for image in given]}
            case["options"] = asked["options"] | (case["options"] or {})
            unknown = case.keys() - known
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CasesError(f"{file}, line {number}: no case ({error}); mend that line") from error
        if unknown or "question" not in case:
            what = f"unknown {', '.join(sorted(unknown))}" if unknown else "no question"
            raise CasesError(f"{file}, line {number}: {what}; mend that line")
        paths = [image["data"] for image in case["images"]]
        if missing := [path for path in paths if not _is_file(path)]:
            raise CasesError(f"{file}, line {number}: {str(missing[0])[:200]} is no file")
        found.append(Given({"line": number}, case))
    return found


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
    unfamiliar = said.familiarity and said.familiarity.unfamiliar
    answer = said.answer or f"abstained; best guess {said.best_guess}"
    return (
        f"{answer} (unfamiliar)" if unfamiliar else answer,
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
