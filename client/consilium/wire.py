"""HTTP between a client and a gateway: headers, and what a response means."""

import os
import re
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Optional, TypeVar, Union

import httpx
from pydantic import BaseModel, ValidationError

from consilium.errors import (
    MAY_PASS,
    GatewayError,
    GatewayRefused,
    GatewayUnreachable,
)
from consilium.verdict import Answer, Problem, Provisional, Verdict

JSON = {"content-type": "application/json"}
TOO_LARGE = 413
EVENTS = {"accept": "text/event-stream"}
KINDS: dict[str, type[BaseModel]] = {
    "answer": Answer,
    "failure": Answer,
    "provisional": Provisional,
    "verdict": Verdict,
    "problem": Problem,
}

Reply = TypeVar("Reply", bound=BaseModel)
Event = Union[Answer, Provisional, Verdict]


def bearer(url: str, key: Optional[str] = None) -> dict[str, str]:
    """The header that carries `key`, else $CONSILIUM_KEY, else nothing, to `url`.

    Raises GatewayError for one that is no text, that no header can carry, or for which the address
    leaves no place; GatewayUnreachable for an address that is none.
    """
    key = key or os.environ.get("CONSILIUM_KEY", "")
    if not isinstance(key, str):
        raise GatewayError(f"The key is a {type(key).__name__}: it must be a str.")
    key = key.strip()
    if not re.fullmatch("[!-~]*", key):
        raise GatewayError(
            "The key holds a character that no key has: copy it anew, from consilium_ to its end, "
            "into CONSILIUM_KEY."
        )
    if not key:
        return {}
    if _address(url).userinfo:  # which goes into the same header
        raise GatewayError(
            f"There is a key, and {shown(url)} was given with a name and a password: a request "
            "carries only one of them. Take these out of the address, or unset CONSILIUM_KEY."
        )
    return {"authorization": f"Bearer {key}"}


def trusts_env(url: str) -> bool:
    """Proxies from the environment are for other machines: this one has no need of them.

    Raises GatewayUnreachable for an address that is none.
    """
    return _address(url).host not in {"127.0.0.1", "localhost", "::1"}


def _address(url: str) -> httpx.URL:
    try:
        if not isinstance(url, str):
            raise httpx.InvalidURL("no text")
        return httpx.URL(url)
    except httpx.InvalidURL as error:
        raise no_verdict(url, error) from error


def shown(url: object) -> str:
    """An address as it may be printed: without a name and a password."""
    return re.sub(r"^([^/]*//)?.*@", r"\1", str(url), flags=re.DOTALL)


def no_verdict(url: str, error: Exception) -> GatewayUnreachable:
    """What to say where there was no response; an address that is none will not be one later."""
    if isinstance(error, (httpx.InvalidURL, httpx.UnsupportedProtocol)):
        return GatewayUnreachable(
            f"{shown(url)!r} is no address of a gateway: write http://, the host, and its port."
        )
    why = f"No verdict from {shown(url)} ({type(error).__name__}); is the gateway up?"
    return GatewayUnreachable(why, may_pass=True)


def holds_events(response: httpx.Response) -> bool:
    """Whether they follow; else it is a problem, or a page that is no gateway's."""
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    return response.is_success and kind == EVENTS["accept"]


def read_reply(response: httpx.Response, kind: type[Reply]) -> Reply:
    """What the gateway replied; raises GatewayRefused or GatewayUnreachable."""
    retry_after_s = _seconds(response.headers.get("retry-after", ""))
    try:
        if response.is_success:
            return kind.model_validate_json(response.content)
        problem = Problem.model_validate_json(response.content)
    except ValidationError as error:
        if response.status_code == TOO_LARGE:
            # A proxy's page: of this case alone, the next one may be smaller.
            detail = (
                f"{response.url.host} takes nothing so large: raise the limit of what stands "
                "before the gateway (nginx: client_max_body_size), or send smaller images."
            )
            too_large = Problem(
                type="about:blank", title="Too large", status=TOO_LARGE, detail=detail
            )
            raise GatewayRefused(too_large, retry_after_s) from error
        # It began as one does, and broke off: that may pass. Another server's page does not.
        is_cut = response.content.startswith(b"{") and error.errors()[0]["type"] == "json_invalid"
        raise GatewayUnreachable(
            f"{response.url.host} answered HTTP {response.status_code}, but not as a gateway does.",
            is_cut or response.status_code in MAY_PASS,
            retry_after_s,
        ) from error
    raise GatewayRefused(problem, retry_after_s)


def _seconds(retry_after: str) -> Optional[float]:
    """How long a Retry-After asks to wait: seconds, or a date (RFC 9110, section 10.2.3)."""
    if retry_after.isdecimal():
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):  # Python 3.9 raises the first
        return None


class EventReader:
    """Bytes of a `text/event-stream` of the gateway's → its events."""

    def __init__(self) -> None:
        self._name, self._rest = "", b""

    def read(self, chunk: bytes) -> Iterator[Event]:
        """Those that end in `chunk`.

        Raises GatewayRefused where the case came to a problem after all, GatewayUnreachable for
        what no gateway sends.
        """
        # Not httpx's lines: other marks that end a line may stand within an answer.
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            field, _, value = line.partition(b": ")
            if field == b"event":
                self._name = value.decode("ascii", "replace")
            elif field == b"data" and self._name in KINDS:
                yield self._event(value)

    def end(self) -> GatewayUnreachable:
        """Why there is no verdict where the bytes end without one."""
        return GatewayUnreachable("The gateway hung up before its verdict.", may_pass=True)

    def _event(self, data: bytes) -> Event:
        try:
            found = KINDS[self._name].model_validate_json(data)
        except ValidationError as error:
            raise GatewayUnreachable(f"This {self._name} is not as a gateway sends it.") from error
        if isinstance(found, Problem):
            raise GatewayRefused(found)
        assert isinstance(found, (Answer, Provisional, Verdict))
        return found
