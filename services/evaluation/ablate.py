"""What a screening has shown so far: its plan, a table and a picture for each analysis, and which
variants are worth a full run.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean

from models.files import write_whole
from models.metrics.score import Score
from models.study.ablation import Compared, Screening
from models.study.seeds import chances
from models.study.variants import Choice
from services.evaluation import pictures

NAMED = 12  # open variants of an analysis, in its plan

Print = Callable[[str], None]


def list_plan(screening: Screening, analyses: Sequence[str], say: Print) -> None:
    """A line for each analysis, how far it is and what of it is open with which seeds, and how
    long that will take.

    Raises:
        AblationError: an analysis that there is not.
    """
    screening.cells(analyses)  # refuses an unknown one
    for name in analyses or screening.analyses:
        cells, left = screening.cells([name]), screening.open([name])
        seeds: dict[str, set[int]] = defaultdict(set)
        for cell in left:
            seeds[cell.variant].add(cell.seed)
        alike: dict[str, list[str]] = defaultdict(list)  # by the seeds that are open
        for variant, each in seeds.items():
            alike[", ".join(map(str, sorted(each)))].append(variant)
        say(f"{name}: {len(cells) - len(left)} of {len(cells)} done")
        for open_, variants in alike.items():
            more = f" and {len(variants) - NAMED} more" * (len(variants) > NAMED)
            say(f"  open with seed {open_}: {', '.join(variants[:NAMED])}{more}")
    _say_what_is_left(screening, analyses, say)


def show(screening: Screening, analyses: Sequence[str], data: Path, say: Print) -> None:
    """Prints the tables of what is done, which also go to `table.md`, and draws the pictures, both
    in the screening's folder.

    Raises:
        AblationError: an analysis that there is not.
        DataError: the validation questions cannot be read.
    """
    screening.cells(analyses)  # refuses an unknown one before anything is written
    lines: list[str] = []
    every = {name: screening.compared(name, data) for name in analyses or screening.analyses}
    deviation, freedom = screening.moved_by_seeds()
    for name, compared in every.items():
        lines += [*_table(name, compared, _chances(compared, deviation, freedom)), ""]
        done = [each for each in compared if each.rows]
        if any(each.over for each in done):
            pictures.draw_ablation(name, done, screening.out / f"{name}.png")
    for line in lines:
        say(line)
    if screening.out.exists():
        write_whole(screening.out / "table.md", "\n".join(lines))
    say("95 % intervals clustered by image, seeds averaged; differences paired by question")
    if freedom:
        say(
            f"a seed moves a variant by {100 * deviation:.2f} points ({freedom} degrees of "
            "freedom); p knows of seeds and images, and is corrected for all of its table (Holm)"
        )
    if best := screening.best():
        say(f"right most often: {', '.join(best)}; `ablate full` runs each in full")
    _say_what_is_left(screening, analyses, say)


def _chances(compared: Sequence[Compared], deviation: float, freedom: int) -> dict[Choice, float]:
    """Of each difference in a table; nothing where a single seed has run."""
    told = [each for each in compared if each.over] if freedom else []
    differences = [(each.over, len(each.rows)) for each in told if each.over]
    choices = [each.choice for each in told]
    return dict(zip(choices, chances(differences, deviation, freedom), strict=True))


def _table(name: str, compared: Sequence[Compared], p_values: dict[Choice, float]) -> list[str]:
    lines = [
        f"| {name} | seeds | right | difference | by seed | p | answer loss | steps | commit |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for each in compared:
        if each.exact_match is None:
            continue
        loss = fmean(row.answer_loss for row in each.rows)
        steps = "/".join(sorted({str(row.steps) for row in each.rows}))
        commits = ", ".join(sorted({row.commit for row in each.rows}))
        seeds = ", ".join(str(row.seed) for row in each.rows)
        over = _percent(each.over, "+") if each.over else ""
        by_seed = ", ".join(f"{100 * difference:+.1f}" for difference in each.by_seed)
        p = f"{p_values[each.choice]:.3f}" if each.choice in p_values else ""
        lines.append(
            f"| {each.choice.label} | {seeds} | {_percent(each.exact_match)} | {over} "
            f"| {by_seed} | {p} | {loss:.3f} | {steps} | {commits} |"
        )
    if open_ := [each.choice.label for each in compared if not each.rows]:
        lines += ["", f"open: {'; '.join(open_)}"]
    return lines


def _percent(score: Score, sign: str = "") -> str:
    points = (score.value, score.low, score.high)
    value, low, high = (format(100 * each, f"{sign}.1f") for each in points)
    return f"{value} ({low} to {high})"


def _say_what_is_left(screening: Screening, analyses: Sequence[str], say: Print) -> None:
    cells, left = screening.cells(analyses), screening.open(analyses)
    say(f"{len(cells) - len(left)} of {len(cells)} done")
    if hours := screening.seconds_left(analyses) / 3600:
        say(f"about {hours:.1f} hours left; the same command, without --plan or --show, goes on")
    if any(cell.variant not in screening.screened for cell in left):
        say("what is run in full says how long it takes")
