"""Whatever speaks to OpenAI's API can ask the panel: shown by OpenAI's own client."""

import base64
import json

import httpx
import openai
import pytest

from gateway.door import keys
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
