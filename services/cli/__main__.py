"""`consilium …`: exit status 0 is good, 1 a failure (one line says which), 2 wrong usage.

Each command imports what it needs when it runs, so that the gateway's own machine needs no torch.
"""

from importlib.metadata import version
from typing import Annotated

try:
    import typer

    from services.cli import (
        agents,
        archive,
        asking,
        audit,
        evaluation,
        explaining,
        feedback,
        keys,
        running,
        workers,
    )
except ModuleNotFoundError as error:
    raise SystemExit(f"consilium: {error.name} is missing; pip install 'consilium[cli]'") from None

app = typer.Typer(
    help="Several medical VQA models consult. Research software, not a medical device.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # Brackets in a help text are words, such as [summariser].
    rich_markup_mode=None,
)
for verbs in (running, asking, explaining, agents, workers, evaluation):
    app.add_typer(verbs.app)
app.add_typer(keys.app, name="key")
app.add_typer(audit.app, name="audit")
app.add_typer(feedback.app, name="feedback")
app.add_typer(archive.app, name="archive")


# What installs a package that a command lacks; any other comes with [train].
COMES_WITH = {
    "vllm": "'consilium[cpu]', or 'consilium[gpu]' where there is a GPU",
    "mcp": "'consilium[mcp]'",
    "fhir": "'consilium[archive]'",
    "highdicom": "'consilium[archive]'",
    "ray": "'consilium[ray]'",
    "huggingface_hub": "'consilium[models]'",
    "pyarrow": "'consilium[cli]'",
}


def _say_version(wanted: bool) -> None:
    if wanted:
        print(f"consilium {version('consilium')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_say_version, is_eager=True, help="Say which this is."),
    ] = False,
) -> None:
    pass


def main() -> None:
    try:
        app()
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name in ("gateway", "models", "services", ""):
            raise
        what = COMES_WITH.get(name, "'consilium[train]'")
        raise SystemExit(f"consilium: {name} is missing; pip install {what}") from None


if __name__ == "__main__":
    main()
