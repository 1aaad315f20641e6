"""Whatever speaks to OpenAI's API can ask the panel: shown by OpenAI's own client."""

import base64
import json
from typing import Annotated, Any, Literal

import httpx
import openai
import pytest
from pydantic import BaseModel, Field

from gateway.door import keys
from gateway.out import openai_api
from gateway.refusals import InvalidCase
from gateway.settings import load_settings
from tests.conftest import picture

URI = "data:image/png;base64," + base64.b64encode(picture()).decode()


def client(url: str, key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)


def asks(question: str, *uris: str, role: str = "user") -> dict:
    parts = [{"type": "image_url", "image_url": {"url": uri}} for uri in uris]
    return {"role": role, "content": [*parts, {"type": "text", "text": question}]}


def test_a_verdict_is_a_reply_with_its_detail_beside_it(vllm, gateway):
    workers = [vllm("yes"), vllm("yes"), vllm("no")]
    url = gateway(workers)
    done = client(url).chat.completions.create(
        model="consilium", messages=[asks("Is it healthy?", URI)], temperature=0.7, max_tokens=9
    )
    assert done.choices[0].message.content == "yes" and done.choices[0].finish_reason == "stop"
    verdict = done.model_extra["consilium"]
    assert verdict["dissent"][0]["text"] == "no" and len(verdict["answers"]) == 3
    assert done.id == f"chatcmpl-{verdict['id']}"
    text = workers[0].requests[0]["messages"][0]["content"][-1]["text"]
    assert "Is it healthy?" in text


def test_it_is_the_same_case_as_at_vqa(vllm, gateway):
    """One panel, one cache: what was asked in one way is known in the other."""
    worker = vllm()
    url = gateway([worker])
    case = {"question": "Is it healthy?", "images": [URI]}
    assert httpx.post(f"{url}/vqa", json=case).json()["cached"] is False
    done = client(url).chat.completions.create(
        model="consilium", messages=[asks("Is it healthy?", URI)]
    )
    assert done.model_extra["consilium"]["cached"] is True and len(worker.requests) == 1


def test_a_stream_tells_who_said_what_and_its_text_comes_once(vllm, gateway):
    url = gateway([vllm("yes"), vllm("no", confidence=0.5, delay_s=0.2), vllm(status=500, raw=b"")])
    chunks = list(
        client(url).chat.completions.create(
            model="consilium", messages=[asks("Is it healthy?", URI)], stream=True
        )
    )
    texts = [chunk.choices[0].delta.content for chunk in chunks]
    assert [text for text in texts if text] == ["yes"]
    told = [next(iter(chunk.model_extra["consilium"])) for chunk in chunks[:-1]]
    assert told[-1] == "verdict" and set(told) == {"answer", "failure", "provisional", "verdict"}
    assert chunks[-1].choices[0].finish_reason == "stop"
    verdict = chunks[-2].model_extra["consilium"]["verdict"]
    assert verdict["answer"] == "yes" and len({chunk.id for chunk in chunks}) == 1


def test_of_a_chat_the_last_question_is_asked_about_the_latest_images(vllm, gateway):
    worker = vllm("yes")
    url = gateway([worker])
    other = "data:image/png;base64," + base64.b64encode(picture(size=(40, 40))).decode()
    messages = [
        {"role": "system", "content": "Answer like a pirate."},
        asks("What organ?", other),
        {"role": "assistant", "content": "lung"},
        asks("Which plane?", URI),
        {"role": "assistant", "content": "axial"},
        {"role": "user", "content": "Is it healthy?"},
    ]
    client(url).chat.completions.create(model="consilium", messages=messages)
    asked = json.dumps(worker.requests[0])
    assert "Is it healthy?" in asked
    for unread in ("pirate", "organ", "plane", "axial"):
        assert unread not in asked
    assert len(worker.requests[0]["messages"][0]["content"]) == 2


def test_what_chat_has_no_word_for_stands_beside_it(vllm, gateway):
    worker = vllm("left lung")
    url = gateway([worker])
    done = client(url).chat.completions.create(
        model="consilium",
        messages=[asks("Which lung?", URI)],
        extra_body={"consilium": {"choices": ["left lung", "right lung"], "context": "cough"}},
    )
    assert done.choices[0].message.content == "left lung"
    assert {"left lung", "right lung"} <= set(worker.requests[0]["structured_outputs"]["choice"])
    assert "cough" in json.dumps(worker.requests[0]["messages"])


def test_a_model_for_every_language_of_the_panel(vllm, gateway):
    seats = ['languages = ["en", "zh"]\nmax_images = 1', 'languages = ["en"]\nmax_images = 1']
    workers = [vllm("是"), vllm("yes")]
    url = gateway(workers, seats=seats)
    names = [model.id for model in client(url).models.list()]
    assert names == ["consilium", "consilium-en", "consilium-zh"]
    done = client(url).chat.completions.create(
        model="consilium-zh", messages=[asks("健康吗？", URI)]
    )
    assert done.choices[0].message.content == "是" and not workers[1].requests


@pytest.mark.parametrize(
    ("changed", "error", "says"),
    [
        ({"model": "gpt-4o"}, openai.NotFoundError, "there are consilium"),
        ({"model": "consilium-zh"}, openai.NotFoundError, "there are consilium"),
        ({"n": 2}, openai.UnprocessableEntityError, "one verdict"),
        ({"messages": []}, openai.UnprocessableEntityError, "messages"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, openai.APIStatusError, '"user"'),
        ({"messages": [{"role": "user", "content": "x"}]}, openai.APIStatusError, "images"),
        (
            {"messages": [asks("x", "https://example.org/a.png")]},
            openai.UnprocessableEntityError,
            "nothing is fetched",
        ),
        (
            {"messages": [asks("x", "data:image/png;base64,AAAA")]},
            openai.APIStatusError,
            "not an image",
        ),
        (
            {"messages": [asks("x", URI), {"role": "user", "content": [{"type": "file"}]}]},
            openai.APIStatusError,
            "nobody reads",
        ),
        ({"model": "consilium-"}, openai.NotFoundError, "there are consilium"),
        (
            {"model": "consilium-en", "extra_body": {"consilium": {"language": "zh"}}},
            openai.APIStatusError,
            "another one",
        ),
        ({"extra_body": {"consilium": {"question": "y"}}}, openai.APIStatusError, "last user"),
        ({"extra_body": {"consilium": {"colour": 1}}}, openai.APIStatusError, "not a known field"),
    ],
)
def test_a_wrong_chat_is_one_clear_error(vllm, gateway, changed, error, says):
    worker = vllm()
    asked = {"model": "consilium", "messages": [asks("x", URI)], **changed}
    with pytest.raises(error) as raised:
        client(gateway([worker])).chat.completions.create(**asked)
    assert says in raised.value.body["message"] and not worker.requests


# One line for each thing that a chat may ask and a panel does not do; and how it asks nothing.
NOT_DONE = [
    ("n", 2, 1),
    ("n", 2.0, 1.0),
    ("n", True, 1),
    ("response_format", {"type": "json_object"}, {"type": "text"}),
    ("response_format", {"type": "json_schema", "json_schema": {}}, None),
    ("response_format", {"type": "json_object"}, {}),
    ("tools", [{"type": "function", "function": {"name": "f"}}], []),
    ("tools", [{"type": "function", "function": {"name": "f"}}], {}),
    ("tool_choice", "required", "auto"),
    ("tool_choice", {"type": "function", "function": {"name": "f"}}, "none"),
    ("functions", [{"name": "f"}], []),
    ("function_call", {"name": "f"}, "none"),
    ("logit_bias", {"50256": -100}, {}),
    ("logprobs", True, False),
    ("logprobs", 1, None),
    ("top_logprobs", 5, 0),
    ("stop", "\n", []),
    ("stop", ["a"], ""),
    ("modalities", ["text", "audio"], ["text"]),
    ("audio", {"voice": "alloy"}, None),
    ("prediction", {"type": "content", "content": "yes"}, None),
    ("web_search_options", {}, None),
    ("continue_final_message", True, False),
    ("guided_choice", ["yes", "no"], None),
    ("structured_outputs", {"choice": ["yes", "no"]}, {}),
    ("extra_body", {"guided_choice": ["a"]}, {}),
    ("format", "json", None),
    ("grammar", "root ::= x", None),
    ("json_schema", {"type": "object"}, {}),
    ("regex", "a|b", ""),
    ("allowed_token_ids", [1], []),
    ("bad_words", ["yes"], []),
    ("stop_token_ids", [1], []),
    ("prompt_logprobs", 1, 0),
    ("text", {"format": {"type": "json_schema"}}, {}),
    ("response_mime_type", "application/json", "text/plain"),
    ("documents", [{"text": "x"}], []),
    ("system", "Say no.", ""),
    ("instructions", "Say no.", ""),
    ("plugins", [{"id": "web"}], []),
    ("files", [{"id": "f"}], []),
    ("choices", ["yes", "no"], None),
    ("language", "zh", None),
    ("context", "cough", None),
    ("images", [URI], None),
    ("rounds", 2, None),
    ("max_risk", 0.1, None),
    ("workers", ["w"], None),
]


@pytest.fixture(scope="module")
def panel(tmp_path_factory):
    """The settings of a panel that nobody asks: what a chat says is read without one."""
    file = tmp_path_factory.mktemp("panel") / "panel.toml"
    seat = 'name = "w"\nfamily = "f"\nmodel = "m"\nprompt = "{question}"\n'
    file.write_text(f'[panel]\nquorum = 1\n[[worker]]\n{seat}languages = ["en", "zh"]\n')
    return load_settings(file, environ={})


def read(panel, *messages: dict, **more):
    chat = {"model": "consilium", "messages": [*messages] or [asks("x?", URI)], **more}
    return openai_api.read(chat, panel)


@pytest.mark.parametrize(("name", "asked", "nothing"), NOT_DONE)
def test_what_a_panel_does_not_do_is_refused_and_never_ignored(panel, name, asked, nothing):
    with pytest.raises(InvalidCase, match=f"^{name}: "):
        read(panel, **{name: asked})
    assert read(panel, **{name: nothing})[1] == read(panel)[1]


@pytest.mark.parametrize(
    "harmless",
    [
        {"temperature": 0.7, "top_p": 1, "max_tokens": 9, "max_completion_tokens": 9, "seed": 1},
        {"user": "u", "metadata": {"a": "b"}, "store": True, "presence_penalty": 1},
        {"reasoning": {"effort": "low"}},
        {"parallel_tool_calls": True, "reasoning_effort": "low", "service_tier": "auto"},
        {"stream": None, "stream_options": None, "consilium": None, "n": None},
        {"stream_options": {"include_usage": None}},
        {"consilium": {"language": None, "choices": None, "options": None, "context": None}},
    ],
)
def test_how_a_model_samples_and_null_change_nothing(panel, harmless):
    chat, case = read(panel, **harmless)
    assert not chat.stream and not chat.stream_options.include_usage
    assert {name: value for name, value in case.items() if value is not None} == read(panel)[1]


def user(*parts: Any) -> dict:
    return {"role": "user", "content": list(parts)}


TEXT = {"type": "text", "text": "x?"}
EMPTY = [{"type": "image_url"}, {"type": "image_url", "image_url": None}]
EMPTY += [
    {"type": "image_url", "image_url": value} for value in ({}, {"url": ""}, {"url": None}, "")
]


@pytest.mark.parametrize("empty", EMPTY, ids=str)
def test_an_image_that_is_not_there_is_never_another_one(panel, empty):
    """An earlier picture would be answered about, and nobody told."""
    for chat in (
        [asks("First?", URI), user(empty, TEXT)],
        [asks("First?", URI), user(empty, TEXT), user(TEXT)],
        [user(empty, {"type": "image_url", "image_url": {"url": URI}}, TEXT)],
    ):
        with pytest.raises(InvalidCase, match="image_url without an image"):
            read(panel, *chat)


@pytest.mark.parametrize(
    ("unread", "named"),
    [
        ({"role": "user", "content": "x?", "images": ["AAAA"]}, "images beside content"),
        ({"role": "user", "content": "x?", "image_url": "AAAA"}, "image_url beside content"),
        (user(TEXT, {"type": "image", "source": {}}), "(image)"),
        (user(TEXT, {"type": "input_image", "image_url": URI}), "input_image"),
        (user(TEXT, {"type": "file", "file": {}}), "file"),
        *(
            ({"role": role, "content": [shown]}, "not the user's")
            for role in ("assistant", "tool", "system")
            for shown in (
                {"type": "image_url", "image_url": {"url": URI}},
                {"type": "input_image", "image_url": URI},
            )
        ),
        ({"role": "assistant", "content": None, "images": [URI]}, "not the user's"),
        ({"role": "assistant", "content": f"See: ![drawn]({URI})"}, "not the user's"),
        ({"role": "assistant", "content": [{"type": "text", "text": "<img src=x>"}]}, "not the us"),
        (user({"type": "text", "text": "And ![this](https://example.org/a.png)?"}), "its text"),
    ],
)
def test_a_picture_that_nobody_reads_is_never_an_earlier_one(panel, unread, named):
    """Neither where it stands with the question nor in between; before the pictures that are read
    it is no matter."""
    for chat in ([asks("x?", URI), unread], [asks("x?", URI), unread, user(TEXT)]):
        if chat[-1]["role"] in ("assistant", "tool"):
            continue  # refused for its end
        with pytest.raises(InvalidCase) as refused:
            read(panel, *chat)
        assert named in str(refused.value)
    assert read(panel, unread, asks("x?", URI))[1] == read(panel)[1]


def test_parts_are_read_in_any_order_and_an_image_in_either_form(panel):
    expected = {"question": "a\nb", "images": [URI, "AAAA"]}
    parts = [
        {"type": "text", "text": "a"},
        {"type": "image_url", "image_url": URI},
        {"type": "text", "text": "b"},
        {"type": "image_url", "image_url": {"url": "AAAA", "detail": "high"}},
    ]
    for order in (parts, [parts[1], parts[3], parts[0], parts[2]]):
        assert read(panel, user(*order))[1] == expected
    aside = [{"role": "system", "content": "x"}, {"role": "developer", "content": [TEXT]}]
    assert read(panel, *aside, user(*parts), *aside)[1] == expected
    assert read(panel, asks("First?", "BBBB"), user(*parts))[1] == expected
    said = [{"type": "text", "text": "Yes."}, {"type": "refusal", "refusal": "No."}]
    earlier = [user(*parts[1::2], TEXT), {"role": "assistant", "content": said}]
    assert read(panel, *earlier, {"role": "user", "content": "a\nb"})[1] == expected


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ([user({"type": "image_url", "image_url": URI})], "has no text"),
        ([asks("  ", URI)], "has no text"),
        ([user(TEXT)], "no images"),
        ([asks("x?", URI), {"role": "assistant", "content": "yes"}], 'role "user"'),
        ([asks("x?", URI), {"role": "tool", "content": "yes", "tool_call_id": "1"}], 'role "user"'),
        ([user(TEXT, {"type": "input_audio", "input_audio": {}})], "input_audio"),
        ([user(TEXT, {"type": "file", "file": {}})], "file"),
        ([user(TEXT, {"type": "input_image", "image_url": URI})], "input_image"),
        ([user(TEXT, {"type": "Doe, Jane"})], "an unknown kind"),
        ([user(TEXT, {"text": "y"})], "messages.0.content.1.type: it is required"),
        ([user(TEXT, {"type": "text", "text": 7})], "text: it must be a text"),
        ([user(TEXT, {"type": "image_url", "image_url": 7})], "image_url: it must be an object"),
        ([{"role": "user", "content": 7}], "content: it must be a list of parts, or a text"),
        ([{"content": "x"}], "role: it is required"),
        (["x"], "messages.0: it must be an object"),
    ],
)
def test_a_wrong_conversation_is_told_where(panel, messages, says):
    with pytest.raises(InvalidCase) as refused:
        read(panel, *messages)
    assert says in str(refused.value) and "Jane" not in str(refused.value)


class Reply(BaseModel):
    """As OpenAI's client makes a schema of it."""

    answer: Literal["left lung", "right lung"]
    agreement: Annotated[float, Field(ge=0, le=1)] | None
    unfamiliar: bool | None


def test_a_reply_may_be_json_by_a_schema(vllm, gateway):
    """Its enum are the choices; the figures are the verdict's."""
    workers = [vllm("left lung"), vllm("left lung"), vllm("right lung")]
    url = gateway(workers)
    asked = {"model": "consilium", "messages": [asks("Which lung?", URI)]}
    done = client(url).chat.completions.parse(response_format=Reply, **asked)
    found = done.choices[0].message.parsed
    assert (found.answer, found.unfamiliar) == ("left lung", None) and 0.6 < found.agreement < 0.7
    choices = set(workers[0].requests[0]["structured_outputs"]["choice"])
    assert {"left lung", "right lung"} <= choices


def schema(**properties: Any) -> dict:
    whole = {"type": "object", "properties": properties, "$defs": {"Side": SIDE}}
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": whole}}


def limited(limit: dict) -> dict:
    """A schema whose object itself is limited."""
    form = schema(answer=TEXTUAL)
    form["json_schema"]["schema"] |= limit
    return form


SIDE = {"type": "string", "enum": ["left", "right"]}
TEXTUAL, FIGURE = {"type": "string"}, {"type": ["number", "null"], "title": "How far"}
WIDE = {"minimum": 0, "maximum": 1, "exclusiveMinimum": -1, "exclusiveMaximum": 1.5}


@pytest.mark.parametrize(
    ("form", "fields", "choices"),
    [
        (schema(answer=TEXTUAL), ("answer",), None),
        (schema(grounding=FIGURE, answer=SIDE), ("grounding", "answer"), ["left", "right"]),
        (schema(answer={"$ref": "#/$defs/Side"}), ("answer",), ["left", "right"]),
        (schema(answer=TEXTUAL | {"minLength": 1}), ("answer",), None),
        (schema(answer=TEXTUAL, agreement=FIGURE | WIDE), ("answer", "agreement"), None),
        (limited({"additionalProperties": False, "title": "x", "$id": "y"}), ("answer",), None),
    ],
)
def test_a_schema_that_a_verdict_fills_is_heeded(panel, form, fields, choices):
    chat, case = read(panel, response_format=form)
    assert chat.response_format.fields == fields and case.get("choices") == choices


@pytest.mark.parametrize(
    "form",
    [
        schema(answer=TEXTUAL, reasoning=TEXTUAL),
        schema(agreement=FIGURE),
        schema(answer=TEXTUAL, confidence={"type": "number"}),
        schema(answer=TEXTUAL | {"maxLength": 3}),
        schema(answer=TEXTUAL | {"minLength": 2}),
        schema(answer=TEXTUAL, confidence=FIGURE | {"minimum": 0.5}),
        schema(answer=TEXTUAL, confidence=FIGURE | {"maximum": 0.9}),
        schema(answer=TEXTUAL, confidence=FIGURE | {"exclusiveMinimum": 0}),
        schema(answer=TEXTUAL, confidence=FIGURE | {"exclusiveMaximum": 1}),
        schema(answer=TEXTUAL, confidence=FIGURE | {"minimum": "0"}),
        schema(answer={"type": "integer"}),
        schema(answer={"$ref": "#/$defs/Other"}),
        schema(answer=7),
        schema(answer=SIDE | {"enum": ["left", 7]}),
        schema(answer=SIDE | {"enum": ["left", None]}),
        *(
            limited(limit)
            for limit in (
                {"type": "array"},
                {"minProperties": 2},
                {"not": {"required": ["answer"]}},
                {"anyOf": [{"required": ["why"]}]},
                {"patternProperties": {"a": {"const": "x"}}},
            )
        ),
        schema(answer=TEXTUAL, agreement=FIGURE | {"enum": [1]}),
        schema(answer=TEXTUAL, mood={"type": "nothing"}),
        schema(answer=TEXTUAL | {"enum": "yes"}),
        {"json_schema": {"schema": schema()["json_schema"]["schema"] | {"required": ["answer"]}}},
        schema(answer={"anyOf": [SIDE, TEXTUAL]}),
        schema(answer={"anyOf": [{"anyOf": [TEXTUAL]}]}),
        schema(answer=TEXTUAL) | {"type": "json_object"},
        {"type": "json_schema"},
        {"type": "json_schema", "json_schema": {"schema": {"properties": []}}},
        "json",
        [],
    ],
)
def test_a_schema_that_no_verdict_fills_is_refused(panel, form):
    """It says which would be."""
    with pytest.raises(InvalidCase, match=r"^response_format: an answer is plain text, or by a"):
        read(panel, response_format=form)


def test_choices_are_said_once(panel):
    with pytest.raises(InvalidCase, match=r"^consilium.choices: response_format has an enum"):
        read(panel, response_format=schema(answer=SIDE), consilium={"choices": ["a", "b"]})


def counted(text: str, prompt: int, reply: int) -> bytes:
    """What a model server says that counts its tokens."""
    usage = {"prompt_tokens": prompt, "completion_tokens": reply, "total_tokens": prompt + reply}
    return json.dumps({"choices": [{"message": {"content": text}}], "usage": usage}).encode()


def test_usage_is_what_the_model_servers_counted(vllm, gateway):
    """Of every worker that counts, and of the summariser, used or not; of a worker that sees one
    image at a time, for each of them. The case's tokens are the same when it is known already."""
    each = 'languages = ["en"]\neach_image = true'
    workers = [vllm(raw=counted("yes", 100, 2)), vllm("no"), vllm(raw=counted("yes", 10, 1))]
    summariser = vllm(raw=counted("healthy", 1000, 4))
    url = gateway(workers, summariser=summariser.url, seats=['languages = ["en"]', each, each])
    asked = {"model": "consilium", "messages": [asks("Is it?", URI)]}
    for _ in range(2):
        done = client(url).chat.completions.create(**asked)
        assert (done.usage.prompt_tokens, done.usage.completion_tokens) == (1110, 7)
        assert done.usage.total_tokens == 1117
    verdict = done.model_extra["consilium"]
    assert [answer["tokens"] and answer["tokens"]["prompt"] for answer in verdict["answers"]] == [
        100,
        None,
        10,
    ]
    other = "data:image/png;base64," + base64.b64encode(picture(size=(40, 40))).decode()
    asked["messages"] = [asks("Is it healthy?", URI, other)]
    done = client(url).chat.completions.create(**asked)
    third = done.model_extra["consilium"]["answers"][2]
    assert third["tokens"] == {"prompt": 20, "reply": 2}


def test_where_nobody_counts_usage_counts_words_and_of_chinese_the_characters(vllm, gateway):
    """No tokenizer is the panel's own; what is counted is written in docs/chat.md."""
    url = gateway([vllm("left lung")])
    asked = {"model": "consilium", "messages": [asks("Which lung? 左肺", URI)]}
    done = client(url).chat.completions.create(**asked)
    assert (done.usage.prompt_tokens, done.usage.completion_tokens) == (5, 2)
    assert done.usage.total_tokens == 7
    told = client(url).chat.completions.create(
        **asked, extra_body={"consilium": {"views": ["frontal view"]}}
    )
    assert told.usage.prompt_tokens == 7
    chunks = list(
        client(url).chat.completions.create(
            stream=True, stream_options={"include_usage": True}, **asked
        )
    )
    assert chunks[-1].usage == done.usage and chunks[-1].choices == []
    assert all(chunk.usage is None and chunk.choices for chunk in chunks[:-1])
    without = list(client(url).chat.completions.create(stream=True, **asked))
    assert all(chunk.usage is None and chunk.choices for chunk in without)


def test_one_model_can_be_looked_up(vllm, gateway):
    url = gateway([vllm()])
    listed = {model.id: model for model in client(url).models.list()}
    for name in ("consilium", "consilium-en"):
        assert client(url).models.retrieve(name) == listed[name]
    for name in ("gpt-4o", "consilium-zh", "consilium-", "meta/llama"):
        with pytest.raises(openai.NotFoundError, match="No such model here"):
            client(url).models.retrieve(name)


def test_a_key_is_openais_key(vllm, gateway, tmp_path):
    file = tmp_path / "keys.json"
    key = keys.add(file, "clinic", 1, False)
    url = gateway([vllm()], environ={"CONSILIUM_KEYS": str(file)})
    with pytest.raises(openai.AuthenticationError):
        client(url).models.list()
    asked = {"model": "consilium", "messages": [asks("x", URI)]}
    client(url, key).chat.completions.create(**asked)
    with pytest.raises(openai.RateLimitError):
        # Twice: across the turn of a minute a sliding window forgets a little.
        client(url, key).chat.completions.create(**asked)
        client(url, key).chat.completions.create(**asked)


def test_too_few_answers_are_an_error_in_a_stream_too(vllm, gateway):
    url = gateway([vllm(), vllm(status=500, raw=b"")], panel="quorum = 2")
    asked = {"model": "consilium", "messages": [asks("x", URI)]}
    with pytest.raises(openai.InternalServerError, match="1 of the 2"):
        client(url).chat.completions.create(**asked)
    with pytest.raises(openai.APIError, match="1 of the 2"):
        list(client(url).chat.completions.create(stream=True, **asked))
