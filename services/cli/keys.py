"""API keys of the gateway: key add, key list, key revoke."""

from pathlib import Path
from typing import Annotated

import typer

from services.cli.shared import console, failures

app = typer.Typer(help="API keys of the gateway.", no_args_is_help=True)
KeysFile = Annotated[
    Path, typer.Option("--keys", envvar="CONSILIUM_KEYS", help="The file that holds their hashes.")
]


@app.command("add")
def key_add(
    keys: KeysFile,
    tenant: Annotated[str, typer.Option(help="Whose: tenants never share an answer.")],
    per_minute: Annotated[int | None, typer.Option(min=1, help="Cases in a minute.")] = None,
    admin: Annotated[bool, typer.Option("--admin", help="It may change the panel.")] = False,
) -> None:
    """Make a key and print it, this once."""
    from gateway.door import keys as file

    with failures():
        print(file.add(keys, tenant, per_minute, admin))


@app.command("list")
def key_list(keys: KeysFile) -> None:
    """Who has a key, and which were revoked."""
    from rich.table import Table

    from gateway.door import keys as file

    with failures():
        table = Table("id", "tenant", "per minute", "admin", "created", "revoked", box=None)
        for each in file.read(keys):
            often = str(each.per_minute or "")
            revoked = f"{each.revoked:%Y-%m-%d %H:%M}" if each.revoked else ""
            made = f"{each.created:%Y-%m-%d %H:%M}"
            table.add_row(each.id, each.tenant, often, "yes" * each.admin, made, revoked)
        console.print(table)


@app.command("revoke")
def key_revoke(keys: KeysFile, identity: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """Refuse a key from now on; running gateways notice at once."""
    from gateway.door import keys as file

    with failures():
        file.revoke(keys, identity)
