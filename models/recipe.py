"""A recipe: one worker's parts and its training programme, as data (`models/recipes/*.toml`)."""

import json
import tomllib
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from models.data.datasets import require_set
from models.data.example import DataError
from models.exported import ZOO
from models.files import NotUtf8, read_text

RECIPES = Path(__file__).parent / "recipes"

MADE_IMAGE_TOKEN = "<image>"  # of every language model that is made here

ImageAttention = Literal["causal", "bidirectional"]


class RecipeError(Exception):
    """A recipe that cannot be followed; one line that names the file, the key and the mend."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TowerPart(_Strict):
    name: str  # a convolutional network of timm, or a vision transformer
    weights: str  # a reference of models.assets, or "timm"
    image_size: int = Field(default=224, ge=32, le=1024)
    strides: tuple[int, ...] = ()  # of the layers that are taken; empty for the last one alone


class MadeLanguage(_Strict):
    """A small Llama from scratch: see models.parts.words."""

    layers: int = Field(ge=1)
    width: int = Field(ge=1)
    hidden: int = Field(ge=1)  # width of what is between a layer's two projections
    heads: int = Field(ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)  # of what a layer adds

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> "MadeLanguage":
        if self.width % (2 * self.heads):
            raise ValueError(f"width must be a multiple of {2 * self.heads}, twice its heads")
        return self


class LanguagePart(_Strict):
    model: str | None = None  # a reference of models.assets
    made: MadeLanguage | None = None  # or none: its words come from the training data
    family: str  # workers of one family err together
    bos: bool = False  # Gemma babbles without its <bos>
    image_token: str  # a special token of the tokenizer that no text uses
    # QLoRA (Dettmers et al. 2023): its weights in 4-bit NormalFloat while an adapter trains.
    four_bit: bool = False
    # Whether an image's tokens see those after them too; vLLM is told of no such thing.
    image_attention: ImageAttention = "causal"

    @model_validator(mode="after")
    def _is_taken_or_made(self) -> "LanguagePart":
        if (self.model is None) == (self.made is None):
            raise ValueError("give model, a reference, or made, a table of sizes: one of them")
        if self.made and (self.bos or self.four_bit):
            raise ValueError("bos and four_bit are for a model that is there already, not for made")
        if self.made and self.image_token != MADE_IMAGE_TOKEN:
            raise ValueError(
                f'a made language model has image_token = "{MADE_IMAGE_TOKEN}", and no other'
            )
        return self


class WorkerPart(_Strict):
    """A vision-language model of transformers, taken whole: see models.parts.whole."""

    model: str  # a hub id, or a folder in Hugging Face layout
    family: str  # workers of one family err together
    four_bit: bool = False  # as of LanguagePart
    processor: dict[str, Any] = {}  # its settings, where other than its publisher's

    @field_validator("processor")
    @classmethod
    def _is_finite(cls, settings: dict[str, Any]) -> dict[str, Any]:
        return _finite(settings)


class Lora(_Strict):
    rank: int = Field(default=16, ge=1)
    alpha: int = Field(default=32, ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)


class Grpo(_Strict):
    """How a stage learns by reward: see models.training.learning.grpo."""

    group: int = Field(default=8, ge=2)  # answers that are sampled to each question
    max_tokens: int = Field(default=16, ge=1)  # of an answer
    updates: int = Field(default=1, ge=1)  # of the weights, from the same answers
    clip: float = Field(default=0.2, gt=0, lt=1)
    kl: float = Field(default=0.04, ge=0)  # weight of the divergence from where the stage began


class Source(_Strict):
    set: str  # a dataset of models.data.datasets, or the path of one's own
    split: str = "all"
    languages: tuple[str, ...] = Field(min_length=1)
    few: int | None = Field(default=None, ge=1)  # images, the first ones; and questions of each
    # So many folds by image: validation takes the recipe's fold of them, a stage all the others.
    folds: int | None = Field(default=None, ge=2)
    # Augmented ones of each image, made once: a stage shows one of them or the image itself, and a
    # tower that keeps still reads none of them twice.
    copies: int = Field(default=0, ge=0)

    @field_validator("set")
    @classmethod
    def _is_known(cls, name: str) -> str:
        try:
            require_set(name)
        except DataError as error:
            raise ValueError(str(error).rstrip(".")) from error
        return name


class Stage(_Strict):
    name: str = Field(pattern=r"^[a-z0-9_-]+$")
    parent: str | None = None  # the stage whose last checkpoint it starts from
    method: Literal["supervised", "grpo"] = "supervised"
    grpo: Grpo | None = None
    tower: Literal["frozen", "lora", "full"] = "frozen"
    connector: Literal["frozen", "full"]
    language: Literal["frozen", "full", "lora", "prefix", "p_tuning", "prompt"]
    lora: Lora | None = None  # of the language model
    tower_lora: Lora | None = None
    virtual_tokens: int = Field(default=16, ge=1)  # of prefix, p_tuning and prompt
    data: tuple[Source, ...] = Field(min_length=1)
    validation: tuple[Source, ...] = ()  # where it is not the recipe's
    augment: bool = False  # images are shifted, turned, scaled, dimmed a little, anew each time
    word_dropout: float = Field(default=0.0, ge=0, lt=1)  # of a question's words, made unknown
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)  # of an answer, not of its end
    weight_decay: float = Field(default=0.01, ge=0)
    # What is validated and kept is the weights' exponential moving average.
    average: float = Field(default=0.0, ge=0, lt=1)
    epochs: int = Field(ge=1)
    steps: int | None = Field(default=None, ge=1)  # it ends after so many, if not before
    rows_per_step: int = Field(default=4, ge=1)  # a row is an image with its questions
    questions_per_row: int = Field(default=16, ge=1)  # at most
    accumulate: int = Field(default=1, ge=1)  # parts of a step that are in memory one by one
    checkpoint_activations: bool = False  # slower, in less memory: layers are computed twice
    tower_lr: float = Field(default=1e-4, gt=0)
    connector_lr: float = Field(default=1e-3, gt=0)
    gate_lr: float = Field(default=1e-2, gt=0)  # of a connector's gates, which start at zero
    language_lr: float = Field(default=6e-4, gt=0)
    warmup_steps: int = Field(default=40, ge=1)
    optimiser: Literal["adamw", "adamw_8bit"] = "adamw"  # the latter's moments are in eight bits
    cache_features: bool = True  # of a tower that keeps still; else it runs in every step
    reconstruction: float = Field(default=0.0, ge=0)  # λ of the reconstruction regulariser

    @model_validator(mode="after")
    def _something_trains(self) -> "Stage":
        for part, key in ((self.language, "lora"), (self.tower, "tower_lora")):
            if (part == "lora") != (getattr(self, key) is not None):
                owner = "language" if key == "lora" else "tower"
                raise ValueError(
                    f'a [stage.{key}] table goes with {owner} = "lora", and only with it'
                )
        if (self.tower, self.connector, self.language) == ("frozen",) * 3:
            raise ValueError(
                "nothing trains: set tower, connector or language to other than frozen"
            )
        cached = self.tower == "frozen" and self.cache_features and not self.augment
        if any(source.copies for source in self.data) and not cached:
            raise ValueError(
                'copies of an image are for tower = "frozen" and cache_features = true, and in '
                "place of augment = true"
            )
        if (self.method == "grpo") != (self.grpo is not None):
            raise ValueError(
                'a [stage.grpo] table, which may be empty, goes with method = "grpo", and only '
                "with it"
            )
        if self.grpo and not (cached and self.language in ("frozen", "full", "lora")):
            raise ValueError(
                'method = "grpo" samples from cached features: take tower = "frozen", '
                'cache_features = true, no augment, and language = "lora", "full" or "frozen"'
            )
        if self.grpo and (self.label_smoothing or self.word_dropout or self.reconstruction):
            raise ValueError(
                'method = "grpo" has no labels: leave out label_smoothing, word_dropout and '
                "reconstruction"
            )
        if self.grpo and self.checkpoint_activations:
            raise ValueError(
                'checkpoint_activations: method = "grpo" drops nothing out, and computes no layer '
                "twice; leave it out"
            )
        if self.language == "prefix" and self.checkpoint_activations:
            raise ValueError(
                "checkpoint_activations: a prefix is lost where layers are computed twice; leave "
                'it out, or take language = "prompt"'
            )
        return self


OF_PARTS = (
    *("method", "tower", "connector", "language", "virtual_tokens", "word_dropout"),
    *("label_smoothing", "reconstruction", "questions_per_row", "cache_features"),
    *("tower_lr", "connector_lr", "gate_lr"),
)


class WholeStage(Stage):
    """Of a model that is taken whole: the linear layers of its language model learn a LoRA, and a
    row is one question."""

    connector: Literal["frozen", "full"] = "frozen"
    language: Literal["frozen", "full", "lora", "prefix", "p_tuning", "prompt"] = "lora"
    lora: Lora | None = Lora()
    language_lr: float = Field(default=2e-4, gt=0)
    cache_features: bool = False
    questions_per_row: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _names_no_parts(self) -> "WholeStage":
        fields = type(self).model_fields
        if given := [key for key in OF_PARTS if getattr(self, key) != fields[key].default]:
            raise ValueError(
                f"{', '.join(given)}: not of a model that is taken whole, whose language model "
                "learns by [stage.lora]; leave it out"
            )
        return self


class Programme(_Strict):
    """What every recipe of a worker that trains says, whatever that is made of."""

    parts: ClassVar[tuple[str, ...]]  # the tables that say what it is made of

    name: str = Field(pattern=r"^[a-z0-9_-]+$")
    seed: int = 0
    fold: int = Field(default=0, ge=0)  # which of a source's folds is held out
    start: str | None = None  # "zoo:NAME" or an exported worker's folder, that it trains on
    prompt: str  # what the worker is asked with; panel.toml repeats it
    max_images: int = Field(default=1, ge=1)  # of a case, in training and when served
    validation: tuple[Source, ...]
    stage: tuple[Stage, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        try:
            asked = self.prompt.format(question="\0")
        except (KeyError, IndexError, ValueError):
            raise ValueError("prompt may hold no braces but {question}") from None
        if "\0" not in asked:
            raise ValueError("prompt must hold {question}")
        seen: set[str] = set()
        for stage in self.stage:
            if stage.parent is not None and stage.parent not in seen:
                raise ValueError(f"stage {stage.name}: parent {stage.parent!r} is no earlier stage")
            if stage.name in seen:
                raise ValueError(f"two stages are called {stage.name!r}")
            seen.add(stage.name)
            if not (stage.validation or self.validation):
                raise ValueError(
                    f"stage {stage.name}: validation is empty: name what it is scored on, such as "
                    '[{ set = "slake", split = "validate", languages = ["en"] }]'
                )
            if stage.grpo and not (stage.parent or self.start):
                raise ValueError(
                    f"stage {stage.name}: reward teaches only who is right at times: name the "
                    "stage (parent) or the worker (start) that it goes on from"
                )
        for source in (*self.held_out, *(each for stage in self.stage for each in stage.data)):
            if source.folds is not None and self.fold >= source.folds:
                raise ValueError(f"fold {self.fold} of {source.folds}: they are counted from 0")
        return self

    def of_fold(self, fold: int) -> Self:
        """The same recipe with another fold held out, under a name of its own.

        Raises:
            RecipeError: nothing of it is in folds, or in fewer.
        """
        changed = self.model_dump() | {"fold": fold, "name": f"{self.name}-fold{fold}"}
        if not any(source.folds for source in self.held_out):
            raise RecipeError(f"recipe {self.name}: no validation data is in folds.")
        try:
            return type(self).model_validate(changed)
        except ValidationError as error:
            raise RecipeError(f"recipe {self.name}: {error.errors()[0]['msg']}.") from error

    def in_folds(self, count: int) -> Self:
        """The same programme by cross-validation: what the last stage learns from is in `count`
        folds, wherever a stage learns from it, and each worker is validated on its fold of that.
        """
        asked = self.stage[-1].data

        def folded(sources: tuple[Source, ...]) -> tuple[Source, ...]:
            return tuple(
                source.model_copy(update={"folds": count}) if source in asked else source
                for source in sources
            )

        stages = [stage.model_copy(update={"data": folded(stage.data)}) for stage in self.stage]
        return self.model_copy(update={"stage": tuple(stages), "validation": folded(asked)})

    def in_a_minute(self) -> Self:
        """All of it once, to see that it runs and not what it learns: each stage sees twenty images
        of each source and some questions about each, once, under a name of its own."""

        def few(sources: tuple[Source, ...]) -> tuple[Source, ...]:
            return tuple(source.model_copy(update={"few": 20}) for source in sources)

        stages = [
            stage.model_copy(
                update={
                    "data": few(stage.data),
                    "validation": few(stage.validation),
                    "steps": None,
                    "epochs": 1,
                }
            )
            for stage in self.stage
        ]
        name, validation = f"{self.name}-smoke", few(self.validation)
        changed = {"name": name, "validation": validation, "stage": tuple(stages)}
        return self.model_copy(update=changed)

    @property
    def start_folder(self) -> Path | None:
        """Where stages without a parent begin; None for the base weights."""
        if self.start is None:
            return None
        name = self.start.removeprefix("zoo:")
        return ZOO / name if name != self.start else Path(name)

    @property
    def started(self) -> Self | None:
        """The recipe of the worker that this one trains on.

        Raises:
            RecipeError: no worker lies there, or one of other parts.
        """
        if (folder := self.start_folder) is None:
            return None
        if not (folder / "recipe.toml").is_file():
            raise RecipeError(f"recipe {self.name}: start: no exported worker in {folder}.")
        found = load_any_recipe(folder / "recipe.toml")
        if not isinstance(found, type(self)):
            raise RecipeError(f"recipe {self.name}: start: {self.start} is of another kind.")
        for part in self.parts:
            if getattr(found, part) != getattr(self, part):
                raise RecipeError(
                    f"recipe {self.name}: start: {self.start} has another {part}: copy "
                    f"[{part}] from {folder / 'recipe.toml'}."
                )
        return found

    @property
    def held_out(self) -> tuple[Source, ...]:
        """Everything that some stage is validated on."""
        return (*self.validation, *(each for stage in self.stage for each in stage.validation))

    @property
    def languages(self) -> tuple[str, ...]:
        """What the worker was taught to answer in."""
        last = self.stage[-1]
        return tuple(sorted({language for source in last.data for language in source.languages}))


class Recipe(Programme):
    """A worker of a tower, a connector and a language model."""

    parts = ("tower", "connector", "language")

    tower: TowerPart
    connector: dict[str, Any]
    language: LanguagePart

    @field_validator("connector")
    @classmethod
    def _is_finite(cls, settings: dict[str, Any]) -> dict[str, Any]:
        return _finite(settings)

    @model_validator(mode="after")
    def _language_learns_as_told(self) -> "Recipe":
        for stage in self.stage:
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


class MemoryRecipe(_Strict):
    """A worker that remembers: the tower that it looks with, and the cases that it keeps. Nothing
    of it trains; see models.serving.memory."""

    prompt: ClassVar[str] = "{question}"  # cases are found by their questions' own words
    max_images: ClassVar[int] = 1
    family: ClassVar[str] = "memory"

    name: str = Field(pattern=r"^[a-z0-9_-]+$")
    tower: TowerPart
    remembers: tuple[Source, ...] = Field(min_length=1)

    @field_validator("remembers")
    @classmethod
    def _as_they_are(cls, sources: tuple[Source, ...]) -> tuple[Source, ...]:
        if any(source.copies for source in sources):
            raise ValueError("copies: an image is remembered as it is; leave the key out")
        return sources

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
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the recipe"
        raise RecipeError(f"{path}: {key}: {first['msg']}.") from error


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


def _finite(settings: dict[str, Any]) -> dict[str, Any]:
    try:
        json.dumps(settings, allow_nan=False, default=str)
    except ValueError:
        raise ValueError("inf and nan are no settings: give finite numbers") from None
    return settings
