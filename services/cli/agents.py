"""For agents of others: mcp."""

import asyncio
from typing import Annotated

import typer

from services.cli.shared import GATEWAY_URL, Gateway, Key, Timeout, failures

app = typer.Typer()


@app.command()
def mcp(
    port: Annotated[
        int | None,
        typer.Option(
            min=1, max=65535, help="Serve streamable HTTP at http://127.0.0.1:PORT/mcp, not stdio."
        ),
    ] = None,
    key: Key = None,
    timeout: Timeout = 120,
    gateway: Gateway = GATEWAY_URL,
) -> None:
    """Let agents ask a running gateway, over the Model Context Protocol."""
    from consilium import AsyncClient
    from gateway.tables import Limits
    from services.running.mcp_server import server

    async def serve() -> None:
        async with AsyncClient(gateway, key, timeout_s=timeout) as client:
            made = server(client, reads_paths=port is None)
            if port is None:
                await made.run_stdio_async()
            else:
                most = int(Limits().max_body_mb * 1e6)
                await made.run_streamable_http_async(
                    port=port, stateless_http=True, max_request_body_size=most
                )

    with failures():
        asyncio.run(serve())
