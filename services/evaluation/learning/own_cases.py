"""Calibrating on cases of one's own, of which there are few: what is known of a panel, moved by
what they say.

One number is learned of each worker, and one of the verdicts, by language: a shift of its log-odds.
Sets of answers are told of these cases from then on in the kinds of question that have FEWEST of
them, and so is agreement; all else that a competence file holds stays. Ten questions of one kind
say nothing of another's.

A normal prior of SPREAD draws a shift to 0, so a handful of cases moves little and hundreds move
all. What is written is the posterior's mode, and told with the interval of the normal curve that
fits it there (Laplace's approximation: MacKay 2003, Information Theory, Inference and Learning
Algorithms, ch. 27).
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scipy.optimize import brentq

from gateway.contract import Language
from gateway.settings import Settings
from gateway.tables import WorkerSettings
from gateway.verdict.competence import Cell, Competence, Line, Skill, Worker, logit, sigmoid
from services.evaluation.heard import Heard, calibrated_on, hear, refuse_strangers, shown_in
from services.evaluation.learning.fit import calibrated, conformal, judge_of, share_of_the_right
from services.evaluation.score import is_right
from services.evaluation.stored_run import EvaluationError

FEWEST = 10
SPREAD = 1.0  # log-odds: 80 % may well be 60 or 90 elsewhere
EDGES = 1.96


@dataclass(frozen=True)
class Shift:
    """By how much the log-odds of `who` are moved in a language, and what that makes of the mean
    probability to be right over these cases, with its 95 % interval."""

    who: str
    language: Language
    cases: int
    right: int
    by: float
    before: float
    after: float
    low: float
    high: float

    def told(self) -> str:
        return (
            f"{self.who} in {self.language}: {self.right} of {self.cases} right; expected "
            f"{self.before:.0%}, now {self.after:.0%} ({self.low:.0%} to {self.high:.0%})"
        )


def calibrate_onto(
    known: Competence, runs: Sequence[Path], settings: Settings, data: Path
) -> tuple[Competence, list[Shift]]:
    """`known`, moved by what the stored runs say, and every shift that was made. A seat that it
    does not know begins where a newcomer does.

    Raises:
        EvaluationError: a run that cannot be read or had its images changed, one of images that
            `known` was learned from, fewer than FEWEST cases of a language, or one of which nothing
            is known.
        models.data's DataError
    """
    cases, sources = hear(runs, data)
    refuse_strangers(cases, settings)
    if twice := calibrated_on([case.example for case in cases], known):
        raise EvaluationError(
            f"{twice} of these {len(cases)} cases show images that the file of --onto was learned "
            "from, and would count twice: give runs over other images; or, where it was moved by "
            "cases of your own, the file that it was before, and all of their runs at once."
        )
    shifts: list[Shift] = []
    for language in sorted({case.cell.language for case in cases}):
        own = [case for case in cases if case.cell.language == language]
        if len(own) < FEWEST:
            raise EvaluationError(
                f"{len(own)} cases in {language}; at least {FEWEST} are needed to calibrate onto "
                "what is known."
            )
        if language not in known.verdict:
            raise EvaluationError(
                f"The file knows nothing of verdicts in {language}: leave --onto out, and give "
                "enough cases to learn them from."
            )
        for seat in settings.workers:
            known, made = _move_worker(known, seat, own, language, settings)
            shifts += made
        known, of_verdicts = _move_verdicts(known, own, language, settings)
        shifts.append(of_verdicts)
    learned_from = f"{known.learned_from}; moved by {'; '.join(sources)}"
    shown = shown_in([case.example for case in cases])
    images = tuple(sorted(set(known.images).union(*shown)))
    return known.model_copy(update={"learned_from": learned_from, "images": images}), shifts


def _move_worker(
    known: Competence,
    seat: WorkerSettings,
    cases: Sequence[Heard],
    language: Language,
    settings: Settings,
) -> tuple[Competence, list[Shift]]:
    heard = [(case, answer) for case in cases if (answer := case.by(seat.name)) is not None]
    if not heard:
        return known, []
    chances = [
        known.believed(seat.name, answer.confidence, _cell(case, settings, known))
        for case, answer in heard
    ]
    right = [is_right(answer.text, case.example) for case, answer in heard]
    worker = known.workers.get(seat.name)
    if worker is None:
        worker = _newcomer(seat, chances)
        chances = [worker.skills[""].accuracy] * len(heard)
    shift = _shift(seat.name, language, chances, right)
    above = worker.skills.get(language, worker.skills[""])
    skills = {language: above} | worker.skills
    moved = {
        name: Skill(
            cases=skill.cases + len(heard) * (name == language),
            accuracy=round(sigmoid(logit(skill.accuracy) + shift.by), 4),
            offset=round(skill.offset + shift.by, 4),
        )
        if _is_of(name, language)
        else skill
        for name, skill in skills.items()
    }
    workers = known.workers | {seat.name: worker.model_copy(update={"skills": moved})}
    return known.model_copy(update={"workers": workers}), [shift]


def _move_verdicts(
    known: Competence, cases: Sequence[Heard], language: Language, settings: Settings
) -> tuple[Competence, Shift]:
    judges = [judge_of(case, settings, known) for case in cases]
    opinions = [judge.weigh(case.answers) for judge, case in zip(judges, cases, strict=True)]
    winners = [opinion.winner for opinion in opinions]
    lines = [known.calibration(_cell(case, settings, known)) or Line() for case in cases]
    chances = [line(winner.share) for line, winner in zip(lines, winners, strict=True)]
    right = [is_right(w.text, case.example) for w, case in zip(winners, cases, strict=True)]
    shift = _shift("verdict", language, chances, right)
    verdict = {
        name: Line(slope=line.slope, offset=round(line.offset + shift.by, 4))
        if _is_of(name, language)
        else line
        for name, line in known.verdict.items()
    }
    shares = [
        share_of_the_right(judge, opinion, case.example)
        for judge, opinion, case in zip(judges, opinions, cases, strict=True)
    ]
    update: dict[str, object] = {
        "verdict": verdict,
        "right_shares": _with_kinds(known.right_shares, cases, shares, language),
    }
    agreements = [
        (case.example, opinion.agreement)
        for case, opinion in zip(cases, opinions, strict=True)
        if opinion.agreement is not None
    ]
    if agreements:
        now = calibrated(agreements)
        held = {
            # The likenesses are still held to those of before.
            name: now.model_copy(update={"images": then.images, "agreed_images": now.images})
            for name, then in known.calibrated.items()
            if _is_of(name, language)
        }
        update["calibrated"] = known.calibrated | {language: now} | held
    return known.model_copy(update=update), shift


def _is_of(name: str, language: Language) -> bool:
    """Whether a cell's or a manner's name is of that language."""
    return name.split("/")[0] == language


def _with_kinds(
    known: dict[str, tuple[float, ...]],
    cases: Sequence[Heard],
    shares: Sequence[float],
    language: Language,
) -> dict[str, tuple[float, ...]]:
    """`known`, with what these cases say of the kinds of question that have FEWEST of them, in
    whatever manner they are asked."""
    of_kind: dict[str, list[float]] = defaultdict(list)
    for case, share in zip(cases, shares, strict=True):
        of_kind[case.cell.kind].append(share)
    own = {kind: conformal(each) for kind, each in of_kind.items() if len(each) >= FEWEST}
    ways = {language} | {n for n in known if n.startswith(f"{language}/@") and n.count("/") == 1}
    told = {f"{way}/{kind}": each for way in ways for kind, each in own.items()}
    # A modality's would be found before its kind's.
    finer = tuple(f"{name}/" for name in told)
    return {n: each for n, each in known.items() if not n.startswith(finer)} | told


def _newcomer(seat: WorkerSettings, chances: Sequence[float]) -> Worker:
    """As good in all cases as it was assumed to be in these; what it says of itself goes for
    nothing until it is calibrated in full."""
    offset = sum(map(logit, chances)) / len(chances)
    skill = Skill(cases=0, accuracy=sigmoid(offset), offset=offset)
    return Worker(model=seat.model, prompt=seat.prompt, slope=0.0, skills={"": skill})


def _cell(case: Heard, settings: Settings, known: Competence) -> Cell:
    return judge_of(case, settings, known).told_cell(case.answers)


def _shift(who: str, language: Language, chances: Sequence[float], right: Sequence[bool]) -> Shift:
    """Where the log posterior, which is concave, no longer rises."""
    odds = [logit(chance) for chance in chances]

    def moved(by: float) -> list[float]:
        return [sigmoid(each + by) for each in odds]

    def rises(by: float) -> float:
        return sum(right) - sum(moved(by)) - by / SPREAD**2

    farthest = len(odds) * SPREAD**2  # if all that was expected is otherwise
    by = float(brentq(rises, -farthest, farthest))
    error = EDGES / math.sqrt(sum(p * (1 - p) for p in moved(by)) + 1 / SPREAD**2)
    before, after, low, high = (
        sum(moved(shift)) / len(odds) for shift in (0, by, by - error, by + error)
    )
    return Shift(who, language, len(right), sum(right), by, before, after, low, high)
