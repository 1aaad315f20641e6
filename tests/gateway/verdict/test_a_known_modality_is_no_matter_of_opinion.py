"""Where a header or the caller says what took the image, an answer that names something else has no
share in the verdict."""

import sys
from collections.abc import Sequence
from typing import get_args

import pytest

from benchmarks.accuracy import modality as benchmark
from gateway.contract import Alternative, Answer, Language, Modality
from gateway.verdict.competence import Cell
from gateway.verdict.styles import styled
from gateway.verdict.text.modality import names_another
from gateway.verdict.text.questions import kind_of
from gateway.verdict.weigh import Judge, Opinion

ASKED: dict[Language, str] = {
    "en": "What modality is used to take this image?",
    "es": "¿Qué modalidad se usó para obtener esta imagen?",
    "zh": "这张图片的成像方式是什么？",
}


# How a winner is told that nobody claims.
UNSAID: dict[Language, tuple[str, str]] = {
    "en": (
        "The panel's answer is “Ultrasound”, as the image is known to be; nearly said by some of 3",
        "1. “Ultrasound” (0 of 3; nearly said)",
    ),
    "es": (
        "La respuesta del panel es «Ultrasound», como se sabe de la imagen; casi dicha por algunos "
        "de 3",
        "1. «Ultrasound» (0 de 3; casi dicha)",
    ),
    "zh": (
        "小组的答案是“Ultrasound”，已知图像如此；3个成员中有的几乎这样说",
        "1. “Ultrasound”（3个中0个；几乎这样说）",
    ),
}


@pytest.mark.parametrize(
    ("answer", "known"),
    [
        ("CT", "ct"),
        ("cta - ct angiography", "ct"),
        ("ct w/contrast (iv)", "ct"),
        ("CT or MRI", "ct"),
        ("Tomografía computarizada", "ct"),
        ("TC", "ct"),
        ("电子计算机断层扫描", "ct"),
        ("MRI", "mri"),
        ("mr - t1w w/gadolinium", "mri"),
        ("mra - mr angiography/venography", "mri"),
        ("flair", "mri"),
        ("核磁共振", "mri"),
        ("Resonancia magnética", "mri"),
        ("X-Ray", "xray"),
        ("xr - plain film", "xray"),
        ("an - angiogram", "xray"),
        ("Radiografía", "xray"),
        ("X光", "xray"),
        ("us-d - doppler ultrasound", "ultrasound"),
        ("Ecografía", "ultrasound"),
        ("pet - positron emission", "nuclear"),
        ("DSA", "xray"),
        ("DR胸片", "xray"),
        ("钼靶", "xray"),
        ("echocardiogram", "ultrasound"),
        ("B超", "ultrasound"),
        ("clinical photograph", "photograph"),
        ("OCT", "fundus"),
        ("Tomografía de coherencia óptica", "fundus"),
        ("眼底检查", "fundus"),
        ("Colonoscopy", "endoscopy"),
        ("胃镜", "endoscopy"),
        ("light microscopy", "microscopy"),
        ("histopathology", "microscopy"),
    ],
)
def test_an_answer_names_its_modality_and_no_other(answer: str, known: Modality) -> None:
    others = set(get_args(Modality)) - {known} - ({"mri"} if "or MRI" in answer else set())
    assert not names_another(answer, known)
    assert all(names_another(answer, other) for other in others)


@pytest.mark.parametrize(
    "answer", ["Axial", "yes", "contrast", "T12", "no sé", "看不清", "discuss"]
)
def test_what_names_no_modality_names_no_other(answer: str) -> None:
    assert not names_another(answer, "ct")


def opinion(modality: Modality | None, said: Sequence[str], question: str = ASKED["en"]) -> Opinion:
    judge = Judge(
        {f"w{seat}": f"w{seat}" for seat in range(len(said))},
        Cell("en", "modality" if question == ASKED["en"] else "yes_no", modality),
        None,
        question,
    )
    return judge.weigh(answers(said))


def answers(said: Sequence[str]) -> list[Answer]:
    return [
        Answer(worker=f"w{seat}", text=text, confidence=0.9, seconds=1)
        for seat, text in enumerate(said)
    ]


@pytest.mark.parametrize(
    ("modality", "winner", "weights"),
    [
        (None, "xr - plain film", [2 / 3, 1 / 3]),
        ("mri", "MRI", [1, 0]),
        ("xray", "xr - plain film", [1, 0]),
        ("ultrasound", "xr - plain film", [2 / 3, 1 / 3]),  # all name another
    ],
)
def test_the_known_modality_outvotes_a_majority(
    modality: Modality | None, winner: str, weights: list[float]
) -> None:
    """What it outvotes stands among the dissent, with no weight."""
    found = opinion(modality, ["xr - plain film", "xr - plain film", "MRI"])
    assert found.winner.text == winner
    assert [cluster.weight for cluster in found.clusters] == pytest.approx(weights)
    assert len(found.dissent) == 1


def test_only_a_question_for_the_modality_is_held_to_it() -> None:
    found = opinion("mri", ["X-ray", "X-ray", "MRI"], "Is this an X-ray or an MRI?")
    assert found.winner.text == "X-ray"


@pytest.mark.parametrize(
    ("language", "asked", "said"),
    [
        ("en", "What contrast agent was given?", "barium"),
        ("en", "What imaging modality should be done next?", "MRI"),
        ("en", "Which imaging modality would confirm the diagnosis?", "MRI"),
        ("en", "Which modality was fused with the CT?", "PET"),
        ("es", "¿Qué otra modalidad ayudaría?", "RM"),
        ("es", "¿Qué contraste se usó?", "bario"),
        ("zh", "建议下一步做什么成像方式检查?", "核磁共振"),
    ],
)
def test_what_is_asked_of_another_image_is_not_held_to_this_ones(
    language: Language, asked: str, said: str
) -> None:
    cell = Cell(language, kind_of(asked, language), "ct")
    judge = Judge({f"w{seat}": f"w{seat}" for seat in range(3)}, cell, None, asked)
    assert cell.kind == "modality"
    assert judge.weigh(answers([said, said, "CT"])).winner.text == said


@pytest.mark.parametrize(("language", "asked"), [*ASKED.items(), ("en", "What type of CT is it?")])
def test_what_is_asked_of_this_image_is(language: Language, asked: str) -> None:
    judge = Judge(
        {f"w{n}": f"w{n}" for n in range(3)}, Cell(language, "modality", "ct"), None, asked
    )
    assert judge.weigh(answers(["MRI", "MRI", "CT"])).winner.text == "CT"


def test_where_all_name_another_who_nearly_said_the_known_one_stands_for_it() -> None:
    """By how near they came; what is only a beginning, or yet another modality, is nobody's."""
    near = [[("ultrasound", True, 0.02), ("CT", True, 0.3)], [("Ultrasound", True, 0.05)]]
    near.append([("us - ultra", False, 0.4)])
    said = [
        answer.model_copy(
            update={
                "alternatives": tuple(
                    Alternative(begins=begins, whole=whole, probability=p)
                    for begins, whole, p in told
                )
            }
        )
        for answer, told in zip(answers(["MRI", "xr - plain film", "MRI"]), near, strict=True)
    ]
    judge = Judge({f"w{n}": f"w{n}" for n in range(3)}, Cell("en", "modality", "ultrasound"), None)
    found = judge.weigh(said)
    assert found.winner.text == "Ultrasound" and found.winner.workers == ()
    assert found.agreement is None and not found.unanimous  # nobody claims it
    assert [cluster.weight for cluster in found.clusters] == [1, 0, 0]
    assert sum(answer.weight or 0 for answer in found.answers) == pytest.approx(1)
    assert {each.text for each in found.dissent} == {"MRI", "xr - plain film"}
    # Nobody is counted for it, in any style and language.
    assert styled(found, "answer", "en") == "Ultrasound"
    for language, (winner, row) in UNSAID.items():
        sentence = styled(found, "sentence", language)
        first, _, others = sentence.partition(
            {"en": "; also", "es": "; también", "zh": "；另有"}[language]
        )
        assert first == winner and "MRI" in others
        first, *rows = styled(found, "differential", language).splitlines()
        assert first == row and len(rows) == 2 and "w0" in rows[0]


def test_who_nearly_said_the_known_one_in_two_ways_stands_for_it_once() -> None:
    """As likely as both together, and never more than its answer."""
    said, other = answers(["CT", "CT"])
    judge = Judge({"w0": "w0", "w1": "w1"}, Cell("en", "modality", "mri"), None)

    def share(*nearly: tuple[str, float]) -> float:
        told = tuple(Alternative(begins=b, whole=True, probability=p) for b, p in nearly)
        found = judge.weigh([said.model_copy(update={"alternatives": told}), other])
        assert [answer.weight for answer in found.answers] == [1, 0]
        return found.winner.share

    assert share(("MRI", 0.3), ("MR", 0.15)) == share(("MRI", 0.45)) == pytest.approx(0.25)
    assert share(("MRI", 0.6), ("MR", 0.5)) == pytest.approx(0.5)


def test_nothing_is_decided_while_all_name_another() -> None:
    judge = Judge({f"w{n}": f"w{n}" for n in range(4)}, Cell("en", "modality", "mri"), None)
    assert not judge.is_decided(answers(["CT", "CT", "CT"]), ["w3"])
    assert judge.is_decided(answers(["MRI", "MRI", "CT"]), ["w3"])


def test_pydicoms_pictures_are_asked_for_theirs(vllm, gateway, monkeypatch, capsys) -> None:
    """As the DICOMs that they are, and without their headers."""
    url = gateway([vllm("CT"), vllm("MRI")])
    monkeypatch.setattr(sys, "argv", ["modality", "--gateway", url])
    benchmark.main()
    told = capsys.readouterr().out.splitlines()
    assert any(line.split()[:3] == ["MR_small.dcm", "mri", "MRI"] for line in told)
    assert told[-2:] == ["header: 5 of 9 right", "picture: 3 of 9 right"]


@pytest.mark.parametrize(
    "answer",
    ["Tc-99m bone scan", "Tc 99m MDP", "technetium", "bone scan", "99m-Tc", "99mTc", "Tc MDP"],
)
def test_technetium_is_no_ct(answer):
    """TC is one in Spanish."""
    assert not names_another(answer, "nuclear")
    assert names_another(answer, "ct")
    assert names_another("TC de tórax", "nuclear")


@pytest.mark.parametrize(
    "answer",
    ["not MRI", "It is not an MRI", "CT, not MRI", "CT rather than MRI", "no es RM", "不是磁共振"],
)
def test_what_denies_a_modality_does_not_name_it(answer):
    assert names_another(answer, "mri")
    assert not names_another(answer, "ct")


def test_who_denies_two_names_neither():
    assert names_another("neither CT nor MRI", "ct") and names_another("not CT or MRI", "mri")
    assert not names_another("neither CT nor MRI", "xray")
    assert not names_another("It is not. MRI.", "mri")
    assert not names_another("No, CT", "ct") and not names_another("no contrast CT", "ct")
