"""A stored verdict is one that would be given again: nobody failed, nothing fell back."""

import base64
import time
from dataclasses import replace
from typing import Any

import httpx
import pytest
from redis import Redis

from gateway.case import Case, CaseImage
from gateway.contract import ImageShown, Options, SeriesShown
from gateway.service import REPORT_S
from gateway.settings import Settings, load_settings
from gateway.store.memory import MEMORY_ENTRIES, MemoryStore, answer_key, asked_of, key_of
from tests.conftest import picture

CASE = {"question": "Is it healthy?", "images": [base64.b64encode(picture()).decode()]}


def ask(url: str, **changes: Any) -> dict[str, Any]:
    response = httpx.post(f"{url}/vqa", json=CASE | changes, timeout=30)
    assert response.status_code == 200, response.text
    return dict(response.json())


@pytest.fixture(params=["memory", "redis"])
def panel(request: pytest.FixtureRequest) -> str:
    """The [panel] section, for each kind of store."""
    if request.param == "memory":
        return "quorum = 1\ndeadline_s = 1"
    server = request.getfixturevalue("redis_server")
    return f'quorum = 1\ndeadline_s = 1\nstore = "{server.url}"'


def test_the_second_asking_is_answered_from_the_first(vllm, gateway, panel):
    worker = vllm()
    url = gateway([worker], panel=panel)
    first, second, third = ask(url), ask(url), ask(url)
    assert len(worker.requests) == 1
    assert (first["cached"], first["cached_from"]) == (False, None)
    for later in (second, third):
        assert (later["cached"], later["cached_from"]) == (True, first["id"])
        assert later["id"] != first["id"] and later["seconds"] < first["seconds"] + 1
        same = {"answer", "answers", "dissent", "summary", "agreement", "panel"}
        assert {key: later[key] for key in same} == {key: first[key] for key in same}


@pytest.mark.parametrize(
    "change",
    [
        {"question": "Is it ill?"},
        {"context": "58-year-old"},
        {"choices": ["yes", "no"]},
        {"options": {"summarise": "never"}},
        {"images": [base64.b64encode(picture(size=(24, 32))).decode()]},
        {"images": CASE["images"] * 2},
    ],
)
def test_any_other_case_is_asked(vllm, gateway, change):
    worker = vllm()
    url = gateway([worker])
    ask(url)
    assert not ask(url, **change)["cached"]
    # What is summarised differently is answered the same.
    assert len(worker.requests) == (1 if "options" in change else 2)


def test_a_verdict_in_which_a_worker_failed_is_not_kept(vllm, gateway, panel):
    sound, failing = vllm(), vllm(status=500, raw=b"")
    url = gateway([sound, failing], panel=panel)
    assert [ask(url)["cached"] for _ in range(2)] == [False, False]
    failing.status, failing.raw = 200, None
    assert [ask(url)["cached"] for _ in range(2)] == [False, True]


@pytest.mark.parametrize("fault", [{"says": "maybe"}, {"status": 500, "raw": b""}])
def test_a_verdict_in_which_the_summariser_fell_back_is_not_kept(vllm, gateway, fault):
    workers = [vllm("yes"), vllm("no"), vllm("yes")]
    url = gateway(workers, summariser=vllm(**fault).url)
    assert [ask(url)["cached"] for _ in range(2)] == [False, False]


def test_a_worker_that_could_not_take_the_case_did_not_fail(vllm, gateway):
    url = gateway([vllm("是"), vllm()], seats=['languages = ["zh"]'])
    assert [ask(url, language="zh")["cached"] for _ in range(2)] == [False, True]


def test_redis_may_come_and_go(vllm, gateway, redis_server):
    """Without it cases are answered as ever; once it is back, it is used again."""
    redis_server.stop()
    worker = vllm()
    url = gateway([worker], panel=f'quorum = 1\nstore = "{redis_server.url}"')
    assert [ask(url)["cached"] for _ in range(2)] == [False, False]
    redis_server.start()
    assert [ask(url)["cached"] for _ in range(2)] == [False, True]
    redis_server.stop()
    assert ask(url)["cached"] is False
    redis_server.start()
    assert [ask(url)["cached"] for _ in range(2)] == [False, True]


def test_what_redis_forgets_or_cannot_take_is_asked_anew(vllm, gateway, redis_server):
    """Emptied, and full."""
    url = gateway([vllm()], panel=f'quorum = 1\nstore = "{redis_server.url}"')
    with Redis(port=redis_server.port) as redis:
        assert [ask(url)["cached"] for _ in range(2)] == [False, True]
        redis.flushall()
        assert [ask(url)["cached"] for _ in range(2)] == [False, True]
        redis.config_set("maxmemory", 1)
        assert [ask(url, question="Is it so?")["cached"] for _ in range(2)] == [False, False]
        redis.config_set("maxmemory", 0)
        assert [ask(url, question="Is it so?")["cached"] for _ in range(2)] == [False, True]


def test_whether_redis_is_there_is_told(vllm, gateway, redis_server):
    """Being without it is no reason not to be ready."""
    url = gateway([vllm()], panel=f'quorum = 1\nstore = "{redis_server.url}"')
    for change, there in ((None, True), (redis_server.stop, False), (redis_server.start, True)):
        if change:
            change()
            time.sleep(2 * REPORT_S)
        assert httpx.get(f"{url}/health/ready").json() == {"ready": True, "store_reachable": there}
        assert httpx.get(f"{url}/panel").json()["store_reachable"] is there


def test_a_redis_that_hangs_does_not_hold_up_a_case(vllm, gateway, redis_server, caplog):
    """Nor is each case after it made to wait: one finds out, and the others do without."""
    redis_server.pause()
    url = gateway([vllm()], panel=f'quorum = 1\nstore = "{redis_server.url}"')
    began = time.monotonic()
    assert [ask(url, question=f"Is it {n}?")["answer"] for n in range(3)] == ["yes"] * 3
    assert time.monotonic() - began < 5
    assert caplog.text.count("redis_unavailable") == 1


def test_redis_learns_no_question_from_a_key(vllm, gateway, redis_server):
    """And what another program left under our key is not believed."""
    import redis

    url = gateway([vllm()], panel=f'quorum = 1\nstore = "{redis_server.url}"')
    ask(url)
    with redis.Redis.from_url(redis_server.url) as client:
        keys = client.keys()
        assert len(keys) == 2  # the verdict's and the answer's
        for key in keys:
            assert b"healthy" not in key and 0 < client.ttl(key) <= 3600
            client.set(key, b"{}")
    assert ask(url)["cached"] is False


def test_a_key_covers_the_tenant_the_secret_and_the_panel(panel_file):
    case = Case("id", "q?", (CaseImage(b"", "a", (32, 24)),), "en", None, None, Options())
    path = panel_file(["http://127.0.0.1:1"])
    settings = load_settings(path, environ={"CONSILIUM_SECRET": "s"})
    again = load_settings(path, environ={"CONSILIUM_SECRET": "s"})

    def key(case: Case, settings: Settings) -> str:
        return key_of(case, settings.panel_hash, settings.secret_bytes)

    assert key(case, settings) == key(case, again)
    path.write_text(path.read_text().replace("Question:", "Q:"))
    others = [
        key(replace(case, tenant="clinic"), settings),
        key(case, load_settings(path, environ={"CONSILIUM_SECRET": "s"})),
        key(case, settings.model_copy(update={"secret": load_settings(path).secret})),
    ]
    assert len({key(case, settings), *others}) == 4


IMAGE, ANOTHER = (CaseImage(b"", identity, (32, 24)) for identity in ("a", "b"))
BASE = Case("id", "q?", (IMAGE, ANOTHER), "en", None, None, Options(), tenant="ab")


@pytest.mark.parametrize(
    "other",
    [
        {"tenant": "a"},
        {"question": "q?b"},
        {"question": "q", "context": "?"},
        {"question": 'q?", null, null, "en"'},
        {"context": ""},
        {"context": "None"},
        {"choices": ()},
        {"choices": ("q?",)},
        {"language": "es"},
        {"images": (ANOTHER, IMAGE)},
        {"images": (IMAGE,)},
        {"images": (CaseImage(b"", "ab", (32, 24)),)},
        {"tenant": "a", "images": (CaseImage(b"", "b", (1, 1)), IMAGE, ANOTHER)},
    ],
)
def test_no_two_cases_share_a_key(other):
    """However their parts would read one behind the other: nobody leaves an answer for another's
    case."""
    different, secret = replace(BASE, **other), b"s"
    assert key_of(BASE, "panel", secret) != key_of(different, "panel", secret)
    assert answer_key(BASE, "seat", secret) != answer_key(different, "seat", secret)
    assert asked_of(BASE, secret) != asked_of(different, secret)


def test_the_same_pictures_as_other_slices_are_another_case():
    """A question that names slice 3 is about another picture then."""

    def shown(*slices: int) -> Case:
        images = zip(BASE.images, slices, strict=True)
        series = [(image, SeriesShown(first=at, last=at, of=4)) for image, at in images]
        pictures = tuple(replace(image, shown=ImageShown(series=of)) for image, of in series)
        return replace(BASE, images=pictures)

    cases = [BASE, shown(1, 3), shown(3, 4)]
    assert len({key_of(case, "panel", b"s") for case in cases}) == 3
    assert len({answer_key(case, "seat", b"s") for case in cases}) == 3


async def test_memory_keeps_what_was_used_last_and_only_for_a_while(monkeypatch):
    store = MemoryStore()
    for number in range(MEMORY_ENTRIES):
        await store.put(str(number), b"{}")
    assert await store.get("0")
    await store.put("new", b"{}")
    assert await store.get("0") and await store.get("1") is None
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 3601)
    assert await store.get("0") is None
