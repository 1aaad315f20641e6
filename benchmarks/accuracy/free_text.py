"""What a panel is worth on free text: MEDIQA-M3G's doctors as its workers.
python -m benchmarks.accuracy.free_text [--data FOLDER] [--doctors 3] [--seed 0]

Of each encounter's answers so many are drawn by lot for the panel; the others, with their weights,
are the references. Scored are the panel's text in each style, without a summariser and with equal
voices, and what one might do instead: take the first doctor, the longest answer, the one most like
the others (the medoid), all of them in a row; and the best of them by the references themselves,
which nobody can know. Corpus deltaBLEU as the task means it and as its script says; and how many of
the other doctors claim what a text claims first, whatever its words and its length. The differences
are paired, 95 % intervals over encounters. All three splits, since nothing is learned here; the
English and Spanish of the training split is machine-translated. The last line is JSON.
"""

import argparse
import json
import os
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import get_args

from gateway.contract import Answer, Language, Style
from gateway.verdict.claims import claims
from gateway.verdict.competence import Cell
from gateway.verdict.questions import kind_of
from gateway.verdict.styles import styled
from gateway.verdict.weigh import Judge
from models.data import mediqa_m3g
from models.data.example import Example, without_images
from models.metrics import delta_bleu
from models.metrics.delta_bleu import Reference
from models.metrics.score import Score, mean

STYLES: tuple[Style, ...] = get_args(Style)
LANGUAGES: tuple[Language, ...] = get_args(Language)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--data", type=Path, default=os.environ.get("CONSILIUM_DATA"))
    arguments.add_argument("--doctors", type=int, default=3)
    arguments.add_argument("--seed", type=int, default=0)
    given = arguments.parse_args()
    data = Path(given.data or arguments.error("set CONSILIUM_DATA or --data"))
    found = {each: measured(data, each, given.doctors, given.seed) for each in LANGUAGES}
    print(json.dumps({"doctors": given.doctors, "seed": given.seed, **found}))


def measured(data: Path, language: Language, doctors: int, seed: int) -> dict[str, object]:
    """Each text's score, and how far each style is above each of the others; printed as well."""
    said: dict[str, dict[str, str]] = {}
    backed: dict[str, dict[str, float]] = {}
    references: dict[str, list[Reference]] = {}
    for case in encounters(data, language, doctors):
        panel, references[case.id] = drawn(case, doctors, seed)
        for name, text in texts(case.question, panel, references[case.id], language).items():
            said.setdefault(name, {})[case.id] = text
            share = backing(text, case.question, language, references[case.id])
            backed.setdefault(name, {})[case.id] = share
    print(f"{language}: {len(references)} encounters, {doctors} doctors each")
    told: dict[str, object] = {}
    for name, answers in said.items():
        scores = {
            "deltaBLEU": delta_bleu.score(answers, references, language=language),
            "task's script": delta_bleu.official(answers, references, language=language),
        }
        if name not in STYLES[1:]:
            scores["claimed by others"] = mean(list(backed[name].values()), list(references))
        told[name] = _put(name, scores)
    for style in STYLES:
        for name in [name for name in said if name not in STYLES]:
            lead = delta_bleu.difference(said[style], said[name], references, language=language)
            scores = {"deltaBLEU": lead}
            if style == "answer":
                more = [backed[style][id] - backed[name][id] for id in references]
                scores["claimed by others"] = mean(more, list(references))
            told[f"{style} - {name}"] = _put(f"{style} - {name}", scores)
    return told


def _put(name: str, scores: Mapping[str, Score]) -> dict[str, object]:
    print(f"  {name:28}", "   ".join(f"{each} {shown(score)}" for each, score in scores.items()))
    return {each: asdict(score) for each, score in scores.items()}


def backing(text: str, question: str, language: Language, others: Sequence[Reference]) -> float:
    """The share of the other doctors who claim what `text` claims first."""
    first = claims(text, language, question)[0].meaning
    said = [{c.meaning for c in claims(other.text, language, question)} for other in others]
    return sum(first in each for each in said) / len(others)


def shown(score: Score) -> str:
    return f"{100 * score.value:5.1f} ({100 * score.low:.1f} to {100 * score.high:.1f})"


def encounters(data: Path, language: Language, doctors: int) -> list[Example]:
    """Those with at least one answer more than the panel takes."""
    with without_images():
        found = [
            case
            for split in mediqa_m3g.SPLITS
            for case in mediqa_m3g.load(data / "mediqa_m3g", split, language)
        ]
    return [case for case in found if len(case.alternatives) >= doctors]


def drawn(case: Example, doctors: int, seed: int) -> tuple[list[str], list[Reference]]:
    """The panel's answers, in the file's order, and the references: the same doctors whatever the
    language."""
    answers = [case.answer, *case.alternatives]
    lot = random.Random(f"{seed} {case.id}").sample(range(len(answers)), doctors)
    others = [
        Reference(text, weight)
        for seat, (text, weight) in enumerate(zip(answers, case.weights, strict=True))
        if seat not in lot
    ]
    return [answers[seat] for seat in sorted(lot)], others


def texts(
    question: str, panel: Sequence[str], references: Sequence[Reference], language: Language
) -> Mapping[str, str]:
    """What the panel says in each style, and what one might say instead."""

    def best(worth: Callable[[str], float]) -> str:
        return max(panel, key=worth)

    def likeness(answer: str) -> float:
        others = list(panel)
        others.remove(answer)
        alike = (delta_bleu.of_one(answer, [Reference(other)], language) for other in others)
        return sum(alike)

    names = [f"doctor-{seat}" for seat in range(1, len(panel) + 1)]
    cell = Cell(language, kind_of(question, language), None)
    opinion = Judge({name: name for name in names}, cell, None, question).weigh(
        Answer(worker=name, text=text, seconds=0) for name, text in zip(names, panel, strict=True)
    )
    return {style: styled(opinion, style, language) for style in STYLES} | {
        "first": panel[0],
        "longest": best(len),
        "medoid": best(likeness),
        "all in a row": " ".join(panel),
        "best of them": best(lambda answer: delta_bleu.of_one(answer, references, language)),
    }


if __name__ == "__main__":
    main()
