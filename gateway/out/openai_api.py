"""The panel as one OpenAI model: the last question of a chat is the case, the verdict is the reply.

Workers answer one question about images; they do not chat. So the last user message is the
question, its images (else the latest before it) are the case's, and nothing else is read.
What chat has no word for stands in the request's and the reply's field `consilium`.
"""

import json
import re
import time
from collections.abc import AsyncGenerator, Iterable
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema

from gateway.case import Case
from gateway.contract import Answer, CaseRequest, Language, Options, Provisional, Tokens, Verdict
from gateway.intake.body.wrong_fields import refuse_fields
from gateway.out import answer_form
from gateway.out.stream import Event
from gateway.refusals import InvalidCase, Problem, UnknownModel
from gateway.settings import Settings
from gateway.verdict.remarks import of_familiarity, of_grounding

MODEL = "consilium"
ABSTAINED: dict[Language, str] = {
    "en": "The panel abstains: it is too likely to be wrong.",
    "es": "El panel se abstiene: es demasiado probable que se equivoque.",
    "zh": "小组弃权：出错的可能性太大。",
}

MEANT_OTHERWISE = {"store", "reasoning"}  # what has one of our options' names in others' chats

# What a chat may ask that a panel does not do, and the values with which it asks nothing. Whoever
# sends another must not believe that it was heeded. What is not listed says how a model samples or
# who is asking (temperature, max_tokens, seed, user), and is ignored.
NOT_DONE: dict[str, tuple[str, tuple[Any, ...]]] = {
    "n": ("a panel gives one verdict", (1, 1.0)),
    "best_of": ("a panel gives one verdict", (1,)),
    "tools": ("a panel calls none", ([], {})),
    "tool_choice": ("a panel calls none", ("none", "auto")),
    "functions": ("a panel calls none", ([],)),
    "function_call": ("a panel calls none", ("none", "auto")),
    "web_search_options": ("a panel searches nothing", ()),
    "logit_bias": ("to allow some answers alone, send consilium.choices", ({},)),
    "logprobs": ("each worker's confidence is in the reply's consilium", (False,)),
    "top_logprobs": ("each worker's alternatives are in the reply's consilium", (0,)),
    "stop": ("an answer is told whole", ([], "")),
    "modalities": ("an answer is text", (["text"],)),
    "audio": ("an answer is text", ()),
    "prediction": ("nothing is predicted", ()),
    "echo": ("an answer is told alone", (False,)),
    "suffix": ("an answer is told alone", ("",)),
    "continue_final_message": ("a panel answers, it does not go on", (False,)),
    **dict.fromkeys(
        ("guided_choice", "guided_regex", "guided_json", "guided_grammar", "structured_outputs"),
        ("to allow some answers alone, send consilium.choices", ({},)),
    ),
    **dict.fromkeys(
        ("format", "json_schema", "text", "response_mime_type"),
        ("an answer is plain text", ({}, "", "text/plain", {"format": {"type": "text"}})),
    ),
    **dict.fromkeys(
        ("grammar", "regex", "allowed_token_ids", "bad_words"),
        ("to allow some answers alone, send consilium.choices", ([], "")),
    ),
    "stop_token_ids": ("an answer is told whole", ([],)),
    "prompt_logprobs": ("each worker's confidence is in the reply's consilium", (0,)),
    **dict.fromkeys(("documents", "files"), ("a panel reads images alone", ([],))),
    **dict.fromkeys(("system", "instructions"), ("a panel follows none", ("",))),
    "plugins": ("a panel calls none", ([],)),
    "extra_body": ("its fields stand beside messages", ({},)),
    **{name: (f"its place is consilium.{name}", ()) for name in CaseRequest.model_fields},
    **{
        name: (f"its place is consilium.options.{name}", ())
        for name in Options.model_fields
        if name not in MEANT_OTHERWISE
    },
}
NOT_DONE["question"] = NOT_DONE["images"] = ("send it in the last user message", ())

IMAGE_PARTS = {"image_url", "input_image", "image"}
READ, KNOWN_UNREAD = {"text", "image_url"}, {"file", "input_audio", "input_image", "input_file"}
KNOWN_UNREAD |= {"input_text", "audio_url", "video_url", "video", "refusal", "image"}
BESIDE = ("image", "images", "image_url", "attachments", "files")
ASIDE = {"system", "developer"}  # what they say is not read, wherever it stands
DRAWN = re.compile(r"!\[[^\]]*\]\(|<img\b", re.I)  # a picture in Markdown, or in HTML
WORD = re.compile(r"[\u3400-\u9fff]|[^\W\u3400-\u9fff]+|[^\w\s]")


class _Lenient(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


def _as_object(sent: Any) -> Any:
    return {"url": sent} if isinstance(sent, str) else sent


def _as_parts(sent: Any) -> Any:
    return [{"type": "text", "text": sent}] if isinstance(sent, str) else sent or []


class ImageUrl(_Lenient):
    url: str | None = Field(default=None, description="A data URI; nothing is fetched.")


class Part(_Lenient):
    type: str
    text: str | None = None
    image_url: Annotated[
        ImageUrl | None, BeforeValidator(_as_object, json_schema_input_type=ImageUrl | str | None)
    ] = None


class Message(_Lenient):
    role: str
    content: Annotated[
        tuple[Part, ...],
        BeforeValidator(_as_parts, json_schema_input_type=tuple[Part, ...] | str | None),
    ] = ()
    beside: SkipJsonSchema[frozenset[str]] = frozenset()  # where other APIs have their images

    @model_validator(mode="before")
    @classmethod
    def _look_beside(cls, sent: Any) -> Any:
        if not isinstance(sent, dict):
            return sent
        return sent | {"beside": {name for name in BESIDE if sent.get(name)}}

    @property
    def unread(self) -> set[str]:
        """What it holds that nobody reads, by names that are known."""
        strange = {part.type for part in self.content} - READ
        unknown = {"an unknown kind"} if strange - KNOWN_UNREAD else set()
        drawn = {"an image within its text"} if DRAWN.search(self.text) else set()
        beside = {f"{name} beside content" for name in self.beside}
        return strange & KNOWN_UNREAD | unknown | drawn | beside

    @property
    def shows_something(self) -> bool:
        """Whether an image stands in it, read or not."""
        shown = any(part.type in IMAGE_PARTS for part in self.content)
        return shown or bool(self.beside or DRAWN.search(self.text))

    @property
    def text(self) -> str:
        return "\n".join(part.text for part in self.content if part.type == "text" and part.text)

    @property
    def images(self) -> list[str | None]:
        """One for each image part; null where it holds none."""
        parts = (part for part in self.content if part.type == "image_url")
        return [(part.image_url and part.image_url.url) or None for part in parts]


class StreamOptions(_Lenient):
    include_usage: bool | None = None


class ChatRequest(_Lenient):
    """The body of `POST /v1/chat/completions`."""

    model: str = Field(description="consilium, or consilium-zh: the panel, asked in a language.")
    messages: tuple[Message, ...] = Field(min_length=1)
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    response_format: Annotated[
        answer_form.Form | None,
        BeforeValidator(answer_form.read, json_schema_input_type=dict[str, Any] | None),
    ] = None
    consilium: dict[str, Any] = Field(
        default={},
        description="language, context, views, modality, choices and options of a CaseRequest.",
    )

    @model_validator(mode="before")
    @classmethod
    def _null_is_the_default(cls, sent: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in sent.items() if value is not None}


def models(settings: Settings) -> dict[str, Any]:
    """`GET /v1/models`: the panel, and the panel in each of its languages."""
    names = [MODEL, *(f"{MODEL}-{language}" for language in _languages(settings))]
    listed = [{"id": n, "object": "model", "created": 0, "owned_by": "consilium"} for n in names]
    return {"object": "list", "data": listed}


def model(name: str, settings: Settings) -> dict[str, Any]:
    """`GET /v1/models/NAME`: one of them; raises UnknownModel."""
    _language(name, settings)
    return next(each for each in models(settings)["data"] if each["id"] == name)


def read(content: dict[str, Any], settings: Settings) -> tuple[ChatRequest, dict[str, Any]]:
    """The request, and its case as the body of `POST /vqa`.

    Raises:
        UnknownModel, InvalidCase
    """
    for name, (why, asks_nothing) in NOT_DONE.items():
        # By type too: to Python false is 0 and 1 is true.
        sent = content.get(name)
        if sent is not None and (type(sent), sent) not in [(type(v), v) for v in asks_nothing]:
            raise InvalidCase(f"{name}: {why}. Leave it away here.")
    try:
        chat = ChatRequest.model_validate(content)
    except ValidationError as error:
        refuse_fields(error)
    question, images = _asked(chat.messages)
    if own := chat.consilium.keys() & {"question", "images"}:
        raise InvalidCase(f"consilium.{min(own)}: it stands in the last user message.")
    case = {"question": question, "images": images, **chat.consilium}
    if chat.response_format and (choices := chat.response_format.choices) is not None:
        if chat.consilium.get("choices") is not None:
            raise InvalidCase("consilium.choices: response_format has an enum of them already.")
        case["choices"] = list(choices)
    if language := _language(chat.model, settings):
        if chat.consilium.get("language") not in (None, language):
            raise InvalidCase("consilium.language: another one than the model's name says.")
        case["language"] = language
    return chat, case


def _asked(messages: tuple[Message, ...]) -> tuple[str, list[str]]:
    """The last user message's question; its images, else those of the latest before it that has
    some. An image that is not there, or stands where nobody reads it, is never made up for by an
    earlier one."""
    asked = [message for message in messages if message.role == "user"]
    if not asked:
        raise InvalidCase('messages: none is of the role "user"; send the question as one.')
    if next(each.role for each in reversed(messages) if each.role not in ASIDE) != "user":
        raise InvalidCase('messages: the last one must be of the role "user": it is the question.')
    for message in reversed(messages):
        if message.role != "user":
            if message.shows_something:
                raise InvalidCase(
                    "messages: an image stands in one that is not the user's, and nobody reads it; "
                    "send it in the last user message."
                )
            continue
        if message.unread:
            raise InvalidCase(
                f"messages: one holds what nobody reads ({', '.join(sorted(message.unread))}); "
                "send text, and images as image_url parts."
            )
        if message.images:
            break
    if not asked[-1].text.strip():
        raise InvalidCase(
            "messages: the last one has no text; ask something about the image.", code="no_question"
        )
    found = next((m.images for m in reversed(asked) if m.images), [])
    images = [url for url in found if url]
    if len(images) < len(found):
        raise InvalidCase(
            "messages: an image_url without an image. Send it as a data URI: "
            "data:image/png;base64,…"
        )
    if not images:
        raise InvalidCase(
            "messages: no images; send one as an image_url part of a user message.", code="no_image"
        )
    return asked[-1].text, images


def usage(case: Case, verdict: Verdict, chat: ChatRequest) -> dict[str, int]:
    """What the model servers counted, for every worker and the summariser, whatever that was asked.
    Where none of them does, words and signs, and of Chinese the characters, of what was asked and
    answered."""
    answers = [answer.tokens for answer in verdict.answers]
    entailment = verdict.entailment.tokens if verdict.entailment else None
    counted = Tokens.sum([*answers, verdict.summary.tokens, entailment])
    views = [view or "" for view in case.views]
    asked = [*views, case.context or "", case.question, *(case.choices or ())]
    told = _said(verdict, chat).values()
    used = counted or Tokens(prompt=_words(asked), reply=_words(text for text in told if text))
    return {
        "prompt_tokens": used.prompt,
        "completion_tokens": used.reply,
        "total_tokens": used.prompt + used.reply,
    }


def _words(texts: Iterable[str]) -> int:
    return sum(len(WORD.findall(text)) for text in texts)


def reply(verdict: Verdict, chat: ChatRequest, case: Case) -> dict[str, Any]:
    """A verdict as a chat completion."""
    message = {"role": "assistant", **_said(verdict, chat)}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    told = {
        "choices": [choice],
        "usage": usage(case, verdict, chat),
        "consilium": verdict.model_dump(),
    }
    return _head("chat.completion", verdict.id, chat) | told


async def chunks(
    events: AsyncGenerator[Event, None], chat: ChatRequest, case: Case
) -> AsyncGenerator[bytes, None]:
    """The events of a case as a streamed completion: its text comes with the verdict, not before;
    what is heard until then stands in `consilium`."""
    head = _head("chat.completion.chunk", case.id, chat)
    if chat.stream_options.include_usage:
        head["usage"] = None  # but in the last chunk
    async for event in events:
        match event.content:
            case Problem() as problem:
                yield _line(error(problem))
                return
            case Verdict() as verdict:
                yield _line(
                    _chunk(head, {"role": "assistant", **_said(verdict, chat)}, None, event)
                )
                yield _line(_chunk(head, {}, "stop", None))
                if chat.stream_options.include_usage:
                    yield _line(head | {"choices": [], "usage": usage(case, verdict, chat)})
            case Answer() | Provisional():
                yield _line(_chunk(head, {}, None, event))
    yield b"data: [DONE]\n\n"


def error(problem: Problem) -> dict[str, Any]:
    """A problem as OpenAI's clients read it."""
    kind = "invalid_request_error" if problem.status < 500 else "server_error"
    code = problem.code or problem.title.lower().replace(" ", "_")
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


def _said(verdict: Verdict, chat: ChatRequest) -> dict[str, Any]:
    if verdict.answer is None:
        abstained = ABSTAINED[verdict.language]
        return {"content": None, "refusal": _paragraphs(of_familiarity(verdict), abstained)}
    if chat.response_format:
        return {"content": chat.response_format.filled(verdict), "refusal": None}
    said = _paragraphs(of_familiarity(verdict), verdict.answer, of_grounding(verdict))
    return {"content": said, "refusal": None}


def _paragraphs(*said: str | None) -> str:
    return "\n\n".join(filter(None, said))


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
