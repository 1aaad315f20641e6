"""What probes read before and after the connector: a table for the terminal, and a picture."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

COSINES = [(f"{name} x 100", (name,)) for name in ("cosine", "cosine mlp", "alike")]
COLOURS = {"mean": "C0", "whole": "C1"}


def lines(content: dict[str, Any]) -> list[str]:
    """A table for each run of `content`, which is what `models.study.projection.compare` returns.

    `before > after` in percent for each stage; then what projection changes in the last stage, and
    what training has changed of the projected embeddings since the start, with 95 % intervals.
    `cosine` is that of the reconstruction, `alike` that of two tokens of an image. Of runs that
    differ in their seed alone the same changes again, over all seeds, and beside the first such.
    """
    found = []
    for name, run in content["runs"].items():
        stages, last = run["stages"], run["stages"][-1]
        heads = [f"{each['stage']} {each['step']}" for each in stages]
        found += ["", _line(f"{name} ({run['connector']})", heads, ["projection", "training"])]
        reads = [(read, ("read", read)) for read in last["after"]["read"]]
        for named, path in [*reads, *COSINES]:
            cells = [
                _passage(_at(each["before"], path), _at(each["after"], path)) for each in stages
            ]
            changes = [_change(_at(last[key], path)) for key in ("projection", "training")]
            found.append(_line(named, cells, changes))
    for name, each in content["over seeds of training"].items():
        told = f"{name}, {len(each['runs'])} seeds"
        found += _over_seeds(told, each)
        for beside, compared in each.get("beside", {}).items():
            found += _over_seeds(f"{told}, beside {beside}", compared)
    return found


def _over_seeds(told: str, changed: dict[str, Any]) -> list[str]:
    reads = [(read, ("read", read)) for read in changed["training"]["read"]]
    found = ["", told, _line("", [], ["projection", "training"])]
    for named, path in [*reads, *COSINES]:
        changes = [_change(_at(changed[key], path)) for key in ("projection", "training")]
        found.append(_line(named, [], changes))
    return found


def draw(content: dict[str, Any], path: Path) -> None:
    """A column for each run, with those beside it that differ in their seed alone; a row for each
    task and one for the reconstruction cosine.
    """
    rows, columns = [*content["tasks"], "cosine"], _columns(content)
    size = (1.2 + 2.4 * len(columns), 1.8 * len(rows))
    with plt.rc_context({"axes.grid": True, "grid.alpha": 0.3, "font.size": 8}):
        figure, grid = plt.subplots(
            len(rows), len(columns), figsize=size, dpi=120, sharey="row", sharex="col",
            squeeze=False,
        )  # fmt: skip
        for column, (title, runs) in enumerate(columns.items()):
            grid[0, column].set_title(title, fontsize=8)
            for row, what in enumerate(rows):
                _panel(grid[row, column], content, runs, what)
        for row, what in enumerate(rows):
            unit = "reconstruction, cosine" if what == "cosine" else f"{what}, % right"
            grid[row, 0].set_ylabel(unit)
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="lower center", ncols=len(labels), frameon=False)
        figure.tight_layout(rect=(0, 0.04, 1, 1))
        figure.savefig(path)
        plt.close(figure)


def _columns(content: dict[str, Any]) -> dict[str, list[list[dict[str, Any]]]]:
    """By its title, the stages of each run of a column."""
    runs, several = content["runs"], content["over seeds of training"]
    named = {name: each["runs"] for name, each in several.items()}
    alone = runs.keys() - {name for names in named.values() for name in names}
    named |= {name: [name] for name in runs if name in alone}
    return {
        f"{name} ({runs[of[0]]['connector']})": [runs[each]["stages"] for each in of]
        for name, of in named.items()
    }


def _panel(axes: Any, content: dict[str, Any], runs: list[list[dict[str, Any]]], what: str) -> None:
    (stages, *_) = runs
    places = range(len(stages))
    axes.set_xticks(places, [each["stage"] for each in stages])
    axes.set_xlim(-0.4, len(stages) - 0.6)
    lines = [("black", "", "cosine")] if what == "cosine" else [
        (colour, pooling, f"{what} {pooling}") for pooling, colour in COLOURS.items()
    ]  # fmt: skip
    for number, (colour, pooling, key) in enumerate(lines):
        for side, style in (("before", "--"), ("after", "-")):
            for seed, of_seed in enumerate(runs):
                values = [
                    each[side]["cosine"] if what == "cosine" else each[side]["read"][key]
                    for each in of_seed
                ]
                scale = 1 if what == "cosine" else 100
                middle = [scale * each["value"] for each in values]
                error = [
                    [scale * (each["value"] - each["low"]) for each in values],
                    [scale * (each["high"] - each["value"]) for each in values],
                ]
                shift = 0.06 * (2 * number + (side == "after")) - 0.09
                axes.errorbar(
                    [place + shift + 0.02 * seed for place in range(len(of_seed))], middle,
                    yerr=error, color=colour, fmt="o", linestyle=style, markersize=3, capsize=2,
                    linewidth=1, alpha=1 / len(runs) ** 0.5,
                    markerfacecolor="white" if side == "before" else colour,
                    label=None if seed else f"{pooling}, {side}",
                )  # fmt: skip
    if what != "cosine":
        level = 100 * content["tasks"][what]["majority"]["value"]
        axes.axhline(level, color="grey", linestyle=":", linewidth=1, label="without the image")
    else:
        level = stages[-1]["before"]["blind"]["value"]
        axes.axhline(level, color="grey", linestyle=":", linewidth=1)


def _line(first: str, cells: list[str], changes: list[str]) -> str:
    told = [f"{first:28}", *(f"{cell:14}" for cell in cells), *(f"{c:24}" for c in changes)]
    return "".join(told).rstrip()


def _at(content: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    for key in path:
        content = content[key]
    return content


def _passage(before: dict[str, Any], after: dict[str, Any]) -> str:
    return f"{100 * before['value']:.1f} > {100 * after['value']:.1f}"


def _change(score: dict[str, Any]) -> str:
    value, low, high = (100 * score[key] for key in ("value", "low", "high"))
    return f"{value:+.1f} ({low:+.1f} to {high:+.1f})"
