"""The archive that panel.toml names: archive send."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from services.cli.shared import PANEL_FILE, Panel, failures, settings_of

app = typer.Typer(help="The archive that panel.toml names.", no_args_is_help=True)


class Kind(StrEnum):
    sr = "sr"
    sc = "sc"


@app.command("send")
def send(
    verdict: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True)],
    question: Annotated[str, typer.Option("--question", "-q", help="What was asked.")],
    kind: Annotated[
        Kind, typer.Option("--as", help="sr: a Structured Report; sc: a page as a picture.")
    ] = Kind.sr,
    panel: Panel = PANEL_FILE,
) -> None:
    """Store a verdict beside the images that it is about, and print its SOP Instance UID.

    It takes what `consilium ask --study … --json` printed. The archive's own credentials come from
    CONSILIUM_ARCHIVE_AUTHORIZATION.
    """
    from pydantic import ValidationError

    from gateway.contract import Verdict
    from services.archive.capture import page
    from services.archive.sending import SendingError, send
    from services.archive.structured_report import report

    archive = settings_of(panel, with_competence=False).archive
    with failures(SendingError):
        if archive is None:
            raise SendingError(f"{panel} names no [archive]")
        try:
            read = Verdict.model_validate_json(verdict.read_bytes())
        except ValidationError as error:
            raise SendingError(f"{verdict} holds no verdict as --json prints it") from error
        print(send(read, question, report if kind is Kind.sr else page, archive))
