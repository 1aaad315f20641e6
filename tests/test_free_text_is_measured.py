"""`benchmarks.accuracy.free_text` makes a panel of some doctors and holds it against the others;
`disputes` reads what such a panel says for what nobody said."""

import pytest

from benchmarks.accuracy.disputes import unsupported
from benchmarks.accuracy.free_text import (
    LANGUAGES,
    STYLES,
    TOGETHER,
    backing,
    consolidated,
    drawn,
    opinion_of,
    texts,
    together,
)
from gateway.verdict.styles import styled
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


def test_a_models_consensus_is_given_the_question_and_every_answer_on_its_own_line():
    prompt = together("What\nis it?", ["tinea,\nI think", "eczema"], "en")
    assert "What is it?" in prompt and "- tinea, I think\n- eczema\n" in prompt
    assert all("{" not in together("q", SAID, language) for language in TOGETHER)


def test_a_model_consolidates_each_encounter(vllm):
    model = vllm(lambda body: body["messages"][0]["content"].splitlines()[0] + " ")
    panels = {id: (f"{id}?", list(SAID)) for id in ("ENC1", "ENC2")}
    said = consolidated(panels, "en", model.url)
    assert said == {id: f"A patient asks: {id}?" for id in panels}
    assert {body["temperature"] for body in model.requests} == {0}


# What the reader is given: one doctor more, who denies and doubts.
SEEN = (*SAID, "No scabies, vasculitis cannot be ruled out; lupus unlikely")
QUOTE = "The panel's answer is “{}”, said by {} of 6; also said: “psoriasis” (1)."


@pytest.mark.parametrize(
    ("style", "text", "fails"),
    [
        ("answer", "Tinea", False),
        ("answer", "the tinea.", False),
        ("answer", "tinea corporis", True),
        ("answer", "long standing eczema", True),
        ("answer", "psoriasis of long standing", True),  # the words of two doctors
        ("answer", "scabies", True),  # its denial is dropped
        ("answer", "no scabies", False),
        ("answer", "lupus", True),
        ("answer", "vasculitis", False),
        ("sentence", QUOTE.format("tinea", 4), False),
        ("sentence", QUOTE.format("eczema of long standing", 1), False),
        ("sentence", QUOTE.format("eczema of long stan…", 1), False),
        ("sentence", QUOTE.format("eczema of long stan…?", 1), False),
        ("sentence", QUOTE.format("acute eczema", 1), True),
        ("sentence", QUOTE.format("tinea", 4).replace("also", "wrongly"), True),
        ("sentence", QUOTE.format("tinea", 4).replace("said by", "not said by"), True),
        ("sentence", QUOTE.format("tinea", 2), True),  # three say just that
        ("sentence", QUOTE.format("tinea", 5), True),  # four have a word of it
        ("sentence", QUOTE.format("tinea", 4).replace("(1)", "(0)"), True),
        ("sentence", QUOTE.format("tinea", 4).replace("of 6", "of 5"), True),
        ("sentence", QUOTE.format("tinea", 4).replace(" (1)", ""), True),
        ("differential", "1. “tinea” (3 of 6: doctor-2, doctor-4, doctor-5)", False),
        ("differential", "1. “tinea” (3 of 6: doctor-2, doctor-4)", True),
        ("differential", "1. “tinea” (3 of 6: doctor-2, doctor-3, doctor-4)", True),
        ("differential", "1. “psoriasis” (1 of 6: doctor-1)\n2. “tinea” (1 of 6: doctor-2)", True),
        ("differential", "1. “psoriasis” (1 of 6: doctor-1) is right", True),
    ],
)
def test_the_reader_of_disputes_finds_what_nobody_said(style, text, fails):
    assert bool(unsupported(text, SEEN, "en", style)) is fails


def test_the_reader_of_disputes_takes_no_accent_for_another_word():
    seen = ["Vitíligo", "¿Vitiligo?", "Tiña"]
    told = "La respuesta del panel es “Vitíligo”, dicha por {} de 3; también se dijo “Tiña” (1)."
    assert not unsupported(told.format(2), seen, "es", "sentence")
    assert unsupported(told.format(1), seen, "es", "sentence")


@pytest.mark.parametrize(
    ("language", "answer", "piece", "says_it"),
    [
        ("es", "No es tiña. Eccema crónico", "tiña", False),
        ("es", "No es tiña. Eccema crónico", "eccema crónico", True),
        ("es", "no se puede descartar psoriasis", "psoriasis", True),
        ("es", "sarna descartada", "sarna", False),
        ("zh", "不是湿疹，考虑体癣", "湿疹", False),
        ("zh", "不是湿疹，考虑体癣", "体癣", True),
        ("zh", "不能排除银屑病", "银屑病", True),
    ],
)
def test_the_reader_knows_a_denial_in_each_language(language, answer, piece, says_it):
    assert bool(unsupported(piece, [answer], language, "answer")) is not says_it


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_reader_passes_what_is_worded_by_hand(language):
    opinion = opinion_of(SEEN, CASE.question, language)
    for style in STYLES:
        assert unsupported(styled(opinion, style, language), SEEN, language, style) == []
