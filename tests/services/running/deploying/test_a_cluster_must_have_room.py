"""Before anything starts on a cluster it is known that every engine finds its place there."""

import socket
from collections.abc import Callable

import pytest

from gateway.settings import Settings
from services.running.deploying import room
from services.running.deploying.room import ClusterError, Node, check_address, check_room, is_free
from services.running.engine import EngineError
from tests.services.cli.conftest import Done
from tests.services.cli.conftest import consilium as consilium


@pytest.fixture
def panel(
    seated: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Settings]:
    """Seats w0, w1, … that say this, as the CUDA build serves them."""
    monkeypatch.setattr(room, "is_cpu_build", lambda: False)
    return seated


@pytest.mark.parametrize(
    ("seats", "nodes"),
    [
        ([""], [(2, 1)]),
        (["", ""], [(2, 1), (1, 1)]),
        (["gpus = 0.1"] * 10, [(11, 1)]),
        (["gpus = 0.4", "gpus = 0.6", "gpus = 0.6"], [(4, 2)]),
        (["replicas = [2, 4]"], [(3, 2)]),
        (["engine = { tensor-parallel-size = 2 }"], [(1, 0), (1, 2)]),
        (["engine = { tensor_parallel_size = 2, pipeline-parallel-size = 2 }"], [(2, 4)]),
        (['url = "http://elsewhere:1"'], [(1, 0)]),
    ],
)
def test_what_fits_is_placed(panel, seats, nodes) -> None:
    """A GPU is shared only by those who say so; who is served elsewhere takes nothing."""
    check_room(panel(*seats), [Node("n", cpus, [1.0] * gpus) for cpus, gpus in nodes], 1)


@pytest.mark.parametrize(
    ("seats", "nodes", "words"),
    [
        ([""], [(4, 0)], "w0 takes 1 CPU and 1 GPU of one node"),
        (["", ""], [(4, 1)], "w1 takes 1 CPU and 1 GPU of one node.*n 3 CPU and 0 GPU"),
        (["gpus = 0.6", "gpus = 0.6"], [(4, 1)], "w1 takes.*0.6 GPU of one node.*and 0.4 GPU"),
        (["replicas = 3"], [(4, 2)], "w0 takes.*lower gpus or replicas"),
        (["engine = { tensor-parallel-size = 2 }"], [(4, 1), (4, 1)], "1 CPU and 2 GPU of one"),
        (["engine = { pipeline-parallel-size = 2 }"], [(4, 1), (4, 1)], "1 CPU and 2 GPU of one"),
        (["engine = { tensor-parallel-size = 2 }\ngpus = 0.5"], [(4, 2)], "w0: gpus: .*remove"),
        (["engine = { pipeline-parallel-size = 2 }\ngpus = 0.5"], [(4, 2)], "w0: gpus: .*remove"),
        ([""], [(1, 1)], "the gateway takes 1 CPU of one node"),
        ([""], [], "there is no node"),
    ],
)
def test_what_does_not_fit_is_one_sentence(panel, seats, nodes, words) -> None:
    """Who it is, what is left, and how to mend it."""
    with pytest.raises(ClusterError, match=words):
        check_room(panel(*seats), [Node("n", cpus, [1.0] * gpus) for cpus, gpus in nodes], 1)


def test_of_several_gateways_each_node_has_one(panel) -> None:
    """However much room another one has."""
    check_room(panel("gpus = 0.5"), [Node("a", 2, [1.0]), Node("b", 1)], 2)
    with pytest.raises(
        ClusterError, match=r"1 CPU of each node, and there is b 0\.5 CPU and no GPU"
    ):
        check_room(panel("gpus = 0.5"), [Node("a", 8, [1.0]), Node("b", 0.5)], 2)


@pytest.mark.parametrize(
    ("free", "enough"),
    [
        ({"CPU": 3.0, "GPU": 1.0}, True),
        ({"CPU": 2.0, "GPU": 1.0}, False),
        ({"CPU": 3.0, "GPU": 0.5}, False),
        ({"CPU": 3.0}, False),
    ],
)
def test_what_others_hold_is_counted(panel, free, enough) -> None:
    """Two engines that share a GPU, and a gateway."""
    assert is_free(panel("gpus = 0.5", "gpus = 0.5"), 1, free) is enough


def test_what_spreads_over_no_number_of_gpus_is_told(panel) -> None:
    settings = panel('engine = { tensor-parallel-size = "all" }')

    with pytest.raises(EngineError, match="w0: engine: tensor-parallel-size"):
        check_room(settings, [Node("n", 4, [1.0])], 1)


@pytest.mark.parametrize(
    "address", ["", "head", "head:", ":6379", "a b", "ray://head:10001", "http://head:8265"]
)
def test_what_is_no_address_of_a_cluster_is_told(address: str) -> None:
    """Ray itself would wait for a minute, or start a cluster of this machine alone."""
    with pytest.raises(ClusterError, match="neither auto nor the HOST:PORT"):
        check_address(address)


def test_without_an_address_nothing_starts_here(
    consilium: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable that was not set is no wish for a panel of this machine."""
    monkeypatch.setattr("services.running.stack.whole_panel", None)

    done = consilium("serve", "--ray", "")

    assert done.status == 1 and "ray" in done.err


def test_where_nothing_listens_there_is_no_cluster(dead_url: str) -> None:
    with pytest.raises(ClusterError, match="ray start makes one"):
        check_address(dead_url.removeprefix("http://"))


def test_any_head_that_listens_is_tried() -> None:
    with socket.create_server(("127.0.0.1", 0)) as head:
        check_address(f"127.0.0.1:{head.getsockname()[1]}")
    check_address("auto")
