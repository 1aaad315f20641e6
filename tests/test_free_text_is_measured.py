"""`benchmarks.accuracy.free_text` makes a panel of some doctors and holds it against the others."""

from benchmarks.accuracy.free_text import STYLES, backing, drawn, texts
from models.data.example import Example
from models.metrics.delta_bleu import Reference

SAID = ("Psoriasis, consider tinea", "tinea", "eczema of long standing", "Tinea?", "tinea")
CASE = Example(
    id="ENC1",
    images=(),
    question="What is this?",
    answer=SAID[0],
    alternatives=SAID[1:],
    weights=(0.6, 0.7, 0.8, 0.9, 1.0),
    language="en",
    closed=False,
)


def test_no_doctor_is_on_both_sides_and_each_keeps_his_weight():
    panel, others = drawn(CASE, 3, seed=0)
    assert len(panel) == 3 and sorted([*panel, *(each.text for each in others)]) == sorted(SAID)
    assert all((each.text, each.weight) in zip(SAID, CASE.weights, strict=True) for each in others)
    assert drawn(CASE, 3, seed=0) == (panel, others)


def test_the_panel_speaks_in_each_style_beside_what_one_might_do_instead():
    references = [Reference("eczema of long standing"), Reference("tinea")]
    said = texts(CASE.question, SAID[:3], references, "en")
    assert said["answer"] == "tinea" and said["first"] == SAID[0]
    assert said["longest"] == SAID[0] and said["best of them"] in (SAID[1], SAID[2])
    assert said["all in a row"] == " ".join(SAID[:3])
    assert said["sentence"].startswith("The panel's answer is “tinea”, said by 2 of 3")
    assert said["differential"].count("\n") == 2 and set(STYLES) <= said.keys()


def test_a_text_is_backed_by_the_others_who_claim_what_it_claims_first():
    others = [Reference(each) for each in SAID]
    assert backing("Tinea", CASE.question, "en", others) == 4 / 5
    assert backing(SAID[0], CASE.question, "en", others) == 1 / 5
