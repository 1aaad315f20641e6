"""What a person is told of a verdict in a sentence: how far it may not be relied on. The same words
in a chat, at the command line and in the archive. Pure functions."""

from typing import Protocol

from gateway.contract import Language

HARDLY = 0.05  # grounding below which a person is told
UNFAMILIAR: dict[Language, str] = {
    "en": "Unfamiliar case: {why}.",
    "es": "Caso desconocido: {why}.",
    "zh": "不熟悉的病例：{why}。",
}
UNTOLD: dict[Language, str] = {
    "en": "Whether this case is familiar is not known: {why}.",
    "es": "No se sabe si este caso es conocido: {why}.",
    "zh": "不知道该病例是否熟悉：{why}。",
}
UNGROUNDED: dict[Language, str] = {
    "en": "The same answer as without the image.",
    "es": "La misma respuesta que sin la imagen.",
    "zh": "没有图像时也是同样的回答。",
}


class Known(Protocol):
    @property
    def unfamiliar(self) -> bool: ...
    @property
    def why(self) -> str | None: ...


class Told(Protocol):
    """What is read of a verdict, the gateway's own or as its client has it."""

    @property
    def answer(self) -> str | None: ...
    @property
    def confidence(self) -> float | None: ...
    @property
    def familiarity(self) -> Known | None: ...
    @property
    def grounding(self) -> float | None: ...
    @property
    def language(self) -> Language: ...


def is_unfamiliar(verdict: Told) -> bool | None:
    """None: nobody tells."""
    known = verdict.familiarity
    if known is None or (known.why and not known.unfamiliar):
        return None
    return known.unfamiliar


def of_familiarity(verdict: Told) -> str | None:
    """Of an unfamiliar case; and where nobody tells whether it is one and a confidence is claimed
    all the same. It is to stand before the answer: who reads no further has read it."""
    known = verdict.familiarity
    if known is None or not known.why:
        return None
    if known.unfamiliar:
        return UNFAMILIAR[verdict.language].format(why=known.why)
    if verdict.confidence is None:
        return None  # nothing is claimed that it would put in doubt
    return UNTOLD[verdict.language].format(why=known.why)


def of_grounding(verdict: Told) -> str | None:
    """Of an answer that hardly depends on the image."""
    if verdict.answer is None or verdict.grounding is None or verdict.grounding >= HARDLY:
        return None
    return UNGROUNDED[verdict.language]
