"""An answer that names several things that may be stands with each of them, and weighs no more."""

import math
import time

import pytest

from gateway.contract import Answer, Language
from gateway.verdict.claims import HEDGES, claims
from gateway.verdict.competence import Cell
from gateway.verdict.meaning import meaning
from gateway.verdict.weigh import Judge, Opinion

ASKED: dict[Language, str] = {
    "en": "What is the diagnosis?",
    "es": "¿Cuál es el diagnóstico?",
    "zh": "这是什么病？",
}


def claimed(text: str, language: Language = "en", question: str | None = None) -> list[str]:
    asked = ASKED[language] if question is None else question
    return [", ".join(claim.meaning) for claim in claims(text, language, asked)]


def weigh(*texts: str, language: Language = "en", choices: bool = False) -> Opinion:
    families = {f"w{seat}": f"w{seat}" for seat in range(len(texts))}
    judge = Judge(families, Cell(language, "other", None), None, ASKED[language], choices)
    return judge.weigh(
        Answer(worker=f"w{seat}", text=text, confidence=0.5, seconds=0)
        for seat, text in enumerate(texts)
    )


TWO: dict[Language, tuple[str, str, str]] = {
    "en": (
        "psoriasis",
        "tinea corporis",
        "X, consider Y.|X; rule out Y|X or Y|X vs. Y|1. X 2. Y|1. **X**\n2. **Y**|X? Y?|"
        "Differential diagnosis: X, Y|**Differential:**\n- X\n- Y|Most likely X, possibly Y.|"
        "Consider X, Y|X; Y cannot be ruled out|The diagnosis is X or Y.|X. Y is less likely.|"
        "\\boxed{X or Y}|<answer>X or Y</answer>|The answer is X or Y.|The image shows X or Y.|"
        "**Answer:** X or Y\n\n**Explanation:** as is seen",
    ),
    "es": (
        "psoriasis",
        "tiña corporal",
        "X, considerar Y.|X; descartar Y|X o Y|1. X 2. Y|¿X? ¿Y?|Diagnóstico diferencial: X, Y|"
        "Probablemente X, posiblemente Y|X; no se puede descartar Y|El diagnóstico es X o Y.",
    ),
    "zh": (
        "银屑病",
        "体癣",
        "X，考虑Y。|X；排除Y|X或Y|1. X 2. Y|1、X2、Y|X？Y？|鉴别诊断：X、Y|考虑X、Y|"
        "可能是X，也不排除Y",
    ),
}


@pytest.mark.parametrize("language", TWO)
def test_what_names_two_things_claims_both_and_leads_with_the_first(language):
    one, other, said = TWO[language]
    for form in said.split("|"):
        text = form.replace("X", one).replace("Y", other)
        assert claimed(text, language) == [one, other], text
        # Without what stands around them.
        found = [claim.text for claim in claims(text, language, ASKED[language])]
        assert found == [one, other], text


@pytest.mark.parametrize(
    ("language", "said", "claim"),
    [
        ("en", "Consider eczema.", "eczema"),
        ("en", "Eczema?", "eczema"),
        ("en", "It is probably eczema", "eczema"),
        ("es", "¿Eccema?", "eccema"),
        ("es", "Posible eccema", "eccema"),
        ("zh", "考虑湿疹", "湿疹"),
        ("en", "axial or coronal", "transverse|coronal"),
        ("zh", "湿疹？？", "湿疹"),
    ],
)
def test_a_doubt_is_a_way_of_claiming(language, said, claim):
    assert claimed(said, language) == claim.split("|")


@pytest.mark.parametrize(
    ("language", "said"),
    [
        ("en", "liver, heart"),
        ("en", "liver and heart"),
        ("en", "left or right lung"),
        ("en", "pneumonia or an effusion on the left"),
        ("en", "grade 2 or 3"),
        ("en", "liver or spleen"),
        ("en", "acute or chronic eczema"),
        ("en", "no fracture or dislocation"),
        ("en", "psoriasis, not tinea"),
        ("en", "probably not psoriasis"),
        ("en", "psoriasis is not likely"),
        ("en", "free of psoriasis or tinea"),
        ("en", "Unlikely psoriasis"),
        ("en", "Psoriasis. Wait, possibly tinea."),
        ("en", "Is it psoriasis?"),
        ("en", " or ".join(f"disease {letter}" for letter in "abcdefghi")),
        ("es", "eccema agudo o crónico"),
        ("es", "pulmón izquierdo o derecho"),
        ("es", "ni psoriasis ni tiña, posible"),
        ("zh", "急性或慢性湿疹"),
        ("zh", "左肺或右肺"),
        ("zh", "可能不是银屑病"),
        ("zh", "肝脏、肾脏"),
        ("zh", "有没有病史？"),
    ],
)
def test_what_may_not_be_parted_is_one_claim_and_means_what_it_meant(language, said):
    [claim] = claims(said, language, ASKED[language])
    assert claim.text == said and claim.meaning == meaning(said, language, ASKED[language])


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ("Is there an effusion?", "Possibly."),
        ("Is there an effusion?", "There may be an effusion."),
        ("Is there an effusion?", "Probably yes"),
        ("Is there an effusion?", "Yes, possibly."),
        ("Is there an effusion?", "No, there may be a mass."),
        ("Is there an effusion?", "Effusion?"),
        ("How many nodules are there?", "3 or 4"),
        ("Is it a CT or an MRI?", "CT or MRI"),
    ],
)
def test_a_doubt_is_an_answer_where_yes_a_number_or_one_of_two_was_asked_for(question, said):
    assert [claim.meaning for claim in claims(said, "en", question)] == [
        meaning(said, "en", question)
    ]


def test_what_was_not_asked_about_is_claimed_whatever_was_asked_for():
    assert claimed("Consider eczema or tinea", "en", "Is it psoriasis?") == ["eczema", "tinea"]


@pytest.mark.parametrize(
    ("texts", "shares"),
    [
        (
            ["psoriasis, consider tinea", "tinea", "Psoriasis"],
            {"psoriasis": 5 / 9, "tinea": 4 / 9},
        ),
        (
            ["psoriasis or tinea", "tinea?", "eczema"],
            {"tinea": 4 / 9, "eczema": 1 / 3, "psoriasis": 2 / 9},
        ),
        (["1. a 2. b 3. c"], {"a": 6 / 11, "b": 3 / 11, "c": 2 / 11}),
    ],
)
def test_an_answer_spreads_its_voice_over_its_claims(texts, shares):
    """Its lead has the most of it; whoever names many things weighs no more than who names one."""
    opinion = weigh(*texts)
    found = {cluster.text.lower(): cluster.weight for cluster in opinion.clusters}
    assert found == pytest.approx(shares) and list(found) == list(shares)
    each = [answer.weight for answer in opinion.answers]
    assert each == pytest.approx([1 / len(texts)] * len(texts))


def test_who_claims_both_stands_on_both_sides():
    opinion = weigh("psoriasis, consider tinea", "tinea", "psoriasis")
    assert opinion.winner.workers == ("w0", "w2")
    assert [(d.text, d.workers) for d in opinion.dissent] == [("tinea", ("w0", "w1"))]
    assert not opinion.unanimous
    assert weigh("psoriasis or tinea", "Psoriasis; rule out tinea").unanimous
    assert weigh("psoriasis or tinea").agreement is None


def test_a_choice_is_never_parted():
    assert [c.text for c in weigh("CT or MRI", "CT", choices=True).clusters] == ["CT or MRI", "CT"]


@pytest.mark.parametrize(
    ("texts", "nats"),
    [
        (["eczema", "Eczema."], 0),
        (["eczema", "tinea"], math.log(2)),
        (["a", "b", "c", "d"], math.log(4)),
        (["eczema", "eczema", "tinea"], math.log(3) - 2 / 3 * math.log(2)),
        (["eczema"], None),
    ],
)
def test_the_entropy_tells_how_scattered_the_panel_is(texts, nats):
    assert weigh(*texts).entropy == (nats if nats is None else pytest.approx(nats))


@pytest.mark.parametrize("language", HEDGES)
def test_whatever_a_worker_may_say_is_parted_in_a_moment(language):
    """2,000 characters of one kind, which never come to an end."""
    began = time.process_time()
    for nasty in ("\n", " ", ",", "? ", " or ", "1. ", "to be ", "also ", "需要", "考虑", "se "):
        for begins in ("", "consider ", "differential: "):
            claims(f"{begins}{nasty * 2_000}"[:1_999] + "x", language)
    assert time.process_time() - began < 3
