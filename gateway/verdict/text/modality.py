"""Which modalities a text names. Of a case whose own is known, by what a file's header says or the
caller, nothing need be guessed; and to a question that names one, it is no mere word for the image.
"""

import re

from gateway.contract import Modality
from gateway.verdict.text.spelling import FOLDED

# Whole words, in small letters, without accents or marks. An angiogram is of X-rays, where nothing
# beside it says more.
NAMES: dict[Modality, str] = {
    "ct": r"cta?|cat scan|(computed|computeri[sz]ed) tomograph\w*|tac|tc(?! ?99)|"
    r"tomografia(?! (por emision|de coherencia))|计算机断层",
    "mri": r"mra?|mri|magnetic resonance|rm|resonancia|flair|dwi|stir|t[12]w?|核磁|磁共振",
    "xray": r"x ?rays?|xr|plain film|radiograph\w*|radiografia|rayos x|mammogra\w+|mamografia|"
    r"barium|fluoroscop\w*|angiogram|venogram|x光|x射线|x线|胸片",
    "ultrasound": r"us|ultraso\w+|sonogra\w+|doppler|ecografia|超声",
    "nuclear": r"nm|nuclear medicine|pet|positron emission|spect|scintigra\w+|"
    r"medicina nuclear|gammagrafia|technetium|tecnecio|tc ?99m?|bone scan|核医学",
}
_PATTERNS = {
    modality: re.compile(rf"(?<![a-z0-9])({names})(?![a-z0-9])")
    for modality, names in NAMES.items()
}
_MARKS = re.compile(r"[^\w\s]")


def names(answer: str, known: Modality) -> bool:
    """Whether the answer names that modality, whatever else it names: "mr - flair" names MRI."""
    return known in named_in(answer)


def names_another(answer: str, known: Modality) -> bool:
    """Whether the answer names modalities, and not the known one: "an - angiogram" of an MRI does,
    "mr - flair" does not, and neither does what names none ("axial", "yes")."""
    named = named_in(answer)
    return bool(named) and known not in named


def named_in(text: str) -> set[Modality]:
    words = " ".join(_MARKS.sub(" ", text.casefold().translate(FOLDED)).split())
    return {modality for modality, pattern in _PATTERNS.items() if pattern.search(words)}
