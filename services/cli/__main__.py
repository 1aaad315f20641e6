"""`consilium …`: exit status 0 is good, 1 a failure (one line says which), 2 wrong usage.

Each command imports what it needs when it runs, so that the gateway's own machine needs no torch.
"""

try:
    import typer

    from services.cli import evaluation, keys, running, workers
except ModuleNotFoundError as error:
    raise SystemExit(f"consilium: {error.name} is missing; pip install 'consilium[cli]'") from None

app = typer.Typer(
    help="Several medical VQA models consult. Research software, not a medical device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for verbs in (running, workers, evaluation):
    app.add_typer(verbs.app)
app.add_typer(keys.app, name="key")


def main() -> None:
    app()


if __name__ == "__main__":
    main()
