"""What it costs the gateway to know how far it can be trusted:
python -m benchmarks.cost.weighing RUN

A run's stored answers are weighed by equal voices, which is the floor; as the panel ships, with a
confidence and familiarity; with grounding as well, which is what a verdict tells; and with a set of
answers where one is asked for. In turns, each first as often as the others: who comes first reads
the answers' words. Told are a case's milliseconds of a processor. Exit status 1 where the median of
what a verdict tells is more than 1 ms above the floor.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks import needs
from gateway.settings import Settings, load_settings
from gateway.verdict.grounding import grounding
from gateway.verdict.prediction_set import prediction_set
from services.evaluation.heard import Heard, hear, refuse_strangers
from services.evaluation.learning.fit import judge_of, opinion_of

BAR_MS = 1.0
COVERAGE = 0.9


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("run", type=Path)
    arguments.add_argument("--panel", type=Path, default=Path("panel.toml"))
    needs.data_folder(arguments)
    options = arguments.parse_args()
    settings = load_settings(options.panel)
    if not settings.competence or not settings.grey_answers:
        raise SystemExit(f"{options.panel} names no competence with grey answers: consilium fetch.")
    cases, _ = hear([options.run], options.data)
    refuse_strangers(cases, settings)
    ways: dict[str, Callable[[Heard], object]] = {
        "equal voices": lambda case: opinion_of(case, settings, None),
        "as shipped": lambda case: opinion_of(case, settings, settings.competence),
        "with grounding": lambda case: trusted(case, settings, None),
        "and a set of answers": lambda case: trusted(case, settings, COVERAGE),
    }
    names, spent = list(ways), {name: list[float]() for name in ways}
    for number, case in enumerate(cases):
        for turn in range(len(names)):
            name = names[(number + turn) % len(names)]
            began = time.process_time()
            ways[name](case)
            spent[name].append(1000 * (time.process_time() - began))
    told = {name: np.quantile(each, [0.5, 0.99]).tolist() for name, each in spent.items()}
    print(f"{len(cases)} cases; a processor's ms for each, median and 99th percentile")
    for name, (median, most) in told.items():
        print(f"{name:21} {median:.3f}  {most:.3f}")
    above = told["with grounding"][0] - told["equal voices"][0]
    print(f"what a verdict tells, above equal voices: {above:.3f} (at most {BAR_MS:g})")
    print(json.dumps(told | {"above": above}))
    raise SystemExit(above > BAR_MS)


def trusted(case: Heard, settings: Settings, coverage: float | None) -> None:
    """All that a verdict tells of how far it can be trusted; over the grey answers that ship."""
    judge = judge_of(case, settings, settings.competence)
    opinion, over_grey = judge.weigh(case.answers), settings.grey_answers
    assert over_grey is not None
    language, question = case.cell.language, case.example.question
    pairs = [
        (answer, grey)
        for answer in opinion.voices
        if (grey := over_grey.of(answer.worker, language, question))
    ]
    grounding(pairs, language, question)
    if coverage:
        prediction_set(coverage, judge, opinion)


if __name__ == "__main__":
    with needs.told():
        main()
