"""Two runs compared, as a page: what changed, and the questions that flipped, with their images."""

from collections.abc import Mapping, Sequence
from typing import Any

from models.data.example import Example
from services.evaluation.report.notable import Notable
from services.evaluation.report.page import Section, filled, in_percent, probability
from services.evaluation.score import BOOTSTRAP_SEED, Texts, is_right

AT_MOST = 50  # flips of each direction: each is some kilobytes of images
GAINED, LOST = "Right now, and wrong before", "Wrong now, and right before"
HEAD = ("", "questions", "before", "after", "change", "gained", "lost", "p", "needed")


def compared_page(
    found: Mapping[str, Any],
    examples: Sequence[Example],
    texts: Mapping[str, tuple[Texts, Texts]],
) -> str:
    """HTML that stands alone. `found` is what `compare` found of `examples`, of which `texts` has
    what each voice said before and after."""
    by_id = {example.id: example for example in examples}
    flips: dict[str, list[Notable]] = {GAINED: [], LOST: []}
    for flip in found["flips"]:
        example = by_id[flip["id"]]
        shown = {key: flip[key] for key in ("id", "question", "right")}
        shown["votes"] = [
            {"who": who, "before": _said(before, example), "after": _said(after, example)}
            for who, (before, after) in texts.items()
            if example.id in before or example.id in after
        ]
        flips[GAINED if flip["gained"] else LOST].append(Notable(shown, example.images))
    return filled(
        "compared.html",
        {
            "found": found,
            "seed": BOOTSTRAP_SEED,
            "sections": _sections(found),
            "cases": {title: each[:AT_MOST] for title, each in flips.items()},
            "counts": {title: len(each) for title, each in flips.items()},
        },
    )


def _said(texts: Texts, example: Example) -> dict[str, Any]:
    text = texts.get(example.id)
    return {"text": text, "right": is_right(text, example)}


def _sections(found: Mapping[str, Any]) -> list[Section]:
    slices = found["slices"]
    by_voice = Section(
        "By voice",
        "Over the questions in which the voice was heard both times; accuracies in percent, the "
        "change in points. An interval that holds 0 tells no change."
        + f" Of the {len(slices)} parts below one in twenty leaves 0 out by chance."
        * bool(slices),
        HEAD,
        [_row(who, each) for who, each in found["voices"].items()],
    )
    return [
        by_voice,
        *(
            Section(
                f"The panel by {by}",
                "",
                HEAD,
                [_row(each["of"], each) for each in slices if each["by"] == by],
            )
            for by in dict.fromkeys(each["by"] for each in slices)
        ),
    ]


def _row(name: str, found: Mapping[str, Any]) -> list[str]:
    return [
        name,
        str(found["questions"]),
        *(f"{100 * found[when]:.1f}" for when in ("before", "after")),
        in_percent(found["change"] | {"images": found["images"]}, "+"),
        str(found["gained"]),
        str(found["lost"]),
        probability(found["mcnemar_p"]),
        f"{found['needed']:,}" if found["needed"] else "–",
    ]
