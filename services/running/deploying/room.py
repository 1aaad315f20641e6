"""Is there room on a cluster's nodes for every engine of a panel, and its gateways?

A scheduler would wait for it, and say nothing. An engine takes a processor and, where it is vLLM's
CUDA build, a GPU: the share of one that its seat's `gpus` says, or as many whole ones as its
engine spreads over.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from gateway.settings import Settings
from services.running.engine import gpus_of, is_cpu_build, local_seats


class ClusterError(Exception):
    """One sentence: why the panel cannot be placed on the cluster, and how to mend it."""


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


def needs(settings: Settings) -> dict[str, Need]:
    """What an engine takes of each seat that is not placed elsewhere.

    Raises:
        EngineError: a seat's `engine` cannot be read.
        ClusterError: one takes several GPUs, and a share of each.
    """
    found, has_gpus = {}, not is_cpu_build()
    for name, seat in local_seats(settings).items():
        gpus = gpus_of(name, seat) if has_gpus else 0
        if gpus > 1 and seat.gpus < 1:
            raise ClusterError(
                f"panel file: {name}: gpus: a server on {gpus} GPUs takes each of them whole; "
                "remove gpus."
            )
        found[name] = Need(gpus, seat.gpus)
    return found


def check_room(settings: Settings, nodes: Sequence[Node], gateways: int) -> None:
    """The least number of every seat's engines finds room, the largest first.

    Raises:
        ClusterError: there is one that does not; and as `needs`.
    """
    seats = local_seats(settings)
    wanted = [(name, need, seats[name].replicas[0]) for name, need in needs(settings).items()]
    wanted.append(("the gateway", Need(), gateways))
    for who, need, times in sorted(wanted, key=lambda each: -each[1].of_gpus):
        for _ in range(times):
            if not any(node.takes(need) for node in nodes):
                left = "; ".join(map(str, nodes)) or "there is no node"
                raise ClusterError(
                    f"{who} takes {need} of one node, and no node has so much left beside the "
                    f"others: {left}. Add one, or lower gpus or replicas in the panel file."
                )
