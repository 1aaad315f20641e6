"""Is a panel file ready to be served? One line per seat, before anything is fetched or started."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

from consilium.wire import shown
from gateway.door import keys
from gateway.settings import Settings
from models.assets import AssetError, is_hub_id, weights_dir
from models.exported import ADAPTER
from services.running.engine import (
    READ,
    SAFE_PATH,
    EngineError,
    adapters,
    arguments_of,
    every_seat,
    flags,
    local_seats,
    missing,
    own_arguments,
)

VLLM_PARSER = "services.running.beforehand.vllm_parser"


def check(settings: Settings, report: Callable[[str], None]) -> bool:
    """Whether every seat can be served, as far as this machine can tell; `report` hears why."""
    here = local_seats(settings)
    states: dict[str, str] = {}
    wrong: dict[str, str] = {}
    asked: dict[str, Mapping[str, Any]] = {}
    for name, seat in here.items():
        try:
            arguments = arguments_of(settings, name)
            if not own_arguments(seat, name).keys() <= READ.keys() | {"lora-modules"}:
                asked[name] = arguments
            states[name] = _state(settings, name)
        except (AssetError, EngineError) as error:
            wrong[name] = str(error)
    if asked and find_spec("vllm"):
        refused = _refused_by_vllm(asked)
        wrong = {n: f"panel file: {n}: engine: {said}" for n, said in refused.items()} | wrong
    elif asked:
        report(f"vLLM is not installed here: what engine says of {', '.join(asked)} is not checked")
    for name, seat in every_seat(settings).items():
        if name not in here:
            report(f"{name}: served at {shown(seat.url)}, which is not asked here")
        elif name in wrong:
            report(f"{name}: no: {wrong[name]}")
        else:
            report(f"{name}: ok: {states[name]}")
    if settings.keys:
        try:
            keys.read(settings.keys)
        except keys.KeysError as error:
            wrong["gateway"] = str(error)
            report(f"gateway: no: {error}")
    return not wrong


def _state(settings: Settings, name: str) -> str:
    """Where the seat's model is.

    Raises:
        EngineError, AssetError: it is nowhere, or where it cannot be used.
    """
    seat = local_seats(settings)[name]
    for folder in adapters(seat, name).values():
        if not (folder / ADAPTER).is_file():
            raise EngineError(
                f"panel file: {name}: engine: lora-modules: no {ADAPTER} in {folder}: name the "
                "folder of an adapter."
            )
    if not (absent := missing(settings, name)):
        return f"{seat.model}, all of it on this machine"
    if gathered := weights_dir():
        raise AssetError(
            f"{', '.join(absent)} not in {gathered}; gather it where there is a network "
            "(consilium fetch --to DIR), or unset CONSILIUM_WEIGHTS"
        )
    hub = [base for base in absent if is_hub_id(base)]
    from_hub = f" (no folder here: {', '.join(hub)} is taken for a model hub's)" if hub else ""
    return f"{seat.model}; still to be fetched: {', '.join(absent)}{from_hub}"


def _refused_by_vllm(asked: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """What vLLM says of the seats whose arguments it does not take."""
    commands = {name: flags(arguments) for name, arguments in asked.items()}
    done = subprocess.run(
        [sys.executable, "-m", VLLM_PARSER],
        input=json.dumps(commands),
        env=dict(os.environ) | SAFE_PATH,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise EngineError(f"vLLM could not be asked about engine arguments: {last}")
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found
