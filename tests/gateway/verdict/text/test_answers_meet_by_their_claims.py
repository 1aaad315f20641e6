"""An answer that names several things that may be stands with each of them, and weighs no more."""

import math
import time

import pytest

from gateway.contract import Answer, Language
from gateway.verdict.competence import Cell
from gateway.verdict.text.claims import HEDGES, claims
from gateway.verdict.text.meaning import meaning
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


def test_half_a_denial_parts_no_doubt_from_what_is_doubted():
    assert claimed("甲营养不良？", "zh") == claimed("甲营养不良", "zh")


TWO: dict[Language, tuple[str, str, str]] = {
    "en": (
        "psoriasis",
        "tinea corporis",
        "X, consider Y.|X; rule out Y|X or Y|X vs. Y|1. X 2. Y|1. **X**\n2. **Y**|X? Y?|"
        "Differential diagnosis: X, Y|**Differential:**\n- X\n- Y|Most likely X, possibly Y.|"
        "Consider X, Y|X; Y cannot be ruled out|The diagnosis is X or Y.|X. Y is less likely.|"
        "\\boxed{X or Y}|<answer>X or Y</answer>|The answer is X or Y.|The image shows X or Y.|"
        "**Answer:** X or Y\n\n**Explanation:** as is seen|X; Y|X (consider Y)|X?, Y?|"
        "X most likely, Y less likely|Most likely X, less likely Y|Either X or Y|X and/or Y|"
        "X or possibly Y|X r/o Y|X. Differential diagnosis: Y|"
        "X (differential: Y)|Primary diagnosis: X. Differential: Y|Possible diagnoses: X, Y|"
        "The most likely diagnosis is X, but Y is also possible.|X, alternatively Y|"
        "X is likely, but Y cannot be excluded.|Findings suggest X or Y|1) X 2) Y|(1) X; (2) Y",
    ),
    "es": (
        "psoriasis",
        "tiña corporal",
        "X, considerar Y.|X; descartar Y|X o Y|1. X 2. Y|¿X? ¿Y?|Diagnóstico diferencial: X, Y|"
        "Probablemente X, posiblemente Y|X; no se puede descartar Y|El diagnóstico es X o Y.|X; Y|"
        "X y/o Y|Sea X o Y|Podría tratarse de X o Y|X. Diagnóstico diferencial: Y|DD: X, Y|"
        "Posibles diagnósticos: X, Y|1) X 2) Y|"
        "X es lo más probable, Y menos probable|Lo más probable X, menos probable Y|"
        "El diagnóstico más probable es X, aunque también podría ser Y",
    ),
    "zh": (
        "银屑病",
        "体癣",
        "X，考虑Y。|X；需排除Y|X；Y待除外|X或Y|1. X 2. Y|1、X2、Y|X？Y？|鉴别诊断：X、Y|考虑X、Y|"
        "可能是X，也不排除Y|X；Y|X、可能Y|最可能是X，其次是Y|首先考虑X，其次考虑Y|X可能性大，Y不能排除|"
        "X，Y待排|X，需与Y鉴别|（1）X（2）Y|①X②Y|X，鉴别诊断：Y|鑑別診斷：X、Y|"
        "诊断可能是X，也可能是Y|X vs Y",
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
        ("en", ".5 cm?", "0.5 cm"),
        ("en", ",5 cm?", ",5 cm"),
        ("en", "It is probably eczema", "eczema"),
        ("es", "¿Eccema?", "eccema"),
        ("es", "Posible eccema", "eccema"),
        ("zh", "考虑湿疹", "湿疹"),
        ("en", "axial or coronal", "transverse|coronal"),
        ("zh", "湿疹？？", "湿疹"),
        ("en", "The most likely diagnosis is eczema.", "eczema"),
        ("en", "Findings are consistent with eczema.", "eczema"),
        ("en", "eczema (likely)", "eczema"),
        ("es", "El diagnóstico más probable es eccema", "eccema"),
        ("es", "Compatible con eccema", "eccema"),
        ("zh", "最可能的诊断是湿疹。", "湿疹"),
        ("zh", "诊断：湿疹", "湿疹"),
        ("zh", "应该是湿疹", "湿疹"),
        ("zh", "还是考虑湿疹", "湿疹"),
        ("en", "likely to be eczema", "eczema"),
        ("en", "Suspected to be eczema", "eczema"),
        ("en", "We cannot rule out eczema.", "eczema"),
        ("en", "We need to rule out eczema.", "eczema"),
        ("es", "Hay que descartar eccema", "eccema"),
        ("es", "Es posible que sea eccema", "eccema"),
        ("es", "Parece que es eccema", "eccema"),
        ("es", "Considere que se trata de eccema", "eccema"),
        ("zh", "不能排除湿疹", "湿疹"),
        ("zh", "应排除湿疹", "湿疹"),
        (
            "en",
            "Psoriasis? Apply ointment of zinc or vaseline.",
            "psoriasis|apply ointment of zinc or vaseline",
        ),
        ("en", "Check for fungus, it looks like tinea", "check for fungus|tinea"),
        (
            "en",
            "amyloidosis of the skin or follicular keratosis",
            "amyloidosis of the skin|follicular keratosis",
        ),
        ("en", "Differential: eczema, tinea, and scabies", "eczema|tinea|scabies"),
        ("en", "1. eczema 2. tinea 3. scabies", "eczema|tinea|scabies"),
        ("en", "1. **Eczema** - most likely\n2. **Tinea** - less likely", "eczema|tinea"),
        ("en", "Eczema (most likely), tinea (less likely)", "eczema|tinea"),
        (
            "en",
            "**Most likely diagnosis:** Eczema\n\n**Differential:**\n1. Tinea\n2. Scabies",
            "eczema|tinea|scabies",
        ),
        ("en", "The differential diagnosis includes eczema and tinea.", "eczema|tinea"),
        (
            "en",
            "Differential: spinal osteomyelitis and discitis",
            "spinal osteomyelitis and discitis",
        ),
        ("es", "Diagnóstico diferencial: eccema, tiña y sarna", "eccema|tiña|sarna"),
        ("es", "El diagnóstico diferencial incluye eccema y tiña", "eccema|tiña"),
        ("zh", "鉴别诊断包括湿疹和体癣", "湿疹|体癣"),
        ("zh", "湿疹；体癣；疥疮", "湿疹|体癣|疥疮"),
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
        ("en", "hepatitis A or B"),
        ("en", "hepatitis A, less likely B"),
        ("en", "Differential: hepatitis A, B"),
        ("en", "influenza A or B virus"),
        ("en", "grade A or B esophagitis"),
        ("en", "vitamin B12 or D"),
        ("en", "Salter-Harris II or III"),
        ("en", "simple or complex cyst"),
        ("en", "cyst, simple or complex"),
        ("en", "cyst (simple or complex)"),
        ("en", "fracture, open or closed"),
        ("es", "quiste, simple o complejo"),
        ("en", "solitary or multiple nodules"),
        ("en", "contact or, possibly, atopic dermatitis"),
        ("en", "It is, most likely, psoriasis"),
        ("en", "There is, possibly, a psoriasis"),
        ("en", "Psoriasis is remotely possible"),
        ("en", "Psoriasis might possibly be considered"),
        ("en", "I doubt psoriasis; consider tinea"),
        ("en", "Possible but unlikely psoriasis"),
        ("en", "Psoriasis can be ruled out"),
        ("en", "Psoriasis could be ruled out"),
        ("es", "hepatitis A o B"),
        ("es", "influenza A o, menos probable, B"),
        ("es", "eccema benigno o maligno"),
        ("es", "eccemas agudos o crónicos"),
        ("zh", "甲型肝炎或乙型"),
        ("zh", "肝炎A型或B型"),
        ("en", "psoriasis, not tinea"),
        ("en", "probably not psoriasis"),
        ("en", "psoriasis is not likely"),
        ("en", "free of psoriasis or tinea"),
        ("en", "Unlikely psoriasis"),
        ("en", "Psoriasis. Wait, possibly tinea."),
        ("en", "Is it psoriasis?"),
        ("en", "no psoriasis; tinea"),
        ("en", "acute; chronic eczema"),
        ("en", "psoriasis denied; tinea"),
        ("en", "not psoriasis or tinea"),
        ("en", "psoriasis; no evidence of tinea"),
        ("en", "Rule out tinea. Psoriasis."),
        ("en", "psoriasis ruled out; consider tinea"),
        ("en", "psoriasis is unlikely, consider tinea"),
        ("en", "neither psoriasis nor tinea; eczema"),
        ("en", "psoriasis rather than tinea"),
        ("en", "It looks more like psoriasis than tinea"),
        ("en", "unlike tinea"),
        ("en", "The possibility of tinea is low"),
        ("es", "La posibilidad de tiña es baja"),
        ("es", "Se parece más a psoriasis que a tiña, más que nada"),
        ("zh", "银屑病可能性较大，体癣可能性较小"),
        ("en", "the right diaphragm is high"),
        ("en", "the possibility of tinea is not high"),
        ("en", "if the possibility of tinea is high, a biopsy is needed"),
        ("en", "similar to the left"),
        ("en", "like most melanomas, it is asymmetrical"),
        ("en", "benign (?) nevus"),
        ("en", "to be determined"),
        ("en", "estimated 5 cm"),
        ("en", "There is a mass. It has ring-like enhancement."),
        ("es", "la probabilidad de tiña es poco alta"),
        ("es", "similar al izquierdo"),
        ("zh", "估计3cm"),
        ("en", "suggest to run a biopsy"),
        ("en", "contact or atopic dermatitis"),
        ("en", "hyper- or hypothyroidism"),
        ("en", "drug or viral exanthem"),
        ("en", "metastasis from melanoma or sarcoma"),
        ("en", "allergy to nickel or latex"),
        ("en", "tinea, like psoriasis"),
        ("en", "nevus, should be excised"),
        ("es", "déficit de hierro o folato"),
        ("es", "debe ser extirpado"),
        ("zh", "接触或过敏性皮炎"),
        ("zh", "疑病症"),
        ("zh", "象皮肿"),
        ("en", "left lung; right lung"),
        ("en", "grade 2; grade 3"),
        ("en", " or ".join(f"disease {letter}" for letter in "abcdefghi")),
        ("es", "eccema agudo o crónico"),
        ("es", "pulmón izquierdo o derecho"),
        ("es", "ni psoriasis ni tiña, posible"),
        ("es", "psoriasis; sin tiña"),
        ("es", "psoriasis, tiña poco probable"),
        ("es", "psoriasis descartada; considerar tiña"),
        ("zh", "排除银屑病，考虑体癣"),
        ("zh", "银屑病可能性大，体癣可能性小"),
        ("zh", "不考虑银屑病，考虑体癣"),
        ("zh", "急性或慢性湿疹"),
        ("zh", "左肺或右肺"),
        ("zh", "可能不是银屑病"),
        ("zh", "肝脏、肾脏"),
        ("zh", "有没有病史？"),
        ("en", "- 2.5"),
        ("en", "We rule out psoriasis."),
        ("en", "I would rule out psoriasis; tinea"),
        ("en", "this can rule out psoriasis"),
        ("en", "r/o'd psoriasis"),
        ("es", "psoriasis, nada probable"),
        ("es", "nada probable psoriasis"),
        ("es", "Parece que tiene tiña"),
        ("zh", "排除银屑病"),
        ("zh", "除外银屑病"),
        ("zh", "排除了银屑病"),
        ("zh", "银屑病；排除体癣"),
        ("zh", "可能排除银屑病"),
        ("zh", "排除银屑病的可能"),
        ("zh", "排除银屑病后考虑体癣"),
        ("zh", "不需排除银屑病"),
        ("zh", "考虑了银屑病"),
    ],
)
def test_what_may_not_be_parted_is_one_claim_and_means_what_it_meant(language, said):
    [claim] = claims(said, language, ASKED[language])
    assert claim.text == said and claim.meaning == meaning(said, language, ASKED[language])


@pytest.mark.parametrize(
    ("language", "said"),
    [
        ("en", "Psoriasis is less likely."),
        ("en", "less likely psoriasis"),
        ("en", "less consistent with psoriasis"),
        ("en", "Less suspicious for psoriasis."),
        ("en", "Less probable: psoriasis"),
        ("en", "Psoriasis (less likely)"),
        ("en", "Psoriasis, less likely"),
        ("en", "Psoriasis would be less likely"),
        ("en", "Psoriasis is possible but less likely"),
        ("en", "psoriasis is least likely"),
        ("en", "Psoriasis is hardly possible"),
        ("en", "Psoriasis is less likely. Consider tinea."),
        ("en", "psoriasis (less likely), tinea (most likely)"),
        ("en", "1. Less likely: psoriasis 2. Tinea"),
        ("es", "psoriasis es menos probable"),
        ("es", "Menos probable psoriasis"),
        ("es", "menos compatible con psoriasis"),
        ("es", "Psoriasis (menos probable)"),
        ("es", "psoriasis es poco posible"),
        ("es", "sospecha baja de psoriasis"),
        ("zh", "其次考虑银屑病"),
        ("zh", "可能性稍小的是银屑病"),
        ("zh", "银屑病可能性较低"),
    ],
)
def test_what_is_less_likely_is_claimed_beside_something_likelier_alone(language, said):
    """As the only claim, or as the first, it would be told as if nobody had doubted it."""
    [claim] = claims(said, language, ASKED[language])
    assert claim.text == said


@pytest.mark.parametrize(
    ("language", "said", "found"),
    [
        ("en", "psoriasis or, less likely, tinea", "psoriasis|tinea"),
        ("en", "psoriasis and, possibly, tinea", "psoriasis|tinea"),
        ("en", "psoriasis versus, less likely, tinea", "psoriasis|tinea"),
        ("en", "psoriasis, scabies or, less likely, tinea", "psoriasis|scabies|tinea"),
        ("en", "psoriasis or less likely tinea", "psoriasis|tinea"),
        ("en", "psoriasis, tinea less likely", "psoriasis|tinea"),
        ("en", "Psoriasis is quite likely", "psoriasis"),
        ("en", "Psoriasis remains possible", "psoriasis"),
        ("en", "hepatitis A or hepatitis B", "hepatitis a|hepatitis b"),
        ("en", "hepatitis B or edema", "hepatitis b|edema"),
        ("en", "A or B", "a|b"),
        ("es", "psoriasis o, menos probable, tiña", "psoriasis|tiña"),
        ("es", "psoriasis y, posiblemente, tiña", "psoriasis|tiña"),
        ("zh", "甲肝或乙肝", "甲肝|乙肝"),
    ],
)
def test_a_word_of_choice_before_a_doubt_is_no_part_of_a_claim(language, said, found):
    assert [each.text.lower() for each in claims(said, language, ASKED[language])] == found.split(
        "|"
    )


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


def test_in_the_first_place_names_no_place_in_a_row():
    """A claim beside it would be left whole for a number that it lacks."""
    said = "En primer lugar, se debe considerar el eccema."
    assert ("eccema",) in [claim.meaning for claim in claims(said, "es", "¿Qué es?")]


SURE_OR_NOT: dict[Language, tuple[str, str]] = {
    "en": (
        "eczema",
        "Should be X|It must be X.|The symptoms seem more like X.|I would say X|"
        "The rash appears to be X|I lean towards X|I feel like it's X|X is highly likely|"
        "The possibility of X is relatively high|First consider X|I believe it is X|Definitely X!|"
        "The image looks like X|X could be considered|Judging from the image, it looks like X|"
        "Estimated to be X|Considered as X",
    ),
    "es": (
        "eccema",
        "Debe ser X|Debería ser X|Se parece más X|Creo que es X|Considerando X|"
        "La posibilidad de X es alta.|Un poco como X|Lo más probable es que sea X|"
        "Considerando que es X",
    ),
    "zh": (
        "湿疹",
        "象是X|看着像X|从图片上看像是X|感觉像X|好像是X|似乎是X|估计是X|我认为是X|必是X|多为X|"
        "X可能性较大|X的可能性比较大|X可能性很高",
    ),
}


@pytest.mark.parametrize("language", SURE_OR_NOT)
def test_how_sure_somebody_is_parts_nobody(language):
    disease, said = SURE_OR_NOT[language]
    for form in said.split("|"):
        assert claimed(form.replace("X", disease), language) == [disease], form


@pytest.mark.parametrize(
    ("language", "said", "claim"),
    [
        ("en", "Psoriasis or tinea, favor tinea", "tinea|psoriasis"),
        (
            "en",
            "Psoriasis? The most likely complication is arthritis",
            "psoriasis|complication is arthritis",
        ),
        ("es", "Psoriasis o tiña, más probable tiña", "tiña|psoriasis"),
        ("zh", "湿疹或银屑病，倾向银屑病", "银屑病|湿疹"),
    ],
)
def test_what_somebody_prefers_leads(language, said, claim):
    assert [each.text.lower() for each in claims(said, language, ASKED[language])] == claim.split(
        "|"
    )


@pytest.mark.parametrize(
    ("language", "said", "told"),
    [
        ("en", "? psoriasis", "psoriasis?"),
        ("en", "?psoriasis", "psoriasis?"),
        ("en", "psoriasis (?)", "psoriasis?"),
        ("en", "eczema ?tinea", "eczema|tinea?"),
        ("es", "psoriasis (?)", "psoriasis?"),
        ("zh", "？湿疹", "湿疹？"),
        ("zh", "湿疹（？）", "湿疹？"),
        ("zh", "①湿疹？②银屑病？", "湿疹？|银屑病？"),
    ],
)
def test_a_question_mark_is_kept_wherever_it_stands(language, said, told):
    assert [claim.told for claim in claims(said, language, ASKED[language])] == told.split("|")
