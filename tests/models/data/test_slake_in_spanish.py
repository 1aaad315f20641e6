"""SLAKE's questions and answers in Spanish: every one has its phrase, and the phrase is Spanish."""

import re
import tomllib
from pathlib import Path

import pytest

from models.data import slake
from models.data.example import DataError
from models.data.slake import spanish as in_spanish


@pytest.mark.parametrize(
    ("english", "spanish"),
    [
        ("Does the picture contain liver?", "¿Se puede ver el hígado en la imagen?"),
        ("Is  the lung healthy", "¿Es saludable el estado del pulmón?"),
        (
            "Which is the biggest in this image,lung,liver or heart?",
            "¿Qué es lo más grande en esta imagen, el pulmón, el hígado o el corazón?",
        ),
        (
            "Can pneumonia be observed on the lower left lung in this picture?",
            "¿Se observa neumonía en el pulmón inferior izquierdo en esta imagen?",
        ),
        ("Do the organs in the image exist in the head?", "¿Están los órganos de la imagen en la "),
    ],
)
def test_a_question_is_put_in_spanish(english: str, spanish: str) -> None:
    """However it is spaced, and with Spanish's contractions."""
    assert in_spanish.question(english).startswith(spanish)


@pytest.mark.parametrize(
    ("english", "spanish"),
    [
        ("Yes", "Sí"),
        ("2", "2"),
        ("right lung", "Pulmón derecho"),
        ("Transverse  Plane", "Plano tran"),
    ],
)
def test_an_answer_is_put_in_spanish(english: str, spanish: str) -> None:
    assert in_spanish.answer(english).startswith(spanish)


@pytest.mark.parametrize("read", [in_spanish.question, in_spanish.answer])
def test_what_the_phrasebook_does_not_have_is_named(read) -> None:
    """Half English would teach a worker half English."""
    with pytest.raises(DataError, match=r"spanish\.toml has no 'who is it'"):
        read("who is it")


@pytest.mark.parametrize("split", slake.SPLITS)
def test_the_whole_of_slake_is_in_spanish(dataset: Path, split: str) -> None:
    """The same cases under names of their own; a side or a number is never another one."""
    english = slake.load(dataset / "slake", split, "en")
    spanish = slake.load(dataset / "slake", split, "es")

    assert {example.id for example in english}.isdisjoint(example.id for example in spanish)
    sides = {"left": "izquierd", "right": "derech", "upper": "arriba|superior", "t1": "t1"}
    for ours, theirs in zip(spanish, english, strict=True):
        assert (ours.language, ours.images, ours.closed) == ("es", theirs.images, theirs.closed)
        for said, original in ((ours.question, theirs.question), (ours.answer, theirs.answer)):
            words = re.findall(r"\w+", original.lower())
            for word in sides.keys() & set(words):
                assert re.search(sides[word], said.lower()), (original, said)
            assert re.findall(r"\d", said) == re.findall(r"\d", original)


def test_different_answers_stay_different() -> None:
    """Bar misspellings of SLAKE's own, and names of one thing."""
    answers = tomllib.loads(in_spanish.PHRASEBOOK.read_text("utf-8"))["answers"]
    found: dict[str, list[str]] = {}
    for english, spanish in answers.items():
        found.setdefault(spanish, []).append(english)

    assert sorted(same for same in found.values() if len(same) > 1) == [
        ["both lung", "both lungs"],
        ["brain", "barin"],
        ["brain edema", "brian edema"],
        ["cardiomegaly", "cardiomegal", "cardiomega"],
        ["nodule", "noudle"],
        ["right lung, upper left", "right lung,upper left"],
        ["top", "upper"],
    ]
