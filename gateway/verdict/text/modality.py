"""Which modalities a text names. Of a case whose own is known, by what a file's header says or the
caller, nothing need be guessed; and to a question that names one, it is no mere word for the image.
"""

import re

from gateway.contract import Language, Modality
from gateway.verdict.text.spelling import FOLDED

# TC is a tomography in Spanish, and technetium where a tracer stands beside it.
_TRACER = r"(99m?|mdp|hdp|dtpa|maa|dmsa|mag ?3|mibi|sestamibi|tetrofosmin|pertechnetate)"
# Whole words, in small letters, without accents or marks. An angiogram is of X-rays, where nothing
# beside it says more; a fundus alone may be the stomach's.
NAMES: dict[Modality, str] = {
    "ct": rf"cta?|cat scan|(computed|computeri[sz]ed) tomograph\w*|tac|"
    rf"(?<!99 )(?<!99m )tc(?! ?{_TRACER})|tomografia(?! (por emision|de coherencia))|计算机断层",
    "mri": r"mra?|mri|magnetic resonance|rm|resonancia|flair|dwi|stir|t[12]w?|核磁|磁共振",
    "xray": r"x ?rays?|xr|plain film|radiograph\w*|radiografia|rayos x|mammogra\w+|mamografia|"
    r"barium|fluoroscop\w*|angiogram|venogram|dsa|x光|x射线|x线|胸片|钼靶",
    "ultrasound": r"us|ultraso\w+|sonogra\w+|echocardiogra\w+|doppler|ecografia|"
    r"ecocardiogra\w+|b超|彩超|超声",
    "nuclear": r"nm|nuclear medicine|pet|positron emission|spect|scintigra\w+|"
    rf"medicina nuclear|gammagrafia|technetium|tecnecio|tc ?{_TRACER}|99m? ?tc|bone scan|核医学",
    "photograph": r"photos?|photographs?|fotos?|fotografias?|照片",
    "fundus": r"fundus (?:photo\w*|imag\w+|camera)|fundoscop\w*|ophthalmoscop\w*|oct|"
    r"optical coherence tomograph\w*|retinogra\w+|oftalmoscop\w*|fondo de ojo|"
    r"tomografia de coherencia optica|眼底|光学相干",
    "endoscopy": r"(?:endo|colono|gastro|broncho|cysto|laparo)scop\w*|"
    r"(?:endo|colono|gastro|bronco|cisto|laparo)scopi\w*|内镜|内窥镜|肠镜|胃镜",
    "microscopy": r"microscop\w*|histolog\w*|histopatholog\w*|histopatolog\w*|显微镜",
}
# A name ends where its letters do; one in Chinese has no blanks around it.
_BEGINS, _ENDED = r"(?:(?<![a-z0-9])|(?=[^ -~]))", r"(?:(?![a-z0-9])|(?<=[^ -~]))"
_PATTERNS = {
    modality: re.compile(rf"{_BEGINS}({names}){_ENDED}") for modality, names in NAMES.items()
}
_MARKS = re.compile(r"[^\w\s]")
_ENDS = re.compile(r"[.,;:!?。，；：！？\n]")  # "It is not. MRI."
_THE = r"(?:(?:an?|the|una?|la|el) )?"
_ANY = rf"{_THE}(?:{'|'.join(NAMES.values())}){_ENDED}"
# "CT, not MRI": what an answer denies is not what it names. A bare "no" may be one to the question.
_DENIED = re.compile(
    rf"(?:\b(?:not|neither|nor|rather than|instead of|no es|no son|ni) |不是|并非|而非) ?{_ANY}"
    rf"(?: (?:or|nor|o|ni) {_ANY})*+"
)
# What asks for a contrast agent, or for another image than this: the next, a better, an earlier.
_ANOTHER: dict[Language, re.Pattern[str]] = {
    "en": re.compile(
        r"contrast|\b(?:next|other|another|further|additional|alternative|complementary|follow\w*|"
        r"recommend\w*|suggest\w*|should|would|could|best|better|prefer\w*|appropriate|choice|"
        r"confirm\w*|fused|fusion|combined|compar\w*|prior|previous\w*|earlier|before|besides|"
        r"needed|required|indicated|ordered?)\b"
    ),
    "es": re.compile(
        r"contraste|\b(?:siguiente|proxim[oa]|otr[oa]s?|adicional|alternativa|complement\w*|"
        r"recom\w+|sug\w+|deber?i?an?|debe|conv\w+|mejor|prefer\w*|adecuad[oa]|eleccion|"
        r"confirm\w*|fusion\w*|combin\w*|compar\w*|previ[oa]|anterior|antes|despues|ademas|"
        r"neces\w+|indicad[oa]|pedir\w*|solicitar\w*)\b"
    ),
    "zh": re.compile(
        "对比剂|造影剂|下一步|接下来|其他|其它|另|还[需应要能]|进一步|建议|推荐|应[该当]|更[好适合]|"
        "最[好佳适合]|首选|确诊|证实|融合|结合|相比|以前|之前|上次|复查|补充"
    ),
}


def asks_for(question: str, language: Language, known: Modality) -> bool:
    """Whether a question for a modality is for that of this image, which is known: not for its
    contrast agent, nor for an image that is not here, nor for one that it says itself to be of
    another."""
    elsewhere = _ANOTHER[language].search(_folded(question))
    return not elsewhere and named_in(question) <= {known}


def names(answer: str, known: Modality) -> bool:
    """Whether the answer names that modality, whatever else it names: "mr - flair" names MRI."""
    return known in _named_in(_DENIED.sub(" ", _folded(answer)))


def names_another(answer: str, known: Modality) -> bool:
    """Whether the answer names modalities, and not the known one: "an - angiogram" of an MRI does,
    "mr - flair" does not, and neither does what names none ("axial", "yes"). What denies the known
    one does."""
    text = _folded(answer)
    named = _named_in(_DENIED.sub(" ", text))
    return known not in named and (bool(named) or known in _named_in(text))


def named_in(question: str) -> set[Modality]:
    """Those that a question names, be it to deny them. A photo is any picture there."""
    return _named_in(_folded(question)) - {"photograph"}


def _folded(text: str) -> str:
    parts = _ENDS.split(text.casefold().translate(FOLDED))
    return " . ".join(" ".join(_MARKS.sub(" ", part).split()) for part in parts)


def _named_in(folded: str) -> set[Modality]:
    return {modality for modality, pattern in _PATTERNS.items() if pattern.search(folded)}
