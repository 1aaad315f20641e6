"""Cases of several images, drawn from SLAKE: which image a question means, and that all count."""

import re
from pathlib import Path

import pytest

from models.data import slake
from models.data.example import DataError, Example
from models.data.slake import several
from tests.tiny import draw_abdomens

WORDS = ("1 first primera 一", "2 second segunda 二", "3 third tercera 三", "4 fourth cuarta 四")
NUMBERS = {word: number for number, words in enumerate(WORDS) for word in words.split()}
PLACE = re.compile(
    r"^(Image|Imagen|In the|En la|图|第)\s?(\w+?)(?: image| imagen|张图像中)?[:：] ?"
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return draw_abdomens(tmp_path)


def of(data: Path, split: str = "train", language: str = "en") -> list[Example]:
    return several.load(data / "slake_several", split, language)


@pytest.mark.parametrize("language", several.LANGUAGES)
def test_a_question_means_the_image_that_it_names(dataset: Path, language: str) -> None:
    """Or all of them, and then they have one answer."""
    said = {
        (example.images[0], example.question): example.answer
        for example in slake.load(dataset / "slake", "test", language)
    }
    for example in of(dataset, "test", language):
        assert 2 <= len(example.images) <= 4
        if named := PLACE.match(example.question):
            meant = [example.images[NUMBERS[named[2]]]]
        else:
            meant = list(example.images)
        question = PLACE.sub("", example.question)
        assert {said[image, question] for image in meant} == {example.answer}


def test_cases_are_the_same_again_and_of_one_split(data: Path) -> None:
    examples = of(data)

    assert examples == of(data)
    assert len({example.id for example in examples}) == len(examples) >= 4
    held_out = {image for example in of(data, "validate") for image in example.images}
    assert held_out.isdisjoint(image for example in examples for image in example.images)


def test_another_language_is_refused(data: Path) -> None:
    with pytest.raises(DataError, match="asked about in en, zh, es"):
        of(data, language="fr")
