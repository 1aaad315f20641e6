"""Answers that mean the same count together; nothing that could matter is ever merged."""

import pytest

from gateway.verdict.meaning import NO, NUMBERS, SYNONYMS, YES, meaning


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Yes", "yes."),
        (" left  lung ", "Left lung"),
        ("右肺。", "右肺"),
        ("right lung, left lung", "left lung,right lung"),
        ("肝脏、肾脏", "肾脏，肝脏"),
        ("ＣＴ", "ct"),
        ("X-Ray", "x ray"),
        ("Radiograph", "X-ray."),
        ("核磁共振", "MRI"),
        ("Magnetic resonance imaging", "MR"),
        ("Axial", "Transverse Plane"),
        ("two", "2"),
        ("Two kidneys", "2 kidneys"),
        ("两", "2"),
        ("Yes, it is", "yes"),
        ("No, there isn't.", "no"),
        ("没有", "不是"),
        ("Sí", "si"),
        ("The left lung", "left lung"),
        ("T1-weighted", "T1"),
    ],
)
def test_spelling_list_order_and_synonyms_do_not_part_answers(one, other):
    assert meaning(one) == meaning(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("yes", "yes, left"),
        ("no", "not seen"),
        ("no", "no effusion"),
        ("left lung", "lung left"),
        ("left lung", "right lung"),
        ("左肺", "右肺"),
        ("1.5", "15"),
        ("-5", "5"),
        ("1-2", "1 2"),
        ("2", "3"),
        ("two lungs", "three lungs"),
        ("hepatitis A", "hepatitis"),
        ("hepatitis A", "hepatitis B"),
        ("enhancing", "non-enhancing"),
        ("hypodense", "hyperdense"),
        ("T1", "T2"),
        ("ct of the chest", "ct"),
        ("none", "no"),
        ("正常", "不正常"),
        ("包含", "不包含"),
    ],
)
def test_what_may_differ_in_meaning_stays_apart(one, other):
    assert meaning(one) != meaning(other)


SIDES = {"left": "right", "izquierdo": "derecho", "左": "右", "upper": "lower", "上": "下"}
AROUND = [
    "{} lung",
    "the {} kidney, liver",
    "yes, {}",
    "{}",
    "{} lobe of {} lung, 2",
    "{}肺",
    "no, {}",
]


@pytest.mark.parametrize("around", AROUND)
def test_sides_and_numbers_always_tell_answers_apart(around):
    for one, other in SIDES.items():
        assert meaning(around.format(one, one)) != meaning(around.format(other, one))
    for one in range(11):
        for other in range(one):
            assert meaning(around.format(one, one)) != meaning(around.format(other, one))


def test_every_phrase_has_one_meaning_and_is_found():
    """As the table has it: lower case, no hyphens, nothing that another rule would change first."""
    assert not YES & NO
    for phrase, name in SYNONYMS.items():
        assert meaning(phrase) == (name,), phrase
        assert phrase not in YES | NO | NUMBERS.keys()
    for words, said in ((YES, "yes"), (NO, "no")):
        assert {meaning(word) for word in words} == {(said,)}


@pytest.mark.parametrize("nothing", ["", " . ", ",", "。", "，、"])
def test_nothing_means_nothing(nothing):
    assert meaning(nothing) == ()
