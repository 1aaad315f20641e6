"""Which modalities a text names. Of a case whose own is known, by what a file's header says or the
caller, nothing need be guessed; and to a question that names one, it is no mere word for the image.
"""

import re

from gateway.contract import Modality
from gateway.verdict.text.spelling import FOLDED

# TC is a tomography in Spanish, and technetium where a tracer stands beside it.
_TRACER = r"(99m?|mdp|hdp|dtpa|maa|dmsa|mag ?3|mibi|sestamibi|tetrofosmin|pertechnetate)"
# Whole words, in small letters, without accents or marks. An angiogram is of X-rays, where nothing
# beside it says more.
NAMES: dict[Modality, str] = {
    "ct": rf"cta?|cat scan|(computed|computeri[sz]ed) tomograph\w*|tac|"
    rf"(?<!99 )(?<!99m )tc(?! ?{_TRACER})|tomografia(?! (por emision|de coherencia))|计算机断层",
    "mri": r"mra?|mri|magnetic resonance|rm|resonancia|flair|dwi|stir|t[12]w?|核磁|磁共振",
    "xray": r"x ?rays?|xr|plain film|radiograph\w*|radiografia|rayos x|mammogra\w+|mamografia|"
    r"barium|fluoroscop\w*|angiogram|venogram|x光|x射线|x线|胸片",
    "ultrasound": r"us|ultraso\w+|sonogra\w+|doppler|ecografia|超声",
    "nuclear": r"nm|nuclear medicine|pet|positron emission|spect|scintigra\w+|"
    rf"medicina nuclear|gammagrafia|technetium|tecnecio|tc ?{_TRACER}|99m? ?tc|bone scan|核医学",
}
_PATTERNS = {
    modality: re.compile(rf"(?<![a-z0-9])({names})(?![a-z0-9])")
    for modality, names in NAMES.items()
}
_MARKS = re.compile(r"[^\w\s]")
_ENDS = re.compile(r"[.,;:!?。，；：！？\n]")  # "It is not. MRI."
_THE = r"(?:(?:an?|the|una?|la|el) )?"
_ANY = rf"{_THE}(?:{'|'.join(NAMES.values())})(?![a-z0-9])"
# "CT, not MRI": what an answer denies is not what it names. A bare "no" may be one to the question.
_DENIED = re.compile(
    rf"(?:\b(?:not|neither|nor|rather than|instead of|no es|no son|ni) |不是|并非|而非) ?{_ANY}"
    rf"(?: (?:or|nor|o|ni) {_ANY})*+"
)


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


def named_in(text: str) -> set[Modality]:
    """Those that a text names, be it to deny them."""
    return _named_in(_folded(text))


def _folded(text: str) -> str:
    parts = _ENDS.split(text.casefold().translate(FOLDED))
    return " . ".join(" ".join(_MARKS.sub(" ", part).split()) for part in parts)


def _named_in(folded: str) -> set[Modality]:
    return {modality for modality, pattern in _PATTERNS.items() if pattern.search(folded)}
