"""Ask a running gateway: one case, or a file of them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.contract import Language, Modality, Style, Summarise
from services.cli.shared import GATEWAY_URL, Gateway, console, failures, names_in

app = typer.Typer()

Frames = Annotated[
    list[int] | None,
    typer.Option("--frame", min=1, help="Of a DICOM, from 1; with several images once for each."),
]
Windows = Annotated[
    list[str] | None,
    typer.Option(
        "--window", help="Of a DICOM: lung, bone, … or CENTRE,WIDTH; once for each image."
    ),
]
Choices = Annotated[
    list[str] | None,
    typer.Option("--choices", help="The only answers allowed: yes,no; or once for each of them."),
]


class CasesError(Exception):
    """A file of cases that cannot be asked, or not all of which were answered."""


@app.command()
def ask(
    images: Annotated[
        list[Path] | None, typer.Argument(exists=True, dir_okay=False, readable=True)
    ] = None,
    question: Annotated[str | None, typer.Option("--question", "-q")] = None,
    cases: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="Instead: a file with a JSON object a line, of the fields of POST /vqa, whose "
            "images are paths from that file's folder. Prints a JSON object for each.",
        ),
    ] = None,
    language: Annotated[
        Language | None, typer.Option(help="en, es or zh, if it is not the question's own.")
    ] = None,
    context: Annotated[str | None, typer.Option(help="Clinical context.")] = None,
    frame: Frames = None,
    window: Windows = None,
    modality: Annotated[
        Modality | None, typer.Option(help="How the images were made, if that is known.")
    ] = None,
    choices: Choices = None,
    workers: Annotated[str | None, typer.Option(help="Ask only these, such as a,b.")] = None,
    summarise: Annotated[
        Summarise, typer.Option(help="auto: only where the workers differ.")
    ] = "auto",
    style: Annotated[
        Style, typer.Option(help="The answer alone, a sentence of the whole panel, or every claim.")
    ] = "answer",
    rounds: Annotated[
        int, typer.Option(min=1, max=2, help="2: workers that differ read each other's answers.")
    ] = 1,
    max_risk: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Abstain where the answer is likelier to be wrong."),
    ] = None,
    grounding: Annotated[
        bool, typer.Option("--grounding", help="Wait for how far it depends on the image.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the verdict as JSON.")] = False,
    key: Annotated[
        str | None, typer.Option(envvar="CONSILIUM_KEY", help="Better not on the command line.")
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=0.001, help="Seconds for the gateway to answer a case.")
    ] = 120,
    patience: Annotated[
        float,
        typer.Option(min=0, help="Seconds to wait where the gateway is away, busy or says so."),
    ] = 0,
    gateway: Gateway = GATEWAY_URL,
) -> None:
    """Ask a running gateway a question about one or more images."""
    from gateway.client import ask as put
    from models.files import NotUtf8
    from services.running.demo import show

    if cases is None and not (images and question):
        raise typer.BadParameter("give images and --question, or --cases FILE")
    if cases is not None and (images or question):
        raise typer.BadParameter("--cases FILE takes the place of images and --question")
    if cases is not None and (frame or window):
        raise typer.BadParameter(
            "with --cases FILE --frame and --window stand in the file: "
            '{"images": [{"data": "a.dcm", "frame": 2}], …}'
        )
    given = shown(images or [], frame, window)
    asked: dict[str, Any] = {
        "language": language,
        "context": context,
        "modality": modality,
        "choices": listed(choices),
        "options": {
            "workers": names_in(workers) if workers else None,
            "summarise": summarise,
            "style": style,
            "rounds": rounds,
            "max_risk": max_risk,
            "grounding": grounding,
        },
    }
    how: dict[str, Any] = {
        "url": gateway,
        "key": key,
        "timeout_s": timeout,
        "patience_s": patience,
    }
    with failures(CasesError, NotUtf8):
        if cases is not None:
            return _ask_all(cases, asked, how)
        verdict = put(given, question or "", **asked, **how)
        if as_json:
            print(verdict.model_dump_json())
        else:
            show(verdict, console.print)


def shown(
    images: list[Path], frames: list[int] | None, windows: list[str] | None
) -> list[dict[str, Any]]:
    """The images, each with its frame and its window, as `gateway.client.ask` takes them.

    Raises BadParameter where there is not one for each, and for a window that is none.
    """
    for name, values in (("--frame", frames), ("--window", windows)):
        if values and len(values) != len(images):
            raise typer.BadParameter("give it once for each image", param_hint=name)
    found: list[dict[str, Any]] = [{"data": image} for image in images]
    for image, number in zip(found, frames or (), strict=False):
        image["frame"] = number
    for image, window in zip(found, windows or (), strict=False):
        centre, comma, width = window.partition(",")
        try:
            image["window"] = [float(centre), float(width)] if comma else window
        except ValueError:
            raise typer.BadParameter(
                f"{window}: give a name, or CENTRE,WIDTH", param_hint="--window"
            ) from None
    return found


def listed(choices: list[str] | None) -> list[str] | None:
    """The choices, of which one alone is a list such as yes,no."""
    return names_in(choices[0]) if choices and len(choices) == 1 else choices


def _ask_all(file: Path, asked: dict[str, Any], how: dict[str, Any]) -> None:
    """One after the other; a case that is refused does not end it."""
    from gateway.client import GatewayRefused
    from gateway.client import ask as put

    failed, cases = 0, list(_read(file, asked))
    for line, case in cases:
        found: dict[str, Any] = {"line": line}
        try:
            found["verdict"] = put(**case, **how).model_dump()
        except GatewayRefused as error:
            if error.problem.status in (401, 403):
                raise
            found["problem"] = error.problem.model_dump()
        failed += "problem" in found
        print(json.dumps(found, ensure_ascii=False), flush=True)
    if failed:
        raise CasesError(f"{failed} of {len(cases)} cases have no verdict")


def _read(file: Path, asked: dict[str, Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each line's number and what it asks, `asked` where it does not say; all are read before
    the first is sent."""
    from models.files import read_text

    known = {"images", "question", *asked}
    # Not splitlines: other marks that end a line may stand within a question.
    for number, line in enumerate(read_text(file).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            case = json.loads(line)
            images = case["images"]
            given = [images] if isinstance(images, str | dict) else images
            case = asked | case | {"images": [_from(file.parent, image) for image in given]}
            case["options"] = asked["options"] | (case["options"] or {})
            unknown = case.keys() - known
        except (ValueError, KeyError, TypeError) as error:
            raise CasesError(f"{file}, line {number}: no case ({error}); mend that line") from error
        if unknown or "question" not in case:
            what = f"unknown {', '.join(sorted(unknown))}" if unknown else "no question"
            raise CasesError(f"{file}, line {number}: {what}; mend that line")
        paths = [image["data"] for image in case["images"]]
        if missing := [path for path in paths if not path.is_file()]:
            raise CasesError(f"{file}, line {number}: {missing[0]} is no file")
        yield number, case


def _from(folder: Path, image: str | dict[str, Any]) -> dict[str, Any]:
    """An image of a line, by its path or as an object with that in `data`."""
    sent = image if isinstance(image, dict) else {"data": image}
    return {**sent, "data": folder / sent["data"]}
