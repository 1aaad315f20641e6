"""Claims that rules leave apart and a model takes for one: which it may be asked about, and which
meet by what it says.

Two claims mean the same where each entails the other (Kuhn et al. 2023, arXiv 2302.09664). What a
model says never joins claims of which one names a side, an organ, a number, its unit, a doubt or a
drug that the other does not, or denies where the other does not. And a claim meets others only
where it and each of them entail each other: the ends of a chain may be far apart.
"""

import re
from collections.abc import Mapping
from itertools import combinations

from gateway.contract import Language
from gateway.verdict.text.claims import TURNS
from gateway.verdict.text.questions import Kind
from gateway.verdict.text.sentences import Meaning, telling
from gateway.verdict.weigh import Cluster, Opinion

MOST = 6  # claims, the heaviest: 15 pairs
LONGEST = 300  # characters of one; who says more tells a story
SURE = 0.5
# Their answers are a few words each, which rules know.
BY_RULES: frozenset[Kind] = frozenset({"yes_no", "which_of", "modality", "plane", "count"})

# The stems by which drugs are named (WHO, International Nonproprietary Names), in three languages;
# with the letters before them where other words end so: "vitrina", "girasol", "servir".
STEMS = (
    r"cill?in[ae]?|c[iy]clin[ae]?|m[iy]cin[ae]?|floxacin[oa]?|azole?|asone|asona|olon[ae]|"
    r"isone|isona|limus|statina?|olol|pril|sart[aá]n|mab|tinib|(?:[aou]|[^v]i|as)vir|"
    r"parina?|ca[ií]n[ae]|profeno?|dipin[oe]|gliptina?|oxetin[ae]|azepam|tadin[ae]|rizin[ae]|tretino[ií]na?|nafin[ae]|"
    r"formina?|trexat[eo]|sulin[ae]?|tasol|(?:me|no|le)th?rina?|mectin[ae]?|fulvin[ae]?|oquin[ae]|"
    r"(?:ci|po|es)triol|pirin[ae]?|dapson[ae]|salicylic|salic[ií]lico"
)
CHINESE_STEMS = (
    "西林|环素|霉素|沙星|唑|米松|松龙|奈德|莫司|他汀|洛尔|普利|沙坦|单抗|替尼|韦(?![格尼伯氏])|肝素|"
    "卡因|洛芬|地平(?![线面])|列汀|西汀|西泮|[雷帕]他定|利嗪|维a酸|萘芬|双胍|蝶呤|胰岛素|"
    "可的松|他索|菌素|司匹林|水杨酸|菊酯|氯喹|三醇|氨苯砜"
)
DRUG = re.compile(
    rf"\b(?:cef(?!á|al(?!exi|oti|osp|ori))\w{{3,}}|\w{{2,}}(?:{STEMS}))\b|头孢\w?\w?|\w?\w?\w?(?:{CHINESE_STEMS})"
)
UNIT = re.compile(
    r"\d[\s-]?((?:[cm]m|[mkµμ]?g|mcg|ml|(?:minut|hour|day|week|month|year|hora|d[ií]a|semana|año)"
    r"[a-z]*)(?![a-zµμ])|%|毫米|厘米|毫克|微克|克|毫升|小时|天|周|个月|年)"
)
# Words of which another is the opposite, and marks of a stage or a type: claims differ by them.
OPPOSED = re.compile(
    r"\b(?:non[ -]?(?=[a-z])|h[iy]p[eo]r?(?=[a-z]{3})|benign|malign|acute|chronic|agud|cr[oó]nic|"
    r"(?:stage|grade|type|class|estadio|grado|tipo|clase) ?[a-z0-9]{1,4}\b|ven[ae]|vein|art[eé]r)|"
    r"[+\-−]\d|(?<=[a-z])[+\-−](?![\w])|良性|恶性|急性|慢性|静脉|动脉|旁腺|[ⅰ-ⅻ]+[a-z]?"
)


def open_pairs(opinion: Opinion, kind: Kind, language: Language) -> list[tuple[Cluster, Cluster]]:
    """The claims that may yet mean the same, two by two; none of a question whose answers
    rules know."""
    if kind in BY_RULES:
        return []
    return [
        (one, other)
        for one, other in combinations(opinion.clusters[:MOST], 2)
        if may_meet(one.text, other.text, language)
    ]


def may_meet(one: str, other: str, language: Language) -> bool:
    """Whether a model's word can join them."""
    short = max(len(one), len(other)) <= LONGEST
    return short and _told(one, language) == _told(other, language)


def joined(
    opinion: Opinion, entails: Mapping[tuple[Meaning, Meaning], float]
) -> dict[Meaning, Meaning]:
    """Which claims stand under another's meaning, by how likely each entails the other."""

    def meets(one: Meaning, other: Meaning) -> bool:
        return min(entails.get((one, other), 0), entails.get((other, one), 0)) > SURE

    groups: list[list[Meaning]] = []
    for cluster in opinion.clusters:
        own = cluster.meaning
        home = next((each for each in groups if all(meets(own, other) for other in each)), None)
        if home is None:
            groups.append([own])
        else:
            home.append(own)
    return {other: first for first, *others in groups for other in others}


def _told(text: str, language: Language) -> tuple[frozenset[str], bool, frozenset[str]]:
    named, denies = telling(text, language)
    plain = text.casefold()
    units = {unit.rstrip("s") for unit in UNIT.findall(plain)}
    opposed = frozenset(OPPOSED.findall(plain))
    return (
        named | units | opposed,
        denies or bool(TURNS.search(text)),
        frozenset(DRUG.findall(plain)),
    )
