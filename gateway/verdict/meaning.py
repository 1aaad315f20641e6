"""What an answer says, as far as rules can tell: two answers with one meaning count together.

Only what is certain is made equal: spelling, the order of a list, yes and no in other words, number
words, and the field's synonyms for whole answers. Sides, numbers and negations always tell answers
apart.
"""

import re
import unicodedata

YES = {"yes", "yeah", "true", "correct", "sí", "si"}
YES |= {"是", "是的", "对", "有", "包含", "可以", "存在"}
NO = {"no", "nope", "false"}
NO |= {"不", "不是", "否", "没有", "无", "不包含", "不可以", "不存在"}

# What is said after a yes or no without adding to it: "no, it is not".
ECHO = re.compile(r"(it|there|they|this|these)( is|'s| are| does| do| has| have)( not|n't)?")

NUMBERS = {
    word: str(number)
    for words in (
        "zero one two three four five six seven eight nine ten",
        "cero uno dos tres cuatro cinco seis siete ocho nueve diez",
        "零 一 二 三 四 五 六 七 八 九 十",
    )
    for number, word in enumerate(words.split())
} | {"两": "2"}

# Whole answers in lower case, with spaces for hyphens; the first names the meaning.
SAME = (
    "mri, mr, mri scan, mr scan, mr imaging, magnetic resonance, magnetic resonance imaging, rm, "
    "resonancia magnética, 核磁共振, 磁共振, 核磁共振成像, 磁共振成像",
    "ct, ct scan, cat scan, computed tomography, tc, tomografía computarizada, "
    "计算机断层扫描, ct扫描",
    "x ray, xray, x rays, x ray film, x ray image, plain film, plain radiograph, radiograph, "
    "radiografía, rayos x, x光, x光片, x射线",
    "ultrasound, ultrasound scan, ultrasonography, sonography, sonogram, ecografía, ultrasonido, "
    "超声, 超声波",
    "pet, pet scan, positron emission tomography",
    "transverse, transverse plane, transverse section, axial, axial plane, axial section, "
    "plano axial, plano transversal, 横断面, 轴位",
    "coronal, coronal plane, coronal section, plano coronal, 冠状面, 冠状位",
    "sagittal, sagittal plane, sagittal section, plano sagital, 矢状面, 矢状位",
    "t1, t1 weighted, t1加权",
    "t2, t2 weighted, t2加权",
    "gray, grey",
)
SYNONYMS = {phrase: line.split(", ")[0] for line in SAME for phrase in line.split(", ")}

ARTICLE = re.compile(r"^(the|an?|el|la|los|las) (?=\w\w)")
HYPHEN = re.compile(r"(?<=[^\W\d_])-(?=\w)|(?<=\w)-(?=[^\W\d_])")  # a minus or a range stays


def meaning(text: str) -> tuple[str, ...]:
    """What makes two answers equal; () where nothing was said.

    "Right lung, left lung." and "left lung, right lung" are equal, so are "Magnetic resonance" and
    "MRI"; "yes" and "yes, left" are not.
    """
    plain = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    parts = {_part(part) for part in re.split("[,、;]", plain.rstrip(".。!"))} - {""}
    if parts & {"yes", "no"}:
        parts = {part for part in parts if not ECHO.fullmatch(part)}
    return tuple(sorted(parts))


def _part(text: str) -> str:
    """One item of a list of answers, by the name of its meaning."""
    plain = HYPHEN.sub(" ", ARTICLE.sub("", text.strip()))
    if plain in YES | NO:
        return "yes" if plain in YES else "no"
    plain = " ".join(NUMBERS.get(word, word) for word in plain.split())
    return SYNONYMS.get(plain, plain)
