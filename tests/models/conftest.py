"""The tiny model and drawn images of `tests.tiny`, as fixtures."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

# A second thread makes nothing of a few thousand weights faster, and would only get in the way of
# the other processes of tests. Torch reads this when it is imported.
os.environ["OMP_NUM_THREADS"] = "1"

import torch

import models.cpu_torch  # noqa: F401  before transformers, which imports torchvision

# isort: split
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

from models import assets
from models.recipe import Recipe
from tests import tiny


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of the tests' own, so that no drawn image gets into the user's. Base weights are the
    same for everyone, so those are shared."""
    base = assets.cache_dir() / "base"
    base.mkdir(parents=True, exist_ok=True)
    folder = tmp_path_factory.mktemp("cache")
    (folder / "base").symlink_to(base)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONSILIUM_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def tiny_language(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_llama(tmp_path_factory.mktemp("tiny_language"))


@pytest.fixture(scope="session")
def tiny_gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `tiny_language`, in Gemma's kind: scaled embeddings, sliding and full attention."""
    folder = tmp_path_factory.mktemp("tiny_gemma")
    vocabulary = tiny.save_tokenizer(folder)
    torch.manual_seed(0)
    config = Gemma3TextConfig(
        **tiny.SHAPE, vocab_size=vocabulary, layer_types=["sliding_attention", "full_attention"]
    )
    Gemma3ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def first_layers(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Recipe], Recipe]:
    """A recipe on SmolLM2, of which it takes the first six layers: a step through all thirty says
    no more, and takes five times as long."""
    folder = tmp_path_factory.mktemp("first_layers")
    for file in assets.resolve("base:smollm2-135m-instruct").iterdir():
        (folder / file.name).symlink_to(file)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 6}))

    def shallow(recipe: Recipe) -> Recipe:
        assert recipe.language.model == "base:smollm2-135m-instruct"
        language = recipe.language.model_copy(update={"model": str(folder)})
        return recipe.model_copy(update={"language": language})

    return shallow


@pytest.fixture(scope="session")
def drawn_slake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.draw_slake(tmp_path_factory.mktemp("data"))


@pytest.fixture
def tiny_recipe(tiny_language: Path) -> Callable[..., Recipe]:
    """A recipe of one stage; keyword arguments replace keys of that stage, `more` adds stages."""

    def make(
        name: str = "tiny",
        more: Sequence[dict[str, Any]] = (),
        language_part: dict[str, Any] | None = None,
        **stage: Any,
    ) -> Recipe:
        content = tiny.recipe(tiny_language, name, **stage)
        content["language"] |= language_part or {}
        content["stage"] += [tiny.STAGE | stage | each for each in more]
        return Recipe.model_validate(content)

    return make
