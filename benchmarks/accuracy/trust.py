"""What a panel's confidence is worth where it knows, and where it cannot: two pictures.
python -m benchmarks.accuracy.trust RUN… --case ID --ways RUN… [--data FOLDER] [--out docs/pictures]

The first RUNs are stored evaluations, on sets that are known and on some that are not: `risk.png`
has of each how often the panel is wrong where it gives only the answers that it is surest of, as
far as it claims a confidence at all; a mark is what would be wrong if it gave all. The others ask
one question, `ID` in each, with its own image, another, a grey one, noise: `four-ways.png` has what
the verdict says of each. Verdicts are taken as the gateway gave them.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt

from benchmarks import needs
from gateway.contract import Verdict
from models.data.datasets import called
from services.evaluation import stored_run
from services.evaluation.pictures import STYLE
from services.evaluation.score import is_right

FEWEST = 10  # answers, before which a share of wrong ones says nothing

Seen = tuple[str, list[tuple[str, Verdict, bool]]]  # a run: each case, its verdict, whether right


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("runs", type=Path, nargs="+")
    arguments.add_argument("--case", required=True)
    arguments.add_argument("--ways", type=Path, nargs="+", required=True)
    arguments.add_argument("--out", type=Path, default=Path("docs/pictures"))
    needs.data_folder(arguments)
    given = arguments.parse_args()
    runs, ways = ([seen(run, given.data) for run in each] for each in (given.runs, given.ways))
    with plt.rc_context(STYLE):
        draw_risk(runs, given.out / "risk.png")
        draw_ways(ways, given.case, given.out / "four-ways.png")


def seen(folder: Path, data: Path) -> Seen:
    run, outcomes = stored_run.load(folder, data)
    name = called(run.dataset) + run.images_changed
    return name, [
        (example.id, outcome.verdict, is_right(outcome.answer, example))
        for example, outcome in outcomes
        if outcome.verdict
    ]


def draw_risk(runs: Sequence[Seen], path: Path) -> None:
    """And prints what it draws of each run."""
    figure, axes = plt.subplots(figsize=(7, 4.2))
    for name, cases in runs:
        claimed = sorted(
            ((v.confidence, right) for _, v, right in cases if v.confidence is not None),
            reverse=True,
        )
        wrong = np.cumsum([not right for _, right in claimed])
        given = np.arange(1, len(claimed) + 1)
        everything = 100 * sum(not right for *_, right in cases) / len(cases)
        print(
            f"{name}: {len(cases)} cases, {len(claimed)} with a confidence, of those "
            f"{wrong[-1] if claimed else 0} wrong; of all {everything:.1f} %"
        )
        [line] = axes.plot(
            100 * given[FEWEST - 1 :] / len(cases),
            100 * (wrong / given)[FEWEST - 1 :],
            label=f"{name} ({len(cases)})",
            marker="",
        )
        axes.scatter(100, everything, color=line.get_color(), clip_on=False, zorder=3)
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 100)
    axes.set_xlabel("answered with a confidence, surest first, % of the set")
    axes.set_ylabel("of those wrong, %")
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.04, 0.5))
    figure.savefig(path, bbox_inches="tight")
    plt.close(figure)


def draw_ways(runs: Sequence[Seen], case: str, path: Path) -> None:
    found = [
        (name, verdict, right) for name, cases in runs for id, verdict, right in cases if id == case
    ]
    figure, all_axes = plt.subplots(1, len(found), figsize=(2.4 * len(found), 2.8), sharey=True)
    for axes, (name, verdict, right) in zip(np.atleast_1d(all_axes), found, strict=True):
        known = verdict.familiarity
        told = {
            "agreement": verdict.agreement,
            "confidence": verdict.confidence,
            "familiarity": known and known.image,
            "grounding": verdict.grounding,
        }
        for place, value in enumerate(told.values()):
            axes.barh(place, value or 0, color="C0" if value is not None else "none")
            text = "none" if value is None else f"{value:.2f}"
            axes.annotate(text, ((value or 0) + 0.03, place), va="center", fontsize="small")
        axes.set_yticks(range(len(told)), told)
        axes.set_xlim(0, 1.3)
        axes.set_xticks([0, 0.5, 1])
        axes.invert_yaxis() if axes is np.atleast_1d(all_axes)[0] else None
        says = f"“{verdict.answer}”, {'right' if right else 'wrong'}"
        unfamiliar = "\nunfamiliar" if known and known.unfamiliar else "\n"
        axes.set_title(f"{name.rpartition(', ')[2]}\n{says}{unfamiliar}", fontsize="small")
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


if __name__ == "__main__":
    with needs.told():
        main()
