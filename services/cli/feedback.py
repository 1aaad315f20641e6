"""What readers said of verdicts: feedback export."""

import json
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

from services.cli.shared import PANEL_FILE, Panel, failures, settings_of

app = typer.Typer(help="What readers said of verdicts.", no_args_is_help=True)


@app.command("export")
def export(
    out: Annotated[Path, typer.Option(file_okay=False, help="A new folder.")],
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    folder: Annotated[
        Path | None, typer.Option(help="If not panel.toml's feedback.folder.")
    ] = None,
    panel: Panel = PANEL_FILE,
) -> None:
    """Write the cases that were given away, with what is right, as a set of one's own: cases.jsonl
    and its images, which evaluate reads; calibrate learns from the run."""
    from gateway.store.readers import ReadersError, kept_cases

    settings = settings_of(panel, with_competence=False)
    with failures(ReadersError):
        cases = kept_cases(folder or settings.feedback_folder, tenant)  # one by one: with images
        first = next(cases, None)
        if first is None:
            raise ReadersError("No case was given away: nothing is written.")
        if out.exists():
            raise ReadersError(f"{out} is there already; name a new folder.")
        out.mkdir(parents=True, mode=0o700)  # it holds what patients are asked about
        (out / "images").mkdir()
        written = 0
        with (out / "cases.jsonl").open("x", encoding="utf-8") as file:
            for case in chain([first], cases):
                written += 1
                names = []
                for place, image in enumerate(case.images, 1):
                    kind = "jpg" if image.startswith(b"\xff\xd8") else "png"
                    names.append(f"images/{case.id}-{place}.{kind}")
                    (out / names[-1]).write_bytes(image)
                row = {"id": case.id, "images": names, **case.fields, "word": case.word}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        print(f"{out / 'cases.jsonl'}: {written} cases, given away by their readers")
