"""Which published models vLLM serves: asked of the vLLM that is here, before one is trained."""

import json
import subprocess
import sys
from functools import cache
from importlib.util import find_spec

import models.cpu_torch  # noqa: F401  before transformers, which imports torchvision

# isort: split
import transformers

from models import assets
from models.parts.whole import takeable
from models.recipe import WholeRecipe
from models.recipe.programme import RecipeError

# In a process of its own: vLLM sets up more than training could bear.
ASK = (
    "import json, models.cpu_torch; from vllm import ModelRegistry, __version__ as version; "
    "print(); print(json.dumps([version, sorted(ModelRegistry.get_supported_archs())]))"
)

PATIENCE_S = 600.0  # where many others start, too


def require_served(recipe: WholeRecipe) -> None:
    """Where no vLLM is installed, nothing is asked.

    Raises:
        RecipeError: vLLM has no such model, and would not run transformers' own; or it is no model.
        AssetError: the model cannot be had.
    """
    folder = assets.resolve(recipe.worker.model, report=print)
    with takeable(recipe):
        named = json.loads((folder / "config.json").read_text("utf-8")).get("architectures") or []
    version, served = known()
    if version and not any(name in served or _runs_as_it_is(name) for name in named):
        raise RecipeError(
            f"recipe {recipe.name}: worker.model: {recipe.worker.model} is a "
            f"{' or '.join(named) or 'model of no architecture'}, which vLLM {version} does not "
            "serve: it could be trained and never seated. Take another model."
        )


@cache
def known() -> tuple[str, frozenset[str]]:
    """vLLM's version and the architectures that it has; a quarter of a minute. Both empty where it
    is not installed, or does not start, or says nothing for long."""
    if find_spec("vllm") is None:
        return "", frozenset()
    command = [sys.executable, "-c", ASK]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        return "", frozenset()
    if asked.returncode:
        return "", frozenset()
    version, served = json.loads(asked.stdout.splitlines()[-1])
    return version, frozenset(served)


def _runs_as_it_is(name: str) -> bool:
    """Would vLLM run transformers' own layers? It asks the same two things of them."""
    kind = getattr(transformers, name, None)
    return kind is not None and (
        kind.is_backend_compatible() or kind._can_set_attn_implementation()
    )
