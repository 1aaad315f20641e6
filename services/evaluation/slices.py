"""The parts of a set in which a panel may be better or worse."""

from collections import defaultdict
from collections.abc import Callable, Iterable

from models.data.example import Example

# What questions are told apart by; None where that is not known.
SLICES: dict[str, Callable[[Example], str | None]] = {
    "form": lambda example: "closed" if example.closed else "open",
    "language": lambda example: example.language,
    "modality": lambda example: example.modality,
    "organ": lambda example: example.organ,
    "kind of question": lambda example: example.kind,
}


def sliced(examples: Iterable[Example]) -> dict[str, dict[str, list[Example]]]:
    """By what tells them apart, and then by its value, the most frequent first."""
    found: dict[str, dict[str, list[Example]]] = {}
    for by, what in SLICES.items():
        parts: dict[str, list[Example]] = defaultdict(list)
        for example in examples:
            if (value := what(example)) is not None:
                parts[value].append(example)
        found[by] = dict(sorted(parts.items(), key=lambda part: -len(part[1])))
    return found
