"""A worker may have several servers: calls are shared out, an image stays where it is known, a slow
call is asked elsewhere within a budget, and who is ill or another is left out."""

import asyncio
import base64
import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from gateway.asking import breaker, replicas
from gateway.asking.model_server import CallFailed, Completion, Probed
from gateway.asking.replicas import Replicas
from gateway.contract import AnswerError
from gateway.settings import SettingsError, load_settings
from gateway.watch.metrics import Metrics
from tests.conftest import picture, until
from tests.gateway.asking.test_the_panel_survives_its_workers import ask, failures

BROKEN_OFF = CallFailed(AnswerError(kind="unreachable", detail="No connection."))


class Seat:
    """The servers s0, s1, … of a seat without HTTP: `slow` ones take as long as it says, `failing`
    ones fail so. `asked` has who was called, `dropped` whose calls were cancelled."""

    def __init__(self, panel_file, count: int = 2):
        urls = [f"http://s{number}" for number in range(count)]
        worker = load_settings(panel_file([urls]), environ={}).workers[0]
        self.metrics, self.told = Metrics("0"), list[str]()
        self.slow: dict[str, float] = {}
        self.failing: dict[str, CallFailed] = {}
        self.asked: list[str] = []
        self.dropped: list[str] = []
        self.servers = Replicas(worker, None, self.metrics, self._is_well, 10, self.told.append)  # type: ignore[arg-type]

    async def _is_well(self, url: str) -> bool:
        return self._name(url) not in self.failing

    def _name(self, url: str) -> str:
        return url.removeprefix("http://")

    async def call(self, image: str = "an image") -> Completion:
        return await self.servers.first_good(image, self._ask)

    async def _ask(self, url: str) -> Completion:
        name = self._name(url)
        self.asked.append(name)
        try:
            await asyncio.sleep(self.slow.get(name, 0.0))
        except asyncio.CancelledError:
            self.dropped.append(name)
            raise
        if name in self.failing:
            raise self.failing[name]
        return Completion(name, None)

    async def warm(self, calls: int) -> str:
        """So many quick calls about one image, and hedges saved on them; who has it. Where the
        machine is busy another may have answered one of them."""
        found = Counter([(await self.call()).text for _ in range(calls)])
        self.servers._hedges = replicas.HEDGED_SHARE * calls
        return found.most_common(1)[0][0]


async def settle() -> None:
    """What was begun or dropped has begun, or is gone."""
    for _ in range(50):
        await asyncio.sleep(0)


@pytest.fixture
def seat(panel_file, monkeypatch):
    async def look(self):
        pass

    monkeypatch.setattr(Replicas, "look", look)
    return lambda count=2: Seat(panel_file, count)


async def test_an_image_stays_where_it_is_known_and_images_are_shared_out(seat):
    """The same server in every gateway; and of four servers each has a part of sixteen images."""
    one, other = seat(4), seat(4)
    homes = {f"image {n}": (await one.call(f"image {n}")).text for n in range(16)}
    assert {image: (await other.call(image)).text for image in homes} == homes
    assert set(homes.values()) == {"s0", "s1", "s2", "s3"}


async def test_calls_about_one_image_are_shared_out_by_open_calls(seat):
    many = seat(2)
    many.slow = {"s0": 0.05, "s1": 0.05}
    await asyncio.gather(*(many.call() for _ in range(10)))
    assert many.asked.count("s0") == many.asked.count("s1") == 5


async def test_a_slow_call_is_asked_elsewhere_and_dropped_where_it_was_slow(seat):
    two = seat()
    home = await two.warm(replicas.AT_LEAST)
    two.slow[home] = 30.0
    assert (await two.call()).text != home
    await settle()
    assert two.asked[-2] == home and two.dropped == [home]
    assert sum(server.open_calls for server in two.servers._servers) == 0


async def test_while_nothing_is_known_of_its_times_nothing_is_asked_twice(seat):
    two = seat()
    home = await two.warm(replicas.AT_LEAST - 1)
    two.slow[home] = 0.05
    assert (await two.call()).text == home
    assert len(two.asked) == replicas.AT_LEAST


async def test_though_all_calls_are_slow_it_costs_five_more_in_a_hundred(seat, monkeypatch):
    monkeypatch.setattr(Replicas, "_slow_s", lambda self: 0.0)
    two = seat()
    two.slow = {"s0": 0.002, "s1": 0.002}
    for _ in range(100):
        await two.call()
    assert 104 <= len(two.asked) <= 105


async def test_who_is_overtaken_three_times_is_looked_at(seat, monkeypatch):
    """A server that hangs behind hedges is found all the same."""
    monkeypatch.setattr(breaker, "PATIENCE_S", 0.0)
    two = seat()
    home = await two.warm(60)
    two.slow[home], two.failing[home] = 30.0, BROKEN_OFF
    for _ in range(breaker.BROKEN_OFF):
        await two.call()
        await settle()
    assert two.servers.resting == two.told == [f"http://{home}"] and two.servers.rests_s is None
    asked = two.asked.count(home)
    await two.call()
    assert two.asked.count(home) == asked
    two.servers.close()


async def test_a_call_that_breaks_off_goes_to_another_server_at_once(seat):
    two = seat()
    home = (await two.call()).text
    two.failing[home] = BROKEN_OFF
    assert (await two.call()).text != home
    two.failing = dict.fromkeys(("s0", "s1"), BROKEN_OFF)
    with pytest.raises(CallFailed):
        await two.call()
    two.servers.close()


@pytest.mark.parametrize("kind", ["garbage", "refused", "cut_short"])
async def test_what_another_would_answer_as_badly_is_not_asked_of_it(seat, kind):
    two = seat()
    two.failing = dict.fromkeys(("s0", "s1"), CallFailed(AnswerError(kind=kind, detail="No.")))
    with pytest.raises(CallFailed):
        await two.call()
    assert len(two.asked) == 1


async def test_whoever_leaves_takes_both_calls_along(seat):
    two = seat()
    await two.warm(replicas.AT_LEAST)
    two.slow = {"s0": 30.0, "s1": 30.0}
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await two.call()
    await settle()
    assert sorted(two.dropped) == ["s0", "s1"]


def test_a_server_that_is_gone_costs_no_case_and_is_told(vllm, gateway, dead_url, monkeypatch):
    monkeypatch.setattr(breaker, "PATIENCE_S", 0.1)
    url = gateway([[vllm("yes"), vllm("yes", status=500, raw=b"")]])
    with ThreadPoolExecutor(4) as callers:
        told = list(callers.map(lambda n: ask(url, images=[_image(n)]), range(8)))
    assert all(failures(each) == {} for each in told)

    def seen() -> dict:
        return httpx.get(f"{url}/panel").json()["workers"][0]

    until(lambda: [each["resting_s"] is None for each in seen()["replicas"]] == [True, False])
    assert [each["reachable"] for each in seen()["replicas"]] == [True, False]
    assert seen()["reachable"] and seen()["resting_s"] is None
    assert httpx.get(f"{url}/health/ready").status_code == 200
    metrics = httpx.get(f"{url}/metrics").text
    assert 'consilium_replica_calls_total{replica="1",why="broken_off",worker="w0"}' in metrics


def _image(number: int) -> str:
    return base64.b64encode(picture(size=(32 + number, 32))).decode()


ONE, NAMED, TWO = Probed(True, "one"), Probed(True, "one", True), Probed(True, "two")
SEATS = Probed(True, "mock")


@pytest.mark.parametrize(
    "found, left_out",
    [
        ([ONE, ONE, TWO], [False, False, True]),
        ([TWO, ONE, ONE], [True, False, False]),
        ([ONE, TWO], [False, True]),
        ([TWO, SEATS], [True, False]),
        ([TWO, NAMED], [True, False]),
        ([ONE, NAMED], [True, False]),
        ([Probed(False), TWO], [False, False]),
        ([Probed(True), Probed(False)], [False, False]),
    ],
    ids=[
        "last",
        "first",
        "even",
        "even, one the seat's",
        "named",
        "same but not named",
        "down",
        "nothing told",
    ],
)
async def test_most_servers_tell_which_model_is_the_seats(panel_file, monkeypatch, found, left_out):
    """Where they are even the seat's own, else the first; and who has the seat's name before those
    who do not."""
    told = iter(found)

    async def probe(http, url, name):
        await asyncio.sleep(0.01)  # the first calls wait for it, however many there are
        return next(told)

    monkeypatch.setattr(replicas, "probe", probe)
    seat = Seat(panel_file, len(found))
    await asyncio.gather(*(seat.call(f"image {number}") for number in range(8)))
    right = {f"s{number}" for number, is_other in enumerate(left_out) if not is_other}
    assert set(seat.asked) == right
    assert [each.left_out is not None for each in seat.servers.report()["replicas"]] == left_out


@pytest.mark.parametrize("silent", [0, 1], ids=["the right one", "the other"])
async def test_who_does_not_tell_its_model_for_once_is_taken_at_its_last_word(
    panel_file, monkeypatch, silent
):
    """A busy server, or one that restarts, lets no other model in, and comes not in by it."""
    found = {"http://s0": ONE, "http://s1": TWO}

    async def probe(http, url, name):
        return found[url]

    monkeypatch.setattr(replicas, "probe", probe)
    seat = Seat(panel_file, 2)
    await seat.call()
    found[f"http://s{silent}"] = Probed(bool(silent))
    await seat.servers.look()
    await asyncio.gather(*(seat.call(f"image {number}") for number in range(8)))
    assert set(seat.asked) == {"s0"}


@pytest.mark.parametrize(
    ("root", "adapters", "warns"),
    [("/a/two", {}, True), ("/a/mock", {}, False), ("/a/two", {"w0": "/a/b"}, False)],
    ids=["neither", "its model", "its name"],
)
def test_a_seat_whose_only_server_has_another_model_is_told(vllm, gateway, root, adapters, warns):
    """It is asked all the same: what it lists may be the same weights by another name."""
    worker = vllm("yes", root=root)
    worker.adapters = adapters
    url = gateway([worker])
    assert ask(url).status_code == 200
    [seat] = httpx.get(f"{url}/panel").json()["workers"]
    assert (seat["warning"] == "The seat's model is mock, and two is served.") == warns
    assert warns or seat["warning"] is None


def test_a_server_of_another_model_is_not_asked_and_it_is_told_why(vllm, gateway):
    right, wrong = vllm("yes", root="/a/one"), vllm("no", root="/a/two")
    url = gateway([[right, wrong]])
    for number in range(4):
        assert ask(url, images=[_image(number)]).json()["answer"] == "yes"
    assert wrong.requests == []
    seat = httpx.get(f"{url}/panel").json()["workers"][0]
    assert seat["model"] == "one" and seat["reachable"]
    assert [each["left_out"] for each in seat["replicas"]] == [
        None,
        "It serves two; the seat's other servers one.",
    ]


def test_the_environment_may_name_several(vllm, gateway):
    one, other = vllm("yes"), vllm("yes")
    url = gateway(["http://nobody"], environ={"CONSILIUM_WORKER_W0_URL": f"{one.url},{other.url}"})
    assert len(httpx.get(f"{url}/panel").json()["workers"][0]["replicas"]) == 2


def test_of_one_server_none_is_listed(vllm, gateway):
    assert httpx.get(f"{gateway([vllm()])}/panel").json()["workers"][0]["replicas"] == []


@pytest.mark.parametrize(
    "urls, says",
    [
        (["http://a", "http://a/"], "worker 1 (w0): url: names one server twice; remove one"),
        (["http://a", "b"], "url: number 2 must be the server's root"),
        ([], "url: names no server"),
        ([5], "url: must be an address such as http://127.0.0.1:8101, or a list of such"),
    ],
    ids=json.dumps,
)
def test_a_list_that_is_none_of_servers_is_one_line(panel_file, urls, says):
    with pytest.raises(SettingsError) as told:
        load_settings(panel_file([urls]), environ={})
    assert says in str(told.value) and "\n" not in str(told.value)
