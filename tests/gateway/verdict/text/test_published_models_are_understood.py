"""How published models answer, by what they are asked: what stands on one line is one answer;
no two lines are one. A line may go on on the next with the same first form."""

from typing import get_args

import pytest

from gateway.contract import Language
from gateway.verdict.text import claims, numbers, questions, spelling, words
from gateway.verdict.text.meaning import meaning

# By language and question. Forms of one answer are parted by a bar; ⏎ is a new line.
SAID: list[tuple[Language, str, str]] = [
    (
        "en",
        "What is the diagnosis?",
        r"""
        edema|(Edema)|[Edema]|**Edema**|“Edema.”|An edema|oedema|Ｅｄｅｍａ|1. Edema
        edema|1) Edema|- Edema
        edema|$\boxed{edema}$|\boxed{\textbf{Edema}}|\[ \boxed{\text{Edema}} \]|$\text{edema}$
        edema|{"answer": "Edema"}|{"answer": "Edema", "confidence": 0.9}|{"final_answer": "edema"}
        edema|```json⏎{"answer": "edema", "reasoning": "it is bright"}⏎```|{'answer': 'Edema'}
        edema|### Answer: Edema|**Answer**: Edema|Sure! The answer is edema.|Diagnosis: edema
        {"answer": "edema", "second": "infection"}
        {"answer": "yes", "answer": "no"}
        {"diagnosis": "edema", "answer": "yes"}
        no edema|no evidence of edema|There is no evidence of edema.|No signs of edema
        not edema
        edema, ruled out
        edema vs infection
        no definite edema
        cannot exclude edema
        likely edema
        (edema) or (infection)
        1. Edema 2. Infection
        benign
        malignant
        T2
        2
        stage 2|stage II|Stage II.
        stage 3|stage III
        grade 3|grade III
        """,
    ),
    (
        "en",
        "Which side is affected?",
        """
        left|L|L.|(L)|Left side|left-sided|The left side is affected.|On the left.
        right|R|**R**|Right|The right side is affected.
        bilateral|both|Both sides|Both sides are affected.
        left lung|The left lung is affected.|Left lung
        The left side is not affected.
        Neither side is affected.
        Only the left side is affected.
        left upper lobe|LUL
        """,
    ),
    (
        "en",
        "Is the lesion on the left or the right?",
        """
        left|L|It is on the left.
        right|R
        The lesion is benign.
        The lesion is malignant.
        """,
    ),
    (
        "en",
        "Which vertebrae are affected?",
        """
        L4/5|L4-5|L4/L5|L4-L5
        L5/S1|L5-S1
        L3-5|L3-L5
        L3/5
        L4|L4.
        L5
        L
        left
        T1/T2
        T1-T2
        """,
    ),
    (
        "en",
        "Which lesion is it, benign or malignant?",
        """
        The lesion is benign.
        The lesion is malignant.
        """,
    ),
    (
        "en",
        "Is there a pleural effusion?",
        """
        yes|Y|YES|**Yes**, there is a pleural effusion.|{"answer": true}|Pleural effusion: yes
        no|N|Pleural effusion: no|Pleural effusion: absent|{"answer": false}|nope|1. No|(No)
        cannot exclude a pleural effusion
        A pleural effusion cannot be excluded.
        Possible pleural effusion
        likely
        Unlikely
        maybe
        It is not true that there is no pleural effusion.
        Not without a pleural effusion
        No definite pleural effusion
        Yes, on the left
        Yes, on the right
        Pleural effusion: left
        Pneumothorax: no
        """,
    ),
    (
        "en",
        "What modality is used to take this image?",
        """
        CT|A CT scan was used to take this image.|It was taken using CT.|Computed Tomography (CT)
        MRI|Magnetic resonance imaging (MRI)
        T2|T2-weighted|T2W|T2WI|T2 weighted image
        T1|T1W
        CT or MRI
        PET/CT
        not CT
        R
        L
        """,
    ),
    (
        "en",
        "In what plane is this scan?",
        """
        axial|Axial plane|In the axial plane.|axial view|Transverse|The scan is in the axial plane.
        coronal|coronal view|Coronal slice
        sagittal
        """,
    ),
    (
        "en",
        "How large is the mass?",
        """
        3 cm|The mass is 3 cm.|The mass measures 3 cm.|It measures 3 cm
        3-4 cm|It measures between 3 and 4 cm.|The mass measures 3 to 4 cm.
        >3 cm|It is larger than 3 cm.|The mass measures more than 3 cm
        <3 cm|It is smaller than 3 cm.
        ~3 cm|It measures approximately 3 cm.
        3 mm
        3 x 4 cm
        """,
    ),
    (
        "en",
        "Which rib is fractured?",
        """
        third rib|3rd rib|The third rib is fractured.|The 3rd rib
        third left rib
        second rib|2nd rib
        3 ribs
        """,
    ),
    (
        "es",
        "¿Cuál es el diagnóstico?",
        """
        edema|(Edema)|**Edema**|El diagnóstico es edema.|{"respuesta": "Edema"}|Respuesta: edema
        sin edema|no hay edema|No se observa edema.|No hay evidencia de edema.|Sin signos de edema
        edema o infección
        posible edema
        no se puede descartar edema
        estadio 2|estadio II
        primero
        segundo
        """,
    ),
    (
        "es",
        "¿Qué lado está afectado?",
        """
        izquierdo|I|izquierda|lado izquierdo|izq.|El lado izquierdo está afectado.
        derecho|D|A la derecha
        ambos|bilateral|ambos lados
        El lado izquierdo no está afectado.
        """,
    ),
    (
        "es",
        "¿Qué modalidad es?",
        """
        TC|tomografía computada|Tomografía computarizada (TC)|La modalidad utilizada es TC.
        RM|Es una resonancia magnética.
        tomografía por emisión de positrones
        I
        """,
    ),
    (
        "zh",
        "诊断是什么？",
        r"""
        水肿|（水肿）|【水肿】|「水肿」|**水肿**|答案：水肿|答：水肿|诊断为水肿。|1. 水肿
        水肿|{"答案": "水肿"}|{"answer": "水肿"}|\boxed{\text{水肿}}
        无水肿|没有水肿|未见水肿
        不排除水肿
        可能水肿
        未见明显水肿
        二期|II期|2期
        三期
        第二
        """,
    ),
    (
        "zh",
        "病变在哪一侧？",
        """
        左侧|L|左|病变在左侧。
        右侧|R
        双侧|两侧
        左肺
        """,
    ),
]


@pytest.mark.parametrize(("language", "question", "rows"), SAID)
def test_one_answer_is_one_in_any_form_and_two_are_two(language, question, rows):
    meant: dict[tuple[str, ...], str] = {}
    for row in rows.strip().splitlines():
        first, *others = row.strip().split("|")
        own = meaning(first.replace("⏎", "\n"), language, question)
        for other in others:
            assert meaning(other.replace("⏎", "\n"), language, question) == own, (first, other)
        assert meant.setdefault(own, first) == first, (meant[own], first)


@pytest.mark.parametrize("language", get_args(Language))
def test_every_table_has_every_language(language):
    """Whoever adds one is told where it is missing."""
    tables = (
        claims.HEDGES,
        numbers.NUMERALS,
        questions.RULES,
        spelling.PARTS,
        words.WORDS,
    )
    assert all(language in table for table in (*tables, spelling.SHORT_FORMS))
