"""A recipe: one worker's parts and its training programme, as data (`models/recipes/*.toml`)."""

import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from models.data.datasets import LOADERS

RECIPES = Path(__file__).parent / "recipes"


class RecipeError(Exception):
    """A recipe that cannot be followed; one line that names the file, the key and the mend."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TowerPart(_Strict):
    name: str  # a timm architecture
    weights: str  # a reference of models.assets, or "timm"
    image_size: int = Field(default=224, ge=32, le=1024)


class LanguagePart(_Strict):
    model: str  # a reference of models.assets
    family: str  # workers of one family err together
    bos: bool = False  # Gemma babbles without its <bos>
    image_token: str  # a special token of the tokenizer that no text uses


class Lora(_Strict):
    rank: int = Field(default=16, ge=1)
    alpha: int = Field(default=32, ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)


class Source(_Strict):
    set: str  # a dataset of models.data.datasets
    split: str
    languages: tuple[str, ...]

    @field_validator("set")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name not in LOADERS:
            raise ValueError(f"no dataset {name!r}; there are: {', '.join(LOADERS)}")
        return name


class Stage(_Strict):
    name: str = Field(pattern=r"^[a-z0-9_-]+$")
    parent: str | None = None  # the stage whose last checkpoint it starts from
    connector: Literal["frozen", "full"]
    language: Literal["frozen", "lora"]
    lora: Lora | None = None
    data: tuple[Source, ...]
    epochs: int = Field(ge=1)
    rows_per_step: int = Field(default=4, ge=1)  # a row is an image with its questions
    connector_lr: float = Field(default=1e-3, gt=0)
    language_lr: float = Field(default=6e-4, gt=0)
    warmup_steps: int = Field(default=40, ge=1)
    reconstruction: float = Field(default=0.0, ge=0)  # λ of the reconstruction regulariser

    @model_validator(mode="after")
    def _something_trains(self) -> "Stage":
        if (self.language == "lora") != (self.lora is not None):
            raise ValueError('a [stage.lora] table goes with language = "lora", and only with it')
        if self.connector == "frozen" and self.language == "frozen":
            raise ValueError("nothing trains: set connector or language to other than frozen")
        return self


class Recipe(_Strict):
    name: str = Field(pattern=r"^[a-z0-9_-]+$")
    seed: int = 0
    prompt: str  # what the worker is asked with; panel.toml repeats it
    tower: TowerPart
    connector: dict[str, Any]
    language: LanguagePart
    validation: tuple[Source, ...]
    stage: tuple[Stage, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _fits_together(self) -> "Recipe":
        if "{question}" not in self.prompt:
            raise ValueError("prompt must hold {question}")
        seen: set[str] = set()
        for stage in self.stage:
            if stage.parent is not None and stage.parent not in seen:
                raise ValueError(f"stage {stage.name}: parent {stage.parent!r} is no earlier stage")
            if stage.name in seen:
                raise ValueError(f"two stages are called {stage.name!r}")
            seen.add(stage.name)
        return self

    @property
    def languages(self) -> tuple[str, ...]:
        """What the worker was taught to answer in."""
        last = self.stage[-1]
        return tuple(sorted({language for source in last.data for language in source.languages}))


def load_recipe(reference: str | Path) -> Recipe:
    """The recipe of a file, or of a name in `models/recipes`.

    Raises:
        RecipeError: no such recipe, not TOML, or a key that is unknown, missing or wrong.
    """
    path = Path(reference)
    if not path.suffix:
        path = RECIPES / f"{reference}.toml"
    try:
        return Recipe.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        known = ", ".join(sorted(p.stem for p in RECIPES.glob("*.toml")))
        raise RecipeError(f"No recipe at {path}. Give a file, or one of: {known}.") from None
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{path} is not TOML: {error}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the recipe"
        raise RecipeError(f"{path}: {key}: {first['msg']}.") from error
