"""What a panel is worth on free text: MEDIQA-M3G's doctors as its workers.
python -m benchmarks.accuracy.free_text [--data FOLDER] [--doctors 3] [--seed 0] [--language en]
    [--consensus URL] [--bert-score FOLDER]

Of each encounter's answers so many are drawn by lot for the panel; the others, with their weights,
are the references. Scored are the panel's text in each style, without a summariser and with equal
voices, and what one might do instead: take the first doctor, the longest answer, the one most like
the others (the medoid), all of them in a row; and the best of them by the references themselves,
which nobody can know. With --consensus the model of a running summariser is given question and
answers and writes one of its own, which nothing checks: the second stage of NEUI's entry to the
task (2024), where a language model consolidates what a vision model said of each image.

Corpus deltaBLEU as the task means it and as its script says; how many of the other doctors claim
what a text claims first, whatever its words and its length; and with --bert-score, by a model in
Hugging Face layout, BERTScore (not the task's figures: those are by another model). The differences
are paired, 95 % intervals over encounters. All three splits, since nothing is learned here; the
English and Spanish of the training split is machine-translated. The last line is JSON.
"""

import argparse
import json
import random
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import get_args

import httpx

from benchmarks import needs
from gateway.asking.summariser import MAX_TOKENS
from gateway.contract import Answer, Language, Style
from gateway.settings import SUMMARISER
from gateway.verdict.competence import Cell
from gateway.verdict.styles import styled
from gateway.verdict.text.claims import claims
from gateway.verdict.text.questions import kind_of
from gateway.verdict.weigh import Judge, Opinion
from models.data import mediqa_m3g
from models.data.example import Example, without_images
from models.metrics import bert_score, delta_bleu
from models.metrics.delta_bleu import Reference
from models.metrics.score import Score, mean

STYLES: tuple[Style, ...] = get_args(Style)
LANGUAGES: tuple[Language, ...] = get_args(Language)
CONSENSUS = "a model's consensus"
AT_A_TIME = 16  # calls, as many as the shipped summariser's server batches
TOGETHER: dict[Language, str] = {
    "en": "A patient asks: {question}\n\nDoctors have answered:\n{answers}\n\n"
    "Write one short answer that takes all of theirs into account.",
    "es": "Un paciente pregunta: {question}\n\nLos médicos han respondido:\n{answers}\n\n"
    "Escribe una respuesta corta que tenga en cuenta todas las suyas.",
    "zh": "患者提问：{question}\n\n医生们的回答：\n{answers}\n\n请综合所有回答，写一个简短的答案。",
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    needs.data_folder(arguments)
    arguments.add_argument("--doctors", type=int, default=3)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--language", action="append", choices=LANGUAGES)
    arguments.add_argument("--consensus", metavar="URL")
    arguments.add_argument("--bert-score", type=Path, metavar="FOLDER")
    given = arguments.parse_args()
    data = given.data
    if given.consensus:
        needs.answering(given.consensus, "start a model server there")
    found = {
        each: measured(data, each, given.doctors, given.seed, given.consensus, given.bert_score)
        for each in given.language or LANGUAGES
    }
    print(json.dumps({"doctors": given.doctors, "seed": given.seed, **found}))


def measured(
    data: Path,
    language: Language,
    doctors: int,
    seed: int,
    consensus: str | None,
    bert: Path | None,
) -> dict[str, object]:
    """Each text's score, and how far each style is above each of the others; printed as well."""
    said: dict[str, dict[str, str]] = {}
    panels: dict[str, tuple[str, list[str]]] = {}
    references: dict[str, list[Reference]] = {}
    for case in encounters(data, language, doctors):
        panel, references[case.id] = drawn(case, doctors, seed)
        panels[case.id] = case.question, panel
        for name, text in texts(case.question, panel, references[case.id], language).items():
            said.setdefault(name, {})[case.id] = text
    if consensus:
        said[CONSENSUS] = consolidated(panels, language, consensus)
    print(f"{language}: {len(references)} encounters, {doctors} doctors each")
    # What is a mean over encounters, by text; a sentence about claims makes none of its own.
    claiming = [name for name in said if name not in STYLES[1:]]
    means = {
        "claimed by others": {n: backings(said[n], panels, references, language) for n in claiming}
    }
    if bert:
        means["BERTScore"] = bert_scores(said, references, language, bert)
    told: dict[str, object] = {}
    for name, answers in said.items():
        scores = {
            "deltaBLEU": delta_bleu.score(answers, references, language=language),
            "task's script": delta_bleu.official(answers, references, language=language),
        }
        for what, values in means.items():
            if name in values:
                scores[what] = mean(values[name], list(references))
        told[name] = _put(name, scores)
    for style in STYLES:
        for name in [name for name in said if name not in STYLES]:
            lead = delta_bleu.difference(said[style], said[name], references, language=language)
            scores = {"deltaBLEU": lead}
            for what, values in means.items():
                if style in values:
                    pairs = zip(values[style], values[name], strict=True)
                    scores[what] = mean([one - other for one, other in pairs], list(references))
            told[f"{style} - {name}"] = _put(f"{style} - {name}", scores)
    return told


def consolidated(
    panels: Mapping[str, tuple[str, Sequence[str]]], language: Language, url: str
) -> dict[str, str]:
    """What the model at `url` makes of each encounter's question and answers."""

    def ask(asked: tuple[str, Sequence[str]]) -> str:
        question, panel = asked
        body = {
            "model": SUMMARISER,
            "messages": [{"role": "user", "content": together(question, panel, language)}],
            "temperature": 0,
            "max_tokens": MAX_TOKENS,
        }
        reply = http.post(f"{url}/v1/chat/completions", json=body).raise_for_status()
        return str(reply.json()["choices"][0]["message"]["content"]).strip()

    with httpx.Client(timeout=300) as http, ThreadPoolExecutor(AT_A_TIME) as pool:
        return dict(zip(panels, pool.map(ask, panels.values()), strict=True))


def together(question: str, panel: Sequence[str], language: Language) -> str:
    answers = "\n".join(f"- {' '.join(answer.split())}" for answer in panel)
    return TOGETHER[language].format(question=" ".join(question.split()), answers=answers)


def bert_scores(
    said: Mapping[str, Mapping[str, str]],
    references: Mapping[str, Sequence[Reference]],
    language: Language,
    folder: Path,
) -> dict[str, list[float]]:
    """Each text's, encounter by encounter; in one call, which reads the references once."""
    flat = [answers[id] for answers in said.values() for id in references]
    others = [[each.text for each in references[id]] for _ in said for id in references]
    found = iter(bert_score.each(flat, others, language, folder))
    return {name: list(islice(found, len(references))) for name in said}


def backings(
    said: Mapping[str, str],
    panels: Mapping[str, tuple[str, Sequence[str]]],
    references: Mapping[str, Sequence[Reference]],
    language: Language,
) -> list[float]:
    return [backing(said[id], panels[id][0], language, references[id]) for id in references]


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


def opinion_of(panel: Sequence[str], question: str, language: Language) -> Opinion:
    """Of doctors with equal voices."""
    names = [f"doctor-{seat}" for seat in range(1, len(panel) + 1)]
    cell = Cell(language, kind_of(question, language), None)
    return Judge({name: name for name in names}, cell, None, question).weigh(
        Answer(worker=name, text=text, seconds=0) for name, text in zip(names, panel, strict=True)
    )


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

    opinion = opinion_of(panel, question, language)
    return {style: styled(opinion, style, language) for style in STYLES} | {
        "first": panel[0],
        "longest": best(len),
        "medoid": best(likeness),
        "all in a row": " ".join(panel),
        "best of them": best(lambda answer: delta_bleu.of_one(answer, references, language)),
    }


if __name__ == "__main__":
    with needs.told():
        main()
