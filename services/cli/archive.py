"""The archive that panel.toml names: archive send."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from services.cli.shared import PANEL_FILE, Panel, failures, settings_of

app = typer.Typer(help="The archive that panel.toml names.", no_args_is_help=True)


class NothingToSend(Exception):
    """One sentence that says why."""


@app.command("send")
def send(
    verdict: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True)],
    question: Annotated[str, typer.Option("--question", "-q", help="What was asked.")],
    kind: Annotated[
        Literal["sr", "sc", "fhir"],
        typer.Option(
            "--as",
            help="sr: a Structured Report; sc: a page as a picture; fhir: a DiagnosticReport.",
        ),
    ] = "sr",
    to: Annotated[
        str | None,
        typer.Option(help="Of fhir: the base address of the server; else it is printed."),
    ] = None,
    authorization: Annotated[
        str | None,
        typer.Option(
            envvar="CONSILIUM_FHIR_AUTHORIZATION",
            help="The header that server wants. Better not on the command line.",
        ),
    ] = None,
    panel: Panel = PANEL_FILE,
) -> None:
    """Store a verdict beside the images that it is about, and print its SOP Instance UID; of a
    DiagnosticReport its address, or the whole of it.

    It takes what `consilium ask --study … --json` printed. The archive's own credentials come from
    CONSILIUM_ARCHIVE_AUTHORIZATION.
    """
    import asyncio

    from pydantic import ValidationError

    from gateway.archive import diagnostic_report, returning
    from gateway.archive.dicomweb import Archive
    from gateway.asking.model_server import new_http_client
    from gateway.contract import Verdict
    from gateway.refusals import Refused
    from gateway.tables import ArchiveSettings

    if to and kind != "fhir":
        raise typer.BadParameter(
            "goes with --as fhir; the archive is panel.toml's", param_hint="--to"
        )
    settings = settings_of(panel, with_competence=False)
    question = question.strip()  # as the gateway puts it: what both store is one object

    async def sent(read: Verdict, known: ArchiveSettings) -> str:
        # Whoever holds the panel file and the credentials is no tenant.
        everybodys = known.model_copy(update={"tenants": None})
        async with new_http_client() as http:
            archive = Archive(http, everybodys, "", settings.limits)
            if kind != "fhir":
                return await returning.send(archive, read, question, kind)
            images = await returning.headers_of(archive, read)
            made = diagnostic_report.report(read, question, images)
            if to is None:
                return made.model_dump_json(indent=1)
            return await diagnostic_report.send(http, made, read, to, authorization)

    with failures(Refused, NothingToSend):
        if settings.archive is None:
            raise NothingToSend(f"{panel} names no [archive]")
        try:
            read = Verdict.model_validate_json(verdict.read_bytes())
        except ValidationError as error:
            raise NothingToSend(f"{verdict} holds no verdict as --json prints it") from error
        print(asyncio.run(sent(read, settings.archive)))
