"""One run of what several asked: whoever takes a seat is asked alone, and its answers join those
that the others gave before."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gateway.settings import Settings
from services.evaluation import stored_run
from services.evaluation.heard import heard_in
from services.evaluation.learning import fit
from services.evaluation.replay import keep_weighed
from services.evaluation.score import NOT_HEARD
from services.evaluation.stored_run import EvaluationError, Outcome


def join(folders: Sequence[Path], settings: Settings, data: Path, out: Path) -> int:
    """Writes a run of every question that all of `folders` answered; returns how many those are.

    It holds the first answers of whoever is seated; of a worker that several asked, those of the
    last of them. Its verdicts are votes of one voice each: `replay` weighs them.

    Raises:
        EvaluationError: no such run, runs of other questions, or nobody seated has answered; or
            `out` is not to be replaced.
        models.data's DataError
    """
    parts = [stored_run.load(folder, data) for folder in folders]
    runs = [run for run, _ in parts]
    for folder, run in zip(folders, runs, strict=True):
        if _asked(run) != _asked(runs[0]):
            raise EvaluationError(f"{folder} asked other questions than {folders[0]}.")
    held = [{each.id: outcome for each, outcome in cases} for _, cases in parts]
    cases = []
    for example, _ in parts[0][1]:
        outcomes = [each[example.id] for each in held if example.id in each]
        if len(outcomes) == len(held) and all(each.was_answered for each in outcomes):
            outcome = _together(outcomes, settings)
            if outcome.verdict and outcome.was_answered:
                cases.append((heard_in(runs[0].language, example, outcome), outcome))
    if not cases:
        raise EvaluationError("No question was answered in all of these runs by whoever is seated.")
    models = {name: model for run in runs for name, model in run.models.items()}
    seated = {name: models[name] for name in _seats(settings) if name in models}
    votes = [fit.opinion_of(case, settings, None) for case, _ in cases]
    whole = replace(runs[0], models=seated, workers=None, begun=None)
    keep_weighed(whole, cases, votes, settings, out)
    return len(cases)


def _asked(run: stored_run.Run) -> stored_run.Run:
    """Without whom; `load` has seen to it that the images are those of now."""
    run = replace(run, workers=None, panel="", models={}, images=None, origin="a gateway")
    return replace(run, summarise="never", rounds=1)


def _together(outcomes: Sequence[Outcome], settings: Settings) -> Outcome:
    """What was told last by each seat, and a verdict to put it into. Who was not heard when asked
    again is taken at what it said before."""
    told = [a for outcome in outcomes for a in outcome.answers if a.round == 1]
    # Sorting is stable: the last of those who were heard comes last.
    told.sort(key=lambda a: a.error is None or a.error.kind not in NOT_HEARD)
    latest = {a.worker: a for a in told}
    verdicts = [outcome.verdict for outcome in outcomes if outcome.verdict]
    answers = tuple(latest[name] for name in _seats(settings) if name in latest)
    return Outcome(verdicts[0] if verdicts else None, answers)


def _seats(settings: Settings) -> list[str]:
    return [worker.name for worker in settings.workers]
