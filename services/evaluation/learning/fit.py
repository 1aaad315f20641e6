"""What is learned from a panel's answers to questions that its workers were not trained on.

`calibrate`: how far each worker's confidence is to be believed in each kind of case, how alike the
errors of a family are, and how often a verdict is right. Everything that is scored along the way is
scored on images that were left out of the fit.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.model_selection import GroupKFold

from gateway.contract import Answer, Likeness
from gateway.settings import Settings
from gateway.verdict.competence import (
    EDGE,
    Calibrated,
    Cell,
    Competence,
    Likenesses,
    Line,
    Skill,
    Worker,
    logit,
)
from gateway.verdict.weigh import Judge, Opinion
from models.data.example import Example
from models.data.splits import groups
from services.evaluation.heard import Heard, hear, refuse_strangers, served, shown_in
from services.evaluation.score import is_right
from services.evaluation.stored_run import EvaluationError

FOLDS = 5
STRENGTHS = (0.01, 0.03, 0.1, 0.3, 1.0)  # of the ridge, the inverse; chosen on left-out images
PRIOR_CASES = 20  # a cell with so many cases counts half, its parent the other half
FEWEST = 50  # cases of a worker, or asked in one manner, from which anything is learned
FEWEST_OF_A_KIND = 30  # from which its sets of answers are learned
VOICE_PRIOR = 50  # cases
EM_STEPS = 100
STEPS = np.linspace(0, 1, 101)  # of the likenesses and shares that are kept


def calibrate(runs: Sequence[Path], settings: Settings, data: Path) -> Competence:
    """The competence of the seated workers, from stored runs over questions that none of them was
    trained on (`consilium evaluate` refuses others).

    Raises:
        EvaluationError: a run that cannot be read or had its images changed, or too few answers.
        models.data's DataError
    """
    cases, sources = hear(runs, data)
    refuse_strangers(cases, settings)
    cases = _in_manners(cases)
    competence = _learned(cases, settings)
    weights = served(runs)
    shares: dict[str, list[tuple[float, bool]]] = defaultdict(list)
    right_shares: dict[str, list[float]] = defaultdict(list)
    agreements: dict[str, list[tuple[Example, float]]] = defaultdict(list)
    for case, (judge, opinion) in zip(cases, _cross_fitted(cases, settings), strict=True):
        winner, right_share = opinion.winner, share_of_the_right(judge, opinion, case.example)
        for name in case.cell.ways:
            shares[name].append((winner.share, is_right(winner.text, case.example)))
        if opinion.agreement is not None:
            for name in case.cell.ways:
                agreements[name].append((case.example, opinion.agreement))
        for name in case.cell.names[:-1]:
            right_shares[name].append(right_share)
    return competence.model_copy(
        update={
            "learned_from": "; ".join(sources),
            "workers": {
                name: worker.model_copy(update={"weights": weights.get(name)})
                for name, worker in competence.workers.items()
            },
            "verdict": {
                name: _line_of(each)
                for name, each in sorted(shares.items())
                # A manner in which all are right, or all wrong, is as its language is.
                if "/" not in name or len({right for _, right in each}) > 1
            },
            "right_shares": {
                name: conformal(each)
                for name, each in sorted(right_shares.items())
                if "/" not in name or len(each) >= FEWEST_OF_A_KIND
            },
            "calibrated": {name: calibrated(each) for name, each in sorted(agreements.items())},
            "familiarity": _familiarity(cases, competence.tells),
            "images": tuple(sorted(set().union(*shown_in([case.example for case in cases])))),
        }
    )


def share_of_the_right(judge: Judge, opinion: Opinion, example: Example) -> float:
    """What all believe in the right answer to it, as far as anybody came near to naming it."""
    named = (share for text, share in judge.candidates(opinion) if is_right(text, example))
    return next(named, 0.0)


def conformal(shares: Sequence[float]) -> tuple[float, ...]:
    """Of the right answers. One 0 more: the conformal quantile of n cases is that of n + 1."""
    return _steps([0.0, *shares])


def calibrated(agreements: Sequence[tuple[Example, float]]) -> Calibrated:
    """What the verdicts on these cases were like, by their agreement."""
    return Calibrated(
        images=len(set(groups([example for example, _ in agreements]))),
        agreements=_steps([agreement for _, agreement in agreements]),
    )


def cross_fitted(cases: Sequence[Heard], settings: Settings) -> list[Opinion]:
    """The panel's opinion of each case, weighed by what was learned from the other images. Every
    case has an answer.

    Raises:
        EvaluationError: too few answers.
    """
    return [opinion for _, opinion in _cross_fitted(_in_manners(cases), settings)]


def _cross_fitted(cases: Sequence[Heard], settings: Settings) -> list[tuple[Judge, Opinion]]:
    found: dict[int, tuple[Judge, Opinion]] = {}
    for learned, left_out in _folds([case.example for case in cases]):
        competence = _learned([cases[index] for index in learned], settings)
        for index in left_out:
            judge = judge_of(cases[index], settings, competence)
            found[index] = judge, judge.weigh(cases[index].answers)
    return [found[index] for index in range(len(cases))]


def opinion_of(case: Heard, settings: Settings, competence: Competence | None) -> Opinion:
    return judge_of(case, settings, competence).weigh(case.answers)


def judge_of(case: Heard, settings: Settings, competence: Competence | None) -> Judge:
    """No modality is told: a caller may not know it either."""
    families = {worker.name: worker.family for worker in settings.workers}
    cell = Cell(case.cell.language, case.cell.kind, None)
    return Judge(families, cell, competence, case.example.question)


def _learned(cases: Sequence[Heard], settings: Settings) -> Competence:
    """What the cases teach of the workers and their families; nothing of verdicts yet."""
    workers = {
        seat.name: _worker_of(cases, seat.name, seat.model, seat.prompt)
        for seat in settings.workers
    }
    known = Competence(
        learned_from="",
        workers=workers,
        correlation=_correlations(cases, settings),
        verdict={},
        tells=_tells(cases),
    )
    return known.model_copy(update={"voices": _voices(cases, settings, known)})


def _voices(
    cases: Sequence[Heard], settings: Settings, known: Competence
) -> dict[str, dict[str, float]]:
    """By language and manner, how loud each worker is to be: the weights of a mixture of what they
    believe under which the right answers are likeliest (by EM, Dempster et al. 1977), in each case
    of those who answered it (its maximisation then as Hunter 2004, Annals of Statistics 32:384,
    has it). As many cases as VOICE_PRIOR for each worker draw them to be equal. A mixture knows
    whose errors are alike, and so does a pool, which discounts families: what is learned is beyond
    that."""
    seats = [worker.name for worker in settings.workers]
    members = Counter(worker.family for worker in settings.workers)
    of_family = np.array(
        [known.family_voice(w.family, members[w.family]) for w in settings.workers]
    )
    equal = of_family / of_family.sum()
    prior = VOICE_PRIOR * len(seats)
    believed: dict[str, list[list[float]]] = defaultdict(list)
    for case in cases:
        judge = judge_of(case, settings, known)
        given = [answer for answer in case.answers if answer.text is not None]
        right = [by for text, by in judge.beliefs(given) if is_right(text, case.example)]
        if right:  # where nobody is, nobody need be heard
            for name in case.cell.ways:
                believed[name].append([right[0].get(seat, np.nan) for seat in seats])
    found = {}
    for name, rows in sorted(believed.items()):
        there = ~np.isnan(rows)
        beliefs = np.nan_to_num(rows) + EDGE
        part = equal
        for _ in range(EM_STEPS):
            present = part * there
            owed = beliefs * present
            heard = (owed / owed.sum(1, keepdims=True)).sum(0) + prior * equal
            part = heard / ((there / present.sum(1, keepdims=True)).sum(0) + prior)
            part = part / part.sum()
        loud = part / of_family
        found[name] = {
            seat: round(float(each), 4)
            for seat, each in zip(seats, loud / loud.mean(), strict=True)
        }
    return found


def _worker_of(cases: Sequence[Heard], name: str, model: str, prompt: str) -> Worker:
    """A logistic regression of "was right" on the confidence's log-odds, as each manner has them,
    and the case's cells; its ridge draws what has few cases to what the worker is in
    general."""
    heard = [(case, answer) for case in cases if (answer := case.by(name)) is not None]
    sure = [(case, answer) for case, answer in heard if answer.confidence is not None]
    if len(sure) < FEWEST:
        raise EvaluationError(
            f"{len(sure)} answers of {name} with a confidence; at least {FEWEST} are needed. "
            "Give runs in every language that it answers in."
        )
    right = np.array([is_right(answer.text, case.example) for case, answer in sure])
    names = sorted({n for case, _ in sure for n in case.cell.names if n})
    manners = sorted({case.cell.ways[0] for case, _ in sure if case.cell.manner})
    features = np.zeros((len(sure), 1 + len(manners) + len(names)))
    for row, (case, answer) in zip(features, sure, strict=True):
        row[0] = logit(answer.confidence or 0)
        if case.cell.manner:
            row[1 + manners.index(case.cell.ways[0])] = row[0]
        for n in case.cell.names[:-1]:
            row[1 + len(manners) + names.index(n)] = 1
    coefficients, intercept = _fitted(name, features, right, [case.example for case, _ in sure])
    slope, *more = coefficients
    steeper = dict(zip(manners, more[: len(manners)], strict=True))
    own = dict(zip(names, more[len(manners) :], strict=True))
    accuracy = _shrunk_accuracy(heard)
    skills = {}
    for n in ("", *names):
        parts = [p for p in _with_parents(n) if p]
        skills[n] = Skill(
            cases=sum(n in case.cell.names for case, _ in heard),
            accuracy=round(accuracy[n], 4),
            offset=round(intercept + sum(own[p] for p in parts), 4),
        )
    slopes = {manner: round(slope + more, 4) for manner, more in steeper.items()}
    return Worker(model=model, prompt=prompt, slope=round(slope, 4), slopes=slopes, skills=skills)


def _fitted(
    name: str,
    features: NDArray[np.float64],
    right: NDArray[np.bool_],
    examples: Sequence[Example],
) -> tuple[list[float], float]:
    """Coefficients and intercept, with the ridge that predicts left-out images best; where a set
    names patients, left-out patients."""
    folds = _folds(examples)
    learned = [right[train] for train, _ in folds]
    if any(each.all() or not each.any() for each in learned):
        raise EvaluationError(
            f"In a part of the images every answer of {name} is right, or every one wrong, so that "
            "nothing is learned there of when it is: take more."
        )
    model = LogisticRegressionCV(
        Cs=STRENGTHS,
        cv=folds,
        scoring="neg_log_loss",
        l1_ratios=(0,),
        use_legacy_attributes=False,
        max_iter=2_000,
    ).fit(features, right)
    return [float(c) for c in model.coef_[0]], float(model.intercept_[0])


def _shrunk_accuracy(heard: Sequence[tuple[Heard, Answer]]) -> dict[str, float]:
    """By a cell's name: how often the worker was right, drawn to the cell above."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for case, answer in heard:
        for name in case.cell.names:
            counts[name][0] += is_right(answer.text, case.example)
            counts[name][1] += 1
    found: dict[str, float] = {}
    for name in sorted(counts, key=lambda name: (name.count("/"), len(name) > 0)):
        hits, count = counts[name]
        above = found[_with_parents(name)[1]] if name else 0.5
        found[name] = (hits + PRIOR_CASES * above) / (count + PRIOR_CASES)
    return found


def _with_parents(name: str) -> list[str]:
    """ "en/count/ct", "en/count", "en", "" """
    parts = name.split("/") if name else []
    return ["/".join(parts[:length]) for length in range(len(parts), -1, -1)]


def _correlations(cases: Sequence[Heard], settings: Settings) -> dict[str, float]:
    """By family: the mean correlation of two members' errors, over the cases both answered."""
    members = defaultdict(list)
    for seat in settings.workers:
        members[seat.family].append(seat.name)
    found = {}
    for family, names in members.items():
        pairs = []
        for one, other in combinations(names, 2):
            both = [
                (is_right(first.text, case.example), is_right(second.text, case.example))
                for case in cases
                if (first := case.by(one)) and (second := case.by(other))
            ]
            # Who is always right, or always wrong, has no errors that could go with another's.
            if len(both) >= FEWEST and all(len(set(own)) > 1 for own in zip(*both, strict=True)):
                pairs.append(float(np.corrcoef(np.array(both, dtype=float).T)[0, 1]))
        if pairs:
            found[family] = round(min(max(float(np.mean(pairs)), 0.0), 1.0), 4)
    return found


def _line_of(shares: Sequence[tuple[float, bool]]) -> Line:
    """Platt scaling of the winner's share."""
    features = np.array([[logit(share)] for share, _ in shares])
    right = np.array([right for _, right in shares])
    if right.all() or not right.any():
        raise EvaluationError("Every verdict is right, or every one wrong: give more runs.")
    model = LogisticRegression(C=1e6).fit(features, right)
    return Line(
        slope=round(float(model.coef_[0][0]), 4), offset=round(float(model.intercept_[0]), 4)
    )


def _tells(cases: Sequence[Heard]) -> tuple[str, ...]:
    """The worker that tells, most often, how like its own cases a case is: another's likenesses are
    of other cases, and on another scale."""
    told = Counter(a.worker for case in cases for a in case.answers if a.likeness)
    return tuple(worker for worker, _ in told.most_common(1))


def _in_manners(cases: Sequence[Heard]) -> list[Heard]:
    """Each with its manner, where that was told and is that of FEWEST cases in its language."""
    tells = _tells(cases)
    told = [
        replace(case, cell=replace(case.cell, manner=likeness.manner if likeness else None))
        for case in cases
        for likeness in [case.likeness_by(tells)]
    ]
    counts = Counter(case.cell.ways[0] for case in told)
    return [
        known if counts[known.cell.ways[0]] >= FEWEST else case
        for case, known in zip(cases, told, strict=True)
    ]


def _familiarity(cases: Sequence[Heard], tells: tuple[str, ...]) -> dict[str, Likenesses]:
    """How like its own cases they were to the one who tells, by language and manner."""
    by: dict[str, list[Likeness]] = defaultdict(list)
    for case in cases:
        if likeness := case.likeness_by(tells):
            for name in case.cell.ways:
                by[name].append(likeness)

    return {
        name: Likenesses(
            image=_steps([each.image for each in likenesses]),
            question=_steps([each.question for each in likenesses]),
        )
        for name, likenesses in sorted(by.items())
    }


def _steps(values: Sequence[float]) -> tuple[float, ...]:
    # Rounded down, so that a case which has as much as the least is not below it.
    return tuple(math.floor(v * 1e4) / 1e4 for v in np.quantile(values, STEPS, method="lower"))


def _folds(examples: Sequence[Example]) -> list[tuple[NDArray[np.int_], NDArray[np.int_]]]:
    """Raises EvaluationError where there are fewer images, or patients, than folds."""
    numbers = _numbers(examples)
    if len(set(numbers)) < FOLDS:
        raise EvaluationError(
            f"These answers, or a part of them that is learned from, are about "
            f"{len(set(numbers))} images or patients; at least {FOLDS} are needed: take more."
        )
    return list(GroupKFold(FOLDS).split(np.zeros(len(examples)), groups=numbers))


def _numbers(examples: Sequence[Example]) -> list[int]:
    """The number of each one's group, from 0 as they come."""
    found = groups(examples)
    numbers = {group: number for number, group in enumerate(dict.fromkeys(found))}
    return [numbers[group] for group in found]
