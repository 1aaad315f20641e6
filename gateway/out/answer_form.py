"""`response_format` of a chat: the JSON object that the reply's text is to be, as far as a verdict
can fill it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gateway.contract import Verdict
from gateway.refusals import InvalidCase
from gateway.verdict.remarks import is_unfamiliar

FIGURES = ("agreement", "confidence", "grounding")  # null where they are not known
MAY_BE = {"answer": {"string"}, "unfamiliar": {"boolean", "null"}} | {
    name: {"number", "null"} for name in FIGURES
}
# What limits no figure, for each is of 0 to 1, and no answer, for each says something.
HOLDS: dict[str, Callable[[Any], bool]] = {
    "minimum": lambda least: least <= 0,
    "maximum": lambda most: most >= 1,
    "exclusiveMinimum": lambda below: below < 0,
    "exclusiveMaximum": lambda above: above > 1,
    "minLength": lambda least: least <= 1,
}
NOTES = {"title", "description", "default", "examples"}
# Of the object itself. What else would limit it is not looked at, and must not seem to hold.
ROOT = NOTES | {"$schema", "$id", "$defs", "type", "properties", "required", "additionalProperties"}
TEXT: tuple[Any, ...] = (None, {}, {"type": "text"})
HOW = (
    "response_format: an answer is plain text, or by a json_schema an object of `answer` (a "
    "string; its enum are the choices) and of agreement, confidence, grounding (number or null) "
    "and unfamiliar (boolean or null)."
)


@dataclass(frozen=True)
class Form:
    """`fields` in the order of the schema; `choices` are the answers that it allows, if it does."""

    fields: tuple[str, ...]
    choices: tuple[str, ...] | None

    def filled(self, verdict: Verdict) -> str:
        values: dict[str, Any] = {name: getattr(verdict, name) for name in ("answer", *FIGURES)}
        values["unfamiliar"] = is_unfamiliar(verdict)
        return json.dumps({name: values[name] for name in self.fields}, ensure_ascii=False)


def read(sent: Any) -> Form | None:
    """The form that is asked for; None for plain text. Raises InvalidCase for any other."""
    if sent in TEXT:
        return None
    try:
        schema = sent["json_schema"]["schema"]
        properties: dict[str, Any] = schema["properties"]
        kinds = {name: _kinds(each, schema) for name, each in properties.items()}
        choices = kinds["answer"][1]
        fits = sent["type"] == "json_schema" and schema.get("type", "object") == "object"
        fits &= schema.keys() <= ROOT and set(schema.get("required", ())) <= kinds.keys()
        for name, (types, texts) in kinds.items():
            fits &= MAY_BE[name] <= types and (texts is None or name == "answer")
    except (AttributeError, KeyError, TypeError):
        fits = False
    if not fits:
        raise InvalidCase(HOW)
    return Form(tuple(properties), choices)


def _kinds(schema: Any, whole: Any) -> tuple[set[str], tuple[str, ...] | None]:
    """The types that a property may have, and the texts that it may be.

    Raises AttributeError, KeyError or TypeError for one that is limited in another way.
    """
    if place := schema.get("$ref"):
        schema = whole["$defs"][place.removeprefix("#/$defs/")]
    found: set[str] = set()
    for part in schema.get("anyOf") or [schema]:
        known = NOTES | ({"type", "enum"} if part is schema else {"type"})
        if any(name not in known and not HOLDS[name](limit) for name, limit in part.items()):
            raise TypeError("limited")
        found |= {part["type"]} if isinstance(part["type"], str) else set(part["type"])
    texts = schema.get("enum")
    if texts is None:
        return found, None
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise TypeError("enum")
    return found, tuple(texts)
