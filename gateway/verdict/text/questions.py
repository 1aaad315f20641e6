"""What kind of question is this? Rules on its words, by language.

A worker may be good at planes and bad at counting: its confidence is calibrated by kind. The kinds
are those of the field's datasets (SLAKE, VQA-RAD), except that a question that yes or no answers is
of kind `yes_no` whatever it is about: half of all guesses at it are right.
"""

import re
from functools import lru_cache
from typing import Literal, get_args

from gateway.contract import Language
from gateway.verdict.text.spelling import FOLDED

Kind = Literal[
    "yes_no",
    "which_of",  # the question names the possible answers
    "modality",
    "plane",
    "count",
    "appearance",  # colour, shape, density
    "size",
    "knowledge",  # what no image shows: functions, causes, treatment
    "place",
    "abnormality",
    "organ",
    "other",
]
KINDS: tuple[Kind, ...] = get_args(Kind)

# Read from the top; the first that is found in the question names its kind.
RULES: dict[Language, tuple[tuple[Kind, str], ...]] = {
    "en": (
        ("which_of", r"\w,? or (?!not\b|no\b|in/|elsewhere)\w"),
        ("yes_no", r"^(so |and )?(is|are|was|were|do|does|did|has|have|can|could|will|would)\b"),
        ("yes_no", r"yes ?/ ?no"),
        ("modality", r"modalit|weight(ed|ing)|sequence|contrast|imaging method|taken with"),
        ("modality", r"(type|kind) of (mri?|ct|(medical )?(image|imaging|scan|film|radiograph))"),
        ("modality", r"how (is|was|were) (this|the) (image|scan|film)"),
        ("plane", r"\bplane\b|\bview\b|orientation|section|\bcut\b"),
        ("count", r"how many|number of|\bcount\b"),
        ("appearance", r"colou?r|shape|densit|dense|intens|texture|opacit|describe|made of"),
        ("size", r"largest|biggest|bigger|larger|smaller|smallest|\bsize\b|how (big|large|long)"),
        ("knowledge", r"function|effect|treat|prevent|symptom|cause|damage|role|therapy|origin"),
        ("place", r"^where\b|\bwhere\b|locat|position|\bside\b|which (part|lobe|lung|region)"),
        (
            "abnormality",
            r"disease|abnormal|patholog|diagnos|condition|lesion|finding|wrong|alarming",
        ),
        ("organ", r"organ|system|body|anatom|structure|tissue"),
    ),
    "es": (
        ("which_of", r"\w,? [ou] (?!no\b)\w"),
        (
            "yes_no",
            r"^¿?(es|son|está|están|hay|tiene|tienen|se|puede|pueden|existe|existen|muestra)\b",
        ),
        ("yes_no", r"s[ií] ?/ ?no"),
        ("modality", r"modalidad|ponderad|secuencia|contraste|tipo de (imagen|estudio)|técnica"),
        ("plane", r"\bplano\b|\bvista\b|orientación|\bcorte\b|proyección"),
        ("count", r"cuánt|número de"),
        ("appearance", r"color|forma|densidad|intensidad|textura|aspecto|describ"),
        ("size", r"más grande|más pequeñ|mayor|menor|tamaño|mide"),
        ("knowledge", r"función|efecto|trata|tratamiento|prevenir|síntoma|causa|daño|papel|origen"),
        ("place", r"dónde|ubica|localiza|posición|\blado\b|qué (parte|lóbulo|pulmón|región)"),
        ("abnormality", r"enfermedad|anormal|anomalía|patolog|diagnóstic|lesión|hallazgo|dolencia"),
        ("organ", r"órgano|sistema|cuerpo|anatom|estructura|tejido"),
    ),
    "zh": (
        ("which_of", r"还是|哪(个|一个)?(更|最)(大|小)|、[^、]*哪"),
        ("yes_no", r"吗|(?<!什)么[?？]?$|是否|有没有|是不是|能不能"),
        (
            "modality",
            r"模态|模式|加权|成像(方式|技术)|造影|怎么拍|类型|(什么|何种)(方式|设备|方法)",
        ),
        ("plane", r"平面|切面|断面|体位|视图"),
        ("count", r"多少(?!伤害|损害)|几(个|颗|片|处|种|只|根)|数量|数目"),
        ("appearance", r"颜色|什么色|形状|密度|信号|质地|描述"),
        ("size", r"最大|最小|更大|更小|大小|尺寸"),
        ("knowledge", r"功能|作用|治疗|预防|症状|原因|病因|伤害|危害|影响|防止|避免"),
        ("place", r"哪里|在哪|何处|位于|位置|哪(一个|一|个)?(侧|边|叶)|部位|部分|哪(个|一个)是"),
        ("abnormality", r"病|异常|诊断|症|损伤|不正常"),
        ("organ", r"器官|系统|身体|组织|结构|脏"),
    ),
}
COMPILED = {
    language: tuple((kind, re.compile(pattern.translate(FOLDED))) for kind, pattern in rules)
    for language, rules in RULES.items()
}


@lru_cache(maxsize=64)  # a case asks it for each of its workers
def kind_of(question: str, language: Language) -> Kind:
    """The kind of a question in `language`; `other` where no rule knows it."""
    asked = " ".join(question.casefold().translate(FOLDED).split())
    for kind, pattern in COMPILED[language]:
        if pattern.search(asked):
            return kind
    return "other"
