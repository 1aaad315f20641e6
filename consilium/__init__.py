"""Ask a running gateway from Python: gateway.client, by the name that is installed.

    from consilium import ask

    verdict = ask([Path("chest.dcm")], "Is there a pleural effusion?")

A program may stand where another package `gateway` is found first. Ours is then loaded beside it,
and `import gateway` goes on to mean the other one.
"""

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

HOME = Path(__file__).parents[1]


def _load_client() -> ModuleType:
    found = find_spec("gateway")
    if found and found.origin and Path(found.origin).parent == HOME / "gateway":
        return import_module("gateway.client")
    others = _without_gateway()
    sys.path.insert(0, str(HOME))
    try:
        return import_module("gateway.client")
    finally:
        sys.path.remove(str(HOME))
        _without_gateway()
        sys.modules.update(others)


def _without_gateway() -> dict[str, ModuleType]:
    """Takes every module of a package `gateway` out of those that are loaded."""
    names = [name for name in sys.modules if name.partition(".")[0] == "gateway"]
    return {name: sys.modules.pop(name) for name in names}


if TYPE_CHECKING:
    from gateway.client import GatewayError, GatewayRefused, GatewayUnreachable, ask
    from gateway.contract import Options, Problem, Verdict
else:
    _client = _load_client()
    ask = _client.ask
    GatewayError = _client.GatewayError
    GatewayRefused = _client.GatewayRefused
    GatewayUnreachable = _client.GatewayUnreachable
    Options, Problem, Verdict = _client.Options, _client.Problem, _client.Verdict

__all__ = [
    "GatewayError",
    "GatewayRefused",
    "GatewayUnreachable",
    "Options",
    "Problem",
    "Verdict",
    "ask",
]
