"""The gateway's audit: audit match."""

import asyncio
import hmac
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from services.cli.asking import Choices, Frames, Slices, Views, Windows, listed, shown
from services.cli.shared import PANEL_FILE, Panel, console, failures, settings_of

app = typer.Typer(help="The gateway's audit.", no_args_is_help=True)


@app.command("match")
def match(
    images: Annotated[list[Path], typer.Argument(exists=True, dir_okay=False, readable=True)],
    question: Annotated[str, typer.Option("--question", "-q")],
    language: Annotated[str | None, typer.Option(help="If one was sent.")] = None,
    context: Annotated[str | None, typer.Option(help="Clinical context.")] = None,
    frame: Frames = None,
    window: Windows = None,
    view: Views = None,
    slices: Slices = None,
    choices: Choices = None,
    answer: Annotated[str | None, typer.Option(help="Only where this was decided.")] = None,
    folder: Annotated[Path | None, typer.Option(help="If not panel.toml's audit.folder.")] = None,
    panel: Panel = PANEL_FILE,
) -> None:
    """Print the audit's lines about a case, whoever asked it; exit status 1 where there is none.

    It takes the very files, frames, windows, words and choices that were sent, and the gateway's
    secret: CONSILIUM_SECRET_FILE or CONSILIUM_SECRET.
    """
    from consilium.case import encode
    from gateway.case import Case
    from gateway.intake.request import case_of, draft_of
    from gateway.refusals import Refused
    from gateway.store.memory import asked_of
    from gateway.watch.audit import AuditError, answer_mark, lines

    settings = settings_of(panel, with_competence=False)
    with failures(AuditError, Refused):
        if settings.secret_is_random:
            raise AuditError("Set CONSILIUM_SECRET_FILE: without the secret no line can be matched")
        found = lines(folder or settings.audit_folder)
        sent = {
            "images": [
                {**image, "data": encode(image["data"])}
                for image in shown(images, frame, window, is_series=slices is not None)
            ],
            "slices": slices,
            "question": question,
            "language": language,
            "context": context,
            "choices": listed(choices),
            "views": view,
        }
        content = {field: value for field, value in sent.items() if value is not None}

        async def read() -> Case:
            draft = await draft_of(content, settings.limits)
            return await case_of(draft, settings, archive=None, tenant="")

        case = asyncio.run(read())
        secret, matched = settings.secret_bytes, False
        for text, line in found:
            asked = asked_of(replace(case, tenant=line["tenant"]), secret)
            decided = line["answer"] if answer is None else answer_mark(answer, asked, secret)
            if hmac.compare_digest(asked, line["case"]) and decided == line["answer"]:
                matched = True
                console.print(text)
        if not matched:
            raise AuditError("No line is about this case: other files, words or another secret")
