"""Ask a running gateway from Python.

verdict = ask("chest.dcm", "Is there a pleural effusion?")
print(verdict.answer, verdict.agreement)
"""

import base64
import json
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from gateway.contract import Language, Modality, Options, Problem, Verdict

GATEWAY_URL = "http://127.0.0.1:8000"
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 30.0
MAY_PASS = {429, 502, 503, 504}  # the gateway, or what stands before it, may take it later

JSON = {"content-type": "application/json"}

File = str | os.PathLike[str] | bytes  # one, or what it holds
# Or, of a DICOM, what of it is to be shown: {"data": File, "frame": 3, "window": "lung"}.
Image = File | Mapping[str, Any]
Reply = TypeVar("Reply", bound=BaseModel)


class GatewayError(Exception):
    """There is no verdict; the message says why in one sentence. Where it `may_pass`, the same
    case may be answered later, after `retry_after_s` if that was told."""

    def __init__(self, message: str, may_pass: bool = False, retry_after_s: float | None = None):
        super().__init__(message)
        self.may_pass, self.retry_after_s = may_pass, retry_after_s


class GatewayUnreachable(GatewayError):
    """Nothing answered at this address, or not in time, or it is no gateway."""


class GatewayRefused(GatewayError):
    """The gateway answered with a problem; the message is its detail."""

    def __init__(self, problem: Problem, retry_after_s: float | None = None):
        # Where the workers were asked, only who was down may say something else another time.
        failed = [a.error.kind for a in problem.answers or () if a.error]
        may_pass = problem.status in MAY_PASS and (not failed or "unreachable" in failed)
        super().__init__(problem.detail, may_pass, retry_after_s)
        self.problem = problem


class Patience:
    """Decides how long to wait after a failure, and when to give up: once nothing has got through
    for `patience_s`. One for all the calls of a run: where one is told to wait, all wait.

    `tell` hears of each wait.
    """

    def __init__(self, patience_s: float, tell: Callable[[str], None] = lambda line: None):
        self._patience_s, self._tell = patience_s, tell
        self._failing_since: float | None = None
        self._waits = 0  # since something got through
        self._go_on_at = 0.0

    @property
    def wait_s(self) -> float:
        """How long no call is to be made."""
        return max(0.0, self._go_on_at - time.monotonic())

    def got_through(self) -> None:
        self._failing_since, self._waits = None, 0

    def goes_on(self, error: GatewayError, asked_at: float) -> bool:
        """Whether to make the call again that was made at `asked_at` and failed so, after
        `wait_s`. Waits grow, and are never shorter than the gateway asks for."""
        if not error.may_pass:
            return False
        now = time.monotonic()
        self._failing_since = now if self._failing_since is None else self._failing_since
        others_wait = asked_at < self._go_on_at  # this call was under way when they were told to
        grown = 0.0 if others_wait else min(FIRST_WAIT_S * 2**self._waits, LONGEST_WAIT_S)
        go_on_at = max(self._go_on_at, now + max(grown, error.retry_after_s or 0))
        if go_on_at > self._failing_since + self._patience_s:
            return False
        if not others_wait:
            self._waits += 1
        if go_on_at > self._go_on_at:
            self._go_on_at = go_on_at
            self._tell(f"waiting {go_on_at - now:.0f} s: {error}")
        return True


def ask(
    images: Image | Sequence[Image],
    question: str,
    *,
    language: Language | None = None,
    context: str | None = None,
    modality: Modality | None = None,
    choices: Sequence[str] | None = None,
    slices: str | None = None,
    dicomweb: Mapping[str, Any] | None = None,
    options: Options | Mapping[str, Any] | None = None,
    url: str = GATEWAY_URL,
    key: str | None = None,
    timeout_s: float = 120,
    patience_s: float = 0,
) -> Verdict:
    """The panel's verdict on a question about one or more image files (or their bytes).

    An image may be a mapping of `data` (the file), `frame` (from 1) and `window`. With `slices`
    they are the files of one series; with `dicomweb` (`study`, `series`, …) there are none, and the
    gateway fetches them from its archive. Without `language` it is the question's own.

    `key` is an API key, where the gateway wants one; without it $CONSILIUM_KEY is sent. A failure
    that may pass (the gateway restarts, is busy, or the key has asked too often) is waited out for
    up to `patience_s`.

    Raises GatewayRefused with the gateway's own words, GatewayUnreachable, GatewayError for a key
    that cannot be sent, or OSError for a file that cannot be read.
    """
    of_series = {"slices": slices, "dicomweb": dicomweb}  # which older gateways do not know
    body = case_json(
        images,
        question,
        language=language,
        context=context,
        modality=modality,
        choices=choices,
        options=options,
        **{name: value for name, value in of_series.items() if value is not None},
    )
    headers = JSON | bearer(key)
    patience = Patience(patience_s)
    while True:
        asked_at = time.monotonic()
        try:
            return _post(url, body, headers, timeout_s)
        except GatewayError as error:
            if not patience.goes_on(error, asked_at):
                raise
        time.sleep(patience.wait_s)


def _post(url: str, body: bytes, headers: dict[str, str], timeout_s: float) -> Verdict:
    try:
        with httpx.Client(timeout=timeout_s, trust_env=trusts_env(url)) as http:
            response = http.post(f"{url.rstrip('/')}/vqa", content=body, headers=headers)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise no_verdict(url, error) from error
    return read_reply(response, Verdict)


def case_json(images: Image | Sequence[Image], question: str, **fields: Any) -> bytes:
    """The JSON body of `POST /vqa`; `fields` are its other fields.

    Raises OSError for a file that cannot be read.
    """
    given = [images] if isinstance(images, str | os.PathLike | bytes | Mapping) else images
    options = fields.get("options") or {}
    fields["options"] = options.model_dump() if isinstance(options, Options) else dict(options)
    case = {"question": question, "images": [_sent(image) for image in given], **fields}
    # ASCII: what is no text (half a surrogate pair) the gateway refuses in its own words.
    return json.dumps(case).encode()


def _sent(image: Image) -> str | dict[str, Any]:
    if isinstance(image, Mapping):
        return {**image, "data": encode(image["data"])}
    return encode(image)


def encode(image: File) -> str:
    """An image file as base64, the way a JSON case carries it."""
    data = image if isinstance(image, bytes) else Path(image).read_bytes()
    return base64.b64encode(data).decode()


def bearer(key: str | None = None) -> dict[str, str]:
    """The header that carries `key`, else $CONSILIUM_KEY, else nothing.

    Raises GatewayError for one that no header can carry.
    """
    key = (key or os.environ.get("CONSILIUM_KEY", "")).strip()
    if not re.fullmatch("[!-~]*", key):
        raise GatewayError(
            "The key holds a character that no key has: copy it anew, from consilium_ to its end, "
            "into CONSILIUM_KEY."
        )
    return {"authorization": f"Bearer {key}"} if key else {}


def trusts_env(url: str) -> bool:
    """Proxies from the environment are for other machines: this one has no need of them."""
    return httpx.URL(url).host not in {"127.0.0.1", "localhost", "::1"}


def no_verdict(url: str, error: Exception) -> GatewayUnreachable:
    """What to say where there was no response; an address that is none will not be one later."""
    return GatewayUnreachable(
        f"No verdict from {url} ({type(error).__name__}); is the gateway up?",
        may_pass=not isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol),
    )


def read_reply(response: httpx.Response, kind: type[Reply]) -> Reply:
    """What the gateway replied; raises GatewayRefused or GatewayUnreachable."""
    retry_after_s = _seconds(response.headers.get("retry-after", ""))
    try:
        if response.is_success:
            return kind.model_validate_json(response.content)
        problem = Problem.model_validate_json(response.content)
    except ValidationError as error:
        raise GatewayUnreachable(
            f"{response.url.host} answered HTTP {response.status_code}, but not as a gateway does.",
            response.status_code in MAY_PASS,
            retry_after_s,
        ) from error
    raise GatewayRefused(problem, retry_after_s)


def _seconds(retry_after: str) -> float | None:
    """How long a Retry-After asks to wait: seconds, or a date (RFC 9110, section 10.2.3)."""
    if retry_after.isdecimal():
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except ValueError:
        return None
