"""A recipe: one worker's parts and its training programme, as data (`models/recipes/*.toml`)."""

import json
import tomllib
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import Field, ValidationError, field_validator, model_validator

from models import complaint
from models.files import NotUtf8, read_text
from models.recipe.parts import LanguagePart, Strict, TowerPart, WorkerPart, finite
from models.recipe.programme import Programme, RecipeError
from models.recipe.stage import PartsStage, Source, WholeStage, require_fold

P = TypeVar("P", bound=Programme)

RECIPES = Path(__file__).parents[1] / "recipes"


class Recipe(Programme):
    """A worker of a tower, a connector and a language model."""

    parts = ("tower", "connector", "language")

    tower: TowerPart
    connector: dict[str, Any]
    language: LanguagePart
    stage: tuple[PartsStage, ...] = Field(min_length=1)

    @field_validator("connector")
    @classmethod
    def _is_finite(cls, settings: dict[str, Any]) -> dict[str, Any]:
        return finite(settings)

    @model_validator(mode="after")
    def _language_learns_as_told(self) -> "Recipe":
        for stage in self.stage:
            if stage.grpo and not (stage.parent or self.start):
                raise ValueError(
                    f"stage {stage.name}: reward teaches only who is right at times: name the "
                    "stage (parent) or the worker (start) that it goes on from"
                )
            if stage.grpo and stage.connector == "full" and "moe" in _named(self.connector):
                raise ValueError(
                    f'stage {stage.name}: method = "grpo" balances no experts: take connector = '
                    '"frozen", or learn by labels'
                )
            if stage.grpo and self.language.image_attention != "causal":
                raise ValueError(
                    f"stage {stage.name}: no answer can be sampled with image_attention = "
                    '"bidirectional"'
                )
            if self.language.made and stage.language != "full":
                raise ValueError(
                    f"stage {stage.name}: a made language model knows nothing yet: take "
                    'language = "full"'
                )
            if stage.word_dropout and not self.language.made:
                raise ValueError(f"stage {stage.name}: word_dropout: only made has an unknown word")
            if self.language.four_bit and stage.language == "full":
                raise ValueError(
                    f"stage {stage.name}: four_bit weights do not train: take language = "
                    '"lora", or leave four_bit out'
                )
        return self

    @property
    def bases(self) -> tuple[str, ...]:
        """The base weights that it stands on, as references of models.assets."""
        return tuple(filter(None, (self.tower.weights, self.language.model)))

    @property
    def family(self) -> str:
        """Workers of one family err together."""
        return self.language.family

    @property
    def four_bit(self) -> bool:
        return self.language.four_bit


def _named(connector: dict[str, Any]) -> set[Any]:
    """A connector's name, and those of the ones that it is made of."""
    within = [value for value in connector.values() if isinstance(value, dict)]
    return {connector.get("name")}.union(*map(_named, within))


class WholeRecipe(Programme):
    """A worker that is a vision-language model of transformers as it is published."""

    parts = ("worker",)

    worker: WorkerPart
    stage: tuple[WholeStage, ...] = Field(min_length=1)

    @property
    def bases(self) -> tuple[str, ...]:
        """The weights that it stands on, as references of models.assets."""
        return (self.worker.model,)

    @property
    def family(self) -> str:
        """Workers of one family err together."""
        return self.worker.family

    @property
    def four_bit(self) -> bool:
        return self.worker.four_bit


class MemoryRecipe(Strict):
    """A worker that remembers: the tower that it looks with, and the cases that it keeps. Nothing
    of it trains; see models.serving.memory."""

    prompt: ClassVar[str] = "{question}"  # cases are found by their questions' own words
    max_images: ClassVar[int] = 1
    family: ClassVar[str] = "memory"

    name: str = Field(pattern=r"^[a-z0-9_-]+$")
    fold: int = Field(default=0, ge=0)  # which of a source's folds is not remembered
    tower: TowerPart
    remembers: tuple[Source, ...] = Field(min_length=1)

    @field_validator("remembers")
    @classmethod
    def _as_they_are(cls, sources: tuple[Source, ...]) -> tuple[Source, ...]:
        if any(source.copies for source in sources):
            raise ValueError("copies: an image is remembered as it is; leave the key out")
        return sources

    @model_validator(mode="after")
    def _has_that_fold(self) -> "MemoryRecipe":
        require_fold(self.fold, self.remembers)
        return self

    @property
    def held_out(self) -> tuple[Source, ...]:
        """What it can be scored on: the fold that it does not remember, of what is in folds."""
        return tuple(source for source in self.remembers if source.folds)

    @property
    def bases(self) -> tuple[str, ...]:
        """The base weights that it stands on, as references of models.assets."""
        return (self.tower.weights,)

    @property
    def languages(self) -> tuple[str, ...]:
        """What it can be asked in."""
        return tuple(sorted({each for source in self.remembers for each in source.languages}))


def load_programme(reference: str | Path) -> Recipe | WholeRecipe:
    """The recipe of a worker that is trained; `reference` as in `recipe_file`.

    Raises:
        RecipeError: as `load_any_recipe`, or it is of a worker that remembers.
    """
    found = load_any_recipe(reference)
    if isinstance(found, MemoryRecipe):
        raise RecipeError(
            f"recipe {found.name} is of a worker that remembers, which has nothing to train: "
            f"consilium remember {reference} makes it."
        )
    return found


def load_recipe(reference: str | Path) -> Recipe:
    """The same of a worker that is made of parts.

    Raises:
        RecipeError: as `load_programme`, or it is of a model that is taken whole.
    """
    return of_parts(load_programme(reference))


def of_parts(recipe: Programme) -> Recipe:
    """The recipe, where it is of a worker that is made of parts.

    Raises:
        RecipeError: it is of a model that is taken whole.
    """
    if not isinstance(recipe, Recipe):
        raise RecipeError(
            f"recipe {recipe.name}: worker: this looks into a worker's tower, connector and "
            "language model; a model that is taken whole has none that it knows."
        )
    return recipe


def recipe_file(reference: str | Path) -> Path:
    """A recipe's file, which may be named without its .toml; else that of a name in
    `models/recipes`.

    Raises:
        RecipeError: no such recipe.
    """
    places = (Path(reference), Path(f"{reference}.toml"), RECIPES / f"{reference}.toml")
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        known = ", ".join(sorted(p.stem for p in RECIPES.glob("*.toml")))
        raise RecipeError(f"No recipe at {reference}. Give a file, or one of: {known}.")
    return path


def load_any_recipe(reference: str | Path) -> Recipe | WholeRecipe | MemoryRecipe:
    """The recipe of a worker of any kind; `reference` as in `recipe_file`.

    Raises:
        RecipeError: no such recipe, not TOML, or a key that is unknown, missing or wrong.
    """
    path = recipe_file(reference)
    try:
        content = tomllib.loads(read_text(path))
        return _kind(content).model_validate(content)
    except OSError as error:
        raise RecipeError(f"{path} cannot be read ({error.strerror}).") from error
    except NotUtf8 as error:
        raise RecipeError(str(error)) from error
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{path} is not TOML: {error}.") from error
    except ValidationError as error:
        told = complaint.first_of(error.errors(), "the recipe")
        raise RecipeError(f"{path}: {told}.") from error


def read_programme(text: str) -> Recipe | WholeRecipe:
    """The recipe of a worker that is trained, out of its JSON.

    Raises:
        ValueError: it is none.
    """
    kind = _kind(json.loads(text))
    return (WholeRecipe if kind is WholeRecipe else Recipe).model_validate_json(text)


def _kind(content: dict[str, Any]) -> type[Recipe | WholeRecipe | MemoryRecipe]:
    """What is not told from one key is read as a worker of parts, which says what is missing."""
    if "remembers" in content:
        return MemoryRecipe
    return WholeRecipe if "worker" in content else Recipe


def started(recipe: P) -> P | None:
    """The recipe of the worker that `recipe` trains on.

    Raises:
        RecipeError: no worker lies there, or one of other parts.
    """
    if (folder := recipe.start_folder) is None:
        return None
    if not (folder / "recipe.toml").is_file():
        raise RecipeError(f"recipe {recipe.name}: start: no exported worker in {folder}.")
    found = load_any_recipe(folder / "recipe.toml")
    if not isinstance(found, type(recipe)):
        raise RecipeError(f"recipe {recipe.name}: start: {recipe.start} is of another kind.")
    for part in recipe.parts:
        if getattr(found, part) != getattr(recipe, part):
            raise RecipeError(
                f"recipe {recipe.name}: start: {recipe.start} has another {part}: copy "
                f"[{part}] from {folder / 'recipe.toml'}."
            )
    return found
