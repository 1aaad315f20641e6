"""Ask a running gateway from Python.

verdict = ask([Path("chest.dcm")], "Is there a pleural effusion?")
print(verdict.answer, verdict.agreement)
"""

import base64
import os
from collections.abc import Sequence
from pathlib import Path

import httpx
from pydantic import ValidationError

from gateway.contract import Language, Options, Problem, Verdict

GATEWAY_URL = "http://127.0.0.1:8000"


class GatewayError(Exception):
    """There is no verdict; the message says why in one sentence."""


class GatewayUnreachable(GatewayError):
    """Nothing answered at this address, or not in time, or it is no gateway."""


class GatewayRefused(GatewayError):
    """The gateway answered with a problem; the message is its detail."""

    def __init__(self, problem: Problem):
        super().__init__(problem.detail)
        self.problem = problem


def ask(
    images: Sequence[Path | bytes],
    question: str,
    *,
    language: Language = "en",
    context: str | None = None,
    choices: list[str] | None = None,
    options: Options | None = None,
    url: str = GATEWAY_URL,
    key: str | None = None,
    timeout_s: float = 120,
) -> Verdict:
    """The panel's verdict on a question about one or more image files (or their bytes).

    `key` is an API key, where the gateway wants one; without it $CONSILIUM_KEY is sent.

    Raises GatewayRefused with the gateway's own words, GatewayUnreachable, or OSError for a file
    that cannot be read.
    """
    case = {
        "question": question,
        "images": [encode(image) for image in images],
        "language": language,
        "context": context,
        "choices": choices,
        "options": (options or Options()).model_dump(),
    }
    with httpx.Client(timeout=timeout_s, trust_env=trusts_env(url)) as http:
        try:
            response = http.post(f"{url.rstrip('/')}/vqa", json=case, headers=bearer(key))
        except httpx.HTTPError as error:
            raise GatewayUnreachable(
                f"No verdict from {url} ({type(error).__name__}); is the gateway up?"
            ) from error
    return read_verdict(response)


def encode(image: Path | bytes) -> str:
    """An image file as base64, the way a JSON case carries it."""
    data = image.read_bytes() if isinstance(image, Path) else image
    return base64.b64encode(data).decode()


def bearer(key: str | None = None) -> dict[str, str]:
    """The header that carries `key`, else $CONSILIUM_KEY, else nothing."""
    key = key or os.environ.get("CONSILIUM_KEY")
    return {"authorization": f"Bearer {key}"} if key else {}


def trusts_env(url: str) -> bool:
    """Proxies from the environment are for other machines: this one has no need of them."""
    return httpx.URL(url).host not in {"127.0.0.1", "localhost", "::1"}


def read_verdict(response: httpx.Response) -> Verdict:
    """The verdict in a gateway's response; raises GatewayRefused or GatewayUnreachable."""
    try:
        if response.is_success:
            return Verdict.model_validate_json(response.content)
        problem = Problem.model_validate_json(response.content)
    except ValidationError as error:
        raise GatewayUnreachable(
            f"{response.url.host} answered HTTP {response.status_code}, but not as a gateway does."
        ) from error
    raise GatewayRefused(problem)
