"""Which regions of an image the panel's answer hangs on: explain."""

import json
from pathlib import Path
from typing import Annotated

import typer

from gateway.contract import Language
from services.cli.shared import GATEWAY_URL, Gateway, Key, Timeout, console, failures

app = typer.Typer()


@app.command()
def explain(
    images: Annotated[
        list[Path], typer.Argument(exists=True, dir_okay=False, readable=True, help="One.")
    ],
    question: Annotated[str, typer.Option("--question", "-q")],
    side: Annotated[
        int, typer.Option(min=2, max=16, help="So many regions in a row, and rows of them.")
    ] = 4,
    out: Annotated[
        Path | None, typer.Option(help="A picture: redder where the answer hangs on it more.")
    ] = None,
    language: Annotated[
        Language | None, typer.Option(help="en, es or zh, if it is not the question's own.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
    key: Key = None,
    timeout: Timeout = 120,
    gateway: Gateway = GATEWAY_URL,
) -> None:
    """Ask a running gateway again and again, each time without one region of the image."""
    from PIL import Image
    from rich.table import Table

    from consilium import Client
    from models.data.example import DataError
    from services.running.explain import ExplainError, overlaid
    from services.running.explain import explain as find

    if len(images) != 1:
        raise typer.BadParameter(
            "an answer to several images is not explained: give one", param_hint="IMAGES"
        )
    if out and Image.registered_extensions().get(out.suffix.lower()) not in Image.SAVE:
        raise typer.BadParameter("name a picture, such as explained.png", param_hint="--out")
    if out and not out.parent.is_dir():
        raise typer.BadParameter(f"there is no folder {out.parent}", param_hint="--out")
    fields = {"language": language, "options": {"summarise": "never"}}
    with failures(DataError, ExplainError), Client(gateway, key, timeout_s=timeout) as client:
        found = find(client, images[0], question, side, fields)
        if out:
            overlaid(images[0], found.without).save(out)
    if as_json:
        told = {"answer": found.answer, "agreement": found.agreement}
        print(json.dumps(told | {"without": found.without.round(4).tolist()}))
        return
    console.print(f"{found.answer}, agreement {found.agreement:.2f}; less without each region:")
    table = Table(show_header=False)
    for row in found.without:
        table.add_row(*(f"{less:+.2f}" for less in row))
    console.print(table)
