"""What a replay or a report shows, as four pictures, and what an ablation does, as one."""

import io
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
from cycler import cycler

from services.evaluation import confidence

if TYPE_CHECKING:  # a replay does without torch
    from models.study.ablation import Compared

matplotlib.use("Agg")
from matplotlib import pyplot as plt

# A dozen voices, told apart without colour too: by dash and by mark.
LOOKS = (
    cycler(
        color=[
            *("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown"),
            *("black", "tab:pink", "tab:olive", "tab:cyan", "navy", "magenta"),
        ]
    )
    + cycler(
        linestyle=[
            *("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1, 1, 1))),
            *((0, (9, 2)), (0, (1, 4)), (0, (9, 2, 1, 2)), (0, (5, 5))),
            *((0, (9, 2, 3, 2)), (0, (9, 1, 1, 1, 1, 1, 1, 1))),
        ]
    )
    + cycler(marker=["o", "s", "^", "D", "v", "x", "*", "P", "<", "+", ">", "h"])
)
STYLE: Any = {
    "figure.figsize": (5.2, 3.6),
    "figure.dpi": 120,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.prop_cycle": LOOKS,
    # Within a page: letters stay text, and the same picture is the same bytes.
    "svg.fonttype": "none",
    "svg.hashsalt": "consilium",
}

Found = Mapping[str, Mapping[str, Any]]  # by its name: a value, low and high
Curves = Mapping[str, Sequence[Mapping[str, float]]]  # by voice: what `confidence` makes of it


def draw(
    summary: dict[str, Any],
    confidences: Mapping[str, Sequence[float | None]],
    rights: Mapping[str, Sequence[bool]],
    out: Path,
) -> None:
    """Write policies.png, agreement.png, reliability.png and coverage.png into `out`; the last two
    where a policy has confidences."""
    sure = {
        name: (told, rights[name])
        for name, told in confidences.items()
        if any(each is not None for each in told)
    }
    accuracy = {name: each["accuracy"] for name, each in summary["policies"].items()}
    with plt.rc_context(STYLE):
        _save(accuracies(accuracy), out / "policies.png")
        _save(by_agreement(summary["by_agreement"]), out / "agreement.png")
        if sure:
            bins = {name: confidence.reliability(*each) for name, each in sure.items()}
            curves = {name: confidence.coverage(*each) for name, each in sure.items()}
            _save(reliability(bins), out / "reliability.png")
            _save(coverage(curves), out / "coverage.png")


def svg(picture: Callable[[], Any]) -> str:
    """The element that shows in a page what `picture` draws."""
    with plt.rc_context(STYLE):
        figure, drawn = picture(), io.StringIO()
        figure.tight_layout()
        # It says nothing of when and by what it was made.
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(drawn, format="svg", metadata=nothing)
        plt.close(figure)
    return drawn.getvalue()[drawn.getvalue().index("<svg") :]


def draw_ablation(name: str, compared: "Sequence[Compared]", path: Path) -> None:
    """Write the choices' differences as points with intervals, and each seed's beside them; what
    the others are held against is at 0."""
    height = 1.2 + 0.28 * len(compared)
    with plt.rc_context(STYLE | {"figure.figsize": (5.6, height)}):
        figure, axes = plt.subplots()
        axes.axvline(0, color="grey", linestyle=":")
        for place, each in enumerate(compared[::-1]):
            if each.over is None:
                axes.plot(0, place, "o", color="C1")
                continue
            error = [
                [100 * (each.over.value - each.over.low)],
                [100 * (each.over.high - each.over.value)],
            ]
            axes.errorbar(100 * each.over.value, place, xerr=error, fmt="o", capsize=3, color="C0")
            seeds = [100 * difference for difference in each.by_seed]
            axes.plot(seeds, [place] * len(seeds), "|", color="C3", markersize=9)
        axes.set_ylim(-0.6, len(compared) - 0.4)
        axes.set_yticks(range(len(compared)), [each.choice.label for each in compared][::-1])
        axes.set_title(name, fontsize="medium")
        figure.supxlabel(
            "points more right: 95 % interval, by image; | each seed", fontsize="medium"
        )
        _save(figure, path)


def accuracies(found: Found) -> Any:
    figure, axes = plt.subplots()
    names = list(found)[::-1]
    for place, name in enumerate(names):
        each = found[name]
        value = 100 * each["value"]
        error = [[value - 100 * each["low"]], [100 * each["high"] - value]]
        mark, colour = ("s", "C1") if name == "panel" else ("o", "C0")
        axes.errorbar(value, place, xerr=error, fmt=mark, capsize=3, color=colour)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("right, % (95 % interval, by image)")
    return figure


def by_agreement(found: Found) -> Any:
    figure, axes = plt.subplots()
    for place, each in enumerate(found.values()):
        value, low, high = (100 * each[key] for key in ("value", "low", "high"))
        axes.bar(place, value, color="C0", alpha=0.8)
        error = [[value - low], [high - value]]
        axes.errorbar(place, value, yerr=error, fmt="none", ecolor="black", capsize=3)
        axes.annotate(f"n = {each['cases']}", (place, 2), ha="center", color="white")
    axes.set_xticks(range(len(found)), list(found))
    axes.set_xlabel("workers who gave the answer")
    axes.set_ylabel("right, %")
    return figure


def reliability(found: Curves) -> Any:
    """Bins of as many cases each: what lies under a point is said by its place, not by its size."""
    figure, axes = plt.subplots()
    axes.axline((0, 0), (1, 1), color="grey", linestyle=":", marker="")
    for name, bins in found.items():
        axes.plot(
            [each["confidence"] for each in bins],
            [each["right"] for each in bins],
            label=name,
            linewidth=2 if name == "panel" else 1,
            markersize=5,
        )
    axes.set_xlabel("confidence")
    axes.set_ylabel("right")
    _name(axes, found)
    return figure


def coverage(found: Curves) -> Any:
    """What share of the answers is wrong, when only the surest are given."""
    figure, axes = plt.subplots()
    for place, (name, points) in enumerate(found.items()):
        axes.plot(
            [100 * each["answered"] for each in points],
            [100 * each["wrong"] for each in points],
            label=name,
            linewidth=2 if name == "panel" else 1,
            markersize=5,
            # Few marks, each line's at other places: enough to follow it by.
            markevery=(place / len(found) / 4, 0.25),
        )
    axes.set_xlabel("answered, %")
    axes.set_ylabel("of those wrong, %")
    _name(axes, found)
    return figure


def _name(axes: Any, voices: Collection[str]) -> None:
    """Says which line is whose: beside the lines where there are too many to stand among them."""
    if len(voices) <= 7:
        axes.legend(fontsize="small")
    else:
        axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1), handlelength=3.5)


def _save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
