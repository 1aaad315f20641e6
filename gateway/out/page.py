"""The page at `/`, for people: the files of `page/`, each as it is.

They take nothing from another host, and name each other by relative addresses, so the page is found
under any path.
"""

import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path

from fastapi import FastAPI, Request, Response

FOLDER = Path(__file__).parent / "page"
KINDS = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".json": "application/json",
}
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    # Asked for again each time, and sent when it has changed: its files must fit each other.
    "cache-control": "no-cache",
}


def add_page(app: FastAPI) -> None:
    """`/`, and the files that it needs under `/page/`."""
    for file in sorted(FOLDER.iterdir()):
        address = "/" if file.name == "index.html" else f"/page/{file.name}"
        app.add_api_route(address, _sends(file), include_in_schema=False)


def _sends(file: Path) -> Callable[[Request], Awaitable[Response]]:
    """By RFC 9110 section 13.1.2: its bytes, unless the browser has them. Of the same file all
    gateways make the same tag."""
    content = file.read_bytes()
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = HEADERS | {"etag": tag}

    async def send(request: Request) -> Response:
        known = request.headers.get("if-none-match", "").split(",")
        if tag in (each.strip().removeprefix("W/") for each in known):
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=KINDS[file.suffix], headers=headers)

    return send
