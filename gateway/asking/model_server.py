"""One call to a vLLM server: what may be sent, what may come back, and how a call fails.

Workers and summariser are all asked here. A failure is a CallFailed with a typed reason; the
server's own words never leave this file, since they may quote the caller.
"""

import asyncio
import math
import re
import unicodedata
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import PurePath
from typing import Annotated, Any, NamedTuple

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from pydantic import BaseModel, Field, GetPydanticSchema, ValidationError
from pydantic_core import core_schema

from gateway.case import Case
from gateway.contract import Alternative, AnswerError, ErrorKind, Likeness, Remembered, Tokens
from gateway.verdict.text.asked import with_letters
from gateway.verdict.text.declining import declines
from gateway.verdict.text.meaning import meaning, meanings
from gateway.watch import tracing
from gateway.watch.telemetry import stopwatch

# Straight, without httpx around it, which would double what a call costs.
Http = aiohttp.ClientSession

MAX_REPLY_BYTES = 1_000_000
MAX_ANSWER_CHARS = 2_000
PROBE_S = 1.0
RECONNECT_S = 0.1
MAX_REMEMBERED = 10
MIN_PROBABILITY = 0.005  # of an alternative that is worth telling

# What a server says of an answer that it has told whole; all else (length, abort, …) is cut short.
WHOLE = {"stop", "null", "eos_token", "stop_sequence", "end_turn", "tool_calls"}

# How thoughts are marked that come with the answer, by the models that do it. A server that leaves
# special tokens out writes gpt-oss's channels as "analysis…assistantfinal…".
_THOUGHT = r"(?:seed:)?(?:think(?:ing)?|thoughts?|reasoning|analysis|reflection|scratchpad)"
THOUGHT_BEGINS = re.compile(
    rf"<\|?(?:begin_of_|start_)?{_THOUGHT}\|?>|\[think\]|◁think▷|<unused94>"
    r"|\A(?-i:analysis(?=[A-Z]))",
    re.I,
)
THOUGHT_ENDS = re.compile(
    rf"<\|?(?:/|end_of_|end_){_THOUGHT}\|?>|\[/think\]|◁/think▷|<unused95>"
    r"|assistantfinal|<\|start_response\|>",
    re.I,
)
CHANNEL, CHANNEL_OF_ANSWER = "<|channel|>", "<|channel|>final<|message|>"
AROUND_ANSWER = re.compile(
    r"</?conclusion>|<\|(?:start|begin|end)_(?:of_)?(?:response|solution|box)\|>"
    r"|\A(?:#+ ?)?assistant ?[:\n]",
    re.I,
)
UNSEEN = {"Cc", "Cf"}  # controls, and marks of no width
END_TOKENS = re.compile(r"(?:\s*(?:</s>|<eos>|<pad>|<end_of_\w+>|<[|｜][\w▁]+[|｜]>))+\s*$", re.I)

DECLINED: tuple[ErrorKind, str] = ("empty", "It declined to answer.")
UNREADABLE = AnswerError(kind="refused", detail="It cannot read the image.")


class CallFailed(Exception):
    """A model server gave no usable reply. Its own words stay out: they may quote the caller."""

    def __init__(self, error: AnswerError):
        super().__init__(error.detail)
        self.error = error


class TooLong(CallFailed):
    """It refused a prompt that is longer than what it holds: `tokens`, prompt and answer."""

    def __init__(self, tokens: int):
        detail = f"The case is longer than the {tokens} tokens that it holds."
        super().__init__(AnswerError(kind="refused", detail=detail))
        self.tokens = tokens


class ServerFailed(CallFailed):
    """It heard the request, and gave up with a 5xx."""

    def __init__(self, status: int):
        detail = f"It failed (HTTP {status})."
        super().__init__(AnswerError(kind="unreachable", detail=detail))
        self.status = status


def _failed(kind: ErrorKind, detail: str) -> CallFailed:
    return CallFailed(AnswerError(kind=kind, detail=detail))


@dataclass(frozen=True)
class Completion:
    text: str
    confidence: float | None
    alternatives: tuple[Alternative, ...] = ()
    remembers: tuple[Remembered, ...] = ()
    likeness: Likeness | None = None
    thoughts: str | None = None  # None: it did not think, or nobody can tell
    tokens: Tokens | None = None


# Of what stands beside an answer: the answer stands without it, however a server fills it in.
_OR_NONE = GetPydanticSchema(
    lambda kind, schema_of: core_schema.with_default_schema(
        schema_of(kind), default=None, on_error="default"
    )
)


class _Token(BaseModel):
    token: str
    logprob: float


class _TokenLogprob(_Token):
    top_logprobs: list[_Token] | None = None


class _Logprobs(BaseModel):
    content: list[_TokenLogprob] | None = None


class _Message(BaseModel):
    content: str | None
    reasoning: Annotated[str | None, _OR_NONE] = None
    reasoning_content: Annotated[str | None, _OR_NONE] = None

    @property
    def thoughts(self) -> str | None:
        """What the server itself has parted from the answer."""
        return self.reasoning or self.reasoning_content


class _Choice(BaseModel):
    message: _Message
    logprobs: Annotated[_Logprobs | None, _OR_NONE] = None
    finish_reason: str | None = None
    # Beyond OpenAI's contract.
    remembers: Annotated[tuple[Remembered, ...] | None, _OR_NONE] = None
    likeness: Annotated[Likeness | None, _OR_NONE] = None


class _Usage(BaseModel):
    prompt_tokens: int = Field(ge=0)
    completion_tokens: int = Field(ge=0)


class _Reply(BaseModel):
    choices: list[_Choice] = Field(min_length=1)
    usage: Annotated[_Usage | None, _OR_NONE] = None


class _Model(BaseModel):
    id: str
    root: str


class _Models(BaseModel):
    data: list[_Model] = Field(min_length=1)


def new_http_client() -> Http:
    """For calls to model servers: no proxies, redirects or cookies, and no limit but the caller's
    deadline. Only a running event loop can make one."""
    return Http(
        connector=aiohttp.TCPConnector(limit=1_000, keepalive_timeout=5),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
        headers={"Accept-Encoding": "identity"},
        auto_decompress=False,
    )


async def complete(http: Http, url: str, *body: bytes, one_token: bool = False) -> Completion:
    """One call to a vLLM server, its body in JSON (in parts, so that images need not be copied),
    without a deadline; raises CallFailed. What the model thought before it answered is no answer,
    nor is one that was cut short: what it would have gone on to say, nobody knows; but of a model
    whose answers are of `one_token` each."""
    raw = await _send(http, "POST", f"{url}/v1/chat/completions", body)
    try:
        reply = _Reply.model_validate_json(raw)
    except ValidationError as error:
        raise _failed("garbage", "Its reply is not a chat completion.") from error
    choice, used = reply.choices[0], reply.usage
    if choice.finish_reason and choice.finish_reason.casefold() not in WHOLE:
        raise _failed("cut_short", "It was stopped before it had finished its answer.")
    said = (choice.message.content or "").strip()
    text = answer_in(said)
    if text is None:
        raise _failed("cut_short", "It thought, and came to no answer.")
    if len(text) > MAX_ANSWER_CHARS:
        raise _failed("garbage", f"Its answer is longer than {MAX_ANSWER_CHARS} characters.")
    if not meaning(text):
        raise _failed("empty", "It answered nothing.")
    tokens = (choice.logprobs and choice.logprobs.content) or []
    if text != said or choice.message.thoughts:
        tokens = _of_the_answer(text, tokens)
    remembers = (choice.remembers or ())[:MAX_REMEMBERED]
    alternatives = _alternatives(text, tokens, one_token)
    thoughts = choice.message.thoughts or thoughts_in(said)
    return Completion(
        text,
        _confidence(tokens),
        alternatives,
        remembers,
        choice.likeness,
        thoughts,
        Tokens(prompt=used.prompt_tokens, reply=used.completion_tokens) if used else None,
    )


def answer_in(said: str) -> str | None:
    """What is said once the thinking is over; None where it is not."""
    if said.startswith(CHANNEL) or CHANNEL_OF_ANSWER in said:
        _, of_answer, said = said.rpartition(CHANNEL_OF_ANSWER)
        if not of_answer:
            return None
    # A template may have begun the thought in the prompt: then only its end is here.
    said = THOUGHT_ENDS.split(said)[-1]
    if THOUGHT_BEGINS.search(said):
        return None
    said = END_TOKENS.sub("", AROUND_ANSWER.sub("", said))
    if not said.isprintable():  # what nobody sees would part two answers that look alike
        said = "".join(
            each for each in said if each.isspace() or unicodedata.category(each) not in UNSEEN
        )
    return said.strip()


def thoughts_in(said: str) -> str | None:
    """What was thought before the answer, without the marks around it; None where none is."""
    ends = list(THOUGHT_ENDS.finditer(said))
    return THOUGHT_BEGINS.sub("", said[: ends[-1].start()]).strip() if ends else None


def answer_bounds(case: Case, max_tokens: int) -> dict[str, Any]:
    """How long a reply may be and, where the caller named the choices, which they are: in every
    spelling, since a model that is held to one that it never writes chooses by the spelling."""
    if case.choices is None:
        return {"max_tokens": max_tokens}
    spelled = list(dict.fromkeys(each for choice in case.choices for each in spellings(choice)))
    # No token is shorter than a byte; one more ends the answer.
    longest = 1 + max(len(each.encode()) for each in spelled)
    return {"max_tokens": max(max_tokens, longest), "structured_outputs": {"choice": spelled}}


def spellings(choice: str) -> tuple[str, ...]:
    """Every way in which a model may write it, with and without the blank that many tokens begin
    with; without first, as the caller has it."""
    plain = choice.strip()
    capital = plain[:1].upper() + plain[1:]
    cases = (plain, capital, plain.lower(), plain.capitalize(), plain.title(), plain.upper())
    return tuple(dict.fromkeys([*cases, *(f" {each}" for each in cases)]))


def as_answer(completion: Completion, case: Case) -> Completion:
    """The completion in the spelling of the choice that it means; its probability, and that of
    each other choice, is that of all their spellings. As it is where there are no choices.

    Raises:
        CallFailed: it is none of them, or declines to answer; that may be one of the choices.
    """
    if case.choices is None:
        if declines(completion.text):
            raise _failed(*DECLINED)
        return completion
    question = with_letters(case.choices, case.question)
    said = meaning(completion.text, case.language, question)
    meant = meanings(case.choices, case.language, question)
    if said not in meant:
        none = _failed("garbage", "Its answer is not one of the choices.")
        raise _failed(*DECLINED) if declines(completion.text) else none
    own, confidence = meant[said][-1], completion.confidence
    others: dict[str, float] = {}
    open_ones = []
    for other in completion.alternatives:
        begins = " ".join(other.begins.casefold().split())
        fitting = [c for c in case.choices if " ".join(c.casefold().split()).startswith(begins)]
        if fitting == [own]:
            confidence = None if confidence is None else min(confidence + other.probability, 1.0)
        elif len(fitting) == 1:
            others[fitting[0]] = others.get(fitting[0], 0.0) + other.probability
        elif fitting:
            open_ones.append(other)
    told = [
        Alternative(begins=choice, whole=True, probability=probability)
        for choice, probability in others.items()
    ]
    alternatives = _likeliest_first([*told, *open_ones])
    return replace(completion, text=own, confidence=confidence, alternatives=alternatives)


class Probed(NamedTuple):
    """What a server says of itself: whether it is well, what it loaded, and whether it lists that
    by the name that was looked for."""

    reachable: bool
    model: str | None = None
    by_name: bool = False


async def probe(http: Http, url: str, name: str) -> Probed:
    """What the server at `url` says, in a second, of itself and of what it loaded for `name`. A
    server with adapters lists its base as well, and the base first."""
    health, models = await asyncio.gather(
        _within_a_second(_send(http, "GET", f"{url}/health")),
        _within_a_second(_send(http, "GET", f"{url}/v1/models")),
    )
    if health is None:
        return Probed(False)
    try:
        listed = _Models.model_validate_json(models or b"").data
    except ValidationError:
        return Probed(True)
    named = next((model for model in listed if model.id == name), None)
    # The folder's own name tells one set of weights from another; where it lies is nobody's matter.
    return Probed(True, PurePath((named or listed[0]).root).name, named is not None)


async def _within_a_second(call: Awaitable[bytes]) -> bytes | None:
    try:
        async with asyncio.timeout(PROBE_S):
            return await call
    except (TimeoutError, CallFailed):
        return None


async def _send(http: Http, method: str, url: str, body: Sequence[bytes] = ()) -> bytes:
    try:
        try:
            status, raw = await _exchange(http, method, url, body)
        except aiohttp.ClientConnectorError:
            # It has heard nothing yet, so nothing is asked twice.
            await asyncio.sleep(RECONNECT_S)
            status, raw = await _exchange(http, method, url, body)
    except (aiohttp.ClientResponseError, aiohttp.InvalidURL) as error:
        raise _failed("garbage", "It does not speak HTTP.") from error
    except (aiohttp.ClientError, OSError) as error:
        raise _failed("unreachable", "No connection, or it broke off.") from error
    if 400 <= status < 500:
        if status == 400 and _blames_the_image(raw):
            raise CallFailed(UNREADABLE)
        if tokens := _holds(raw):
            raise TooLong(tokens)
        raise _failed("refused", f"It refused the request (HTTP {status}).")
    if status >= 500:
        raise ServerFailed(status)
    if not 200 <= status < 300:
        raise _failed("garbage", f"It answered HTTP {status}.")
    return bytes(raw)


async def _exchange(
    http: Http, method: str, url: str, body: Sequence[bytes]
) -> tuple[int, bytearray]:
    headers, raw = tracing.outgoing(), bytearray()
    sent = _Parts(body) if body else None
    with stopwatch.get():
        async with http.request(
            method, url, data=sent, headers=headers, allow_redirects=False
        ) as response:
            async for chunk in response.content.iter_any():
                raw += chunk
                if len(raw) > MAX_REPLY_BYTES:
                    raise _failed("garbage", f"Its reply is over {MAX_REPLY_BYTES} bytes.")
    return response.status, raw


class _Parts(aiohttp.Payload):
    """JSON in parts, which are not joined: that would copy each image for each worker."""

    _autoclose = True  # there is nothing to close

    def __init__(self, parts: Sequence[bytes]):
        super().__init__(parts, content_type="application/json")
        self._size = sum(map(len, parts))

    async def write(self, writer: AbstractStreamWriter) -> None:
        for part in self._value:
            await writer.write(part)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return b"".join(self._value).decode(encoding, errors)


def _blames_the_image(reply: bytearray) -> bool:
    """vLLM has no error code for an image that it cannot load, only these words."""
    words = reply.decode("utf-8", "replace").lower()
    return bool(
        re.search(r"(load|identify|decode|open|read) (the )?image|image.{0,40}truncated", words)
    )


def _holds(reply: bytearray) -> int:
    """How many tokens a server holds that refuses a prompt for its length; 0 where it says nothing
    of the kind. vLLM has several sentences for it, other servers have others, and no code."""
    words = reply.decode("utf-8", "replace").lower()
    found = re.search(
        r"(?:context|model)[ _](?:len|length|size|window)\b\D{0,20}(\d{1,9})\b", words
    )
    return int(found[1]) if found else 0


def _confidence(tokens: list[_TokenLogprob]) -> float | None:
    """exp(sum of the tokens' log-probabilities)"""
    if not tokens:
        return None
    whole = sum(token.logprob for token in tokens)
    # Rounding can leave a sure token a hair above probability 1.
    return math.exp(min(whole, 0.0)) if whole < math.inf else None  # NaN is under nothing


def _of_the_answer(text: str, tokens: list[_TokenLogprob]) -> list[_TokenLogprob]:
    """The tokens of a whole reply from where the answer begins; none where that is not known."""
    starts = list(accumulate((len(token.token) for token in tokens), initial=0))
    begins = "".join(token.token for token in tokens).rfind(text)
    first = next((at for at, start in enumerate(starts[1:]) if start > begins), 0)
    if begins < 0 or "".join(t.token for t in tokens)[starts[first] : begins].strip():
        return []
    return tokens[first:]


def _alternatives(
    text: str, tokens: list[_TokenLogprob], one_token: bool
) -> tuple[Alternative, ...]:
    """Every likely way to leave the greedy answer for another token, or to end it there."""
    # Servers tell the token that ends an answer too, by a name of the model's own.
    end = tokens[-1].token if tokens and not text.endswith(tokens[-1].token.strip()) else None
    found: list[Alternative] = []
    said, so_far = "", 0.0
    for token in tokens:
        for other in token.top_logprobs or ():
            probability = math.exp(min(so_far + other.logprob, 0.0))
            ends = other.token == end
            begins = (said if ends else said + other.token).strip()
            is_text = begins and "\ufffd" not in begins  # else a part of a character
            if other.token != token.token and is_text and probability >= MIN_PROBABILITY:
                whole = ends or one_token
                found.append(Alternative(begins=begins, whole=whole, probability=probability))
        said, so_far = said + token.token, so_far + token.logprob
    return _likeliest_first(found)


def _likeliest_first(alternatives: Iterable[Alternative]) -> tuple[Alternative, ...]:
    return tuple(sorted(alternatives, key=lambda other: -other.probability))
