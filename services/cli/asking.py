"""Ask a running gateway: one case, or many."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from gateway.contract import Language, Modality, Stores, Style, Summarise
from services.cli.shared import GATEWAY_URL, Gateway, Key, Timeout, console, failures, names_in

if TYPE_CHECKING:
    from consilium.wire import Event

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
Views = Annotated[
    list[str] | None,
    typer.Option("--view", help="What each image is, such as frontal; once for each."),
]
Slices = Annotated[
    str | None,
    typer.Option(help="The images are one series, or a zip of it: even, 40-120, 12,40, max, …"),
]
Choices = Annotated[
    list[str] | None,
    typer.Option("--choices", help="The only answers allowed: yes,no; or once for each of them."),
]


@app.command()
def ask(
    images: Annotated[
        list[Path] | None,
        typer.Argument(
            exists=True,
            readable=True,
            help="Those of one case; or a folder, each file of which is a case.",
        ),
    ] = None,
    question: Annotated[str | None, typer.Option("--question", "-q")] = None,
    cases: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="Instead: a file with a JSON object a line, of the fields of POST /vqa, whose "
            "images are paths from that file's folder. Prints a JSON object for each case.",
        ),
    ] = None,
    language: Annotated[
        Language | None, typer.Option(help="en, es or zh, if it is not the question's own.")
    ] = None,
    context: Annotated[str | None, typer.Option(help="Clinical context.")] = None,
    frame: Frames = None,
    window: Windows = None,
    view: Views = None,
    slices: Slices = None,
    study: Annotated[
        str | None, typer.Option(help="In place of images: the UID of one in the archive.")
    ] = None,
    series: Annotated[
        str | None, typer.Option(help="Its series, where it has several with images.")
    ] = None,
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
    wait: Annotated[
        Literal["all", "enough"],
        typer.Option(help="enough: until who is missing could not change the winner."),
    ] = "all",
    deadline: Annotated[
        float | None, typer.Option(help="Seconds for the workers, if not the panel's own.")
    ] = None,
    max_risk: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Abstain where the answer is likelier to be wrong."),
    ] = None,
    grounding: Annotated[
        bool, typer.Option("--grounding", help="Wait for how far it depends on the image.")
    ] = False,
    coverage: Annotated[
        float | None,
        typer.Option(min=0.5, max=0.99, help="Show the set of answers that holds the right one."),
    ] = None,
    reasoning: Annotated[
        bool, typer.Option("--reasoning", help="With --json: what the summariser thought first.")
    ] = False,
    no_entailment: Annotated[
        bool,
        typer.Option("--no-entailment", help="Rules alone decide which claims mean the same."),
    ] = False,
    store: Annotated[
        Stores | None,
        typer.Option(help="Also store it beside --study: sr, a report; sc, a page as a picture."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the verdict as JSON.")] = False,
    stream: Annotated[
        bool, typer.Option("--stream", help="Print what each worker says as it comes.")
    ] = False,
    table: Annotated[
        bool, typer.Option("--table", help="Of many cases: in the place of JSON.")
    ] = False,
    key: Key = None,
    timeout: Timeout = 120,
    patience: Annotated[
        float,
        typer.Option(min=0, help="Seconds to wait where the gateway is away, busy or says so."),
    ] = 0,
    gateway: Gateway = GATEWAY_URL,
) -> None:
    """Ask a running gateway a question about one or more images."""
    from consilium import Client
    from models.files import NotUtf8
    from services.cli.cases import CasesError, ask_each, read_file, read_folder
    from services.running.demo import show

    if cases is None and not ((images or study) and question):
        raise typer.BadParameter("give images or --study, and --question; or --cases FILE")
    if cases is not None and (images or question or study):
        raise typer.BadParameter("--cases FILE takes the place of images and --question")
    if (images and study) or (series and not study):
        raise typer.BadParameter("give images, or --study and perhaps --series")
    folder = images[0] if images and len(images) == 1 and images[0].is_dir() else None
    if not folder and any(image.is_dir() for image in images or ()):
        raise typer.BadParameter("give one folder alone, or the images of one case")
    many = bool(cases or folder)
    if many and (frame or window or view):
        raise typer.BadParameter(
            "of many cases --frame, --window and --view stand in the file of --cases: "
            '{"images": [{"data": "a.dcm", "frame": 2}], "views": ["frontal"], …}'
        )
    if many and stream:
        raise typer.BadParameter("--stream is for one case")
    if table and (as_json or not many):
        raise typer.BadParameter("--table is for many cases, in the place of JSON")
    asked: dict[str, Any] = {
        "language": language,
        "context": context,
        "modality": modality,
        "choices": listed(choices),
        "options": {
            "workers": None if workers is None else names_in(workers),
            "summarise": summarise,
            "style": style,
            "rounds": rounds,
            "wait": wait,
            "deadline_s": deadline,
            "max_risk": max_risk,
            "grounding": grounding,
            "coverage": coverage,
            "reasoning": reasoning,
            "entailment": not no_entailment,
            "store": store,
        },
    }
    if view:
        asked["views"] = view
    if slices:
        asked["slices"] = slices
    if study:
        asked["dicomweb"] = _archived(study, series, window)
    with (
        failures(CasesError, NotUtf8),
        Client(gateway, key, timeout_s=timeout, patience_s=patience) as client,
    ):
        if cases:
            return ask_each(client, read_file(cases, asked), table)
        if folder:
            return ask_each(client, read_folder(folder, question or "", asked), table)
        given = shown(images or [], frame, None if study else window, is_series=bool(slices))
        if stream:
            return _as_they_come(client.stream(given, question or "", **asked), as_json)
        verdict = client.ask(given, question or "", **asked)
        if as_json:
            print(verdict.model_dump_json())
        else:
            show(verdict, console.print)


def _as_they_come(events: Iterator["Event"], as_json: bool) -> None:
    from consilium import Answer, Verdict
    from services.running.demo import show

    for event in events:
        if as_json:
            print(f'{{"{type(event).__name__.lower()}": {event.model_dump_json()}}}', flush=True)
        elif isinstance(event, Verdict):
            show(event, console.print)
        elif isinstance(event, Answer):
            said = f"{event.error.kind}: {event.error.detail}" if event.error else event.text
            console.print(f"{event.seconds:.2f} s, {event.worker}: {said}")
        else:
            console.print(f"so far, {event.heard} of {event.asked}: {event.answer}")


def _archived(study: str, series: str | None, windows: list[str] | None) -> dict[str, Any]:
    if windows and len(windows) > 1:
        raise typer.BadParameter("give it once for the whole series", param_hint="--window")
    window = {"window": _window(windows[0])} if windows else {}
    return {"study": study, "series": series} | window


def shown(
    images: list[Path],
    frames: list[int] | None,
    windows: list[str] | None,
    is_series: bool = False,
) -> list[dict[str, Any]]:
    """The images, each with its frame and its window, as the client takes them; a series has one
    window.

    Raises BadParameter where there is not one for each, and for a window that is none.
    """
    if is_series and windows and len(windows) == 1:
        windows *= len(images)
    for name, values in (("--frame", frames), ("--window", windows)):
        if values and len(values) != len(images):
            raise typer.BadParameter("give it once for each image", param_hint=name)
    found: list[dict[str, Any]] = [{"data": image} for image in images]
    for image, number in zip(found, frames or (), strict=False):
        image["frame"] = number
    for image, window in zip(found, windows or (), strict=False):
        image["window"] = _window(window)
    return found


def _window(text: str) -> str | list[float]:
    centre, comma, width = text.partition(",")
    try:
        return [float(centre), float(width)] if comma else text
    except ValueError:
        raise typer.BadParameter(
            f"{text}: give a name, or CENTRE,WIDTH", param_hint="--window"
        ) from None


def listed(choices: list[str] | None) -> list[str] | None:
    """The choices, of which one alone is a list such as yes,no."""
    return names_in(choices[0]) if choices and len(choices) == 1 else choices
