"""Connectors: patch features of a vision tower → token embeddings of a language model.

One file each. A connector sees images and positions, never the question. It is a `nn.Module` with
- `Config`: a dataclass of its settings (the recipe's `[connector]` without `name`);
- `num_tokens(patches, images)`: how many token embeddings it makes of that many images;
- `forward(features [b, patches, vision_dim], positions [patches, 2]) → [b, tokens, text_dim]`.

One that says `stacks = True` takes all images of a case at once: `forward(features [b, images,
patches, vision_dim], positions [images, patches, 3]) → [b, tokens, text_dim]`. Where it also says
`by_geometry = True`, positions are those that a case's cameras or headers tell, if they do.

Two kinds go further: they train and answer under transformers only, and their `WHY_NOT_SERVED` says
what vLLM has no place for. What `forward` makes is then not yet, or never, a part of the prompt.
- One with `fuse(tokens [b, n, text_dim], question [b, length, text_dim]) → [b, n, text_dim]` reads
  the question: its images' tokens are those that `fuse` makes of them.
- One with `before_layers`, modules that stand before layers of the language model, lets the text
  look: each is `(hidden [b, length, text_dim], tokens [b, n, text_dim], there [b, n]) → hidden`,
  where `there` is False for padding. It treats each token of the text alone.

The trainer and the vLLM plugin build the same class through `build`.
"""

import importlib
import pkgutil
from dataclasses import fields
from typing import Any, Protocol, cast

from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from models import complaint


class Connector(Protocol):
    def num_tokens(self, patches: int, images: int = 1) -> int: ...
    def forward(self, features: Tensor, positions: Tensor) -> Tensor: ...


def names() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def why_not_served(name: str | None) -> str | None:
    """What of connector `name` vLLM has no place for; None where it has.

    Raises:
        ValueError: no such connector.
    """
    return getattr(_module(name), "WHY_NOT_SERVED", None)


def reads_question(name: str) -> bool:
    """Whether its images' tokens are made anew for every question, which then stands alone."""
    return hasattr(_module(name).Connector, "fuse")


def build(settings: dict[str, Any], vision_dim: int, text_dim: int) -> nn.Module:
    """The connector that `settings["name"]` names, freshly initialised.

    Raises:
        ValueError: no such connector, a setting that it does not have, or a wrong value of one.
    """
    settings = dict(settings)
    name = settings.pop("name", None)
    module = _module(name)
    known = [field.name for field in fields(module.Config)]
    if unknown := set(settings) - set(known):
        raise ValueError(
            f"Connector {name!r} has no setting {', '.join(sorted(unknown))}. "
            f"It has: {', '.join(known)}"
        )
    try:
        config = TypeAdapter(module.Config).validate_python(settings)
    except ValidationError as error:
        raise ValueError(f"{name}: {complaint.first_of(error.errors())}") from error
    return cast(nn.Module, module.Connector(config, vision_dim, text_dim))


def build_plain(settings: dict[str, Any], vision_dim: int, text_dim: int) -> nn.Module:
    """As `build`, for a part of another connector: one that takes images one by one, and is served.

    Raises:
        ValueError: as `build`, or another kind of connector.
    """
    part = build(settings, vision_dim, text_dim)
    name = settings["name"]
    if why_not_served(name) or getattr(part, "stacks", False):
        raise ValueError(
            f"{name!r} cannot be a part of another connector: take one that reads images one by "
            "one and is served"
        )
    return part


def _module(name: object) -> Any:
    if name not in names():
        raise ValueError(f"Unknown connector {name!r}. Available: {', '.join(names())}")
    return importlib.import_module(f"{__name__}.{name}")
