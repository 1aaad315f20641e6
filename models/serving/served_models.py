"""Which published models vLLM serves: asked of the vLLM that is here, before one is trained."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import find_spec

import models.cpu_torch  # noqa: F401  before transformers, which imports torchvision

# isort: split
import transformers

from models import assets
from models.parts.whole import takeable
from models.recipe import Recipe, WholeRecipe
from models.recipe.programme import RecipeError

# In a process of its own: vLLM sets up more than training could bear.
ASK = (
    "import json, models.cpu_torch; from vllm import ModelRegistry, __version__ as version; "
    "print(); print(json.dumps([version, {name: getattr(model, 'class_name', name) "
    "for name, model in ModelRegistry.models.items()}]))"
)

TRANSFORMERS = "Transformers"  # how its classes begin that run transformers' own layers
PATIENCE_S = 600.0  # where many others start, too


def require_served(recipe: WholeRecipe) -> None:
    """Where no vLLM is installed, nothing is asked.

    Raises:
        RecipeError: vLLM has no such model, and would not run transformers' own; or it is no model.
        AssetError: the model cannot be had.
    """
    with takeable(recipe):
        named = _architectures(recipe.worker.model)
    version, has = known()
    if version and not any(name in has or _runs_as_it_is(name) for name in named):
        why = f"which vLLM {version} does not serve"
        raise _unserved(recipe, f"worker.model: {recipe.worker.model}", named, why)


def require_served_language(recipe: Recipe) -> None:
    """As `require_served`, of a worker's language model: one that vLLM has layers of its own for,
    since `models.serving.vllm_model` calls them. One that is packaged or made is.
    """
    model = recipe.language.model
    if model is None or model.startswith("base:"):
        return
    named = _architectures(model)
    version, has = known()
    own = {name for name, runs in has.items() if not runs.startswith(TRANSFORMERS)}
    if version and own.isdisjoint(named):
        why = f"for which vLLM {version} has no layers of its own"
        raise _unserved(recipe, f"language.model: {model}", named, why)


def _architectures(model: str) -> list[str]:
    settings = assets.without_weights(model, report=print) / "config.json"
    return json.loads(settings.read_text("utf-8")).get("architectures") or []


def _unserved(
    recipe: Recipe | WholeRecipe, model: str, named: Sequence[str], why: str
) -> RecipeError:
    return RecipeError(
        f"recipe {recipe.name}: {model} is a {' or '.join(named) or 'model of no architecture'}, "
        f"{why}: it could be trained and never seated. Take another model."
    )


@cache
def known() -> tuple[str, Mapping[str, str]]:
    """vLLM's version, and of each architecture that it has the class that runs it; a quarter of a
    minute. Both empty where it is not installed, or does not start, or says nothing for long."""
    if find_spec("vllm") is None:
        return "", {}
    command = [sys.executable, "-c", ASK]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        return "", {}
    if asked.returncode:
        return "", {}
    version, served = json.loads(asked.stdout.splitlines()[-1])
    return version, served


def _runs_as_it_is(name: str) -> bool:
    """Would vLLM run transformers' own layers? It asks the same two things of them."""
    kind = getattr(transformers, name, None)
    return kind is not None and (
        kind.is_backend_compatible() or kind._can_set_attn_implementation()
    )
