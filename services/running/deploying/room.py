"""Is there a cluster, and room on its nodes for every engine of a panel, and its gateways?

A scheduler would wait for it, and say nothing. An engine takes a processor and, where it is vLLM's
CUDA build, a GPU: the share of one that its seat's `gpus` says, or as many whole ones as its
engine spreads over.
"""

import math
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from gateway.settings import Settings
from services.running.engine import gpus_of, is_cpu_build, local_seats

ANSWERS_WITHIN_S = 5.0
ROOM_S = 10.0  # until what somebody else has let go of is told as free


class ClusterError(Exception):
    """One sentence: why the panel cannot be placed on the cluster, and how to mend it."""


def check_address(address: str) -> None:
    """Raises ClusterError where no cluster can be at `address`, or nothing listens there: Ray waits
    for minutes, and starts a cluster of its own for an empty one."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal() and "/" not in host):
        raise ClusterError(
            f"--ray {address!r}: neither auto nor the HOST:PORT of a cluster's head, such as "
            "10.0.0.1:6379."
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWERS_WITHIN_S).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise ClusterError(f"No Ray cluster answers at {address}; ray start makes one.") from error


@dataclass(frozen=True)
class Need:
    """What one server takes of a node, beside a processor: so much of each of so many GPUs."""

    gpus: int = 0
    of_each: float = 0

    @property
    def of_gpus(self) -> float:
        return self.gpus * self.of_each

    def __str__(self) -> str:
        return f"1 CPU and {self.of_gpus:g} GPU" if self.gpus else "1 CPU"


@dataclass
class Node:
    """What is left of a node: of each GPU, 1 is all of it."""

    address: str
    cpus: float
    gpus: list[float] = field(default_factory=list)

    def takes(self, need: Need) -> bool:
        """Whether there is room for it, which is then taken."""
        # A thousandth: ten tenths are a whole.
        fitting = [gpu for gpu, left in enumerate(self.gpus) if left > need.of_each - 0.001]
        if self.cpus < 1 or len(fitting) < need.gpus:
            return False
        self.cpus -= 1
        for gpu in fitting[: need.gpus]:
            self.gpus[gpu] -= need.of_each
        return True

    def __str__(self) -> str:
        gpus = ", ".join(f"{left:.3g}" for left in self.gpus)
        return f"{self.address} {self.cpus:g} CPU and {gpus or 'no'} GPU"


def needs(settings: Settings, on_gpus: bool) -> dict[str, Need]:
    """What an engine takes of each seat that is not placed elsewhere.

    Raises:
        EngineError: a seat's `engine` cannot be read.
        ClusterError: one takes several GPUs, and a share of each.
    """
    found = {}
    for name, seat in local_seats(settings).items():
        gpus = gpus_of(name, seat) if on_gpus else 0
        if gpus > 1 and seat.gpus < 1:
            raise ClusterError(
                f"panel file: {name}: gpus: a server on {gpus} GPUs takes each of them whole; "
                "remove gpus."
            )
        found[name] = Need(gpus, seat.gpus)
    return found


def _wanted(settings: Settings, gateways: int) -> list[tuple[str, Need]]:
    """Every seat's fewest engines, the largest first, and gateways; raises as `needs`."""
    seats = local_seats(settings)
    engines = [
        (name, need)
        for name, need in needs(settings, not is_cpu_build()).items()
        for _ in range(seats[name].replicas[0])
    ]
    return [
        *sorted(engines, key=lambda each: -each[1].of_gpus),
        *[("the gateway", Need())] * gateways,
    ]


def check_room(settings: Settings, nodes: Sequence[Node], gateways: int) -> None:
    """All of the panel finds room. Of several gateways one stands on each node.

    Raises:
        ClusterError: something does not; and as `needs`.
    """
    if gateways > 1:
        for node in nodes:
            if not node.takes(Need()):
                raise ClusterError(
                    f"A gateway takes 1 CPU of each node, and there is {node}. Give that node one, "
                    "or leave it out."
                )
        gateways = 0
    for who, need in _wanted(settings, gateways):
        if not any(node.takes(need) for node in nodes):
            left = "; ".join(map(str, nodes)) or "there is no node"
            raise ClusterError(
                f"{who} takes {need} of one node, and no node has so much left beside the "
                f"others: {left}. Add one, or lower gpus or replicas in the panel file."
            )


def is_free(settings: Settings, gateways: int, free: Mapping[str, float]) -> bool:
    """Whether others leave so much of the whole cluster, by its CPU and its GPU."""
    wanted = [need for _, need in _wanted(settings, gateways)]
    gpus = sum(need.of_gpus for need in wanted)
    return free.get("CPU", 0) >= len(wanted) and free.get("GPU", 0) > gpus - 0.001


def comes_free(enough: Callable[[], bool]) -> bool:
    """Waits for it a while: what a cluster says of its room is seconds old. Ray itself would wait
    for ever, without a word."""
    give_up_at = time.monotonic() + ROOM_S
    while not enough():
        if time.monotonic() > give_up_at:
            return False
        time.sleep(0.5)
    return True


def nodes_for(wanted: Sequence[Need], gpus: int) -> int:
    """How many nodes of so many GPUs hold all of these engines; at least one."""
    nodes: list[Node] = []
    for need in sorted(wanted, key=lambda each: -each.of_gpus):
        if not any(node.takes(need) for node in nodes):
            nodes.append(Node("", math.inf, [1.0] * gpus))
            nodes[-1].takes(need)
    return max(len(nodes), 1)
