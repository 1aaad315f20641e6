"""Verdicts of a stored evaluation, weighed again under other policies, on identical answers.

`replay` scores every policy, pairs each with the best single worker, and draws what is worth
seeing: what agreement is worth, how calibrated a confidence is, what abstaining buys.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from gateway.contract import Answer, PredictionSet, Summary
from gateway.settings import Settings
from gateway.verdict.competence import Competence, Line, Skill, Worker
from gateway.verdict.prediction_set import prediction_set
from gateway.verdict.weigh import Opinion
from models.files import make_folder, write_whole
from models.metrics import calibration_error
from models.metrics.score import Score, mean
from services.evaluation import stored_run
from services.evaluation.confidence import part_of_the_surest
from services.evaluation.heard import (
    Heard,
    calibrated_on,
    heard_in,
    refuse_asked_twice,
    refuse_strangers,
)
from services.evaluation.learning import fit
from services.evaluation.rewording import reworded
from services.evaluation.score import BOOTSTRAP_SEED, SURE, is_right, is_settled, said_by
from services.evaluation.stored_run import EvaluationError, Outcome, Run, write_run

COVERAGE = 0.8  # of the cases, the most confident ones
SET_COVERAGE = 0.9  # of the sets of answers that are looked at


@dataclass(frozen=True)
class Replayed:
    """What a policy said to each case, null where it had nothing to say, and how sure it was."""

    texts: Sequence[str | None]
    confidences: Sequence[float | None]

    @classmethod
    def of(cls, opinions: Sequence[Opinion]) -> "Replayed":
        return cls([o.winner.text for o in opinions], [o.confidence for o in opinions])


Case = tuple[Heard, Outcome]


def replay(
    folders: Sequence[Path],
    settings: Settings,
    data: Path,
    out: Path | None = None,
    cross_fit: bool = False,
    summariser: bool = False,
) -> dict[str, Any]:
    """Print and return what each policy makes of the answers in `folders` (several parts of one
    evaluation), with pictures in `out`.

    The policies: `vote` (one voice each), `confidence` (voices by raw confidence), `calibrated`
    (by what panel.toml's competence file says), `panel` (the same, families discounted: what the
    gateway does), `as answered` (what was answered then, by a summariser or after a discussion),
    each worker alone, and `any worker`, which is right where one of them is. `cross_fit` adds
    `cross-fitted`: by what the other images of these very answers teach. `summariser` asks the one
    that is running to word what the gateway would, and adds two: `summariser` (its reply where it
    is faithful, else the vote: what the gateway does) and `summariser, free` (its reply where it
    says what any worker said), which shows what it would be worth if it might overrule.

    All but `as answered` take each worker at its first word. Where the competence file was learned
    from some of the images, what it says of them is no score: only `cross_fit` weighs these then.

    `out`/weighed is a stored run in turn, of the verdicts that the gateway would give now.

    Raises:
        EvaluationError: no such run, parts of different ones, nobody has answered anything, or
            somebody who is not seated; the competence file was learned from some of the images, and
            `cross_fit` is not asked for; no summariser is running; or `out`/weighed is not to be
            replaced.
        models.data's DataError
    """
    run, cases = _read(folders, data)
    heard = [case for case, _ in cases]
    refuse_strangers(heard, settings)
    if learned := calibrated_on([case.example for case in heard], settings.competence):
        if not cross_fit:
            raise EvaluationError(
                f"{learned} of these {len(heard)} cases show images that the competence file was "
                "learned from, and say nothing of what it is worth: replay a run over other "
                "images, or give --cross-fit."
            )
        settings = settings.model_copy(update={"competence": None})
    opinions = _opinions(heard, settings)
    policies = _policies(run, cases, opinions, settings)
    if cross_fit:
        opinions["cross-fitted"] = fit.cross_fitted(heard, settings)
        policies["cross-fitted"] = Replayed.of(opinions["cross-fitted"])
    weighed = next(name for name in ("panel", "cross-fitted", "vote") if name in opinions)
    shipped = opinions[weighed]
    worded = reworded(heard, shipped, settings) if summariser else None
    if worded:
        policies["summariser"] = Replayed(worded.bound, [None] * len(cases))
        policies["summariser, free"] = Replayed(worded.free, [None] * len(cases))
    rights = _rights(policies, cases, settings)
    best = _best(rights, cases, settings)
    images = [case.example.group for case in heard]

    def scored(values: Mapping[int, float]) -> dict[str, Any]:
        return asdict(mean([*values.values()], [images[n] for n in values], BOOTSTRAP_SEED))

    summary: dict[str, Any] = {
        "run": asdict(run) | {"cases": len(cases)},
        "best_worker": best,
        "policies": {
            name: {
                "accuracy": scored(right),
                "over_best_worker": scored(over) if (over := _minus(right, rights[best])) else None,
                **_of_confidence(
                    [policies[name].confidences[n] for n in right],
                    [*right.values()],
                    [images[n] for n in right],
                ),
            }
            for name, right in rights.items()
        },
        "by_agreement": {
            name: asdict(each) for name, each in _by_agreement(heard, shipped).items()
        },
        "sets": {name: asdict(each) for name, each in _sets(heard, shipped, settings).items()},
        "worded_by": worded and worded.by,
    }
    print(f"{run.name}{run.images_changed}: {len(cases)} cases, exact match")
    _show(summary)
    if out is not None:
        from services.evaluation import pictures

        make_folder(out)
        whole = run if len(folders) == 1 else replace(run, fold=None)
        keep_weighed(whole, cases, shipped, settings, out / "weighed")
        write_whole(out / "replay.json", json.dumps(summary, indent=1))
        sure = {
            name: [policies[name].confidences[n] for n in each] for name, each in rights.items()
        }
        pictures.draw(summary, sure, {name: [*each.values()] for name, each in rights.items()}, out)
        print(f"pictures: {out}; verdicts, for consilium report: {out / 'weighed'}")
    print(f"95 % intervals clustered by image or patient, bootstrap seed {BOOTSTRAP_SEED}")
    return summary


def keep_weighed(
    run: Run, cases: Sequence[Case], opinions: Sequence[Opinion], settings: Settings, folder: Path
) -> None:
    """A stored run of the same answers with these opinions of them, where there was a verdict."""
    weighed = {}
    for (case, outcome), opinion in zip(cases, opinions, strict=True):
        if outcome.verdict:
            now = {
                "status": "answered",
                "answer": opinion.winner.text,
                "best_guess": None,
                "agreement": opinion.agreement,
                "confidence": opinion.confidence,
                "familiarity": opinion.familiarity,
                "prediction_set": None,
                "grounding": None,
                "answers": opinion.answers,
                "workers": opinion.winner.workers,
                "dissent": opinion.dissent,
                "entropy": opinion.entropy,
                "summary": Summary(by="vote", faithful=None, seconds=0),
                "learned_from": settings.learned_from,
                "panel": settings.panel_hash,
            }
            weighed[case.example.id] = outcome.verdict.model_copy(update=now)
    write_run(folder, replace(run, panel=settings.panel_hash, summarise="never", rounds=1), weighed)


def _read(folders: Sequence[Path], data: Path) -> tuple[Run, list[Case]]:
    parts = [stored_run.load(folder, data) for folder in folders]
    first = parts[0][0]
    for folder, (run, _) in zip(folders, parts, strict=True):
        if _asked(run) != _asked(first):
            raise EvaluationError(f"{folder} is no part of the same evaluation as {folders[0]}.")
    refuse_asked_twice(folders, parts)
    cases = [
        (heard_in(run.language, example, outcome), outcome)
        for run, part in parts
        for example, outcome in part
        if outcome.was_answered
    ]
    if not cases:
        raise EvaluationError(f"{folders[0]}: nobody has answered any of its questions yet.")
    outcomes = [outcome for _, part in parts for _, outcome in part]
    if silent := sum(is_settled(each) and not each.was_answered for each in outcomes):
        print(
            f"{silent} cases are left out, which nobody could answer: a report counts them as wrong"
        )
    return first, cases


def _asked(run: Run) -> Run:
    """Without which part of it, and of whom; `load` has seen to it that images are those of now."""
    return replace(run, fold=None, panel="", models={}, images=None, origin="a gateway")


def _opinions(cases: Sequence[Heard], settings: Settings) -> dict[str, list[Opinion]]:
    """By policy: what the panel thinks of each case."""
    known = settings.competence
    competences: dict[str, Competence | None] = {"vote": None, "confidence": _as_told(settings)}
    if known:
        competences |= {
            "calibrated": known.model_copy(update={"correlation": {}}),
            "panel": known,
        }
    return {
        name: [fit.opinion_of(case, settings, competence) for case in cases]
        for name, competence in competences.items()
    }


def _policies(
    run: Run, cases: Sequence[Case], opinions: Mapping[str, list[Opinion]], settings: Settings
) -> dict[str, Replayed]:
    found = {name: Replayed.of(each) for name, each in opinions.items()}
    if run.summarise != "never" or run.rounds > 1:
        answered = [outcome.answer for _, outcome in cases]
        found["as answered"] = Replayed(answered, [None] * len(cases))
    for seat in settings.workers:
        given = [case.by(seat.name) for case, _ in cases]
        if any(given):
            found[seat.name] = Replayed([a.text if a else None for a in given], _sure(given))
    found["any worker"] = Replayed([_rightest(case) for case, _ in cases], [None] * len(cases))
    return found


def _rights(
    policies: Mapping[str, Replayed], cases: Sequence[Case], settings: Settings
) -> dict[str, dict[int, bool]]:
    """By policy and case, by its place: whether it is right. A worker is scored where it was heard:
    who timed out was not wrong."""
    said = said_by({case.example.id: outcome for case, outcome in cases})
    by_worker = {seat.name: said.get(seat.name, {}) for seat in settings.workers}
    return {
        name: {
            n: is_right(policy.texts[n], case.example)
            for n, (case, _) in enumerate(cases)
            if name not in by_worker or case.example.id in by_worker[name]
        }
        for name, policy in policies.items()
    }


def _best(
    rights: Mapping[str, Mapping[int, bool]], cases: Sequence[Case], settings: Settings
) -> str:
    """The best worker of those that were heard in half of the cases or, where none was, the one
    that was heard most: of a few cases anybody may be the best."""
    workers = {seat.name: rights[seat.name] for seat in settings.workers if seat.name in rights}
    often = {name: right for name, right in workers.items() if 2 * len(right) >= len(cases)}
    if not often:
        return max(workers, key=lambda name: len(workers[name]))
    return max(often, key=lambda name: sum(often[name].values()) / len(often[name]))


def _as_told(settings: Settings) -> Competence:
    """Every raw confidence believed as it is."""
    plain = {"": Skill(cases=0, accuracy=0.5, offset=0.0)}
    workers = {
        seat.name: Worker(model=seat.model, prompt=seat.prompt, slope=1.0, skills=plain)
        for seat in settings.workers
    }
    as_it_is = Line()
    return Competence(
        learned_from="nothing",
        workers=workers,
        correlation={},
        verdict={"en": as_it_is, "es": as_it_is, "zh": as_it_is},
    )


def _sure(answers: Sequence[Answer | None]) -> list[float | None]:
    return [answer.confidence if answer else None for answer in answers]


def _rightest(case: Heard) -> str:
    texts = [answer.text for answer in case.answers if answer.text is not None]
    return max(texts, key=lambda text: is_right(text, case.example))


def _minus(one: Mapping[int, bool], other: Mapping[int, bool]) -> dict[int, int]:
    return {n: right - other[n] for n, right in one.items() if n in other}


def _of_confidence(
    confidences: Sequence[float | None], right: Sequence[bool], images: Sequence[Any]
) -> dict[str, Any]:
    """Calibration error, where a confidence was told; how much better the surest cases are than
    all, those without one last; and how often the answer was wrong and sure, of all cases."""
    told = [n for n, confidence in enumerate(confidences) if confidence is not None]
    if not told:
        return dict.fromkeys(("told", "calibration_error", "at_coverage", "wrong_and_sure"))
    sure = [confidence or 0.0 for confidence in confidences]
    error = calibration_error.score(
        [sure[n] for n in told], [right[n] for n in told], [images[n] for n in told], BOOTSTRAP_SEED
    )
    kept = part_of_the_surest(confidences, COVERAGE).tolist()
    wrong = [each >= SURE and not is_ for each, is_ in zip(sure, right, strict=True)]
    return {
        "told": len(told) / len(sure),
        "wrong_and_sure": asdict(mean(wrong, images, BOOTSTRAP_SEED)),
        "calibration_error": asdict(error),
        "at_coverage": asdict(mean(right, images, BOOTSTRAP_SEED, kept)),
    }


def _by_agreement(cases: Sequence[Heard], opinions: Sequence[Opinion]) -> dict[str, Score]:
    """How often the panel is right, by how many of its workers gave the answer."""
    groups: dict[str, list[tuple[bool, Any]]] = defaultdict(list)
    for case, opinion in zip(cases, opinions, strict=True):
        name = f"{len(opinion.winner.workers)} of {len(opinion.voices)}"
        right = is_right(opinion.winner.text, case.example)
        groups[name].append((right, case.example.group))
    return {
        name: mean([right for right, _ in group], [image for _, image in group], BOOTSTRAP_SEED)
        for name, group in sorted(groups.items(), reverse=True)
    }


@dataclass(frozen=True)
class Sets:
    """Of some cases: in which part a set of answers is claimed, how often those hold the right
    answer, and how many answers they have."""

    claimed: float
    hold: Score
    size: float


def _sets(
    cases: Sequence[Heard], opinions: Sequence[Opinion], settings: Settings
) -> dict[str, Sets]:
    """Of all cases, and by modality and kind of question; empty where sets were not learned."""
    groups: dict[str, list[tuple[Heard, PredictionSet]]] = defaultdict(list)
    for case, opinion in zip(cases, opinions, strict=True):
        judge = fit.judge_of(case, settings, settings.competence)
        if judge.knows_sets:
            found = prediction_set(SET_COVERAGE, judge, opinion)
            for name in ("all", case.cell.modality, case.cell.kind):
                if name:
                    groups[name].append((case, found))
    told = {}
    for name, group in sorted(groups.items(), key=lambda each: -len(each[1])):
        claimed = [(case, each.answers) for case, each in group if each.answers]
        if claimed:
            hold = [any(is_right(e.text, case.example) for e in each) for case, each in claimed]
            images = [case.example.group for case, _ in claimed]
            size = sum(len(each) for _, each in claimed) / len(claimed)
            score = mean(hold, images, BOOTSTRAP_SEED)
            told[name] = Sets(len(claimed) / len(group), score, size)
    return told


def _show(summary: dict[str, Any]) -> None:
    run = summary["run"]
    print(f"{'policy':16} {'right':>20} {'over ' + summary['best_worker']:>22}", end="")
    print(
        f"{'calibration error':>20} {f'surest {COVERAGE:.0%}':>12} {f'wrong at {SURE}':>13}", end=""
    )
    print(f"{'told':>7}")
    for name, each in summary["policies"].items():
        error, covered = each["calibration_error"], each["at_coverage"]
        wrong, told = each["wrong_and_sure"], each["told"]
        print(
            f"{name:16} {_percent(each['accuracy'], ''):>20} "
            f"{_percent(each['over_best_worker'], '+') if each['over_best_worker'] else '–':>22}"
            f"{format(error['value'], '.3f') if error else '–':>20}"
            f"{format(100 * covered['value'], '.1f') if covered else '–':>13}"
            f"{format(100 * wrong['value'], '.1f') if wrong else '–':>14}"
            f"{format(told, '.0%') if told else '–':>7}"
        )
    if not all(each["told"] for each in summary["policies"].values()):
        print("–: it does not say how sure it is")
    for agreement, each in summary["by_agreement"].items():
        print(f"said by {agreement}: right in {_percent(each, '')} of {each['cases']} cases")
    for name, each in summary["sets"].items():
        print(
            f"sets of {SET_COVERAGE:.0%}, {name}: hold the right answer in "
            f"{_percent(each['hold'], '')} of {each['hold']['cases']} cases, {each['size']:.2f} "
            f"answers on average; claimed in {each['claimed']:.0%}"
        )
    for who, count in (summary["worded_by"] or {}).items():
        print(f"worded by {who}: {count} cases, {count / run['cases']:.1%}")


def _percent(score: dict[str, Any], sign: str) -> str:
    value, low, high = (format(100 * score[key], f"{sign}.1f") for key in ("value", "low", "high"))
    return f"{value} ({low} to {high})"
