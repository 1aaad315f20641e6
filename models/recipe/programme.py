"""What every recipe of a worker that trains says: its stages, and what they are scored on."""

from pathlib import Path
from typing import ClassVar, Self

from pydantic import Field, ValidationError, model_validator

from models import complaint
from models.exported import ZOO
from models.recipe.parts import Strict
from models.recipe.stage import Source, Stage, require_fold


class RecipeError(Exception):
    """A recipe that cannot be followed; one line that names the file, the key and the mend."""


class Programme(Strict):
    """What every recipe of a worker that trains says, whatever that is made of."""

    parts: ClassVar[tuple[str, ...]]  # the tables that say what it is made of

    name: str = Field(pattern=r"^[a-z0-9_-]+$")
    seed: int = Field(default=0, ge=0, lt=2**31)
    fold: int = Field(default=0, ge=0)  # which of a source's folds is held out
    start: str | None = None  # "zoo:NAME" or an exported worker's folder, that it trains on
    prompt: str  # what the worker is asked with; panel.toml repeats it
    max_images: int = Field(default=1, ge=1)  # of a case, in training and when served
    validation: tuple[Source, ...]
    stage: tuple[Stage, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        around = self.prompt.split("{question}")
        if any(brace in part for part in around for brace in "{}"):
            raise ValueError("prompt may hold no braces but {question}")
        if len(around) == 1:
            raise ValueError("prompt must hold {question}")
        seen: set[str] = set()
        for stage in self.stage:
            if stage.parent is not None and stage.parent not in seen:
                raise ValueError(f"stage {stage.name}: parent {stage.parent!r} is no earlier stage")
            if stage.name in seen:
                raise ValueError(f"two stages are called {stage.name!r}")
            seen.add(stage.name)
            if stage.shard and self.four_bit:
                raise ValueError(
                    f"stage {stage.name}: shard: weights in four bits are not shared out: leave "
                    "one of the two out"
                )
            if not (stage.validation or self.validation):
                raise ValueError(
                    f"stage {stage.name}: validation is empty: name what it is scored on, such as "
                    '[{ set = "slake", split = "validate", languages = ["en"] }]'
                )
        learned = (source for stage in self.stage for source in stage.data)
        require_fold(self.fold, (*self.held_out, *learned))
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
            told = complaint.first_of(error.errors())
            raise RecipeError(f"recipe {self.name}: {told}.") from error

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
    def four_bit(self) -> bool:
        """Are its base weights in four bits while an adapter trains?"""
        raise NotImplementedError

    @property
    def start_folder(self) -> Path | None:
        """Where stages without a parent begin; None for the base weights."""
        if self.start is None:
            return None
        name = self.start.removeprefix("zoo:")
        return ZOO / name if name != self.start else Path(name)

    @property
    def held_out(self) -> tuple[Source, ...]:
        """Everything that some stage is validated on."""
        return (*self.validation, *(each for stage in self.stage for each in stage.validation))

    @property
    def languages(self) -> tuple[str, ...]:
        """What the worker was taught to answer in."""
        last = self.stage[-1]
        return tuple(sorted({language for source in last.data for language in source.languages}))
