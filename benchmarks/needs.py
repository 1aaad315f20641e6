"""What a measurement needs and does not find here is told in one sentence, and how to mend it."""

import argparse
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import httpx

from consilium.wire import shown
from gateway.asking.model_server import CallFailed
from gateway.settings import SettingsError
from models.assets import AssetError
from models.data.example import DataError
from models.metrics.bert_score import Unavailable
from services.evaluation.stored_run import EvaluationError
from services.running.engine import EngineError

DATA = "CONSILIUM_DATA"
# What says in one sentence what is wrong.
TOLD = (AssetError, DataError, EngineError, EvaluationError, SettingsError, Unavailable, OSError)


def data_folder(arguments: argparse.ArgumentParser) -> None:
    """--data, without which nothing is measured."""
    there = os.environ.get(DATA)
    more = f"the folder of the data sets; without it, ${DATA}"
    arguments.add_argument("--data", type=Path, default=there, required=not there, help=more)


def variable(name: str, holds: str) -> str:
    """Of the environment."""
    if not (value := os.environ.get(name)):
        raise SystemExit(f"{name} is not set: it holds {holds}.")
    return value


def answering(url: str, start: str) -> None:
    """Whoever listens there, and says anything; `start` is what brings it up."""
    try:
        httpx.get(url, trust_env=False)
    except (httpx.HTTPError, httpx.InvalidURL):
        raise SystemExit(f"Nothing answers at {shown(url)}: {start}.") from None


def redis_at(url: str) -> None:
    from redis import Redis, RedisError

    try:
        Redis.from_url(url).ping()
    except (RedisError, ValueError):
        place = urlsplit(url)
        where = f"{place.hostname}:{place.port}"  # the rest may hold a password
        raise SystemExit(f"No Redis answers at {where}: start one, redis-server.") from None


def program(path: Path, install: str) -> None:
    try:
        subprocess.run([path, "--version"], capture_output=True, timeout=120)
    except (OSError, subprocess.TimeoutExpired):
        raise SystemExit(f"{path} does not run: {install}.") from None


@contextmanager
def told() -> Iterator[None]:
    """Around a whole measurement."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise SystemExit(f"{error.name} is not installed: pip install it here.") from None
    except TOLD as error:
        raise SystemExit(str(error)) from None
    except (aiohttp.ClientError, httpx.HTTPError, CallFailed) as error:
        said = f"{type(error).__name__}: {error}".rstrip(": ")
        raise SystemExit(f"A server that is measured does not answer ({said}).") from None
