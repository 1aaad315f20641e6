"""Two stored runs over the same questions: what changed, by how much, and can that be told?"""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from models.data.example import Example, without_images
from models.files import make_folder, write_whole
from models.metrics.score import Score, mean
from services.evaluation import stored_run
from services.evaluation.score import (
    BOOTSTRAP_SEED,
    PANEL,
    Texts,
    is_right,
    references_of,
    said_by,
)
from services.evaluation.slices import sliced
from services.evaluation.stored_run import EvaluationError, Outcome, Run

SHOWN = 12  # flips of each direction that are printed
FEWEST = 10  # flips from which it is told how many questions a change needs
# Of a normal distribution: 97.5 % lie below the first, and 80 % below the second.
OF_95, POWER = 1.96, 0.84

Cases = dict[str, tuple[Example, Outcome]]


def compare(before: Path, after: Path, data: Path, out: Path | None = None) -> dict[str, Any]:
    """What `after` has right that `before` has not, as a JSON object: by voice, for the panel by
    kind of question too, and question by question.

    An interval is of the paired change, by a bootstrap that draws whole images. McNemar's exact
    test takes questions for independent, which those about one image are not. `needed` is how many
    such questions would tell a change of this size in four of five tries; where few have
    flipped it is null.

    In `out`, where one is given, compare.html tells it with the images of what flipped, and
    compare.json is the object. Images may be missing.

    Raises:
        EvaluationError: a run that cannot be read or has no verdict, or two that have no question
            in common, or ask other things by the same ids, or have no voice in common.
        models.data's DataError
    """
    runs, cases = zip(*(_read(folder, data) for folder in (before, after)), strict=True)
    examples = _common((before, after), cases)
    said = [said_by({id: outcome for id, (_, outcome) in each.items()}) for each in cases]
    texts = {who: (said[0][who], said[1][who]) for who in said[0] if who in said[1]}
    voices = {who: found for who, pair in texts.items() if (found := change(examples, *pair))}
    if not voices:
        raise EvaluationError(
            f"Nobody was heard in both {before} and {after}: evaluate them again, with a worker "
            "that both have."
        )
    panel = texts[PANEL]
    found = {
        "before": _named(before, runs[0]),
        "after": _named(after, runs[1]),
        "questions": len(examples),
        "other_images": _with_other_images(runs, cases, examples),
        "voices": voices,
        "slices": [
            {"by": by, "of": value} | found
            for by, parts in sliced(examples).items()
            if len(parts) > 1
            for value, part in parts.items()
            if (found := change(part, *panel))
        ],
        "flips": [flip for each in examples if (flip := _flip(each, *panel))],
    }
    if out is not None:
        from services.evaluation.report.compared import compared_page  # it draws: consilium[train]

        make_folder(out)
        write_whole(out / "compare.html", compared_page(found, examples, texts))
        write_whole(out / "compare.json", json.dumps(found, indent=1, ensure_ascii=False))
    return found


def _named(folder: Path, run: Run) -> dict[str, str]:
    return {"folder": str(folder), "run": f"{run.name}{run.images_changed}", "panel": run.panel}


def _read(folder: Path, data: Path) -> tuple[Run, Cases]:
    with without_images():
        run, cases = stored_run.load(folder, data)
    return run, {example.id: (example, outcome) for example, outcome in cases}


def _common(folders: tuple[Path, Path], cases: Sequence[Cases]) -> list[Example]:
    """What both have asked, in the first's order."""
    first, second = cases
    if empty := [folder for folder, each in zip(folders, cases, strict=True) if not each]:
        raise EvaluationError(f"{empty[0]} holds no verdict yet: run its consilium evaluate again.")
    both = [id for id in first if id in second]
    if not both:
        raise EvaluationError(
            f"{folders[0]} and {folders[1]} have no question in common: compare runs over one set."
        )

    def asks(example: Example) -> tuple[str, tuple[str, ...]]:
        return example.question, references_of(example)

    if other := [id for id in both if asks(first[id][0]) != asks(second[id][0])]:
        raise EvaluationError(
            f"{folders[0]} and {folders[1]} mean other questions, or other right answers, by "
            f"{len(other)} of {len(both)} ids, such as {other[0]}: compare runs over one set."
        )
    return [first[id][0] for id in both]


def _with_other_images(
    runs: Sequence[Run], cases: Sequence[Cases], examples: Sequence[Example]
) -> int:
    """How many of the questions show other files in the two runs, by where these lie in a set."""

    def shown(number: int, id: str) -> list[str]:
        folder = Path(runs[number].dataset).parent
        return [os.path.relpath(image, folder) for image in cases[number][id][0].images]

    return sum(shown(0, each.id) != shown(1, each.id) for each in examples)


def change(examples: Sequence[Example], before: Texts, after: Texts) -> dict[str, Any] | None:
    """Over those that both answered; None where there are none."""
    heard = [each for each in examples if each.id in before and each.id in after]
    if not heard:
        return None
    pairs = [(is_right(before[e.id], e), is_right(after[e.id], e)) for e in heard]
    found = mean([new - old for old, new in pairs], [e.group for e in heard], BOOTSTRAP_SEED)
    gained, lost = pairs.count((False, True)), pairs.count((True, False))
    return {
        "questions": len(heard),
        "images": len({e.group for e in heard}),
        "before": sum(old for old, _ in pairs) / len(pairs),
        "after": sum(new for _, new in pairs) / len(pairs),
        "change": asdict(found),
        "gained": gained,
        "lost": lost,
        "mcnemar_p": mcnemar(gained, lost),
        "needed": _needed(found) if gained + lost >= FEWEST else None,
    }


def mcnemar(gained: int, lost: int) -> float:
    """The exact, two-sided probability of a split as uneven as this where neither is the better
    (McNemar 1947): of a fair coin."""
    flips = gained + lost
    tail = sum(math.comb(flips, k) for k in range(min(gained, lost) + 1))
    return float(min(2 * tail / 2**flips, 1))


def _needed(change: Score) -> int | None:
    """How many questions as alike as these; None where nothing has changed, or nothing varies."""
    error = (change.high - change.low) / (2 * OF_95)
    if not change.value or not error:
        return None
    return math.ceil(change.cases * ((OF_95 + POWER) * error / change.value) ** 2)


def _flip(example: Example, before: Texts, after: Texts) -> dict[str, Any] | None:
    if example.id not in before or example.id not in after:
        return None
    old, new = before[example.id], after[example.id]
    if is_right(old, example) == is_right(new, example):
        return None
    return {
        "id": example.id,
        "question": example.question,
        "right": list(references_of(example)),
        "before": old,
        "after": new,
        "gained": is_right(new, example),
    }


def show(found: dict[str, Any]) -> None:
    """Prints what `compare` found."""
    for when in ("before", "after"):
        each = found[when]
        print(f"{when}: {each['folder']}, {each['run']}, panel {each['panel'][:12]}")
    print(f"{found['questions']} questions in both, exact match")
    if found["other_images"]:
        print(f"{found['other_images']} of them show other images in the second")
    _show_table("", [(who, each) for who, each in found["voices"].items()])
    for by in dict.fromkeys(each["by"] for each in found["slices"]):
        print()
        _show_table(f"panel by {by}", [(s["of"], s) for s in found["slices"] if s["by"] == by])
    if found["slices"]:
        print(
            f"of {len(found['slices'])} such parts one in twenty leaves 0 out of its interval by "
            "chance"
        )
    for gained, title in (
        (True, "right now, and wrong before"),
        (False, "wrong now, and right before"),
    ):
        flips = [flip for flip in found["flips"] if flip["gained"] == gained]
        print(f"\n{title}: {len(flips)}" + f", of which {SHOWN}" * (len(flips) > SHOWN))
        for flip in flips[:SHOWN]:
            right = " / ".join(flip["right"])
            print(
                f"  {flip['id']}: {flip['question']} {flip['before']} → {flip['after']} ({right})"
            )
    print(
        "\n95 % intervals of the paired change, clustered by image or patient, bootstrap seed "
        f"{BOOTSTRAP_SEED}; p by McNemar's exact test; needed: questions that tell such a change "
        "in four of five tries"
    )


def _show_table(title: str, rows: Sequence[tuple[str, dict[str, Any]]]) -> None:
    print(f"{title:28} {'before':>7} {'after':>7} {'change':>22} {'+':>5} {'-':>5} {'p':>7} needed")
    for name, each in rows:
        points = {key: 100 * each["change"][key] for key in ("value", "low", "high")}
        interval = "({low:+.1f} to {high:+.1f})" if each["images"] > 1 else "(one image)"
        change = f"{{value:+.1f}} {interval}".format(**points)
        needed = f"{each['needed']:,}" if each["needed"] else "–"
        print(
            f"{name:28} {each['before']:7.1%} {each['after']:7.1%} {change:>22} "
            f"{each['gained']:5} {each['lost']:5} {each['mcnemar_p']:7.3f} {needed:>6}"
        )
