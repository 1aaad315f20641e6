"""What trains in a stage of a recipe, on what data, for how long."""

from collections.abc import Iterable
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from models.data.datasets import require_set
from models.data.example import DataError
from models.recipe.parts import Strict


class Lora(Strict):
    rank: int = Field(default=16, ge=1)
    alpha: int = Field(default=32, ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)


class Grpo(Strict):
    """How a stage learns by reward: see models.training.learning.grpo."""

    group: int = Field(default=8, ge=2)  # answers that are sampled to each question
    max_tokens: int = Field(default=16, ge=1)  # of an answer
    updates: int = Field(default=1, ge=1)  # of the weights, from the same answers
    clip: float = Field(default=0.2, gt=0, lt=1)
    kl: float = Field(default=0.04, ge=0)  # weight of the divergence from where the stage began


class Source(Strict):
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


def require_fold(fold: int, sources: Iterable[Source]) -> None:
    """Raises ValueError where one of the sources is in fewer folds."""
    for source in sources:
        if source.folds is not None and fold >= source.folds:
            raise ValueError(f"fold {fold} of {source.folds}: they are counted from 0")


class Stage(Strict):
    """What a stage of either kind says."""

    name: str = Field(pattern=r"^[a-z0-9_-]+$")
    parent: str | None = None  # the stage whose last checkpoint it starts from
    data: tuple[Source, ...] = Field(min_length=1)
    validation: tuple[Source, ...] = ()  # where it is not the recipe's
    augment: bool = False  # images are shifted, turned, scaled, dimmed a little, anew each time
    weight_decay: float = Field(default=0.01, ge=0)
    # What is validated and kept is the weights' exponential moving average.
    average: float = Field(default=0.0, ge=0, lt=1)
    epochs: int = Field(ge=1)
    steps: int | None = Field(default=None, ge=1)  # it ends after so many, if not before
    rows_per_step: int = Field(default=4, ge=1)  # a row is an image with its questions
    accumulate: int = Field(default=1, ge=1)  # parts of a step that are in memory one by one
    checkpoint_activations: bool = False  # slower, in less memory: layers are computed twice
    shard: bool = False  # of several accelerators each keeps its share of the weights (FSDP)
    warmup_steps: int = Field(default=40, ge=1)
    optimiser: Literal["adamw", "adamw_8bit"] = "adamw"  # the latter's moments are in eight bits

    @model_validator(mode="after")
    def _is_shared_out_in_full(self) -> Self:
        if self.shard and self.optimiser == "adamw_8bit":
            raise ValueError(
                'shard: moments of eight bits are not shared out: take optimiser = "adamw", whose '
                "are, or leave shard out"
            )
        return self


class PartsStage(Stage):
    """Of a worker of a tower, a connector and a language model."""

    method: Literal["supervised", "grpo"] = "supervised"
    grpo: Grpo | None = None
    tower: Literal["frozen", "lora", "full"] = "frozen"
    connector: Literal["frozen", "full"]
    language: Literal["frozen", "full", "lora", "prefix", "p_tuning", "prompt"]
    lora: Lora | None = None  # of the language model
    tower_lora: Lora | None = None
    virtual_tokens: int = Field(default=16, ge=1)  # of prefix, p_tuning and prompt
    word_dropout: float = Field(default=0.0, ge=0, lt=1)  # of a question's words, made unknown
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)  # of an answer, not of its end
    questions_per_row: int = Field(default=16, ge=1)  # at most
    tower_lr: float = Field(default=1e-4, gt=0)
    connector_lr: float = Field(default=1e-3, gt=0)
    gate_lr: float = Field(default=1e-2, gt=0)  # of a connector's gates, which start at zero
    language_lr: float = Field(default=6e-4, gt=0)
    cache_features: bool = True  # of a tower that keeps still; else it runs in every step
    reconstruction: float = Field(default=0.0, ge=0)  # λ of the reconstruction regulariser

    @model_validator(mode="after")
    def _something_trains(self) -> "PartsStage":
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


class WholeStage(Stage):
    """Of a model that is taken whole: the linear layers of its language model learn a LoRA, where
    it says so those of its tower too, and a row is one question."""

    tower: Literal["frozen", "lora"] = "frozen"
    lora: Lora = Lora()
    language_lr: float = Field(default=2e-4, gt=0)

    @model_validator(mode="before")
    @classmethod
    def _names_no_parts(cls, content: Any) -> Any:
        of_parts = PartsStage.model_fields.keys() - cls.model_fields.keys()
        if isinstance(content, dict) and (given := sorted(of_parts & content.keys())):
            raise ValueError(
                f"{', '.join(given)}: not of a model that is taken whole, whose language model "
                "learns by [stage.lora]; leave it out"
            )
        return content
