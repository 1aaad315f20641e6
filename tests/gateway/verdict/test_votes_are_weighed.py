"""Without a competence file each worker has one voice: who wins, and how clearly."""

import pytest

from gateway.contract import Answer, AnswerError
from gateway.verdict.competence import Cell
from gateway.verdict.text.claims import claims
from gateway.verdict.weigh import Judge, Opinion


def said(worker: str, text: str, confidence: float | None = 0.5) -> Answer:
    return Answer(worker=worker, text=text, confidence=confidence, seconds=0.1)


def weigh(answers: list[Answer]) -> Opinion:
    families = {answer.worker: "one" for answer in answers}
    return Judge(families, Cell("en", "other", None), None).weigh(answers)


def silent(worker: str) -> Answer:
    error = AnswerError(kind="timeout", detail="No answer within 1 s.")
    return Answer(worker=worker, seconds=1, error=error)


def test_the_majority_wins_and_the_dissent_is_listed():
    opinion = weigh([said("a", "no", 0.99), said("b", "Yes"), said("c", "yes.")])
    assert opinion.winner.text == "Yes" and opinion.winner.workers == ("b", "c")
    assert opinion.agreement == pytest.approx(2 / 3)
    [dissent] = opinion.dissent
    assert (dissent.text, dissent.workers) == ("no", ("a",))
    assert dissent.weight == pytest.approx(1 / 3)
    assert sum(answer.weight or 0 for answer in opinion.answers) == pytest.approx(1)


def test_a_silent_worker_has_no_weight_and_takes_none():
    opinion = weigh([said("a", "no"), silent("b"), said("c", "no")])
    assert [answer.weight for answer in opinion.answers] == [0.5, None, 0.5]
    assert opinion.unanimous and opinion.agreement == 1 and opinion.confidence is None


def test_a_tie_goes_to_the_surer_then_to_the_earlier_seat():
    assert weigh([said("a", "no", 0.5), said("b", "yes", 0.9)]).winner.text == "yes"
    assert weigh([said("a", "no", 0.5), said("b", "yes", 0.5)]).winner.text == "no"
    assert weigh([said("a", "no", None), said("b", "yes", 0.1)]).winner.text == "yes"


def test_a_single_voice_agrees_with_nobody():
    assert weigh([said("a", "no"), silent("b")]).agreement is None


def test_every_answer_is_in_exactly_one_cluster():
    answers = [said(str(seat), text) for seat, text in enumerate(["a", "b", "c", "a", "b", "a"])]
    clusters = weigh(answers).clusters
    assert sorted(w for c in clusters for w in c.workers) == [str(n) for n in range(6)]
    assert [cluster.text for cluster in clusters] == ["a", "b", "c"]


def test_a_long_answer_is_read_once_however_often_it_is_weighed():
    """Forty of 2,000 characters that come in one by one held the gateway up for twelve seconds."""
    judge = Judge({str(seat): "one" for seat in range(40)}, Cell("en", "other", None), None)
    answers = [said(str(seat), f"Eczema {seat}, tinea or not. " * 70) for seat in range(40)]
    for answer in answers:
        judge.read(answer)
    read = claims.cache_info().misses

    opinions = [judge.weigh(answers[: heard + 1]) for heard in range(40)]

    assert claims.cache_info().misses == read
    assert len(opinions[-1].clusters) == 40


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        (["Contact urticaria?", "Scabies"], ["Contact urticaria?", "Scabies"]),
        (["eczema? tinea?", "tinea"], ["tinea", "eczema?"]),
        (["Eczema?", "eczema", "Eczema?"], ["eczema"]),
        (["eczema or tinea?"], ["eczema?", "tinea?"]),
        (["Eczema? It is eczema."], ["It is eczema"]),
        (["肢端角化病？", "湿疹"], ["肢端角化病？", "湿疹"]),
    ],
)
def test_what_all_who_say_it_only_ask_is_told_with_its_question_mark(texts, told):
    answers = [said(str(seat), text) for seat, text in enumerate(texts)]
    clusters = weigh(answers).clusters
    assert [cluster.text for cluster in clusters] == told


def test_who_claims_in_two_ways_what_a_model_holds_for_one_and_asks_it_once_does_not_ask():
    wart, verruca = (claim.meaning for claim in claims("Wart? Verruca.", "en", ""))
    judge = Judge({"a": "one"}, Cell("en", "other", None), None, same={verruca: wart})
    for text, told in {
        "Wart? Verruca.": "Verruca",
        "Verruca. Wart?": "Verruca",
        "Wart? Verruca?": "Wart?",
    }.items():
        [cluster] = judge.weigh([said("a", text)]).clusters
        assert cluster.text == told
