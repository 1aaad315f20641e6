"""A worker's grounding is how far what it says is from what it says over a grey picture."""

import pytest

from gateway.contract import Alternative, Answer
from gateway.verdict.grounding import grounding, shift
from gateway.verdict.remarks import of_grounding
from tests.fake_gateway import VERDICT

WHERE = "Which lung is abnormal?"


def said(text: str, confidence: float | None, *others: tuple[str, bool, float]) -> Answer:
    """`others`: how another answer begins, whether that is all of it, its probability."""
    told = (Alternative(begins=b, whole=w, probability=p) for b, w, p in others)
    return Answer(
        worker="w0", text=text, confidence=confidence, alternatives=tuple(told), seconds=0
    )


@pytest.mark.parametrize(
    ("shown", "grey", "distance"),
    [
        (said("CT", 0.9), said("CT", 0.9), 0),
        (said("CT", 0.9), said("MRI", 0.9), 0.9),
        (said("CT", 0.9), said("Computed tomography.", 0.9), 0),  # they mean the same
        (said("CT", 0.9), said("CT", 0.6), 0.3),
        (said("CT", None), said("CT", None), 0),  # a server that tells no confidence
        (said("CT", None), said("MRI", None), 1),
        # The other answer was near here, and this one there.
        (said("CT", 0.6, ("MRI", True, 0.4)), said("MRI", 0.5, ("ct", True, 0.5)), 0.1),
        # Of each only the first word is known where the other one won.
        (said("Left lung", 0.6, ("Ri", False, 0.4)), said("Right lung", 1, ("Le", False, 0)), 0.6),
        (said("Left lung", 0.6, ("r", False, 0.4)), said("Right", 0.5, ("Left", False, 0.5)), 0.1),
        # A beginning is the same on both sides; or it is no more than itself.
        (said("Left", 0.6, ("Bo", False, 0.4)), said("Left", 0.6, ("bo", False, 0.4)), 0),
        (said("Left", 0.6, ("Bo", False, 0.4)), said("Left", 0.6, ("Up", False, 0.4)), 0.4),
        # However long its tail of unlikely ones is, that is one.
        (said("4", 0.9, *[(f"{n}", True, 0.01) for n in range(9)]), said("4", 0.9), 0),
    ],
)
def test_it_is_the_distance_of_two_distributions(shown, grey, distance):
    """0 where they are the same, 1 where nothing is common; which is which does not matter."""
    assert shift(shown, grey, "en", WHERE) == pytest.approx(distance)
    assert shift(grey, shown, "en", WHERE) == pytest.approx(distance)


def test_a_verdicts_is_the_mean_of_its_workers():
    blind, sees = said("CT", 1), said("MRI", 1)
    assert grounding([(blind, blind), (sees, blind)], "en", WHERE) == 0.5
    assert grounding([], "en", WHERE) is None


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"grounding": 0.02}, "The same answer as without the image."),
        ({"grounding": 0.02, "language": "es"}, "La misma respuesta que sin la imagen."),
        ({"grounding": 0.02, "language": "zh"}, "没有图像时也是同样的回答。"),
        ({"grounding": 0.05}, None),
        ({"grounding": None}, None),
        ({"grounding": 0.02, "answer": None}, None),  # it abstained
    ],
)
def test_a_person_is_told_of_an_answer_that_hardly_depends_on_it(changes, told):
    assert of_grounding(VERDICT.model_copy(update=changes)) == told
