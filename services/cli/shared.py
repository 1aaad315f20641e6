"""What the verbs share: options, the panel's settings, and how a failure is told."""

import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from gateway.settings import Settings, SettingsError, load_settings

# Lines as they are: what models and callers say is no markup of ours.
console = Console(markup=False, highlight=False, soft_wrap=True)

Panel = Annotated[
    Path, typer.Option("--panel", envvar="CONSILIUM_PANEL", help="Who sits on the panel.")
]
Port = Annotated[int, typer.Option("--port", min=1, max=65535, help="The gateway's port.")]
Host = Annotated[
    str, typer.Option("--host", help="Where to listen. A vLLM port has no key: keep it private.")
]
GpuShare = Annotated[
    float | None,
    typer.Option("--gpu-share", min=0.01, max=1, help="Of a GPU, if not what panel.toml gives."),
]
Gateway = Annotated[str, typer.Option("--gateway", help="The running gateway's URL.")]
Key = Annotated[
    str | None,
    typer.Option("--key", envvar="CONSILIUM_KEY", help="Better not on the command line."),
]
Timeout = Annotated[
    float,
    typer.Option("--timeout", min=0.001, help="Seconds for the gateway to answer a case."),
]
DATA = typer.Option("--data", envvar="CONSILIUM_DATA", help="The folder of the data sets.")
Data = Annotated[Path, DATA]
OptionalData = Annotated[Path | None, DATA]
PANEL_FILE = Path("panel.toml")
GATEWAY_URL = "http://127.0.0.1:8000"


def settings_of(
    panel: Path, environ: Mapping[str, str] = os.environ, with_competence: bool = True
) -> Settings:
    try:
        return load_settings(panel, environ, with_competence)
    except SettingsError as error:
        fail(error)


def names_in(text: str) -> list[str]:
    """Those of a list such as a,b."""
    return [name.strip() for name in text.split(",") if name.strip()]


@contextmanager
def failures(*more: type[Exception]) -> Iterator[None]:
    """Every failure that is ours to explain becomes one line and exit status 1.

    SIGTERM and SIGHUP end a command the way Ctrl-C does: `with` blocks are left, and stop what
    they started.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    from consilium.errors import GatewayError
    from gateway.door.keys import KeysError
    from models.assets import AssetError
    from services.running.engine import EngineError
    from services.running.stack import StackError

    ours: tuple[type[Exception], ...] = (
        GatewayError,
        KeysError,
        AssetError,
        EngineError,
        StackError,
        OSError,
    )
    try:
        yield
    except (*ours, *more) as error:
        fail(error)
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGINT) from None


@contextmanager
def training_failures(*more: type[Exception]) -> Iterator[None]:
    from models.data.example import DataError
    from models.recipe.programme import RecipeError
    from models.training.learning.tuning import TuningError
    from models.training.loop import TrainingError
    from models.training.record.checkpoints import CheckpointError
    from models.training.record.tracker import TrackerError

    with failures(
        CheckpointError, DataError, RecipeError, TrackerError, TrainingError, TuningError, *more
    ):
        yield


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def fail(error: Exception) -> NoReturn:
    print(f"consilium: {error}", file=sys.stderr)
    raise SystemExit(1)
