"""Every scorer against cases worked out by hand, the published ones with their quirks."""

import sys
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from sacrebleu.metrics import BLEU

from models.metrics import (
    bert_score,
    bleu,
    calibration_error,
    closed_accuracy,
    delta_bleu,
    exact_match,
    llava_med,
    token_overlap,
)
from models.metrics.delta_bleu import Reference
from models.metrics.score import mean


def one(scorer, answer, reference, **more):
    """What a scorer makes of a single case."""
    return scorer([answer], [reference], ["image"], **more).value


@pytest.mark.parametrize(
    "answer", ["Left Lung", " left lung ", "left lung.", "LEFT LUNG。", "left lung ."]
)
def test_exact_match_forgives_case_blanks_and_a_final_full_stop(answer):
    assert exact_match.matches(answer, "Left lung")


@pytest.mark.parametrize("answer", ["left", "the left lung", "left lung..", "lung left", ""])
def test_exact_match_forgives_nothing_else(answer):
    assert not exact_match.matches(answer, "left lung")


def test_an_interval_draws_whole_images():
    """Ten questions on one image are not ten independent ones."""
    hits = [True] * 10 + [False] * 10
    apart = mean(hits, [str(n) for n in range(20)])
    together = mean(hits, ["a"] * 10 + ["b"] * 10)
    assert apart.value == together.value == 0.5
    assert (together.low, together.high) == (0, 1)
    assert 0 < apart.low < 0.5 < apart.high < 1


@pytest.mark.parametrize("images", [1_000, 30_000])
def test_an_interval_is_that_of_the_binomial_where_every_image_has_one_question(images):
    """And its draws take no more memory for more images than there are draws for."""
    tracemalloc.start()
    found = mean([n % 10 < 7 for n in range(images)], [str(n) for n in range(images)])
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    half_width = 1.96 * (0.7 * 0.3 / images) ** 0.5
    told = 0.7 - half_width, 0.7 + half_width
    assert (found.low, found.high) == pytest.approx(told, abs=half_width / 9)
    assert most < 50e6  # were each image drawn: 60 MB, and more


def test_a_score_of_nothing_is_an_error():
    """A dead run must not look like a bad model."""
    with pytest.raises(ValueError, match="0 scored answers"):
        mean([], [])
    with pytest.raises(ValueError, match="2 scored answers in 1 clusters"):
        mean([1, 1], ["a"])


@pytest.mark.parametrize(
    ("answer", "reference", "right"),
    [
        ("Yes.", "yes", True),
        ("Yes, there is an effusion", "Yes", True),
        ("The nodule is abnormal", "no", False),  # no word of its own
        ("yes and no", "yes", False),
        ("CT", "ct", True),
        ("a CT", "ct", False),
    ],
)
def test_closed_accuracy_reads_words(answer, reference, right):
    assert one(closed_accuracy.score, answer, reference) == right


def test_token_overlap_counts_a_word_once_for_each_time_it_is_in_both():
    # "left" is missing: 1 of 2 words; 2 · 1 / (3 + 2)
    assert one(token_overlap.recall, "lung lung lung", "left lung") == 0.5
    assert one(token_overlap.f1, "lung lung lung", "left lung") == pytest.approx(0.4)
    assert one(token_overlap.recall, "the left lung", "Left lung.") == 1
    assert one(token_overlap.recall, "", "left lung") == 0
    assert one(token_overlap.recall, "左肺", "右肺") == 0.5  # a character is a word


def test_llava_med_recall_grows_with_repetition():
    # 3 said, 1 missing: 3 / (3 + 1); precision 1; F1 = 2 · 0.75 / 1.75
    assert one(llava_med.open_recall, "lung lung lung", "left lung") == 0.75
    assert one(llava_med.open_f1, "lung lung lung", "left lung") == pytest.approx(6 / 7)


def test_llava_med_closed_accuracy_takes_substrings_and_forgets_misses():
    assert one(llava_med.closed_accuracy, "the nodule is abnormal", "no") == 1
    assert one(llava_med.closed_accuracy, "CT", "ct") == 0
    # The second says "no" where "yes" was asked for: left out, not wrong.
    found = llava_med.closed_accuracy(["yes", "no", "maybe"], ["yes"] * 3, ["a", "b", "c"])
    assert (found.cases, found.value) == (2, 0.5)
    with pytest.raises(ValueError, match="0 scored"):
        llava_med.closed_accuracy(["no"], ["yes"], ["a"])


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The X-ray", "x ray"),  # within a word: a blank
        ("lung , left", "lung left"),  # beside a blank: nothing
        ("1,000 x-rays", "1000 xrays"),  # a long number: every mark vanishes
        ("Two nodules.", "2 nodules"),
        ("None", "0"),
        ("3.5 cm.", "3.5 cm"),
    ],
)
def test_llava_med_normal_form(text, normal):
    assert llava_med.normalise(text) == normal


def test_bleu_is_sacrebleus_over_the_corpus():
    answers = ["the left lung is clear", "a mass in the right lung", "CT"]
    references = ["the left lung is not clear", "there is a mass in the right lobe", "ct"]
    for order in (1, 2, 3, 4):
        whole = BLEU(max_ngram_order=order, lowercase=True, effective_order=True)
        found = bleu.score(answers, references, ["a", "b", "c"], order=order, language="en")
        assert found.value == pytest.approx(whole.corpus_score(answers, [references]).score / 100)


def test_bleu_1_by_hand():
    # 4 of 5 words are in the reference, which is as long.
    assert one(
        bleu.score, "left lung is quite clear", "left lung is very clear", order=1, language="en"
    ) == pytest.approx(0.8)
    # 1 of 1, but a fifth of the length: e^(1 − 5)
    assert one(
        bleu.score, "left", "left lung is very clear", order=1, language="en"
    ) == pytest.approx(np.exp(-4))
    assert one(bleu.score, "左肺", "右肺", order=1, language="zh") == pytest.approx(0.5)


def test_delta_bleu_with_equal_weights_is_bleu():
    answers = {"1": "a fungal infection of the nail", "2": "psoriasis on both of the hands"}
    references = {
        "1": ["fungal infection of the nail", "tinea unguium of the nail"],
        "2": ["psoriasis on both hands", "this is psoriasis on both of the palms"],
    }
    found = delta_bleu.score(
        answers,
        {id: [Reference(text) for text in texts] for id, texts in references.items()},
        language="en",
    )
    streams = [list(texts) for texts in zip(*references.values(), strict=True)]
    whole = BLEU(lowercase=True, effective_order=True).corpus_score([*answers.values()], streams)
    assert found.value == pytest.approx(whole.score / 100)


def test_delta_bleu_by_hand():
    """Two words, one from each reference: matched 1 · 1.0 + 1 · 0.6 of 2 · 1.0; no bigram matches
    of one that could have (smoothed to a half of it)."""
    found = delta_bleu.score(
        {"1": "psoriasis eczema"},
        {"1": [Reference("psoriasis vulgaris", 1.0), Reference("contact eczema", 0.6)]},
        language="en",
    )
    assert found.value == pytest.approx((0.8 * 0.5) ** 0.5)


def test_the_tasks_own_script_sees_capitals_and_weighs_chinese_alone():
    """Of "psoriasis eczema" it finds no capital: one of two words, where both were meant."""
    answers = {"1": "Psoriasis eczema"}
    references = {"1": [Reference("Psoriasis vulgaris", 0.6), Reference("eczema of hands", 1.0)]}
    found = {
        language: delta_bleu.official(answers, references, language=language).value
        for language in ("en", "es", "zh")
    }
    # One word of two, and half a bigram of one; its weight is the best there is.
    assert found["en"] == found["es"] == pytest.approx((0.5 * 0.5) ** 0.5)
    assert delta_bleu.score(answers, references, language="en").value == pytest.approx(
        (0.8 * 0.5) ** 0.5
    )
    weighed = {"1": [Reference("银屑", 0.6), Reference("湿疹", 1.0)]}
    assert delta_bleu.official({"1": "银疹"}, weighed, language="zh").value == pytest.approx(
        (0.8 * 0.5) ** 0.5
    )


def test_a_difference_of_delta_bleu_is_that_of_the_scores_and_knows_the_pairs():
    references = {
        "1": [Reference("Chronic eczema"), Reference("tinea", 0.5)],
        "2": [Reference("psoriasis")],
    }
    answers = {"1": "chronic eczema", "2": "psoriasis"}
    others = {"1": "tinea", "2": "psoriasis"}
    lead = delta_bleu.difference(answers, others, references, language="en")
    scores = [delta_bleu.score(each, references, language="en") for each in (answers, others)]
    assert lead.value == pytest.approx(scores[0].value - scores[1].value) and lead.value > 0
    same = delta_bleu.difference(others, others, references, language="en")
    assert (same.value, same.low, same.high) == (0, 0, 0)
    assert delta_bleu.of_one("Tinea", references["1"], "en") == pytest.approx(0.5)


def test_delta_bleu_weights():
    assert delta_bleu.weight(
        validated=False, rank=3, frequent=False, complete=False
    ) == pytest.approx(0.6)
    assert delta_bleu.weight(validated=True, rank=4, frequent=True, complete=True) == pytest.approx(
        1.0
    )


def test_delta_bleu_refuses_answers_to_other_encounters():
    with pytest.raises(ValueError, match="ENC2"):
        delta_bleu.score({"ENC1": "x"}, {"ENC1": [Reference("x")], "ENC2": []}, language="en")
    with pytest.raises(ValueError, match="ENC1 has no reference"):
        delta_bleu.score({"ENC1": "x"}, {"ENC1": []}, language="en")


@pytest.mark.parametrize(
    ("language", "model"),
    [("en", "roberta-large"), ("es", "roberta-large"), ("zh", "bert-base-multilingual-cased")],
)
def test_bert_score_is_of_the_models_that_the_tasks_script_takes(monkeypatch, language, model):
    """Of the best reference, at the layer that the package holds best."""
    asked = []

    class Scorer:
        def __init__(self, **options):
            asked.append(options)

        def score(self, answers, references):
            asked.append((answers, references))
            return [0.1], [0.2], [0.3]

    monkeypatch.setitem(sys.modules, "models.cpu_torch", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "bert_score", SimpleNamespace(BERTScorer=Scorer))

    found = bert_score.score(["tinea"], [("tinea", "eczema")], ["image"], language)

    assert found.value == 0.3
    assert asked == [
        {"model_type": model, "num_layers": None}, (["tinea"], [["tinea", "eczema"]])
    ]  # fmt: skip


def test_calibration_error_by_hand():
    # Bin of 0.9: two answers, one right: |1.8 − 1|; bin of 0.2: two, none right: |0.4 − 0|.
    found = calibration_error.score(
        [0.9, 0.9, 0.2, 0.2], [True, False, False, False], ["a", "b", "c", "d"]
    )
    assert found.value == pytest.approx((0.8 + 0.4) / 4)
    assert calibration_error.score([1.0, 0.0], [True, False], ["a", "b"]).value == 0
    with pytest.raises(ValueError, match="between 0 and 1"):
        calibration_error.score([1.2], [True], ["a"])
