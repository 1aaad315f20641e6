"""The smallest set of answers that holds the right one as often as a caller asks.

A conformal set (Vovk et al. 2005): of the calibration cases it is known what share the panel
believed in the right answer; in the set is every answer with as large a share as in `coverage` of
those cases the right one had at least. Taking answers by their share alone gives the smallest such
sets (Sadinle, Lei & Wasserman 2019, "Least Ambiguous Set-Valued Classifiers With Bounded Error
Levels", JASA 114). It holds for cases like those, and for no others.
"""

import math

from gateway.contract import Language, PredictionSet, SetMember
from gateway.verdict.weigh import Judge, Opinion

WHY: dict[Language, dict[str, str]] = {
    "en": {
        "missing": "{workers} did not answer, on whose answers such sets were calibrated",
        "strange": "such sets were calibrated without {workers}",
        "unnamed": "in such cases no worker comes near to naming the right answer so often; "
        "at most {most:.0%} can be had",
    },
    "es": {
        "missing": "no ha respondido {workers}, con cuyas respuestas se calibraron estos conjuntos",
        "strange": "estos conjuntos se calibraron sin {workers}",
        "unnamed": "en casos así ningún modelo llega a nombrar tan a menudo la respuesta correcta; "
        "se alcanza como máximo {most:.0%}",
    },
    "zh": {
        "missing": "{workers}没有作答，而这类集合是用其答案校准的",
        "strange": "这类集合校准时没有{workers}",
        "unnamed": "在此类病例中，没有模型能如此经常地提及正确答案；最多可达{most:.0%}",
    },
}


def prediction_set(coverage: float, judge: Judge, opinion: Opinion) -> PredictionSet:
    """Of the answers that anybody gave or nearly gave; `opinion` is the judge's.

    The judge knows what was learned of such sets in the case's language.
    """
    words = WHY[judge.cell.language]
    cell, competence = judge.told_cell(opinion.voices), judge.competence
    assert competence is not None

    def without(why: str | None) -> PredictionSet:
        return PredictionSet(coverage=coverage, answers=None, why=why)

    if opinion.familiarity and opinion.familiarity.unfamiliar:
        return without(opinion.familiarity.why)
    heard = [answer.worker for answer in opinion.voices]
    known = competence.heard_in(judge.cell.language)
    if missing := [worker for worker in known if worker not in heard]:
        return without(words["missing"].format(workers=", ".join(missing)))
    if strange := [worker for worker in heard if worker not in known]:
        return without(words["strange"].format(workers=", ".join(strange)))
    steps = competence.shares_of_the_right(cell)
    least = steps[math.floor((1 - coverage) * (len(steps) - 1) + 1e-9)]
    if least <= 0:
        most = 1 - sum(each <= 0 for each in steps) / (len(steps) - 1)
        return without(words["unnamed"].format(most=max(most, 0.0)))
    ranked = judge.candidates(opinion)
    return PredictionSet(
        coverage=coverage,
        # Nobody is helped by an empty set: where no answer has such a share, the likeliest stands.
        answers=tuple(
            SetMember(text=text, share=share)
            for n, (text, share) in enumerate(ranked)
            if n == 0 or share >= least
        ),
    )
