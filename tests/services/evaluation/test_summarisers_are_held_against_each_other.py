"""benchmarks.accuracy.wordings: what leaves where a reply is taken and where it is not."""

from pathlib import Path

import pytest

from benchmarks.accuracy.wordings import difference, judged
from gateway.verdict.competence import Cell
from gateway.verdict.text.meaning import meaning
from gateway.verdict.weigh import Cluster, Opinion
from models.data.example import Example
from services.evaluation.heard import Heard
from services.evaluation.learning.lessons import Lesson


def lesson_on(winner: str, image: str) -> Lesson:
    """A dispute that `winner` won; the liver is right."""
    clusters = (Cluster(winner, meaning(winner), ("w0",), 1, 1),)
    example = Example(image, (Path(image),), "Which organ?", "Liver", "en", False)
    case = Heard(example, Cell("en", None, None), ())
    return Lesson([], False, winner, case, Opinion((), clusters, None, None))


def test_what_is_not_taken_leaves_the_vote() -> None:
    lessons = [lesson_on("Liver", "a"), lesson_on("Lung", "b"), lesson_on("Lung", "c")]
    liver, lung, cut_off = ("Liver", True), ("the lung", True), ("Liver", False)

    found = judged([[liver, liver, lung], [lung, lung, cut_off]], lessons)

    assert found.taken.tolist() == [[1, 0, 1], [0, 1, 0]]
    # The liver is right where it won, whatever the summariser said of it, and nowhere else.
    assert found.right.tolist() == [[1, 0, 0], [1, 0, 0]]
    assert found.words.tolist() == [[1, 1, 2], [2, 2, 1]]


def test_a_difference_is_that_of_the_same_cases_and_told_by_seed() -> None:
    lessons = [lesson_on("Liver", image) for image in "abcd"]
    good, bad = ("Liver", True), ("Lung", True)
    prompted = judged([[good, bad, bad, bad]], lessons)
    trained = judged([[good, good, bad, bad], [good, good, good, good]], lessons)

    told = difference(trained, prompted, [lesson.case.example.group for lesson in lessons])

    assert told.startswith("taken +50.0 (")
    assert "by seed +25.0, +75.0)  right +0.0 (+0.0 to +0.0" in told


@pytest.mark.parametrize("said", ["Liver", "liver."])
def test_a_taken_reply_that_is_spelled_as_the_reference_is_right(said: str) -> None:
    assert judged([[(said, True)]], [lesson_on("the liver", "a")]).right.tolist() == [[1]]
