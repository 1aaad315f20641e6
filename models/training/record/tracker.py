"""What a run tells, told to TensorBoard, W&B or MLflow too, through accelerate.

One that was asked for and does not answer is refused before anything trains. One that falls silent
later is left alone: the run's own `log.jsonl` has all.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import models.cpu_torch  # noqa: F401  before accelerate, which imports torchvision

# isort: split
from accelerate.tracking import GeneralTracker, MLflowTracker, TensorBoardTracker, WandBTracker

from models.recipe.programme import Programme
from models.training.record import checkpoints

Name = Literal["tensorboard", "wandb", "mlflow"]
PROJECT = "consilium"
MLFLOW_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}


class TrackerError(Exception):
    """A tracker that is not there; one sentence that says why and how to mend it."""


class Tracker:
    """One of them, for a whole run."""

    def __init__(self, name: str, kept: GeneralTracker, done: int = 0):
        """`done` steps of earlier stages were told before, to the tracker of an earlier start."""
        self.name, self.kept, self.heard = name, kept, True
        self.stage, self.before, self.last = "", 0, done  # the stage that is told of, and steps

    def tell(self, stage: str, part: str, figures: Mapping[str, float], step: int) -> None:
        """Of the training or validation of a stage, up to a step of it. Steps are counted over all
        stages: W&B hears of none that is smaller than the last."""
        if not self.heard:
            return
        if stage != self.stage:
            self.stage, self.before = stage, self.last
        self.last = self.before + step
        named = {f"{stage}/{part}/{name}": each for name, each in figures.items()}
        try:
            self.kept.log(named, self.last)
        except Exception as error:  # noqa: BLE001  each raises errors of its own
            self.heard = False
            print(f"{self.name} does not listen any more ({_first_line(error)}); the run goes on.")


def usual() -> Name | None:
    """The one that is told where none is named: it asks for no account and no server."""
    return "tensorboard" if find_spec("tensorboard") else None


@contextmanager
def tracking(name: Name | None, recipe: Programme, run: Path) -> Iterator[Tracker | None]:
    """The tracker of that name, which ends with what is within.

    Raises:
        TrackerError: it is not installed, or cannot be reached.
    """
    if name is None:
        yield None
        return
    if find_spec(name) is None:
        raise TrackerError(f"{name} is not installed: pip install {name}, or take --tracker none.")
    try:
        kept = _made(name, recipe, run)
        kept.start()
        kept.store_init_configuration(_settings(recipe))
    except Exception as error:
        raise TrackerError(
            f"{name} cannot be reached ({_first_line(error)}): mend that, or take --tracker none."
        ) from error
    try:
        states = [checkpoints.newest(run / stage.name) for stage in recipe.stage]
        yield Tracker(name, kept, sum(state.step for state in states if state and state.finished))
    finally:
        kept.finish()


def _made(name: Name, recipe: Programme, run: Path) -> GeneralTracker:
    if name == "tensorboard":
        return TensorBoardTracker(name, run)
    if name == "wandb":
        return WandBTracker(PROJECT, name=recipe.name)
    # Of itself it asks a server that is gone for minutes.
    for key, value in MLFLOW_PATIENCE.items():
        os.environ.setdefault(key, value)
    return MLflowTracker(PROJECT, run_name=recipe.name)


def _settings(recipe: Programme) -> dict[str, Any]:
    """Those of each stage that are one word or number, and of its tables, such as a LoRA's rank."""
    told: dict[str, Any] = {"seed": recipe.seed}
    for stage in recipe.stage:
        for key, value in stage.model_dump(exclude={"data", "validation"}).items():
            table = value if isinstance(value, dict) else {"": value}
            told |= {
                "/".join(filter(None, (stage.name, key, each))): setting
                for each, setting in table.items()
                if setting is not None
            }
    return told


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".strip().split("\n")[0][:200]
