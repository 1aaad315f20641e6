"""Which regions of an image the panel's answer hangs on: explain."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.contract import Language
from services.cli.shared import GATEWAY_URL, Gateway, Key, Timeout, console, failures

if TYPE_CHECKING:
    from models.study.regions import Hide

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
    tokens: Annotated[
        Path | None,
        typer.Option(
            file_okay=False,
            help="What models.study.masked_decoding wrote: regions are imagined healthy, too.",
        ),
    ] = None,
    language: Annotated[
        Language | None, typer.Option(help="en, es or zh, if it is not the question's own.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
    key: Key = None,
    timeout: Timeout = 120,
    gateway: Gateway = GATEWAY_URL,
) -> None:
    """Ask a running gateway again and again, each time without one region of the image: blurred,
    and with --tokens imagined as if nothing were found there."""
    from PIL import Image
    from rich.columns import Columns
    from rich.table import Table

    from consilium import Client
    from models.data.example import DataError
    from models.study.regions import Hide, blurred
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
    ways: dict[str, Hide] = {"blurred": blurred}
    if tokens:
        ways["imagined"] = _imagining(tokens, side)
    with failures(DataError, ExplainError), Client(gateway, key, timeout_s=timeout) as client:
        found = find(client, images[0], question, side, fields, list(ways.values()))
        if out:
            overlaid(images[0], found.without).save(out)
    maps = dict(zip(ways, found.without, strict=True))
    if as_json:
        lists = {name: each.round(4).tolist() for name, each in maps.items()}
        told = {"answer": found.answer, "agreement": found.agreement}
        print(json.dumps(told | {"without": lists.pop("blurred")} | lists))
        return
    console.print(f"{found.answer}, agreement {found.agreement:.2f}; less without each region:")
    tables = []
    for name, each in maps.items():
        table = Table(show_header=False, title=name if tokens else None)
        for row in each:
            table.add_row(*(f"{less:+.2f}" for less in row))
        tables.append(table)
    console.print(Columns(tables))


def _imagining(tokens: Path, side: int) -> "Hide":
    """With torch, which no other explanation needs."""
    import torch

    from models.study.masked_decoding import imagining
    from models.study.tokens import TokensError

    with failures(TokensError):
        return imagining(tokens, side, torch.device("cpu"))
