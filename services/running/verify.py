"""`consilium export --verify`: start vLLM on an exported worker, and hold it to transformers."""

import random
import socket
from dataclasses import replace
from pathlib import Path

from pydantic import SecretBytes

from gateway.settings import Settings
from gateway.tables import PanelSettings, WorkerSettings
from models.assets import cache_dir
from models.data.example import Example
from models.recipe import Recipe, WholeRecipe, load_programme
from models.recipe.programme import Programme
from models.serving.export import load_served, served_folder
from models.serving.parity import Parity, compare
from models.training.inputs.examples import examples_of
from services.running.engine import Launch, launch
from services.running.stack import running

QUESTIONS = 20
SEAT = "exported"  # a recipe's name need be no seat's


def verify(zoo: Path, data: Path) -> Parity:
    """Parity of one exported worker on 20 of its validation questions.

    `zoo` is the worker's folder, `data` holds the datasets' folders. The server's log is a file of
    its own, so that a worker of this name may be running meanwhile.

    Raises:
        StackError: vLLM did not start; the message names its log.
        ParityError, DataError, ExportError, AssetError
    """
    recipe = load_programme(zoo / "recipe.toml")
    asked = questions(recipe, data)
    folder = served_folder(zoo, print)
    server = replace(_server(recipe, folder), name=f"verify-{recipe.name}")
    with running([server], cache_dir() / "logs", print) as up:
        url = up.services[0].launch.url
        return compare(load_served(folder), url, SEAT, recipe.prompt, asked)


def questions(recipe: Programme, data: Path) -> list[Example]:
    """Always the same 20 of a recipe's validation questions, or all where there are fewer."""
    sources = recipe.stage[-1].validation or recipe.validation
    examples = examples_of(sources, data, recipe.fold, held_out=True)
    return random.Random(recipe.seed).sample(examples, min(QUESTIONS, len(examples)))


def _server(recipe: Recipe | WholeRecipe, folder: Path) -> Launch:
    """A panel of this worker alone, on a port that is free just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    seat = {
        "name": SEAT,
        "family": recipe.family,
        "model": str(folder),
        "max_images": recipe.max_images,
        "prompt": recipe.prompt,
        "url": url,
        "external": False,
    }
    settings = Settings(
        file=Path(),
        panel=PanelSettings(quorum=1),
        workers=(WorkerSettings.model_validate(seat),),
        panel_hash="",
        secret=SecretBytes(b""),
    )
    return launch(settings, SEAT, folder)
