"""What a worker is made of, as a recipe says it."""

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

MADE_IMAGE_TOKEN = "<image>"  # of every language model that is made here

ImageAttention = Literal["causal", "bidirectional"]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TowerPart(Strict):
    name: str  # a convolutional network of timm, or a vision transformer
    weights: str  # a reference of models.assets, or "timm"
    image_size: int = Field(default=224, ge=32, le=1024)
    strides: tuple[int, ...] = ()  # of the layers that are taken; empty for the last one alone


class MadeLanguage(Strict):
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


class LanguagePart(Strict):
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


class WorkerPart(Strict):
    """A vision-language model of transformers, taken whole: see models.parts.whole."""

    model: str  # a hub id, or a folder in Hugging Face layout
    family: str  # workers of one family err together
    four_bit: bool = False  # as of LanguagePart
    processor: dict[str, Any] = {}  # its settings, where other than its publisher's

    @field_validator("processor")
    @classmethod
    def _is_finite(cls, settings: dict[str, Any]) -> dict[str, Any]:
        return finite(settings)


def finite(settings: dict[str, Any]) -> dict[str, Any]:
    try:
        json.dumps(settings, allow_nan=False, default=str)
    except ValueError:
        raise ValueError("inf and nan are no settings: give finite numbers") from None
    return settings
