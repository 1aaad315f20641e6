"""Several accelerators, each of which keeps its share of every weight, of its gradient and of what
the optimiser knows of it; a layer is put together only while it computes (Zhao et al. 2023, PyTorch
FSDP; torch's `fully_shard`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._pytree import tree_map

from models.parts.vision import Tower

Trained = tuple[list[nn.Parameter], float]  # weights, and their learning rate


def units(objective: nn.Module) -> list[nn.Module]:
    """What of `objective` is put together at a time: its towers, and each layer as its publisher
    says what one is. What is left is one more, which stays together from a step's first layer to
    its last."""
    layers = {
        kind
        for module in objective.modules()
        for kind in getattr(module, "_no_split_modules", None) or ()
    }
    return [
        module
        for module in objective.modules()
        if isinstance(module, Tower) or type(module).__name__ in layers
    ]


def shard(objective: nn.Module, trains: Sequence[Trained], mesh: DeviceMesh) -> list[Trained]:
    """Shares out the weights of `objective` among the processes of `mesh`, in place. Returns
    `trains` as they are from then on.
    """
    name_of = {weight: name for name, weight in objective.named_parameters()}
    for module in [*units(objective), objective]:
        fully_shard(module, mesh=mesh)
    now = dict(objective.named_parameters())
    return [([now[name_of[weight]] for weight in part], rate) for part, rate in trains]


def put_away(objective: nn.Module) -> None:
    """What was put together to look at the model, which its next steps would not know to be old."""
    if isinstance(objective, FSDPModule):
        objective.reshard()


def whole(value: Tensor) -> Tensor:
    """All of a tensor that may be shared out; every process must ask at once."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def gathered(tree: Any, kept: bool) -> Any:
    """As `whole`, of every tensor in `tree`, on the CPU; where it is not to be kept, the process
    only takes part."""

    def of(value: Any) -> Any:
        if not isinstance(value, DTensor):
            return value
        full = value.full_tensor()
        return full.cpu() if kept else None

    return tree_map(of, tree)


def share_of(value: Tensor, weight: Tensor) -> Tensor:
    """A process's share of what goes with `weight`, element by element."""
    if not isinstance(weight, DTensor) or value.shape != weight.shape:
        return value
    on = value.to(weight.device)
    return distribute_tensor(on, weight.device_mesh, weight.placements, src_data_rank=None)


def shares_of_moments(saved: dict[str, Any], weights: Sequence[Tensor]) -> dict[str, Any]:
    """An optimiser's `state_dict` over whole `weights`, as it is over shared ones."""
    state: Mapping[int, Mapping[str, Any]] = saved["state"]
    parted = {
        index: {
            key: share_of(value, weights[index]) if isinstance(value, Tensor) else value
            for key, value in of_weight.items()
        }
        for index, of_weight in state.items()
    }
    return saved | {"state": parted}
