"""How like the cases that a panel was calibrated on is this one?

A worker that remembers tells how like its own cases it is. What that is worth, the calibration
cases say: a value is the part of them that were no more alike, a conformal p-value (Vovk et al.
2005; of outliers, Bates et al. 2023, arXiv 2104.08279), so of cases such as they a part of LEAST
falls below LEAST. Below it a case is called unfamiliar, and whatever was learned of confidences is
not claimed for it.
"""

from bisect import bisect_right

from gateway.contract import Familiarity, Language, Likeness, Modality
from gateway.verdict.competence import Cell, Competence

LEAST = 0.02

WHY: dict[Language, dict[str, str]] = {
    "en": {
        "image": "the image is unlike those that the panel was calibrated on",
        "question": "the question is put unlike those that the panel was calibrated on",
        "modality": "no {modality} is known among the cases that the panel was calibrated on",
        "uncalibrated": "the panel was calibrated on no cases in this language",
        "untold": "no worker that was heard tells how like its cases this one is",
    },
    "es": {
        "image": "la imagen no se parece a aquellas con las que se calibró el panel",
        "question": "la pregunta no se parece a aquellas con las que se calibró el panel",
        "modality": "no consta ningún caso de {modality} entre los que calibraron el panel",
        "uncalibrated": "el panel no se calibró con casos en este idioma",
        "untold": "ninguno de los modelos oídos dice cuánto se parece este caso a los suyos",
    },
    "zh": {
        "image": "该图像与校准小组所用的图像不相似",
        "question": "该问题与校准小组所用的问题不相似",
        "modality": "校准小组所用的病例中没有已知的{modality}",
        "uncalibrated": "校准小组所用的病例中没有这种语言的",
        "untold": "作答的模型都没有说明该病例与其病例有多相似",
    },
}
NAMES: dict[Language, dict[Modality, str]] = {
    "en": {"ct": "CT", "mri": "MRI", "xray": "X-ray", "nuclear": "nuclear medicine"},
    "es": {
        "ct": "TC",
        "mri": "RM",
        "xray": "radiografía",
        "ultrasound": "ecografía",
        "nuclear": "medicina nuclear",
        "photograph": "fotografía",
        "fundus": "fondo de ojo",
        "endoscopy": "endoscopia",
        "microscopy": "microscopía",
    },
    "zh": {
        "ct": "CT",
        "mri": "MRI",
        "xray": "X光",
        "ultrasound": "超声",
        "nuclear": "核医学",
        "photograph": "照片",
        "fundus": "眼底图",
        "endoscopy": "内镜",
        "microscopy": "显微镜图像",
    },
}


def familiarity(told: Likeness | None, cell: Cell, competence: Competence) -> Familiarity:
    """What `told` is worth in a case of `cell`. How familiar it is, is said among all cases of its
    language; whether it is, among those that were asked in its manner."""
    reasons = []
    if cell.modality and competence.modalities and cell.modality not in competence.modalities:
        name = NAMES[cell.language].get(cell.modality, cell.modality)
        reasons.append(WHY[cell.language]["modality"].format(modality=name))
    known = competence.familiarity.get(cell.language)
    if told is None or known is None:
        silent = told is None or not competence.familiarity
        untold = WHY[cell.language]["untold" if silent else "uncalibrated"]
        return Familiarity(unfamiliar=bool(reasons), why="; ".join(reasons) or untold)
    nearest = next(table for n in cell.names if (table := competence.familiarity.get(n)))
    for part in ("image", "question"):
        if share(getattr(nearest, part), getattr(told, part)) < LEAST:
            reasons.append(WHY[cell.language][part])
    return Familiarity(
        image=share(known.image, told.image),
        question=share(known.question, told.question),
        unfamiliar=bool(reasons),
        why="; ".join(reasons) or None,
    )


def share(steps: tuple[float, ...], value: float) -> float:
    """The part of the cases that had no more than `value`; `steps` are their quantiles."""
    return bisect_right(steps, value) / len(steps)
