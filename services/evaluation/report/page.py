"""A report as a reader sees it: titled tables and pictures, filled into templates.

The page asks no other host for anything, has no script, and is read in black and white too.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, select_autoescape
from markupsafe import Markup

from services.evaluation import pictures
from services.evaluation.report.figures import (
    COVERAGES,
    ORACLE,
    PERCENTILES,
    SUMMARISER,
)
from services.evaluation.report.notable import Notable
from services.evaluation.score import PANEL, SURE
from services.evaluation.stored_run import on_one_line

SLICED = ("run", "dataset", "language", "modality", "organ", "kind of question")


@dataclass(frozen=True)
class Section:
    title: str
    said: str  # what it shows, in a sentence or two
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    picture: Markup | None = None  # an SVG element


def pages(measured: dict[str, Any], cases: Mapping[str, Sequence[Notable]]) -> tuple[str, str]:
    """The report as HTML and as Markdown, which has no pictures."""
    shown = {
        "names": list(dict.fromkeys(r["name"] for r in measured["runs"] if not r["beside"])),
        "measured": measured,
        "sections": _sections(measured),
        "cases": cases,
    }
    return filled("report.html", shown), filled("report.md", shown)


def filled(template: str, shown: Mapping[str, Any]) -> str:
    """A template of this folder with what it shows."""
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=select_autoescape(("html.jinja",)),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"line": _line, "percent": _percent}
    return templates.get_template(f"{template}.jinja").render(shown)


def _sections(measured: dict[str, Any]) -> list[Section]:
    rates = {(each["by"], each["of"], each["voice"]): each for each in measured["rates"]}
    voices = [voice for by, _, voice in rates if by == "all"]
    found = [
        _right(measured, rates, voices),
        _over_best(measured["over_best_member"]),
        *_candidates(measured["candidates"], measured["in_use"]),
        *(section for by in SLICED if (section := _by(by, rates, voices))),
        *_scorers(measured["scorers"], voices),
    ]
    if agreement := measured["by_agreement"]:
        found.append(_agreement(agreement))
    if measured["reliability"]:
        found.append(_reliability(measured["reliability"]))
        found.append(_coverage(measured["wrong_of_the_surest"], measured["coverage"]))
    if familiarity := measured["familiarity"]:
        found.append(_familiarity(familiarity))
    if measured["disagreement"]:
        found.append(_disagreement(measured["disagreement"], voices))
    return [*found, _seconds(measured["seconds"]), _runs(measured)]


Rates = dict[tuple[str, str, str], dict[str, Any]]


def _right(measured: dict[str, Any], rates: Rates, voices: Sequence[str]) -> Section:
    groups = [("all", "all"), ("form", "closed"), ("form", "open")]
    drawn = {
        voice: rate | {"value": rate["accuracy"]}
        for voice in voices
        if (rate := rates["all", "all", voice])
    }
    return Section(
        "Right answers",
        "Exact match, but for case, outer blanks and a final full stop, in percent of the "
        "questions that a voice was asked; who was asked and had no answer was wrong. "
        f"“{ORACLE}” is right where one of them is: a perfect choice among them. Calibration error "
        "is how far confidence is from being right.",
        ["", "questions", "all", "closed", "open", "calibration error"],
        [
            [
                voice,
                str(rates["all", "all", voice]["scored"]),
                *(_rate(rates.get((*group, voice))) for group in groups),
                in_percent(measured["calibration_error"].get(voice)),
            ]
            for voice in voices
        ],
        _svg(lambda: pictures.accuracies(drawn)),
    )


def _over_best(found: Sequence[dict[str, Any]]) -> Section:
    return Section(
        "The panel less its best member",
        "Question by question, in points. The member is the best on these very questions, which "
        "favours it. An interval that holds 0 tells no difference.",
        ["", "best member", "questions", "panel less member"],
        [[each["of"], each["best"], str(each["cases"]), in_percent(each, "+")] for each in found],
    )


def _candidates(
    found: Sequence[dict[str, Any]], in_use: Mapping[str, Any] | None
) -> Iterator[Section]:
    if found:
        yield Section(
            "Candidates beside the panel",
            "Who counted for nothing, over the questions that both answered: right in percent, the "
            "difference in points, how often one was right and the other not, McNemar's exact "
            "probability of so uneven a split by chance, and in what part they said the same.",
            [
                "",
                "beside",
                "questions",
                "it",
                "candidate",
                "candidate less it",
                "only the candidate",
                "only it",
                "p",
                "the same",
            ],
            [
                [
                    each["candidate"],
                    f"{each['beside']}, {each['of']}",
                    str(each["questions"]),
                    *(f"{100 * each[when]:.1f}" for when in ("before", "after")),
                    in_percent(each["change"] | {"images": each["images"]}, "+"),
                    str(each["gained"]),
                    str(each["lost"]),
                    probability(each["mcnemar_p"]),
                    f"{100 * each['same']:.1f}",
                ]
                for each in found
            ],
        )
    if in_use:
        yield Section(
            "In use, and by readers’ words",
            "As the gateway tells now: of each seat, and of candidates that are asked behind "
            "verdicts. Words are readers' that tell whether it was right, in percent; the "
            "panel's rate beside a candidate's is of the same words.",
            ["", "words", "right", "the panel there", "cases", "agrees with the verdict"],
            [
                [
                    each["name"],
                    str(each["words"]),
                    _part(each["right"]),
                    _part(each.get("panel_right")),
                    str(each["cases"]) if "cases" in each else "",
                    _part(each.get("agrees")),
                ]
                for each in (*in_use["workers"], *in_use["shadows"])
            ],
        )


def _part(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}"


def _by(by: str, rates: Rates, voices: Sequence[str]) -> Section | None:
    """A table of one kind of slice; None where there is nothing to tell apart."""
    values = list(dict.fromkeys(of for each, of, _ in rates if each == by))
    if len(values) < 2:
        return None
    return Section(
        f"By {by}",
        "Percent right; in the data set's own words, where it has them.",
        ["", "questions", *voices],
        [
            [
                value,
                str(max(r["scored"] + r["unscored"] for r in _row(rates, by, value))),
                *(_rate(rates.get((by, value, voice))) for voice in voices),
            ]
            for value in values
        ],
    )


def _row(rates: Rates, by: str, value: str) -> list[dict[str, Any]]:
    return [rate for (each, of, _), rate in rates.items() if (each, of) == (by, value)]


def _scorers(found: Sequence[dict[str, Any]], voices: Sequence[str]) -> list[Section]:
    """A table for each run: what its voices get by each of the field's other scorers. Parts of a
    run stand in the CSV."""
    found = [each for each in found if each["by"] == "run"]
    cells = {(each["of"], each["score"], each["voice"]): each for each in found}
    names = list(dict.fromkeys(each["of"] for each in found))
    heard = [voice for voice in voices if any(voice == who for _, _, who in cells)]
    return [
        Section(
            "Other scores" + (f": {name}" if len(names) > 1 else ""),
            "In percent. Closed accuracy is of closed questions; recall and F1, of words, are of "
            "open ones; the others are of all.",
            ["", *heard],
            [
                [scorer, *(in_percent(cells.get((name, scorer, voice))) for voice in heard)]
                for scorer in dict.fromkeys(each["score"] for each in found if each["of"] == name)
            ],
        )
        for name in names
    ]


def _familiarity(found: Mapping[str, dict[str, Any]]) -> Section:
    return Section(
        "Familiar or not",
        "Whether a case was like those that the panel was calibrated on, as its verdict says. Of "
        "an unfamiliar one it claims no confidence. Sure and wrong: at a confidence of "
        f"{SURE:g} or more. Grounding: how far the answers depend on the image, on average, where "
        "that was known.",
        ["", "questions", "right", "with a confidence", "sure and wrong", "grounding"],
        [
            [
                how,
                str(each["questions"]),
                in_percent(each["right"] | {"images": each["images"]}),
                str(each["with_a_confidence"]),
                str(each["wrong_and_sure"]),
                "–" if each["grounding"] is None else format(each["grounding"], ".2f"),
            ]
            for how, each in found.items()
        ],
    )


def _agreement(found: Mapping[str, dict[str, Any]]) -> Section:
    return Section(
        "What agreement is worth",
        "How often the panel is right, by how many of those who answered gave its answer.",
        ["gave the answer", "questions", "right"],
        [[name, str(each["cases"]), in_percent(each)] for name, each in found.items()],
        _svg(lambda: pictures.by_agreement(found)),
    )


def _reliability(found: pictures.Curves) -> Section:
    most = max(len(bins) for bins in found.values())
    return Section(
        "Is it as often right as it says?",
        "On the dotted line it is. Each mark stands for as many answers of a voice; the workers' "
        "confidences are their own, raw. In the table: what part of each was right, in percent, "
        "and how sure it was.",
        ["", "least sure", *map(str, range(2, most)), "surest"][: most + 1],
        [
            [
                who,
                *(
                    f"{100 * each['right']:.1f} (at {100 * each['confidence']:.1f})"
                    for each in bins
                ),
                *[""] * (most - len(bins)),
            ]
            for who, bins in found.items()
        ],
        _svg(lambda: pictures.reliability(found)),
    )


def _coverage(wrong: Mapping[str, Mapping[str, float]], curves: pictures.Curves) -> Section:
    shares = [f"{share:.0%}" for share in COVERAGES]
    return Section(
        "What abstaining buys",
        "How many of the answers are wrong, in percent, where only the surest are given; "
        "those for which no confidence was claimed come last.",
        ["answered", *shares],
        [[who, *(f"{100 * each[share]:.1f}" for share in shares)] for who, each in wrong.items()],
        _svg(lambda: pictures.coverage(curves)),
    )


def _disagreement(found: Mapping[str, dict[str, Any]], voices: Sequence[str]) -> Section:
    workers = [voice for voice in voices if voice not in (PANEL, ORACLE)]

    def differ(one: str, other: str) -> str:
        pair = found.get(f"{one} and {other}") or found.get(f"{other} and {one}")
        return f"{100 * pair['value']:.1f}" if pair else ""

    return Section(
        "Who disagrees with whom",
        "In how many of the questions that both answered two say different things, in percent.",
        ["", *workers],
        [[one, *(differ(one, other) for other in workers)] for one in workers],
    )


def _seconds(found: Mapping[str, dict[str, float]]) -> Section:
    columns = [f"p{percentile}" for percentile in PERCENTILES]
    return Section(
        "How long it took",
        "Seconds, by percentile, as the gateway measured them; the panel's is a whole verdict's, "
        f"“{SUMMARISER}” what its wording took of that.",
        ["", "answers", *(f"{column[1:]} %" for column in columns)],
        [
            [who, str(each["answers"]), *(f"{each[column]:.2f}" for column in columns)]
            for who, each in found.items()
        ],
    )


def _runs(measured: dict[str, Any]) -> Section:
    return Section(
        "What was asked",
        "Which panel, when its first question was asked, where that is known, and the weights "
        f"behind each worker. Told by Consilium {measured['consilium']}.",
        ["run", "begun", "panel", "weights"],
        [
            [
                run["name"]
                + ", beside the panel" * run["beside"]
                + ("" if run["fold"] is None else ", fold {} of {}".format(*run["fold"])),
                f"{run['begun'][:16].replace('T', ' ')} UTC" if run["begun"] else "–",
                run["panel"][:12],
                ", ".join(f"{who} {weights or '–'}" for who, weights in run["models"].items()),
            ]
            for run in measured["runs"]
        ],
    )


def _rate(found: Mapping[str, Any] | None) -> str:
    return in_percent({**found, "value": found["accuracy"]}) if found else ""


def in_percent(found: Mapping[str, Any] | None, sign: str = "") -> str:
    """80.6 (78.7–82.7), or where it may be negative +0.5 (−1.4 to +2.4); of one image there is no
    interval."""
    if not found:
        return ""
    value, low, high = (
        format(100 * found[key], f"{sign}.1f").replace("-", "−") for key in ("value", "low", "high")
    )
    if found.get("images") == 1:
        return f"{value} (one image)"
    return f"{value} ({low}{' to ' if sign else '–'}{high})"


def probability(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.0%}"


def _line(text: object) -> str:
    """What somebody said, as one line of Markdown: nothing in it is a mark."""
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#" else c for c in on_one_line(str(text)))


def _svg(picture: Any) -> Markup:
    return Markup(pictures.svg(picture))  # ours: matplotlib escapes what it writes
