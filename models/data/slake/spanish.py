"""SLAKE in Spanish: its English questions and answers by the phrasebook `spanish.toml`."""

import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from models.data.example import DataError

PHRASEBOOK = Path(__file__).with_name("spanish.toml")
SLOTS = {"a": "terms", "b": "terms", "c": "terms", "s": "systems", "p": "spots", "w": "powers"}
SLOT = re.compile(r"\{([a-z])(:bare)?\}")


def question(english: str) -> str:
    """The Spanish question.

    Raises:
        DataError: the phrasebook has no such question.
    """
    asked = _spelled(english)
    for form, spanish in _forms():
        if found := form.fullmatch(asked):
            return _contracted(SLOT.sub(lambda slot: _term(slot, found), spanish))
    raise DataError(f"{PHRASEBOOK.name} has no {asked!r}: add it under [questions].")


def answer(english: str) -> str:
    """The Spanish answer; a number, and none at all, stay as they are.

    Raises:
        DataError: the phrasebook has no such answer.
    """
    said = " ".join(english.split())
    if not said or said.isdecimal():
        return said
    try:
        return str(_phrasebook()["answers"][said.lower()])
    except KeyError:
        raise DataError(f"{PHRASEBOOK.name} has no {said!r}: add it under [answers].") from None


def _spelled(english: str) -> str:
    """One spelling: lower case, single blanks, one behind each comma, no question mark."""
    words = re.sub(r"\s*,\s*", ", ", english.lower().replace("?", " "))
    return " ".join(words.split())


@cache
def _phrasebook() -> dict[str, dict[str, Any]]:
    return tomllib.loads(PHRASEBOOK.read_text("utf-8"))


@cache
def _forms() -> list[tuple[re.Pattern[str], str]]:
    """Every question as a pattern, those without a slot first: they are the more particular."""
    book = _phrasebook()
    forms = []
    for english, spanish in sorted(book["questions"].items(), key=lambda each: "{" in each[0]):
        pattern = ""
        for part in re.split(r"(\{[a-z]\})", english):
            slot = SLOT.fullmatch(part)
            if slot is None:
                pattern += re.escape(part)
                continue
            known = sorted(book[SLOTS[slot[1]]], key=len, reverse=True)
            pattern += f"(?P<{slot[1]}>{'|'.join(map(re.escape, known))})"
        forms.append((re.compile(pattern), spanish))
    return forms


def _term(slot: re.Match[str], found: re.Match[str]) -> str:
    term = str(_phrasebook()[SLOTS[slot[1]]][found[slot[1]]])
    return term.partition(" ")[2] if slot[2] else term


def _contracted(spanish: str) -> str:
    return re.sub(r"\b(de|a) el\b", lambda found: f"{found[1]}l", spanish)
