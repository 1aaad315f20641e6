"""What came of an evaluation: how often the panel and each worker were right, what agreement was
worth, and who worded the verdicts.
"""

import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import combinations
from typing import Any

from gateway.contract import ErrorKind, Verdict
from models.data.example import Example
from models.metrics import (
    bert_score,
    bleu,
    calibration_error,
    closed_accuracy,
    delta_bleu,
    llava_med,
    token_overlap,
)
from models.metrics.exact_match import matches, normalise
from models.metrics.score import Score, mean
from services.evaluation.stored_run import UNHEARD, Outcome

BOOTSTRAP_SEED = 0
PANEL = "panel"
SURE = 0.8  # a confidence at which a reader would go by the answer
NOT_HEARD: set[ErrorKind] = {*UNHEARD, "not_eligible"}

Texts = dict[str, str | None]  # by case: what somebody said, null where they had nothing to say
Sure = dict[str, float | None]  # by case: how sure they were of it, null where they did not say

Scorer = Callable[[Sequence[str], Sequence[str], Sequence[Hashable]], Score]


def scorers(language: str) -> dict[str, tuple[str, Scorer]]:
    """Each scorer beside exact match, by its name, with the questions that it is for."""
    found: dict[str, tuple[str, Scorer]] = {
        "closed accuracy": ("closed", closed_accuracy.score),
        "token recall": ("open", token_overlap.recall),
        "token F1": ("open", token_overlap.f1),
    }
    if language == "en":
        found["LLaVA-Med closed accuracy"] = ("closed", llava_med.closed_accuracy)
        found["LLaVA-Med open recall"] = ("open", llava_med.open_recall)
        found["LLaVA-Med open F1"] = ("open", llava_med.open_f1)
    for order in (1, 2, 3, 4):
        found[f"BLEU-{order}"] = "all", partial(bleu.score, order=order, language=language)
    return found


def is_settled(outcome: Outcome) -> bool:
    """Whether asking again would change nothing."""
    kinds = {answer.error.kind for answer in outcome.answers if answer.error}
    return bool(outcome.answers) and not kinds & UNHEARD


def score(
    examples: list[Example], outcomes: Mapping[str, Outcome], language: str
) -> dict[str, Any]:
    """Everything that is scored, as a JSON object; `scores` is empty where nothing could be.

    Accuracies are those of the panel and of each worker that was heard, over all, closed and open
    questions; of whichever worker is right, case by case (`any_worker`); and of the panel where so
    many of its workers gave the answer (`by_agreement`). `headroom` is how far `any_worker` is
    above the best one, and `disagreement` how often two differ. `scorers` are the field's other
    scores, with the calibration error of the panel's confidence and of each worker's raw one. Who
    was heard and gave no answer was wrong; a case in which someone was not heard is open.
    """
    said, groups = said_by(outcomes), _by_form(examples)
    settled = 0
    sure: dict[str, Sure] = defaultdict(dict)
    backing: dict[str, str] = {}
    worded: Counter[str] = Counter()
    asked = {example.id for example in examples}
    for id, outcome in outcomes.items():
        if id not in asked:
            continue  # of a run that was limited less
        settled += is_settled(outcome)
        for who in said:
            sure[who][id] = sure_of(outcome, who)
        if verdict := outcome.verdict:
            worded[verdict.summary.by] += 1
            if verdict.agreement is not None:
                backing[id] = backing_of(verdict)
    return {
        "cases": len(examples),
        "open_cases": len(examples) - settled,
        "scores": {
            who: {name: rate_of(group, texts) for name, group in groups.items()}
            for who, texts in said.items()
            if any(example.id in texts for example in examples)
        },
        "scorers": {
            who: scorers_of(examples, texts, language)
            | {"calibration error": calibration(examples, texts, sure[who])}
            for who, texts in said.items()
            if texts
        },
        "any_worker": rate_of(examples, rightest(examples, said)),
        "headroom": _headroom(examples, said),
        "disagreement": disagreement(examples, said),
        "by_agreement": {
            backed: rate_of([e for e in examples if backing.get(e.id) == backed], said[PANEL])
            for backed in sorted(set(backing.values()), reverse=True)
        },
        "worded_by": dict(worded),
    }


def show(scored: dict[str, Any]) -> None:
    """Print what `score` found, one line for each accuracy."""
    for who, rates in scored["scores"].items():
        for group, found in rates.items():
            _show_rate(f"{who:14} {group}", found)
    if len(scored["scores"]) > 2:  # the panel, and more than one worker
        _show_rate("any worker     all", scored["any_worker"])
        if gain := scored["headroom"]:
            print(f"{'':14} over the best worker by {gain['value']:.1%} ({_interval(gain)})")
        for pair, share in scored["disagreement"].items():
            print(f"{pair} differ in {share['value']:.1%} ({_interval(share)})")
        for agreement, found in scored["by_agreement"].items():
            _show_rate(f"agreement {agreement}", found)
    _show_table("scorer", scored["scorers"])
    worded = ", ".join(f"{by} {count}" for by, count in scored["worded_by"].items())
    print(f"verdicts worded by: {worded or 'nobody'}")
    print(f"95 % intervals clustered by image or patient, bootstrap seed {BOOTSTRAP_SEED}")
    if scored["open_cases"]:
        print(
            f"{scored['open_cases']} of {scored['cases']} cases are open: a worker timed out, "
            "was unreachable or refused, or the gateway did. The same command asks them again."
        )


def said_by(outcomes: Mapping[str, Outcome]) -> dict[str, Texts]:
    """What the panel said, and each worker that was asked and heard, in the panel's order."""
    said: dict[str, Texts] = {PANEL: {}}
    for case, outcome in outcomes.items():
        if outcome.answer is not None or is_settled(outcome):
            said[PANEL][case] = _once(outcome.answer)
        for answer in outcome.answers:
            texts = said.setdefault(answer.worker, {})
            if answer.error is None or answer.error.kind not in NOT_HEARD:
                # Who failed in a second round is taken at the first word.
                texts[case] = _once(answer.text) or texts.get(case)
    return said


def _once(text: str | None) -> str | None:
    """Few texts answer most questions: each is in memory once."""
    return sys.intern(text) if text else text


def backing_of(verdict: Verdict) -> str:
    """By how many of those who answered the answer was given: "2 of 3"."""
    voices = sum(answer.weight is not None for answer in verdict.answers)
    # Who claims several things may be on both sides.
    dissenting = {worker for dissent in verdict.dissent for worker in dissent.workers}
    against = len(dissenting.difference(verdict.workers))
    return f"{voices - against} of {voices}"


def rightest(examples: Collection[Example], said: dict[str, Texts]) -> Texts:
    """The answer of a worker that is right, where there is one: a perfect choice among them."""
    workers = [texts for who, texts in said.items() if who != PANEL]
    best: Texts = {}
    for example in examples:
        if given := [texts[example.id] for texts in workers if example.id in texts]:
            best[example.id] = max(given, key=lambda text: is_right(text, example))
    return best


def _headroom(examples: list[Example], said: dict[str, Texts]) -> dict[str, Any] | None:
    """What a perfect choice among the workers would gain over always taking the best of them, on
    the cases in which all were heard."""
    workers = [texts for who, texts in said.items() if who != PANEL]
    heard = [example for example in examples if all(example.id in texts for texts in workers)]
    if not workers or not heard:
        return None
    rights = [[is_right(texts[example.id], example) for example in heard] for texts in workers]
    best = max(rights, key=sum)
    gains = [any(right) - one for right, one in zip(zip(*rights, strict=True), best, strict=True)]
    return asdict(mean(gains, [example.group for example in heard], BOOTSTRAP_SEED))


def disagreement(examples: list[Example], said: dict[str, Texts]) -> dict[str, dict[str, Any]]:
    """Of every two workers: in what share of the cases they say different things."""
    found = {}
    for one, other in combinations([who for who in said if who != PANEL], 2):
        both = [e for e in examples if e.id in said[one] and e.id in said[other]]
        if both:
            differ = [
                normalise(said[one][e.id] or "") != normalise(said[other][e.id] or "") for e in both
            ]
            found[f"{one} and {other}"] = asdict(
                mean(differ, [e.group for e in both], BOOTSTRAP_SEED)
            )
    return found


def is_right(text: str | None, example: Example) -> bool:
    """Whether it is the reference, or another answer that the dataset takes."""
    return text is not None and any(matches(text, each) for each in references_of(example))


def rate_of(group: list[Example], texts: Texts) -> dict[str, Any]:
    """One accuracy as JSON; null where nothing of the group was scored."""
    scored = [example for example in group if example.id in texts]
    counts = {"scored": len(scored), "unscored": len(group) - len(scored)}
    if not scored:
        return counts | {"images": 0, "correct": 0, "accuracy": None, "low": None, "high": None}
    hits = [is_right(texts[example.id], example) for example in scored]
    found = mean(hits, [example.group for example in scored], BOOTSTRAP_SEED)
    rate = {"accuracy": found.value, "low": found.low, "high": found.high}
    return counts | {"images": found.images, "correct": sum(hits)} | rate


def _by_form(examples: list[Example]) -> dict[str, list[Example]]:
    return {
        "all": examples,
        "closed": [example for example in examples if example.closed],
        "open": [example for example in examples if not example.closed],
    }


def scorers_of(examples: list[Example], texts: Texts, language: str) -> dict[str, Any]:
    """Every other score of one voice as JSON; null where there is nothing to score."""
    found: dict[str, Any] = {}
    groups = _by_form(examples)
    for name, (group, scorer) in scorers(language).items():
        heard = [example for example in groups[group] if example.id in texts]
        said = [texts[example.id] or "" for example in heard]
        references = [example.answer for example in heard]
        try:
            scored = scorer(said, references, [example.group for example in heard])
        except ValueError:
            found[name] = None
            continue
        found[name] = asdict(scored)
    weighed = [example for example in examples if example.weights and example.id in texts]
    if weighed:
        both = _weighed(weighed, texts)
        found["deltaBLEU"] = asdict(delta_bleu.score(*both, language=language))
        found["deltaBLEU, task's script"] = asdict(delta_bleu.official(*both, language=language))
        found["BERTScore"] = _bert_score(weighed, texts, language)
    return found


def _weighed(
    examples: list[Example], texts: Texts
) -> tuple[dict[str, str], dict[str, list[delta_bleu.Reference]]]:
    """What was said and its references, both by id: MEDIQA-M3G's own script checks no ids."""
    references = {
        example.id: [
            delta_bleu.Reference(text, weight)
            for text, weight in zip(references_of(example), example.weights, strict=True)
        ]
        for example in examples
    }
    return {example.id: texts[example.id] or "" for example in examples}, references


def _bert_score(examples: list[Example], texts: Texts, language: str) -> dict[str, Any] | None:
    said = [texts[example.id] or "" for example in examples]
    images = [example.group for example in examples]
    try:
        found = bert_score.score(said, [references_of(e) for e in examples], images, language)
    except bert_score.Unavailable as error:
        print(error)
        return None
    return asdict(found)


def references_of(example: Example) -> tuple[str, ...]:
    return (example.answer, *example.alternatives)


def calibration(examples: list[Example], texts: Texts, sure: Sure) -> dict[str, Any] | None:
    """How far a voice's confidence is from how often it is right; null where it gave none."""
    told = [(e, each) for e in examples if (each := sure.get(e.id)) is not None]
    if not told:
        return None
    hits = [is_right(texts.get(example.id), example) for example, _ in told]
    images = [example.group for example, _ in told]
    return asdict(calibration_error.score([each for _, each in told], hits, images))


def sure_of(outcome: Outcome, who: str) -> float | None:
    """How sure the voice was of what it said; None where it did not say."""
    if who == PANEL:
        return outcome.verdict.confidence if outcome.verdict else None
    said = (a for a in reversed(outcome.answers) if a.worker == who and a.text is not None)
    return next((answer.confidence for answer in said), None)


def _show_table(title: str, columns: dict[str, dict[str, Any]]) -> None:
    """A line for each score, a column for each voice."""
    names = list(next(iter(columns.values()), {}))
    print(f"{title:26}" + "".join(f"{who:>14}" for who in columns))
    for name in names:
        cells = (columns[who][name] for who in columns)
        print(f"{name:26}" + "".join(f"{c['value']:14.1%}" if c else f"{'–':>14}" for c in cells))


def _show_rate(name: str, found: dict[str, Any]) -> None:
    total = found["scored"] + found["unscored"]
    if found["accuracy"] is None:
        print(f"{name:22}      –    0 of {total} scored")
        return
    print(
        f"{name:22} {found['accuracy']:6.1%}  ({_interval(found)})  "
        f"{found['correct']} right of {found['scored']} scored of {total}"
    )


def _interval(found: dict[str, Any]) -> str:
    """Of one image there is none."""
    return f"{found['low']:.1%} to {found['high']:.1%}" if found["images"] > 1 else "one image"
