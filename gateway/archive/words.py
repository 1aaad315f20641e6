"""What goes back to the archive of a verdict, in words: the same in a report and on a page; and the
UIDs of what says it."""

import json
import uuid
from collections.abc import Iterator, Sequence

from pydicom.dataset import Dataset
from pydicom.uid import UID

from gateway.contract import Answer, Verdict
from gateway.verdict.remarks import of_familiarity, of_grounding

RESEARCH = "Research use, not for diagnosis"
CAUTION = "Caution"


def lines(verdict: Verdict, question: str) -> Iterator[tuple[str, str]]:
    """What each is, and what it says: every answer is there, and the dissent. What is to be known
    of an answer stands before it."""
    yield "Disclaimer", RESEARCH
    yield "Question", question
    for remark in (of_familiarity(verdict), of_grounding(verdict)):
        if remark:
            yield CAUTION, remark
    if verdict.status == "abstained":
        yield "Answer", f"abstained; the best guess is: {verdict.best_guess}"
    else:
        yield "Answer", str(verdict.answer)
    for other in verdict.dissent:
        yield "Dissent", f"{other.text} ({', '.join(other.workers)}; weight {other.weight:.2f})"
    if not verdict.dissent:
        yield "Dissent", "none"
    for answer in verdict.answers:
        yield "Worker", _worker(answer)
    for picture in verdict.images:
        if series := picture.series:
            how = f", {series.projection}" if series.projection else ""
            yield "Shown", f"slices {series.first} to {series.last} of {series.of}{how}"
            for fault in series.faults:
                yield "Fault", fault
    yield "Panel", verdict.panel
    yield "Verdict", first_id(verdict)


def figures(verdict: Verdict) -> dict[str, float]:
    """What is said in numbers, in 0…1; one that the verdict has not says nothing, and is left
    out."""
    found = {
        "Agreement": verdict.agreement,
        "Confidence": verdict.confidence,
        "Grounding": verdict.grounding,
    }
    return {name: value for name, value in found.items() if value is not None}


def first_id(verdict: Verdict) -> str:
    """The id of the first such verdict: one that was known says nothing else."""
    return verdict.cached_from or verdict.id


def uid_of(part: str, verdict: Verdict, question: str, images: Sequence[Dataset]) -> UID:
    """By PS3.5 B.2. The same for the same words about the same images, however often they are sent:
    whoever hung up and asks again has them stored once. Grounding, which may come to be known only
    when the case is asked again, makes no other object."""
    verdict = verdict.model_copy(update={"grounding": None})
    shown = [str(image.SOPInstanceUID) for image in images]
    told = [part, shown, *lines(verdict, question), *figures(verdict).items()]
    return UID(f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(told)).int}")


def _worker(answer: Answer) -> str:
    if answer.error:
        return f"{answer.worker}: no answer ({answer.error.kind})"
    sure = "" if answer.confidence is None else f" (raw confidence {answer.confidence:.2f})"
    again = "" if answer.round == 1 else f", round {answer.round}"
    return f"{answer.worker}{again}: {answer.text}{sure}"
