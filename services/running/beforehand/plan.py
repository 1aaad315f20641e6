"""How much GPU memory each seat takes, and on which GPU it fits, before anything starts.

A server takes what its seat's `memory_gb` says. Without that it is computed: the weights from the
files that vLLM would load (made ready first, where all that they are made of is on this machine),
a cache for some cases at their longest, and an allowance for the rest. Where its engine spreads
over several GPUs, either is on all of them together, an equal part on each.
A GPU's GB are 2^30 bytes, as its maker counts; a tenth is left alone (engine.SHARE_OF_GPU).
"""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.settings import Settings
from services.running.engine import (
    SHARE_OF_GPU,
    arguments_of,
    engines,
    gpus_of,
    local_seats,
    longest,
    missing,
    model_folder,
    number,
    own_arguments,
)

GB = 2**30
MAX_HEADER = 100_000_000  # bytes; safetensors takes no longer one
CASES = 4  # in the cache at once, each as long as max-model-len lets it be
ALLOWANCE_GB = 1.5  # CUDA's context, activations, CUDA graphs: an estimate, not a measurement

BYTES = {"float32": 4.0, "float": 4.0, "bfloat16": 2.0, "float16": 2.0, "half": 2.0, "auto": 2.0}
# Four bits, and a float32 for each block of 64 (QLoRA, section 3, without double quantisation).
NF4_BYTES = 0.5 + 4 / 64


class PlanError(Exception):
    """One sentence: what does not fit or is not known, and how to mend it."""


@dataclass(frozen=True)
class Need:
    """GPU memory of one server, in GB, on all its `gpus` together; `weights_gb` is None where no
    safetensors tell."""

    total_gb: float
    weights_gb: float | None
    stated: bool  # by memory_gb; otherwise computed
    gpus: int = 1  # over which its engine spreads, equally

    @property
    def of_each_gb(self) -> float:
        return self.total_gb / self.gpus


@dataclass(frozen=True)
class Place:
    """GPUs, by their numbers, and the share of each one's memory that a server gets there."""

    gpus: tuple[int, ...]
    share: float


def read_gpus(text: str) -> tuple[float, ...]:
    """`2x80,1x24` → (80, 80, 24): the GB of each GPU, in their order.

    Raises:
        PlanError: the text says something else.
    """
    gpus: list[float] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*([1-9][0-9]?)x([0-9]+(?:\.[0-9]+)?)\s*", part)
        if not match or not float(match[2]):
            raise PlanError(f"--gpus {text}: say how many and their GB, such as 1x80 or 2x80,1x24.")
        gpus += [float(match[2])] * int(match[1])
    return tuple(gpus)


def needs(settings: Settings, report: Callable[[str], None] = print) -> dict[str, Need]:
    """What every server takes that takes a GPU of this machine; `report` hears which models are
    made ready.

    Raises:
        PlanError: neither memory_gb nor the weights are there, or the weights do not fit into it.
        EngineError, AssetError: a seat's model does not exist.
    """
    return {name: _need(settings, name, report) for name in engines(settings)}


def place(needs: Mapping[str, Need], gpus: Sequence[float]) -> dict[str, Place]:
    """Who goes where: the largest first, each on the first GPU that has room for it. Who spreads
    over several takes equal ones, since vLLM is told one share for all of them.

    Raises:
        PlanError: there is one that fits nowhere.
    """
    # In thousandths, rounded down, so that the shares of a GPU never add up to more than it has.
    free = [math.floor(1000 * SHARE_OF_GPU)] * len(gpus)
    places = {}
    for name, need in sorted(needs.items(), key=lambda item: -item[1].total_gb):
        for first, size in enumerate(gpus):
            parts = math.ceil(round(1000 * need.of_each_gb / size, 6))
            equal = [gpu for gpu in range(first, len(gpus)) if gpus[gpu] == size]
            found = tuple(gpu for gpu in equal if parts <= free[gpu])[: need.gpus]
            if len(found) == need.gpus and found[0] == first:
                for gpu in found:
                    free[gpu] -= parts
                places[name] = Place(found, parts / 1000)
                break
        else:
            room = max(parts * size / 1000 for parts, size in zip(free, gpus, strict=True))
            whole = sum(each.total_gb for each in needs.values())
            least = f"GPU has more than {room:.1f}"
            if need.gpus > 1:
                least = f"{need.gpus} equal GPUs have that, of at most {room:.1f},"
            raise PlanError(
                f"{name} needs {need.of_each_gb:.1f} GB{' on each' * (need.gpus > 1)} and no "
                f"{least} left of what vLLM may use; all servers together need {whole:.1f} GB. "
                "Give more or larger GPUs, a smaller model, or a shorter max-model-len."
            )
    return {name: places[name] for name in needs}


def plan(
    settings: Settings, gpus: Sequence[float], report: Callable[[str], None] = print
) -> list[str]:
    """One line per server, then one per GPU; raises as `needs` and `place` do."""
    wanted = needs(settings, report)
    places = place(wanted, gpus)
    width = max(map(len, local_seats(settings)), default=0)
    lines = []
    for name, need in wanted.items():
        weights = (
            "weights not counted" if need.weights_gb is None else f"{need.weights_gb:.1f} weights"
        )
        how = "by memory_gb" if need.stated else "computed"
        numbers = ",".join(map(str, places[name].gpus))
        lines.append(f"{name:{width}}  gpu {numbers}  {need.total_gb:5.1f} GB  ({weights}, {how})")
    lines += [f"{name:{width}}  no gpu" for name in local_seats(settings) if name not in wanted]
    for gpu, size in enumerate(gpus):
        used = sum(need.of_each_gb for name, need in wanted.items() if gpu in places[name].gpus)
        lines.append(f"gpu {gpu}: {used:.1f} of the {SHARE_OF_GPU * size:.1f} GB that may be used")
    return lines


def _need(settings: Settings, name: str, report: Callable[[str], None]) -> Need:
    seat = engines(settings)[name]
    arguments = arguments_of(settings, name)
    absent = missing(settings, name)
    gpus = max(gpus_of(name, seat), 1)
    allowance = gpus * ALLOWANCE_GB
    folder = None if absent else model_folder(settings, name, report)
    tensors = _tensors(folder) if folder else []
    weights = _weights(tensors, arguments) / GB if tensors else None
    if seat.memory_gb is not None:
        if weights is not None and weights + allowance > seat.memory_gb:
            raise PlanError(
                f"{name}: memory_gb is {seat.memory_gb:g}, but its weights take {weights:.1f} GB "
                f"and vLLM about {allowance:g} beside its cache; raise it."
            )
        return Need(seat.memory_gb, weights, stated=True, gpus=gpus)
    if folder is None:
        raise PlanError(
            f"{name}: {', '.join(absent)} is not on this machine, so nobody knows its size; write "
            "memory_gb into its seat, or start it once."
        )
    if weights is None:
        raise PlanError(
            f"{name}: {folder} holds no safetensors, so nobody knows its size; write memory_gb "
            "into its seat."
        )
    if own := own_arguments(seat, name).get("kv-cache-memory-bytes"):
        cache = gpus * number(own) / GB  # vLLM takes it on each
    else:
        cache = _cache(name, folder, arguments) / GB
    return Need(weights + cache + allowance, weights, stated=False, gpus=gpus)


def _weights(tensors: Sequence[tuple[str, list[int]]], arguments: Mapping[str, Any]) -> float:
    """Bytes in the GPU: what is quantised, and the rest in the dtype that it is loaded as."""
    bytes_each = BYTES.get(str(arguments["dtype"]), 2.0)
    total = 0.0
    for name, shape in tensors:
        numbers = math.prod(shape)
        # bitsandbytes packs the layers' matrices; embeddings and the head stay as they are.
        packed = arguments.get("quantization") == "bitsandbytes" and (
            len(shape) == 2 and ".layers." in name
        )
        total += numbers * (NF4_BYTES if packed else bytes_each)
    return total


def _tensors(folder: Path) -> list[tuple[str, list[int]]]:
    """Names and shapes, from the headers of the safetensors files alone."""
    found = []
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            length = min(int.from_bytes(file.read(8), "little"), MAX_HEADER)
            try:
                header = json.loads(file.read(length))
            except ValueError as error:
                raise PlanError(
                    f"{path} is broken or cut short: copy or fetch that model again."
                ) from error
        found += [
            (name, entry["shape"]) for name, entry in header.items() if name != "__metadata__"
        ]
    return found


def _cache(name: str, folder: Path, arguments: Mapping[str, Any]) -> float:
    """Bytes of keys and values for CASES at their longest, every layer attending to all of it."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    text = config.get("text_config", config)
    try:
        heads = text.get("num_key_value_heads") or text["num_attention_heads"]
        width = text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"]
        per_token = 2 * text["num_hidden_layers"] * heads * width * BYTES["bfloat16"]
    except KeyError as error:
        raise PlanError(
            f"{name}: {folder / 'config.json'} does not say {error.args[0]}; write memory_gb into "
            "its seat."
        ) from error
    length = longest(arguments["max-model-len"]) or _length_of_the_model(text)
    return float(CASES * length * per_token)


def _length_of_the_model(text: Mapping[str, Any]) -> int:
    """What vLLM takes a model's own length for: the least that its settings say, else 2048. Told
    nothing else, it then takes less where the GPU has no room for that."""
    keys = (
        "max_position_embeddings",
        "n_positions",
        "max_seq_len",
        "seq_length",
        "max_sequence_length",
        "max_seq_length",
        "seq_len",
    )
    return text.get("model_max_length") or min((text[k] for k in keys if text.get(k)), default=2048)
