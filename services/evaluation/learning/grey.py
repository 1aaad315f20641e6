"""What a panel's workers said over an even grey, from stored runs: shipped with its competence, so
that the gateway need not ask it again."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from gateway.contract import Answer, Language
from gateway.settings import Settings
from gateway.verdict.grey_answers import GreyAnswers, GreySeat, Told
from gateway.verdict.grounding import LEAST
from services.evaluation import stored_run
from services.evaluation.heard import heard_in, refuse_strangers, served
from services.evaluation.stored_run import EvaluationError

DIGITS = 3


def grey_answers(runs: Sequence[Path], settings: Settings, data: Path) -> GreyAnswers:
    """Those of the seated workers to every question about one image.

    Raises:
        EvaluationError: a run that cannot be read or was not of blank images, or somebody has
            answered who is not seated.
        models.data's DataError
    """
    found: dict[Language, dict[str, dict[str, Told]]] = defaultdict(lambda: defaultdict(dict))
    for folder in runs:
        run, outcomes = stored_run.load(folder, data)
        if not run.blank_images:
            raise EvaluationError(f"{folder}: its images are not grey; take a --blank-images run.")
        cases = [heard_in(run.language, *each) for each in outcomes]
        refuse_strangers(cases, settings)
        for case in cases:
            if len(case.example.images) == 1:
                said = {a.worker: _told(a) for a in case.answers if a.text is not None}
                found[run.language][case.example.question.strip()] |= said  # as intake has it
    weights = served(runs)
    workers = {
        seat.name: GreySeat(model=seat.model, prompt=seat.prompt, weights=weights.get(seat.name))
        for seat in settings.workers
        if any(seat.name in said for each in found.values() for said in each.values())
    }
    return GreyAnswers(workers=workers, answers=found)


def _told(answer: Answer) -> Told:
    sure = None if answer.confidence is None else round(answer.confidence, DIGITS)
    others = tuple(
        (each.begins, each.whole, round(each.probability, DIGITS))
        for each in answer.alternatives
        if each.probability >= LEAST
    )
    return answer.text or "", sure, others
