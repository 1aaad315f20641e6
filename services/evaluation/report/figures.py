"""What a report tells of stored evaluations, in figures."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from gateway.contract import Verdict
from models.data.datasets import called, is_own
from models.data.example import Example, without_images
from models.metrics.exact_match import normalise
from models.metrics.score import mean
from services.evaluation import confidence, score, stored_run
from services.evaluation.compare import change
from services.evaluation.score import BOOTSTRAP_SEED, PANEL, SURE, Texts, is_right
from services.evaluation.slices import sliced
from services.evaluation.stored_run import EvaluationError, Outcome, Run

ORACLE = "any member"
SUMMARISER = "summariser"
PERCENTILES = (50, 90, 99)
COVERAGES = (1.0, 0.9, 0.8, 0.5)  # of the answers, the surest


@dataclass(frozen=True)
class Evaluated:
    """What some runs asked, what came of it, and who said what; ids begin with a run's name."""

    runs: list[Run]
    sets: dict[str, str]  # what each run's data set is called here
    examples: list[Example]
    outcomes: dict[str, Outcome]
    said: dict[str, Texts]  # by voice: the panel first
    beside: dict[str, Texts] = field(default_factory=dict)  # by candidate, who was in no panel
    runs_beside: list[Run] = field(default_factory=list)

    @property
    def heard(self) -> dict[str, Texts]:
        """Whoever answered, in the panel or beside it."""
        return self.said | self.beside

    @property
    def workers(self) -> dict[str, Texts]:
        return {who: texts for who, texts in self.said.items() if who != PANEL}

    def name_of(self, run: Run) -> str:
        return run.named(self.sets[run.dataset])

    def of(self, name: str) -> list[Example]:
        """Those of the runs of this name."""
        return [example for example in self.examples if example.id.startswith(f"{name}/")]


def read(folders: Sequence[Path], data: Path, beside: Sequence[Path] = ()) -> Evaluated:
    """Stored runs, whose images may be gone; those in `beside` asked candidates the same.

    Raises:
        EvaluationError: no such run, one whose images were changed, nothing answered, a question
            in two of the runs, or a candidate who sits on the panel or was asked other questions.
        models.data's DataError
    """
    sets = told_apart(stored_run.read_run(folder).dataset for folder in (*folders, *beside))
    runs, examples, outcomes = [], [], dict[str, Outcome]()
    for folder in folders:
        run, cases = _load(folder, data)
        name = run.named(sets[run.dataset])
        runs.append(run)
        for example, outcome in cases:
            id = f"{name}/{example.id}"
            if id in outcomes:
                raise EvaluationError(
                    f"{folder} asks {name} again, which another of these runs has asked: "
                    "consilium compare holds two answers to one question against each other."
                )
            outcomes[id] = outcome
            # Another set may know somebody else by the same number.
            patient = example.patient and f"{sets[run.dataset]}/{example.patient}"
            examples.append(replace(example, id=id, patient=patient))
    said = {who: texts for who, texts in score.said_by(outcomes).items() if texts}
    if PANEL not in said:
        raise EvaluationError(f"{folders[0]}: nobody has answered any of its questions yet.")
    candidates, others = dict[str, Texts](), []
    for folder in beside:
        run, found = _candidates(folder, data, sets, outcomes)
        others.append(run)
        for who, texts in found.items():
            if who in said:
                raise EvaluationError(
                    f"{folder}: {who} answered with the panel too, so it is no candidate beside "
                    "it: consilium compare holds its two answers against each other."
                )
            if texts.keys() & candidates.get(who, {}).keys():
                raise EvaluationError(
                    f"{folder}: another run beside the panel has {who}'s answers to the same "
                    "questions: give one of them."
                )
            candidates[who] = candidates.get(who, {}) | texts
    return Evaluated(runs, sets, examples, outcomes, said, candidates, others)


def _load(folder: Path, data: Path) -> tuple[Run, list[tuple[Example, Outcome]]]:
    with without_images():
        run, cases = stored_run.load(folder, data)
    if run.images_changed:
        raise EvaluationError(
            f"{folder}: its images were changed, so it says nothing of the panel: consilium "
            "compare holds it against a run without that."
        )
    return run, cases


def _candidates(
    folder: Path, data: Path, sets: Mapping[str, str], asked: Collection[str]
) -> tuple[Run, dict[str, Texts]]:
    """The run in `folder`, and what each of its workers said to what the panel was asked."""
    run, cases = _load(folder, data)
    name = run.named(sets[run.dataset])
    outcomes = {f"{name}/{example.id}": outcome for example, outcome in cases}
    both = {id: outcome for id, outcome in outcomes.items() if id in asked}
    said = {w: texts for w, texts in score.said_by(both).items() if w != PANEL and texts}
    if not said:
        raise EvaluationError(
            f"{folder} answers none of the questions that the panel was asked: ask the candidate "
            "the same set, split and language."
        )
    return run, said


def told_apart(datasets: Iterable[str]) -> dict[str, str]:
    """What each data set is called; where that is one name for two, a file of one's own is called
    by as much of its path as tells it from the other."""
    names = {each: called(each) for each in datasets}
    parts = 0
    while doubled := [name for name, count in Counter(names.values()).items() if count > 1]:
        parts += 1
        names |= {
            each: "/".join(Path(each).parts[-parts:])
            for each, name in names.items()
            if name in doubled and is_own(each)
        }
    return names


Sure = Mapping[str, tuple[Sequence[float | None], Sequence[bool]]]  # as `confidence` takes it


def measure(asked: Evaluated) -> dict[str, Any]:
    """All figures, as a JSON object. Rates are shares of what was heard, with 95 % intervals
    clustered by image, or by patient where the set names one."""
    sure = _sureness(asked)
    names = list(dict.fromkeys(asked.name_of(run) for run in asked.runs))
    return {
        "consilium": metadata.version("consilium"),
        "runs": [
            {
                "name": asked.name_of(run),
                "dataset": asked.sets[run.dataset],
                "begun": run.begun,
                "panel": run.panel,
                "fold": run.fold,
                "summarise": run.summarise,
                "rounds": run.rounds,
                "models": run.models,
                "beside": run in asked.runs_beside,
            }
            for run in (*asked.runs, *asked.runs_beside)
        ],
        "questions": len(asked.examples),
        "images": len({image for example in asked.examples for image in example.images}),
        "bootstrap_seed": BOOTSTRAP_SEED,
        "rates": _rates(asked, names),
        "scorers": [row for name in names for row in _scorers(asked, name)],
        "candidates": [row for name in names for row in _candidates_beside(asked, name)],
        "over_best_member": [found for name in names if (found := _over_best(asked, name))],
        "by_agreement": _by_agreement(asked),
        "familiarity": _familiarity(asked),
        "calibration_error": {
            who: score.calibration(
                asked.examples,
                texts,
                {id: score.sure_of(outcome, who) for id, outcome in asked.outcomes.items()},
            )
            for who, texts in asked.said.items()
        },
        "disagreement": score.disagreement(asked.examples, asked.heard),
        "seconds": _seconds(asked),
        "wrong_of_the_surest": {who: _wrong_of_the_surest(*each) for who, each in sure.items()},
        "reliability": {who: confidence.reliability(*each) for who, each in sure.items()},
        "coverage": {who: confidence.coverage(*each) for who, each in sure.items()},
    }


def _sureness(asked: Evaluated) -> Sure:
    """By voice: how sure it was of each answer, None where it claimed nothing, and whether that was
    right. A voice that was never sure is not there; a panel that has learned no confidence has its
    agreement."""
    found: dict[str, tuple[list[float | None], list[bool]]] = {}
    for who, texts in asked.said.items():
        answered = [e for e in asked.examples if texts.get(e.id) is not None]
        outcomes = [asked.outcomes[example.id] for example in answered]
        sure = [score.sure_of(outcome, who) for outcome in outcomes]
        if who == PANEL and not any(each is not None for each in sure):
            who = "panel, by agreement"
            sure = [each.verdict.agreement if each.verdict else None for each in outcomes]
        if any(each is not None for each in sure):
            rights = [is_right(texts[example.id], example) for example in answered]
            found[who] = sure, rights
    return found


def _wrong_of_the_surest(sure: Sequence[float | None], rights: Sequence[bool]) -> dict[str, float]:
    """By the share of answers that are given: how many of them are wrong. Those for which nothing
    was claimed are given last."""
    given = {share: confidence.part_of_the_surest(sure, share) for share in COVERAGES}
    return {
        f"{share:.0%}": 1 - float(np.average(rights, weights=part)) for share, part in given.items()
    }


def _rates(asked: Evaluated, names: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each voice and each group of questions that it was heard in."""
    groups: dict[tuple[str, str], list[Example]] = {("all", "all"): asked.examples}
    groups |= {("run", name): asked.of(name) for name in names}
    for dataset, called_here in asked.sets.items():
        of_it = dict.fromkeys(asked.name_of(r) for r in asked.runs if r.dataset == dataset)
        groups["dataset", called_here] = [each for name in of_it for each in asked.of(name)]
    for by, parts in sliced(asked.examples).items():
        groups |= {(by, value): part for value, part in parts.items()}
    voices = asked.heard | {ORACLE: score.rightest(asked.examples, asked.said)}
    return [
        {"by": by, "of": value, "voice": who, **found}
        for (by, value), group in groups.items()
        for who, texts in voices.items()
        if (found := score.rate_of(group, texts))["scored"]
    ]


def _scorers(asked: Evaluated, name: str) -> list[dict[str, Any]]:
    """A row for each voice and each scorer beside exact match that has something to score; of one
    run, since a scorer reads one language, and of each part of it."""
    language = next(run.language for run in asked.runs if asked.name_of(run) == name)
    whole = asked.of(name)
    groups = {("run", name): whole}
    for by, parts in sliced(whole).items():
        groups |= {(by, value): part for value, part in parts.items() if len(parts) > 1}
    return [
        {"run": name, "by": by, "of": value, "voice": who, "score": scorer} | found
        for (by, value), group in groups.items()
        for who, texts in asked.heard.items()
        for scorer, found in score.scorers_of(group, texts, language).items()
        if found
    ]


def _over_best(asked: Evaluated, name: str) -> dict[str, Any] | None:
    """The panel less the member that is best on these very questions, which favours the member:
    over the cases in which both were heard."""
    examples, panel = asked.of(name), asked.said[PANEL]
    # Somebody who was heard a few times is no match for a panel.
    heard = {
        who: [example for example in examples if example.id in texts and example.id in panel]
        for who, texts in asked.workers.items()
    }
    heard = {who: each for who, each in heard.items() if 2 * len(each) >= len(examples) and each}
    if not heard:
        return None
    rights = {
        who: [is_right(asked.said[who][example.id], example) for example in each]
        for who, each in heard.items()
    }
    best = max(rights, key=lambda who: sum(rights[who]) / len(rights[who]))
    gains = [
        is_right(panel[example.id], example) - right
        for example, right in zip(heard[best], rights[best], strict=True)
    ]
    found = mean(gains, [example.group for example in heard[best]], BOOTSTRAP_SEED)
    return {"of": name, "best": best} | asdict(found)


def _candidates_beside(asked: Evaluated, name: str) -> list[dict[str, Any]]:
    """Each candidate against the panel, and against each member: over the questions that both
    answered, as `compare` has it, and in what part of them they say the same."""
    examples = asked.of(name)
    found = []
    for candidate, said in asked.beside.items():
        for who, texts in asked.said.items():
            if pair := change(examples, texts, said):
                both = [each.id for each in examples if each.id in texts and each.id in said]
                alike = [normalise(texts[id] or "") == normalise(said[id] or "") for id in both]
                pair |= {"same": sum(alike) / len(alike)}
                found.append({"of": name, "candidate": candidate, "beside": who} | pair)
    return found


def _by_agreement(asked: Evaluated) -> dict[str, dict[str, Any]]:
    """How often the panel is right, by how many of its voices gave the answer."""
    groups: dict[str, list[Example]] = defaultdict(list)
    for example in asked.examples:
        verdict = asked.outcomes[example.id].verdict
        if verdict and verdict.agreement is not None:
            groups[score.backing_of(verdict)].append(example)
    return {
        backing: asdict(
            mean(
                [is_right(asked.outcomes[e.id].answer, e) for e in group],
                [e.group for e in group],
                BOOTSTRAP_SEED,
            )
        )
        for backing, group in sorted(groups.items(), reverse=True)
    }


def _familiarity(asked: Evaluated) -> dict[str, dict[str, Any]]:
    """What the verdicts are worth, by whether the case was like those that the panel was calibrated
    on; empty where no verdict says that."""
    groups: dict[str, list[Example]] = {"familiar": [], "unfamiliar": [], "not known": []}
    for example in asked.examples:
        if verdict := asked.outcomes[example.id].verdict:
            groups[_how_familiar(verdict)].append(example)
    if not groups["familiar"] and not groups["unfamiliar"]:
        return {}
    found = {}
    for how, group in groups.items():
        if not group:
            continue
        outcomes = [asked.outcomes[example.id] for example in group]
        verdicts = [outcome.verdict for outcome in outcomes if outcome.verdict]
        rights = [is_right(o.answer, e) for o, e in zip(outcomes, group, strict=True)]
        sure = [verdict.confidence for verdict in verdicts]
        grounding = [each.grounding for each in verdicts if each.grounding is not None]
        found[how] = {
            "questions": len(group),
            "images": len({example.group for example in group}),
            "right": asdict(mean(rights, [e.group for e in group], BOOTSTRAP_SEED)),
            "with_a_confidence": sum(each is not None for each in sure),
            "wrong_and_sure": sum(
                not right and each is not None and each >= SURE
                for each, right in zip(sure, rights, strict=True)
            ),
            "grounding": float(np.mean(grounding)) if grounding else None,
            "grounding_known": len(grounding),
        }
    return found


def _how_familiar(verdict: Verdict) -> str:
    told = verdict.familiarity
    if told and told.unfamiliar:
        return "unfamiliar"
    return "familiar" if told and told.image is not None else "not known"


def _seconds(asked: Evaluated) -> dict[str, dict[str, float]]:
    """Percentiles of how long a verdict, each worker's answer and the summariser took; what came
    from the cache took none."""
    took: dict[str, list[float]] = defaultdict(list)
    for outcome in asked.outcomes.values():
        if outcome.verdict and not outcome.verdict.cached:
            took[PANEL].append(outcome.verdict.seconds)
            for answer in outcome.answers:
                if answer.text is not None:
                    took[answer.worker].append(answer.seconds)
            if outcome.verdict.summary.seconds:  # it was asked, whatever became of its reply
                took[SUMMARISER].append(outcome.verdict.summary.seconds)
    return {
        who: {"answers": len(times)}
        | {f"p{p}": round(float(np.percentile(times, p)), 3) for p in PERCENTILES}
        for who, times in took.items()
    }
