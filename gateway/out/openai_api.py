"""The panel as one OpenAI model: the last question of a chat is the case, the verdict is the reply.

Workers answer one question about images; they do not chat. So the last user message is the
question, its images (else the latest before it) are the case's, and nothing else is read.
What chat has no word for stands in the request's and the reply's field `consilium`.
"""

import json
import time
from collections.abc import AsyncGenerator
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gateway.contract import (
    Answer,
    InvalidCase,
    Problem,
    Provisional,
    UnknownModel,
    Verdict,
)
from gateway.intake.request import refuse_fields
from gateway.out.stream import Event
from gateway.settings import Settings

MODEL = "consilium"
ABSTAINED = "The panel abstains: it is too likely to be wrong."


class _Lenient(BaseModel):
    # What else clients send is about how a model samples, and a panel does not.
    model_config = ConfigDict(extra="ignore", frozen=True)


class ImageUrl(_Lenient):
    url: str = Field(description="A data URI; nothing is fetched.")


class Part(_Lenient):
    type: str
    text: str | None = None
    image_url: ImageUrl | None = None


class Message(_Lenient):
    role: str
    content: str | tuple[Part, ...] | None = None

    @property
    def parts(self) -> tuple[Part, ...]:
        if isinstance(self.content, str):
            return (Part(type="text", text=self.content),)
        return self.content or ()

    @property
    def images(self) -> list[str]:
        return [part.image_url.url for part in self.parts if part.image_url]


class ChatRequest(_Lenient):
    """The body of `POST /v1/chat/completions`."""

    model: str = Field(description="consilium, or consilium-zh: the panel, asked in a language.")
    messages: tuple[Message, ...] = Field(min_length=1)
    stream: bool = False
    n: int | None = Field(default=1, description="One: a panel gives one verdict.")
    consilium: dict[str, Any] = Field(
        default={}, description="language, context, modality, choices and options of a CaseRequest."
    )


def models(settings: Settings) -> dict[str, Any]:
    """`GET /v1/models`: the panel, and the panel in each of its languages."""
    names = [MODEL, *(f"{MODEL}-{language}" for language in _languages(settings))]
    listed = [{"id": n, "object": "model", "created": 0, "owned_by": "consilium"} for n in names]
    return {"object": "list", "data": listed}


def read(content: dict[str, Any], settings: Settings) -> tuple[ChatRequest, dict[str, Any]]:
    """The request, and its case as the body of `POST /vqa`.

    Raises:
        UnknownModel, InvalidCase
    """
    try:
        chat = ChatRequest.model_validate(content)
    except ValidationError as error:
        refuse_fields(error)
    if chat.n not in (None, 1):
        raise InvalidCase("n: a panel gives one verdict; send 1.")
    asked = [message for message in chat.messages if message.role == "user"]
    if not asked:
        raise InvalidCase('messages: none is of the role "user"; send the question as one.')
    if own := chat.consilium.keys() & {"question", "images"}:
        raise InvalidCase(f"consilium.{min(own)}: it stands in the last user message.")
    if strange := {part.type for part in asked[-1].parts} - {"text", "image_url"}:
        raise InvalidCase(
            f"messages: the last one has {len(strange)} kind(s) of part that nobody reads; send "
            "text and image_url."
        )
    question = "\n".join(part.text for part in asked[-1].parts if part.text)
    images = next((m.images for m in reversed(asked) if m.images), [])
    case = {"question": question, "images": images, **chat.consilium}
    if language := _language(chat.model, settings):
        if chat.consilium.get("language", language) != language:
            raise InvalidCase("consilium.language: another one than the model's name says.")
        case["language"] = language
    return chat, case


def reply(verdict: Verdict, chat: ChatRequest) -> dict[str, Any]:
    """A verdict as a chat completion."""
    message = {"role": "assistant", **_said(verdict)}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    head = _head("chat.completion", verdict.id, chat)
    return head | {"choices": [choice], "consilium": verdict.model_dump()}


async def chunks(
    events: AsyncGenerator[Event, None], chat: ChatRequest, case_id: str
) -> AsyncGenerator[bytes, None]:
    """The events of a case as a streamed completion: its text comes with the verdict, not before;
    what is heard until then stands in `consilium`."""
    head = _head("chat.completion.chunk", case_id, chat)
    async for event in events:
        match event.content:
            case Problem() as problem:
                yield _line(error(problem))
                return
            case Verdict() as verdict:
                yield _line(_chunk(head, {"role": "assistant", **_said(verdict)}, None, event))
                yield _line(_chunk(head, {}, "stop", None))
            case Answer() | Provisional():
                yield _line(_chunk(head, {}, None, event))
    yield b"data: [DONE]\n\n"


def error(problem: Problem) -> dict[str, Any]:
    """A problem as OpenAI's clients read it."""
    kind = "invalid_request_error" if problem.status < 500 else "server_error"
    code = problem.title.lower().replace(" ", "_")
    told = {"message": problem.detail, "type": kind, "param": None, "code": code}
    return {"error": told, "consilium": problem.model_dump()}


def _languages(settings: Settings) -> list[str]:
    return list(dict.fromkeys(each for worker in settings.workers for each in worker.languages))


def _language(model: str, settings: Settings) -> str | None:
    """That of the model's name, if it names one."""
    name, dash, language = model.partition("-")
    if name != MODEL or (dash and language not in _languages(settings)):
        there = ", ".join(each["id"] for each in models(settings)["data"])
        raise UnknownModel(f"No such model here; there are {there}.")
    return language or None


def _said(verdict: Verdict) -> dict[str, Any]:
    if verdict.answer is None:
        return {"content": None, "refusal": ABSTAINED}
    return {"content": verdict.answer, "refusal": None}


def _head(kind: str, case_id: str, chat: ChatRequest) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{case_id}",
        "object": kind,
        "created": int(time.time()),
        "model": chat.model,
    }


def _chunk(
    head: dict[str, Any], delta: dict[str, Any], finish: str | None, event: Event | None
) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
    told = {} if event is None else {"consilium": {event.name: event.content.model_dump()}}
    return head | {"choices": [choice]} | told


def _line(content: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(content)}\n\n".encode()
