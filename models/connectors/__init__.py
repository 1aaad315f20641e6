"""Connectors: patch features of a vision tower → token embeddings of a language model.

One file each. A connector sees images and positions, never the question. It is a `nn.Module` with
- `Config`: a dataclass of its settings (the recipe's `[connector]` without `name`);
- `num_tokens(patches, images)`: how many token embeddings it makes of that many images;
- `forward(features [b, patches, vision_dim], positions [patches, 2]) → [b, tokens, text_dim]`.

One that says `stacks = True` takes all images of a case at once: `forward(features [b, images,
patches, vision_dim], positions [images, patches, 3]) → [b, tokens, text_dim]`.

The trainer and the vLLM plugin build the same class through `build`.
"""

import importlib
import pkgutil
from dataclasses import fields
from typing import Any, Protocol, cast

from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn


class Connector(Protocol):
    def num_tokens(self, patches: int, images: int = 1) -> int: ...
    def forward(self, features: Tensor, positions: Tensor) -> Tensor: ...


def names() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def build(settings: dict[str, Any], vision_dim: int, text_dim: int) -> nn.Module:
    """The connector that `settings["name"]` names, freshly initialised.

    Raises:
        ValueError: no such connector, a setting that it does not have, or a wrong value of one.
    """
    settings = dict(settings)
    name = settings.pop("name", None)
    if name not in names():
        raise ValueError(f"Unknown connector {name!r}. Available: {', '.join(names())}.")
    module = importlib.import_module(f"{__name__}.{name}")
    known = [field.name for field in fields(module.Config)]
    if unknown := set(settings) - set(known):
        raise ValueError(
            f"Connector {name!r} has no setting {', '.join(sorted(unknown))}. "
            f"It has: {', '.join(known)}."
        )
    try:
        config = TypeAdapter(module.Config).validate_python(settings)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{name}: {first['loc'][-1]}: {first['msg']}") from error
    return cast(nn.Module, module.Connector(config, vision_dim, text_dim))
