"""`consilium export --verify`: start vLLM on an exported worker, and hold it to transformers."""

import random
import socket
from pathlib import Path

from gateway.settings import Settings
from models.assets import cache_dir
from models.data.example import Example
from models.recipe import Recipe, load_recipe
from models.serving.export import load_served, served_folder
from models.serving.parity import Parity, compare
from models.training.examples import examples_of
from services.running.engine import Launch, launch
from services.running.stack import running

QUESTIONS = 20


def verify(zoo: Path, data: Path) -> Parity:
    """Parity of one exported worker on 20 of its validation questions.

    `zoo` is the worker's folder, `data` holds the datasets' folders.

    Raises:
        StackError: vLLM did not start; the message names its log.
        ParityError, DataError, ExportError, AssetError
    """
    recipe = load_recipe(zoo / "recipe.toml")
    asked = questions(recipe, data)
    folder = served_folder(zoo, print)
    with running([_server(recipe.name, recipe.prompt, folder)], cache_dir() / "logs", print) as up:
        url = up.services[0].launch.url
        return compare(load_served(folder), url, recipe.name, recipe.prompt, asked)


def questions(recipe: Recipe, data: Path) -> list[Example]:
    """Always the same 20 of a recipe's validation questions, or all where there are fewer."""
    sources = recipe.stage[-1].validation or recipe.validation
    examples = examples_of(sources, data, recipe.fold, held_out=True)
    return random.Random(recipe.seed).sample(examples, min(QUESTIONS, len(examples)))


def _server(name: str, prompt: str, folder: Path) -> Launch:
    """A panel of this worker alone, on a port that is free just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    seat = {"name": name, "family": name, "model": str(folder), "prompt": prompt}
    settings = Settings.model_validate(
        {
            "panel": {"quorum": 1},
            "workers": [seat | {"url": url, "external": False}],
            "panel_hash": "",
            "secret": b"",
        }
    )
    return launch(settings, name, folder)
